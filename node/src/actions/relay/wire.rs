//! A connection to a next hop: lines in, bytes out, each step under its own time limit.

use std::{io, time::Duration};

use bytes::BytesMut;
use futures::FutureExt as _;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::answer::{Answer, Nonsense, Reader};

/// Read at once, in bytes: more than most answers have.
const READ_BYTES: usize = 512;

/// What a connection is made of: TCP, or TLS over it.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Why the connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("it closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in {} s", .0.as_secs_f32())]
    Slow(Duration),
    #[error("it answered nonsense: {0}")]
    Nonsense(#[from] Nonsense),
}

/// The connection and what was read of it but not yet used.
pub(super) struct Wire {
    io: Box<dyn Duplex>,
    unread: BytesMut,
}

impl Wire {
    pub(super) fn new(io: impl Duplex + 'static) -> Self {
        Self { io: Box::new(io), unread: BytesMut::new() }
    }

    /// Reads one whole answer, within the time if there is one.
    pub(super) async fn answer(&mut self, patience: Option<Duration>) -> Result<Answer, Broken> {
        match patience {
            Some(patience) => timeout(patience, self.read_answer()).await.map_err(|_| Broken::Slow(patience))?,
            None => self.read_answer().await,
        }
    }

    async fn read_answer(&mut self) -> Result<Answer, Broken> {
        let mut reader = Reader::default();
        loop {
            if let Some(answer) = reader.read(&mut self.unread)? {
                return Ok(answer);
            }
            self.unread.reserve(READ_BYTES);
            if self.io.read_buf(&mut self.unread).await? == 0 {
                return Err(Broken::Closed);
            }
        }
    }

    /// Writes and flushes, within the time.
    pub(super) async fn send(&mut self, bytes: &[u8], patience: Duration) -> Result<(), Broken> {
        let write = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        Ok(timeout(patience, write).await.map_err(|_| Broken::Slow(patience))??)
    }

    /// Whether the peer has said nothing more and keeps the connection open, as far as is known here.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.unread.is_empty() && self.io.read_buf(&mut self.unread).now_or_never().is_none()
    }

    /// Whether the peer has said more than was asked.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Goes on under TLS. Nothing may be unread: it would be plaintext taken for something said under TLS.
    pub(super) async fn under_tls(
        self,
        connector: &TlsConnector,
        host: &str,
        patience: Duration,
    ) -> Result<Self, Broken> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a name for TLS"))?;
        let stream =
            timeout(patience, connector.connect(name, self.io)).await.map_err(|_| Broken::Slow(patience))??;
        Ok(Self::new(stream))
    }

    /// Says QUIT and closes, without waiting for the answer: the message's fate is known.
    pub(super) async fn quit(mut self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        let farewell = async {
            if self.send(b"QUIT\r\n", PATIENCE).await.is_ok() {
                // A failure changes nothing any more.
                self.io.shutdown().await.unwrap_or_default();
            }
        };
        timeout(PATIENCE, farewell).await.unwrap_or_default();
    }
}
