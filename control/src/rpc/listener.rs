//! The listener: bounds connections and TLS handshakes, keeps room for the other control servers, ends connections whose
//! certificate is no longer good, and logs whom TLS turns away.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use proto::{
    identity::{Leaf, Refusal, Role},
    time::UnixMs,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Interval, MissedTickBehavior},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::{
    admission::{Admission, Place},
    gate::Guard,
};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much of each a listener allows.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at a time, in handshake or behind it: some hundred nodes and operators, and room for a storm.
    connections: usize,
    /// Connections of one certificate's holder.
    of_one_holder: usize,
    /// Handshakes under way from one address.
    handshakes_from_one: usize,
    /// Time between two looks at a connection: is its certificate still good, is it used?
    look_every: Duration,
    /// A connection without a request for so long is closed.
    idle_max: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: 1024,
    of_one_holder: 64,
    handshakes_from_one: 64,
    look_every: Duration::from_secs(5),
    idle_max: Duration::from_secs(15 * 60),
};

/// Who is at the other end of a connection. Each request carries it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub from: Option<SocketAddr>,
    /// Its certificate, which the handshake has checked.
    pub leaf: Arc<Result<Leaf, Refusal>>,
    activity: Arc<Mutex<Activity>>,
}

#[derive(Debug)]
struct Activity {
    under_way: usize,
    last: Instant,
}

/// A request under way on a connection, until it is dropped.
#[derive(Debug)]
pub struct Call(Arc<Mutex<Activity>>);

impl Peer {
    fn of(stream: &TlsStream<TcpStream>) -> Self {
        let (tcp, tls) = stream.get_ref();
        let leaf = tls.peer_certificates().and_then(|all| all.first()).ok_or(Refusal::NoCertificate);
        Self {
            from: tcp.peer_addr().ok(),
            leaf: Arc::new(leaf.and_then(|leaf| Leaf::read(leaf))),
            activity: Arc::new(Mutex::new(Activity { under_way: 0, last: Instant::now() })),
        }
    }

    /// A request begins.
    #[must_use]
    pub fn begin(&self) -> Call {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner).under_way += 1;
        Call(Arc::clone(&self.activity))
    }

    fn is_idle(&self, idle_max: Duration) -> bool {
        let activity = self.activity.lock().unwrap_or_else(PoisonError::into_inner);
        activity.under_way == 0 && activity.last.elapsed() >= idle_max
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut activity = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        activity.under_way -= 1;
        activity.last = Instant::now();
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.leaf.as_ref() {
            Ok(leaf) => leaf.identity.fmt(f),
            Err(refusal) => refusal.fmt(f),
        }
    }
}

/// A connection behind its handshake, with its share of the bound.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    guard: Guard,
    /// The credentials that the peer's certificate was checked by last.
    checked_by: u64,
    look: Interval,
    idle_max: Duration,
    _share: OwnedSemaphorePermit,
    _place: Place,
}

/// What a handshake needs. Cheap to clone.
#[derive(Clone)]
struct Door {
    guard: Guard,
    bounds: Bounds,
    handshakes: Admission,
    peers: Admission,
    /// What nodes and operators share: three quarters, so that however many they are, Raft gets through.
    guests: Admission,
    sender: mpsc::Sender<io::Result<Connection>>,
}

/// Takes connections until the receiver is dropped; then the port is free again. Each handshake is done with the credentials as
/// they are then.
#[must_use]
pub fn incoming(listener: TcpListener, guard: &Guard) -> ReceiverStream<io::Result<Connection>> {
    bounded(listener, guard, BOUNDS)
}

