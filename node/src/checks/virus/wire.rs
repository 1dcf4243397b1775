//! clamd's protocol: one connection a question, over TCP or a Unix socket. Tells a clamd that cannot be reached from one that
//! broke off when it had the question.

use std::{
    fmt, io,
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

use bytes::Bytes;
use clamav_client::tokio::{TransportProtocol, get_version, scan_stream};
use futures::stream;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::reply::{printable, read_scan};
use crate::policy::evidence::Virus;

/// Longest reply that is read, in bytes; real ones are below 200.
const REPLY_BYTES_MAX: u64 = 4096;
/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Bytes that are written at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where clamd listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClamdAddress {
    /// `ip:port`.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// As the settings write it.
impl fmt::Display for ClamdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a question has no answer that counts, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection came about: the question has no part in it.
    Unreached(String),
    /// There was a connection, and then no answer, half of one, nonsense, or an error: the question may have a part in it.
    BrokeOff(String),
}

impl Failure {
    pub(super) fn why(self) -> String {
        match self {
            Self::Unreached(why) | Self::BrokeOff(why) => why,
        }
    }
}

/// What clamd answers to PING.
///
/// # Errors
/// When there is no answer.
pub(super) async fn ping(address: &ClamdAddress) -> Result<Vec<u8>, String> {
    clamav_client::tokio::ping(&Connection::to(address)).await.map_err(|error| printable(&format!("clamd: {error}")))
}

/// What clamd answers to VERSION.
///
/// # Errors
/// When there is no answer.
pub(super) async fn version(address: &ClamdAddress) -> Result<Vec<u8>, String> {
    get_version(&Connection::to(address)).await.map_err(|error| printable(&format!("clamd: {error}")))
}

/// What clamd says of some bytes after a `head` (INSTREAM), never `Unavailable` or `NotScanned`. Ends within `time_max`.
///
/// # Errors
/// Without an answer of the grammar.
pub(super) async fn scan(
    address: &ClamdAddress,
    head: &'static [u8],
    bytes: &Bytes,
    time_max: Duration,
) -> Result<Virus, Failure> {
    let connection = Connection::to(address);
    let pieces = stream::iter([Ok(Bytes::from_static(head)), Ok(bytes.clone())]);
    let scanned = timeout(time_max, scan_stream(pieces, &connection, Some(CHUNK_BYTES))).await;
    let failure = |why: String| {
        let why = printable(&why);
        if connection.is_made.load(Ordering::Relaxed) { Failure::BrokeOff(why) } else { Failure::Unreached(why) }
    };
    match scanned {
        // Where connecting took too long there was an error before.
        Err(_) => Err(Failure::BrokeOff("clamd did not answer in time".to_owned())),
        Ok(Err(error)) => Err(failure(format!("clamd: {error}"))),
        Ok(Ok(reply)) => match read_scan(&reply).map_err(Failure::BrokeOff)? {
            Virus::Clean if connection.cut_off.load(Ordering::Relaxed) => {
                Err(Failure::BrokeOff("clamd did not take the whole message".to_owned()))
            }
            found @ (Virus::Clean
            | Virus::Infected { .. }
            | Virus::Unscannable { .. }
            | Virus::Unavailable { .. }
            | Virus::NotScanned) => Ok(found),
        },
    }
}

struct Connection<'a> {
    address: &'a ClamdAddress,
    /// Set once clamd has taken the connection.
    is_made: AtomicBool,
    /// Set once clamd takes no more of the message, or breaks off its answer.
    cut_off: Arc<AtomicBool>,
}

/// Both kinds of socket behind one type.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl<'a> Connection<'a> {
    fn to(address: &'a ClamdAddress) -> Self {
        Self { address, is_made: AtomicBool::new(false), cut_off: Arc::default() }
    }

    async fn dial(&self) -> io::Result<Box<dyn Socket>> {
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
        let socket = timeout(CONNECT_TIME_MAX, self.dial()).await??;
        self.is_made.store(true, Ordering::Relaxed);
        Ok(socket)
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
