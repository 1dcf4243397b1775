//! Asks clamd about the raw message (INSTREAM). Only the exact words for clean are clean; everything else, silence too, is
//! "unavailable" with the reason.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use clamav_client::tokio::{TransportProtocol, scan_buffer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{limits::Limits, policy::evidence::Virus};

/// Longest reply that is read, in bytes; real ones are below 200.
const REPLY_BYTES_MAX: u64 = 4096;

/// Where clamd listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClamdAddress {
    /// `ip:port`.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// A client of clamd. Each scan is one connection.
#[derive(Clone, Debug)]
pub struct VirusScanner {
    address: Option<ClamdAddress>,
    time_max: Duration,
}

impl VirusScanner {
    /// `None` for an installation without clamd: every scan is then unavailable.
    #[must_use]
    pub fn new(address: Option<ClamdAddress>, limits: &Limits) -> Self {
        Self { address, time_max: limits.virus_time_max }
    }

    /// Scans a message; ends within `Limits::virus_time_max`.
    pub async fn scan(&self, message: &[u8]) -> Virus {
        let Some(address) = &self.address else {
            return unavailable("no clamd is configured");
        };
        match timeout(self.time_max, scan_buffer(message, Connection(address), None)).await {
            Err(_) => unavailable("clamd did not answer in time"),
            Ok(Err(error)) => unavailable(&format!("clamd: {error}")),
            Ok(Ok(reply)) => read_reply(&reply),
        }
    }
}

fn unavailable(why: &str) -> Virus {
    Virus::Unavailable { why: printable(why) }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(200).collect()
}

/// The whole grammar of an answer to INSTREAM: `stream: OK` or `stream: NAME FOUND`, ended by NUL or LF.
fn read_reply(reply: &[u8]) -> Virus {
    let text = String::from_utf8_lossy(reply);
    let line = text.strip_suffix('\0').or_else(|| text.strip_suffix('\n')).unwrap_or(&text);
    if line == "stream: OK" {
        return Virus::Clean;
    }
    // clamd has not looked at all of it: that is no malware, and no pass.
    let over_limits = || Virus::Unscannable { why: "the message is over clamd's limits".to_owned() };
    if line == "INSTREAM size limit exceeded. ERROR" {
        return over_limits();
    }
    let name = line.strip_prefix("stream: ").and_then(|rest| rest.strip_suffix(" FOUND"));
    match name.filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')) {
        Some(name) if name.starts_with("Heuristics.Limits.Exceeded") => over_limits(),
        Some(name) => Virus::Infected { name: printable(name) },
        None if line.is_empty() => unavailable("clamd closed the connection without an answer"),
        None => unavailable(&format!("clamd answered: {line}")),
    }
}

struct Connection<'a>(&'a ClamdAddress);

/// Both kinds of socket behind one type.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl TransportProtocol for Connection<'_> {
    type Stream = Box<dyn Socket>;

    async fn connect(&self) -> io::Result<Self::Stream> {
        match self.0 {
            ClamdAddress::Tcp(address) => {
                let (read, write) = TcpStream::connect(address).await?.into_split();
                Ok(Box::new(tokio::io::join(read.take(REPLY_BYTES_MAX), write)))
            }
            ClamdAddress::Unix(path) => {
                let (read, write) = UnixStream::connect(path).await?.into_split();
                Ok(Box::new(tokio::io::join(read.take(REPLY_BYTES_MAX), write)))
            }
        }
    }
}

#[cfg(test)]
pub(crate) use self::tests::clamd;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::{ClamdAddress, VirusScanner, read_reply};
    use crate::{limits::Limits, policy::evidence::Virus};

    fn word(reply: &[u8]) -> &'static str {
        read_reply(reply).as_str()
    }

    #[test]
    fn only_the_exact_words_are_clean_or_infected() {
        assert_eq!(read_reply(b"stream: OK\0"), Virus::Clean);
        assert_eq!(read_reply(b"stream: Eicar-Signature FOUND\n"), Virus::Infected { name: "Eicar-Signature".into() });
        for reply in [
            &b""[..],
            b"\0",
            b"OK",
            b"stream: ok",
            b"stream: OK ",
            b"stream: OK\0stream: OK\0",
            b"stream: OK\nx",
            b" stream: OK",
            b"1: stream: OK",
            b"stream:  FOUND",
            b"stream: a\nb FOUND",
            b"stream: Can't allocate memory ERROR",
            b"\xff\xfe",
        ] {
            assert_eq!(word(reply), "unavailable", "{reply:?}");
        }
        for reply in
            [&b"INSTREAM size limit exceeded. ERROR\0"[..], b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0"]
        {
            assert_eq!(word(reply), "unscannable", "{reply:?}");
        }
    }

    /// A clamd that takes the whole stream and answers with these bytes, or never.
    pub(crate) async fn clamd(answer: Option<&'static [u8]>) -> ClamdAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let mut seen = Vec::new();
            while !seen.ends_with(&[0, 0, 0, 0]) {
                let mut byte = [0; 1024];
                let read = socket.read(&mut byte).await.expect("reads");
                seen.extend_from_slice(&byte[..read]);
            }
            match answer {
                Some(answer) => socket.write_all(answer).await.expect("writes"),
                None => std::future::pending().await,
            }
        });
        ClamdAddress::Tcp(address)
    }

    #[tokio::test]
    async fn clamd_is_asked_over_the_wire() {
        let limits = Limits { virus_time_max: Duration::from_millis(200), ..Limits::default() };
        for (answer, expected) in [
            (Some(&b"stream: OK\0"[..]), "clean"),
            (Some(b"stream: Eicar FOUND\0"), "infected"),
            (Some(b""), "unavailable"),
            (None, "unavailable"),
        ] {
            let scanner = VirusScanner::new(Some(clamd(answer).await), &limits);
            assert_eq!(scanner.scan(b"message").await.as_str(), expected, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_clamd_that_is_not_there_is_unavailable() {
        let nowhere = ClamdAddress::Unix("/nonexistent/clamd.sock".into());
        assert_eq!(VirusScanner::new(Some(nowhere), &Limits::default()).scan(b"x").await.as_str(), "unavailable");
        assert_eq!(VirusScanner::new(None, &Limits::default()).scan(b"x").await.as_str(), "unavailable");
    }
}
