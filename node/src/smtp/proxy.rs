//! The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): whose connection a load balancer passes on. Only listed
//! balancers are asked, and of them it is demanded.

use std::{io, net::IpAddr, time::Duration};

use ppp::{HeaderResult, v1, v2};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

/// How long a balancer may take for its header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// What version 2 begins with; no header of version 1 is as short.
const V2_BEGIN: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its CRLF.
const V1_BYTES_MAX: usize = 107;
/// The longest of version 2 that is read: addresses, and what balancers add.
const V2_BYTES_MAX: usize = 4096;

/// Why nobody knows who the client is.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Something else came, or too much.
    #[error("no header of the PROXY protocol came")]
    NoHeader,
    /// It cannot be read.
    #[error("the header of the PROXY protocol is wrong: {0}")]
    Wrong(String),
    /// Nothing came.
    #[error("no header of the PROXY protocol came in time")]
    TooSlow,
    /// The balancer has closed.
    #[error("read the header of the PROXY protocol: {0}")]
    Gone(#[from] io::Error),
}

/// Reads the header, and no byte of what follows. `None` when the balancer speaks for itself: it looks whether we are alive.
///
/// # Errors
/// When it is not there in time, or wrong.
pub async fn client(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, ProxyError> {
    let header = timeout(HEADER_TIMEOUT, header(stream)).await.map_err(|_| ProxyError::TooSlow)??;
    source(&header)
}

async fn header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ProxyError> {
    let mut bytes = vec![0; V2_BEGIN.len()];
    stream.read_exact(&mut bytes).await?;
    if bytes == V2_BEGIN {
        bytes.resize(16, 0);
        stream.read_exact(bytes.get_mut(12..).unwrap_or_default()).await?;
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > V2_BYTES_MAX {
            return Err(ProxyError::NoHeader);
        }
        bytes.resize(16 + length, 0);
        stream.read_exact(bytes.get_mut(16..).unwrap_or_default()).await?;
        return Ok(bytes);
    }
    if !bytes.starts_with(b"PROXY ") {
        return Err(ProxyError::NoHeader);
    }
    while !bytes.ends_with(b"\r\n") {
        if bytes.len() >= V1_BYTES_MAX {
            return Err(ProxyError::NoHeader);
        }
        bytes.push(stream.read_u8().await?);
    }
    // `ppp` reads up to the first CR and takes some headers for whole that go on behind it.
    let text = bytes.strip_suffix(b"\r\n").unwrap_or_default();
    if !text.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(ProxyError::Wrong("it is not one line of ASCII".into()));
    }
    Ok(bytes)
}

fn source(header: &[u8]) -> Result<Option<IpAddr>, ProxyError> {
    let address: IpAddr = match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => match header.addresses {
            v1::Addresses::Unknown => return Ok(None),
            v1::Addresses::Tcp4(tcp) => tcp.source_address.into(),
            v1::Addresses::Tcp6(tcp) => tcp.source_address.into(),
        },
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => return Ok(None),
        HeaderResult::V2(Ok(header)) => match header.addresses {
            v2::Addresses::IPv4(tcp) => tcp.source_address.into(),
            v2::Addresses::IPv6(tcp) => tcp.source_address.into(),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => {
                return Err(ProxyError::Wrong("it names no address of the Internet".into()));
            }
        },
        HeaderResult::V1(Err(error)) => return Err(ProxyError::Wrong(error.to_string())),
        HeaderResult::V2(Err(error)) => return Err(ProxyError::Wrong(error.to_string())),
    };
    Ok(Some(address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::{V2_BEGIN, client, source};

    /// What the balancer said, and what is left for the session.
    async fn read(bytes: &[u8]) -> Result<(Option<IpAddr>, Vec<u8>), String> {
        let mut rest = bytes;
        let client = client(&mut rest).await.map_err(|error| error.to_string())?;
        Ok((client, rest.to_vec()))
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
        [V2_BEGIN.as_slice(), &[0x20 | command, family], &length, addresses].concat()
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_take_no_byte_of_what_follows() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 25];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().expect("an address").octets());
        let with_more = [four.as_slice(), &[4, 0, 2, 1, 2]].concat();
        let table: Vec<(Vec<u8>, Option<IpAddr>)> = vec![
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 25\r\n".to_vec(), ip("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 12345 25\r\n".to_vec(), ip("2001:db8::7")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 12345 25\r\n".to_vec(), ip("192.0.2.7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2(1, 0x11, &four), ip("192.0.2.7")),
            (v2(1, 0x11, &with_more), ip("192.0.2.7")),
            (v2(1, 0x21, &six), ip("2001:db8::7")),
            (v2(0, 0, &[]), None),
        ];
        for (header, expected) in table {
            let followed = [header.as_slice(), b"EHLO a\r\n"].concat();
            assert_eq!(read(&followed).await, Ok((expected, b"EHLO a\r\n".to_vec())), "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(120));
        let huge = [V2_BEGIN.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat();
        let table: Vec<Vec<u8>> = vec![
            b"EHLO mail.a.example\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7\r\n\r\n".to_vec(),
            b"PROXY TCP4 x y 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 25\n".to_vec(),
            b"PROXY UNKNOWN \n\rx\r\n".to_vec(),
            b"PROXY UNKNOWN \n\rEHLO mail.a.example\r\n".to_vec(),
            b"PROXY UNKNOWN \xff\r\n".to_vec(),
            b"PROXY".to_vec(),
            long.into_bytes(),
            huge,
            v2(1, 0x11, &[1, 2, 3]),
            v2(1, 0x31, &[0; 216]),
            v2(7, 0x11, &[0; 12]),
        ];
        for bytes in table {
            assert!(read(&bytes).await.is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_fall(bytes in proptest::collection::vec(any::<u8>(), 0..120), second in any::<bool>()) {
            let header = if second { [V2_BEGIN.as_slice(), &bytes].concat() } else { bytes };
            drop(source(&header));
        }
    }
}
