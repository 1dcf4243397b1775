//! Asks clamd about the raw message (INSTREAM). Only the exact words for clean are clean; everything else, silence too, is
//! "unavailable" with the reason.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use clamav_client::{
    PONG,
    tokio::{TransportProtocol, ping, scan_buffer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{limits::Limits, policy::evidence::Virus};

/// Longest reply that is read, in bytes; real ones are below 200.
const REPLY_BYTES_MAX: u64 = 4096;

/// How long clamd may take to say that it is alive.
const PING_TIME_MAX: Duration = Duration::from_secs(3);

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
    bytes_max: usize,
}

impl VirusScanner {
    /// `None` for an installation without clamd: every scan is then unavailable.
    #[must_use]
    pub fn new(address: Option<ClamdAddress>, limits: &Limits) -> Self {
        Self { address, time_max: limits.virus_time_max, bytes_max: limits.virus_bytes_max }
    }

    /// Whether clamd answers.
    pub async fn is_alive(&self) -> bool {
        let Some(address) = &self.address else { return false };
        let connection = Connection { address, cut_off: Arc::default() };
        let answer = timeout(PING_TIME_MAX, ping(connection)).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer == PONG))
    }

    /// Scans a message; ends within `Limits::virus_time_max`.
    pub async fn scan(&self, message: &[u8]) -> Virus {
        let Some(address) = &self.address else {
            return unavailable("no clamd is configured");
        };
        if message.len() > self.bytes_max {
            return Virus::Unscannable { why: format!("the message is larger than {} bytes", self.bytes_max) };
        }
        let connection = Connection { address, cut_off: Arc::default() };
        match timeout(self.time_max, scan_buffer(message, &connection, None)).await {
            Err(_) => unavailable("clamd did not answer in time"),
            Ok(Err(error)) => unavailable(&format!("clamd: {error}")),
            Ok(Ok(reply)) => {
                let found = read_reply(&reply);
                let cut_off = connection.cut_off.load(Ordering::Relaxed);
                if found == Virus::Clean && cut_off {
                    unavailable("clamd did not take the whole message")
                } else {
                    found
                }
            }
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

struct Connection<'a> {
    address: &'a ClamdAddress,
    /// Set once clamd takes no more of the message, or breaks off its answer.
    cut_off: Arc<AtomicBool>,
}

/// Both kinds of socket behind one type.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Connection<'_> {
    fn socket(
        &self,
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Box<dyn Socket> {
        let socket = tokio::io::join(read.take(REPLY_BYTES_MAX), write);
        Box::new(Patient { socket, cut_off: self.cut_off.clone() })
    }
}

impl TransportProtocol for Connection<'_> {
    type Stream = Box<dyn Socket>;

    async fn connect(&self) -> io::Result<Self::Stream> {
        match self.address {
            ClamdAddress::Tcp(address) => {
                let (read, write) = TcpStream::connect(address).await?.into_split();
                Ok(self.socket(read, write))
            }
            ClamdAddress::Unix(path) => {
                let (read, write) = UnixStream::connect(path).await?.into_split();
                Ok(self.socket(read, write))
            }
        }
    }
}

/// clamd answers and closes while a message over its limits is still being written. That writing, and then reading further,
/// fails is remembered and passed over, so that the answer is read all the same.
struct Patient<S> {
    socket: S,
    cut_off: Arc<AtomicBool>,
}

impl<S> Patient<S> {
    fn passed_over<T>(&self, done: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = done {
            self.cut_off.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(instead));
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.socket).poll_read(cx, into);
        self.passed_over(done, ())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.passed_over(done, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.socket).poll_flush(cx);
        self.passed_over(done, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.passed_over(done, ())
    }
}

#[cfg(test)]
pub(crate) use self::tests::clamd;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, UnixListener},
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

    /// A clamd that answers after the first kilobyte and closes, as over StreamMaxLength.
    async fn hasty_clamd(folder: &std::path::Path, answer: &'static [u8]) -> ClamdAddress {
        let path = folder.join("clamd.sock");
        let listener = UnixListener::bind(&path).expect("binds");
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            socket.read_exact(&mut [0; 1024]).await.expect("reads");
            socket.write_all(answer).await.expect("writes");
        });
        ClamdAddress::Unix(path)
    }

    #[tokio::test]
    async fn an_answer_that_comes_before_the_end_of_the_message_is_read_and_never_a_pass() {
        for (answer, expected) in [
            (&b"INSTREAM size limit exceeded. ERROR\0"[..], "unscannable"),
            (b"stream: Eicar FOUND\0", "infected"),
            (b"stream: OK\0", "unavailable"),
            (b"", "unavailable"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let scanner = VirusScanner::new(Some(hasty_clamd(folder.path(), answer).await), &Limits::default());
            assert_eq!(scanner.scan(&vec![0; 8 << 20]).await.as_str(), expected, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_unscannable_without_a_question() {
        let limits = Limits { virus_bytes_max: 10, ..Limits::default() };
        let scanner = VirusScanner::new(Some(ClamdAddress::Unix("/nonexistent/clamd.sock".into())), &limits);
        assert_eq!(scanner.scan(b"12345678901").await.as_str(), "unscannable");
        assert_eq!(scanner.scan(b"1234567890").await.as_str(), "unavailable");
    }

    #[tokio::test]
    async fn a_clamd_that_is_not_there_is_unavailable() {
        let nowhere = ClamdAddress::Unix("/nonexistent/clamd.sock".into());
        assert_eq!(VirusScanner::new(Some(nowhere), &Limits::default()).scan(b"x").await.as_str(), "unavailable");
        assert_eq!(VirusScanner::new(None, &Limits::default()).scan(b"x").await.as_str(), "unavailable");
    }
}