fn bounded(listener: TcpListener, guard: &Guard, bounds: Bounds) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(16);
    let shares = Arc::new(Semaphore::new(bounds.connections));
    let door = Door {
        guard: guard.clone(),
        bounds,
        handshakes: Admission::new(bounds.connections, bounds.handshakes_from_one),
        peers: Admission::new(bounds.connections, bounds.of_one_holder),
        guests: Admission::new(bounds.connections * 3 / 4, bounds.of_one_holder),
        sender,
    };
    tokio::spawn(async move {
        while let Ok(share) = Arc::clone(&shares).acquire_owned().await {
            let accepted = tokio::select! {
                () = door.sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => door.let_in(stream, from, share),
                Err(error) => {
                    tracing::warn!(%error, "accept a gRPC connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

impl Door {
    /// Starts a handshake, unless the address has too many under way.
    fn let_in(&self, stream: TcpStream, from: SocketAddr, share: OwnedSemaphorePermit) {
        match self.handshakes.enter(&from.ip().to_string()) {
            Ok(under_way) => drop(tokio::spawn(self.clone().handshake(stream, from, share, under_way))),
            Err(full) => self.turned_away("handshakes", from, &full),
        }
    }

    fn turned_away(&self, reason: &'static str, from: SocketAddr, why: &dyn fmt::Display) {
        if let Some(unlogged) = self.guard.refusals.count(reason) {
            tracing::warn!(%from, reason, unlogged, refused = %why, "a connection was turned away");
        }
    }

    async fn handshake(self, stream: TcpStream, from: SocketAddr, share: OwnedSemaphorePermit, under_way: Place) {
        // Before the handshake: files that are read again meanwhile are looked at later.
        let checked_by = self.guard.credentials.generation();
        let acceptor = TlsAcceptor::from(self.guard.credentials.server_config());
        let done = async {
            stream.set_nodelay(true)?;
            acceptor.accept(stream).await
        };
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, done).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
                let reason = tls.and_then(Refusal::of_tls).map_or("tls", Refusal::reason);
                return self.turned_away(reason, from, &error);
            }
            Err(_) => return self.turned_away("handshake-time", from, &"the handshake did not end in time"),
        };
        drop(under_way);
        let peer = Peer::of(&stream);
        let place = match self.place_for(&peer) {
            Ok(place) => place,
            Err(full) => return self.turned_away("connections", from, &format!("{peer}: {full}")),
        };
        let mut look = tokio::time::interval(self.bounds.look_every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (guard, idle_max) = (self.guard, self.bounds.idle_max);
        let connection = Connection { stream, peer, guard, checked_by, look, idle_max, _share: share, _place: place };
        // A send that fails means that the server is ending.
        drop(self.sender.send(Ok(connection)).await);
    }

    /// A control server needs none of the guests' places. Whoever has no name is turned away by the gate.
    fn place_for(&self, peer: &Peer) -> Result<Place, super::admission::Full> {
        let places = match peer.leaf.as_ref() {
            Ok(leaf) if leaf.identity.role == Role::Control => &self.peers,
            Ok(_) | Err(_) => &self.guests,
        };
        places.enter(&peer.to_string())
    }
}

impl Connection {
    /// Whether it may go on.
    fn look(&mut self) -> Result<(), Refusal> {
        let (credentials, now) = (&self.guard.credentials, UnixMs::now());
        let generation = credentials.generation();
        if generation != self.checked_by {
            let chain = self.stream.get_ref().1.peer_certificates().unwrap_or_default();
            credentials.verify_client(chain, now)?;
            self.checked_by = generation;
        }
        // Whoever has no name is turned away by the gate, with a word.
        self.peer.leaf.as_ref().as_ref().map_or(Ok(()), |leaf| leaf.check_time(now))
    }

    /// Fails once the connection is to end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.look.poll_tick(cx).is_ready() {
            let ended = |why: &str| Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.to_owned()));
            if let Err(refusal) = self.look() {
                if let Some(unlogged) = self.guard.refusals.count(refusal.reason()) {
                    let (peer, from, reason) = (&self.peer, self.peer.from, refusal.reason());
                    tracing::warn!(%peer, ?from, reason, unlogged, refused = %refusal, "a connection was ended");
                }
                return ended(&refusal.to_string());
            }
            if self.peer.is_idle(self.idle_max) {
                tracing::debug!(peer = %self.peer, "an idle connection was closed");
                return ended("idle");
            }
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // HTTP/2 always waits for the next frame, so this is polled whenever it is time to look.
        self.poll_end(cx)?;
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
mod tests;
