//! The header with which a load balancer begins.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::Pin,
    task::{Context, Poll},
};

use node::smtp::proxy::client;
use tokio::{
    io::{AsyncRead, ReadBuf},
    runtime::{Builder, Runtime},
};

use super::pieces::Pieces;

/// The longest header of version 1 (proxy-protocol.txt section 2.1) and of version 2 as far as it is read.
const HEADER_BYTES_MAX: usize = 16 + 4096;
const V1_BYTES_MAX: usize = 107;
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

thread_local! {
    /// The time-out of the header needs a clock.
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// One connection of a balancer. Its first byte says how the bytes arrive.
///
/// # Panics
/// When the cuts make a difference, when more than the header is taken or more than its bound is read, or when a client is
/// named that is not the one in the header.
pub fn proxy(input: &[u8]) {
    let [cuts, stream @ ..] = input else { return };
    let (told, used) = read(stream, *cuts);
    assert_eq!((told.clone(), used), read(stream, 1), "byte by byte");
    assert!(used <= HEADER_BYTES_MAX, "{used} bytes of a header");
    let Ok(client) = told else { return };
    let header = &stream[..used];
    if header.starts_with(V2_BEGIN) {
        assert_eq!(used, 16 + usize::from(u16::from_be_bytes([header[14], header[15]])), "the header and no byte more");
        assert_eq!(client, named_by_v2(header));
    } else {
        assert!(used <= V1_BYTES_MAX && header.ends_with(b"\r\n"));
        assert!(!header[..used - 2].windows(2).any(|pair| pair == b"\r\n"), "the first CRLF ends it");
        assert_eq!(client, named_by_v1(header));
    }
}

/// Whom the header names, and how many bytes were taken. Errors as text.
fn read(stream: &[u8], cuts: u8) -> (Result<Option<IpAddr>, String>, usize) {
    let mut balancer = Balancer { pieces: Pieces::new(stream, cuts), piece: &[], taken: 0 };
    let told = RUNTIME.with(|runtime| runtime.block_on(client(&mut balancer))).map_err(|error| error.to_string());
    (told, balancer.taken)
}

fn named_by_v1(header: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(header).expect("a header of version 1 is text");
    let mut words = text.trim_end_matches("\r\n").split(' ');
    assert_eq!(words.next(), Some("PROXY"));
    let address: IpAddr = match words.next() {
        Some("TCP4") => words.next()?.parse::<Ipv4Addr>().expect("the address of the client").into(),
        Some("TCP6") => words.next()?.parse::<Ipv6Addr>().expect("the address of the client").into(),
        family => {
            assert_eq!(family, Some("UNKNOWN"));
            return None;
        }
    };
    assert_eq!(words.count(), 3, "destination and two ports");
    Some(address.to_canonical())
}

fn named_by_v2(header: &[u8]) -> Option<IpAddr> {
    assert_eq!(header[12] >> 4, 2, "version 2");
    match (header[12] & 15, header[13] >> 4) {
        (0, _) => None,
        (1, 1) => Some(IpAddr::from(<[u8; 4]>::try_from(&header[16..20]).expect("four bytes"))),
        (1, 2) => Some(IpAddr::from(<[u8; 16]>::try_from(&header[16..32]).expect("sixteen bytes")).to_canonical()),
        other => panic!("command and family {other:?} name nobody"),
    }
}

/// Sends its bytes in pieces and then closes.
struct Balancer<'a> {
    pieces: Pieces<'a>,
    piece: &'a [u8],
    /// Bytes that were taken from it.
    taken: usize,
}

impl AsyncRead for Balancer<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.piece.is_empty() {
            self.piece = self.pieces.next().unwrap_or_default();
        }
        let here = self.piece.len().min(buffer.remaining());
        let (given, rest) = self.piece.split_at(here);
        buffer.put_slice(given);
        self.piece = rest;
        self.taken += here;
        Poll::Ready(Ok(()))
    }
}
