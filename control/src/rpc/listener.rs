//! The listener: bounds connections and TLS handshakes, keeps room for the other control servers, and logs whom TLS turns
//! away.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use proto::identity::{Identity, Role};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Connections at a time, in handshake or behind it: some hundred nodes and operators, and room for a storm.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection behind its handshake, with its share of the bound.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    _share: OwnedSemaphorePermit,
    /// Of nodes and operators only.
    _guest: Option<OwnedSemaphorePermit>,
}

/// What a handshake needs. Cheap to clone.
#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    /// What nodes and operators share: three quarters, so that however many they are, Raft gets through.
    guests: Arc<Semaphore>,
    sender: mpsc::Sender<io::Result<Connection>>,
}

/// Takes connections until the receiver is dropped; then the port is free again.
#[must_use]
pub fn incoming(listener: TcpListener, tls: Arc<ServerConfig>) -> ReceiverStream<io::Result<Connection>> {
    bounded(listener, tls, CONNECTIONS_MAX)
}

fn bounded(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    connections_max: usize,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(16);
    let guests = Arc::new(Semaphore::new(connections_max * 3 / 4));
    let shares = Arc::new(Semaphore::new(connections_max));
    let door = Door { acceptor: TlsAcceptor::from(tls), guests, sender };
    tokio::spawn(async move {
        while let Ok(share) = Arc::clone(&shares).acquire_owned().await {
            let accepted = tokio::select! {
                () = door.sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => drop(tokio::spawn(handshake(door.clone(), stream, share))),
                Err(error) => {
                    tracing::warn!(%error, "accept a gRPC connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn handshake(door: Door, stream: TcpStream, share: OwnedSemaphorePermit) {
    let from = stream.peer_addr().ok();
    let done = async {
        stream.set_nodelay(true)?;
        door.acceptor.accept(stream).await
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, done).await {
        Ok(Ok(stream)) => {
            let guest = match door.place_for(&stream) {
                Ok(guest) => guest,
                Err(_) => return tracing::warn!(?from, "too many nodes and operators: a connection was closed"),
            };
            // A send that fails means that the server is ending.
            drop(door.sender.send(Ok(Connection { stream, _share: share, _guest: guest })).await);
        }
        Ok(Err(error)) => tracing::warn!(?from, %error, "a TLS client was turned away"),
        Err(_) => tracing::warn!(?from, "a TLS client did not finish its handshake in time"),
    }
}

impl Door {
    /// A control server needs none of the guests' places. Whoever has no name is turned away by the gate.
    fn place_for(&self, stream: &TlsStream<TcpStream>) -> Result<Option<OwnedSemaphorePermit>, TryAcquireError> {
        let leaf = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
        let identity = leaf.and_then(|leaf| Identity::of_certificate(leaf).ok());
        if identity.is_some_and(|identity| identity.role == Role::Control) {
            return Ok(None);
        }
        Arc::clone(&self.guests).try_acquire_owned().map(Some)
    }
}

impl Connected for Connection {
    type ConnectInfo = <TlsStream<TcpStream> as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use proto::identity::{Credentials, Role};
    use tokio::net::TcpListener;
    use tokio_stream::StreamExt as _;
    use tonic::transport::{Channel, Endpoint};

    use super::bounded;
    use crate::test_pki::Ca;

    async fn connect(to: SocketAddr, credentials: &Credentials) -> Channel {
        let endpoint = Endpoint::from_shared(format!("https://{to}")).expect("an address");
        let endpoint = endpoint.tls_config(credentials.client_tls(Role::Control)).expect("TLS");
        endpoint.connect().await.expect("a connection")
    }

    #[tokio::test]
    async fn nodes_cannot_take_the_places_of_the_other_control_servers() {
        let ca = Ca::new();
        let me = ca.credentials("c1", Role::Control, "alpha");
        let (node, peer) = (ca.credentials("c1", Role::Node, "n1"), ca.credentials("c1", Role::Control, "beta"));
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = port.local_addr().expect("an address");
        let mut incoming = bounded(port, me.server_config().expect("TLS"), 4);
        let mut open = Vec::new();
        for _ in 0..3 {
            let channel = connect(address, &node).await;
            open.push((channel, incoming.next().await.expect("open").expect("a connection")));
        }
        let _fourth = connect(address, &node).await;
        let nobody = tokio::time::timeout(Duration::from_millis(200), incoming.next()).await;
        assert!(nobody.is_err(), "a fourth node came in");
        let peer = connect(address, &peer).await;
        open.push((peer, incoming.next().await.expect("open").expect("the peer")));
        // A place that is left is there for the next node.
        open.clear();
        let _next = connect(address, &node).await;
        incoming.next().await.expect("open").expect("a node");
    }
}
