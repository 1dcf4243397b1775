//! The listeners: a permit before each accept, a bound for each client, and an orderly stop.

use std::{
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    connection::{Connection, Service, told},
    places::{ConnectionPlace, Places},
    proxy,
    reply::Reply,
    tls::ServerCertificate,
    transaction::Listener,
};
use crate::telemetry::metrics;

/// Connections that wait in the kernel for a place. Of those beyond it many a client believes that it is connected, and waits
/// for a greeting that never comes. The kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Where to listen; port 0 takes a free one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// The MX side.
    pub internet: Option<SocketAddr>,
    /// The private network's side.
    pub departments: Option<SocketAddr>,
    /// Load balancers in front of both: they say in a header of the PROXY protocol whose connection they pass on, and whoever
    /// comes from them without one is turned away.
    pub balancers: Vec<IpNet>,
    /// Mail proxies in front of both, which say with XCLIENT for whom they speak.
    pub xclient: Vec<IpNet>,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The port is taken, or the address is not ours.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// A bound listener.
struct Port {
    listener: Listener,
    socket: TcpListener,
    address: SocketAddr,
    places: Arc<Places>,
}

/// The SMTP server.
pub struct Server {
    service: Arc<Service>,
    ports: Vec<Port>,
    tls: Option<ServerCertificate>,
    balancers: Vec<IpNet>,
}

impl Server {
    /// Opens the listeners. Without a certificate no TLS is offered.
    ///
    /// # Errors
    /// When a port is taken.
    pub async fn bind(
        listeners: &Listeners,
        tls: Option<ServerCertificate>,
        service: Service,
    ) -> Result<Self, ServerError> {
        let wanted = [(Listener::Internet, listeners.internet), (Listener::Departments, listeners.departments)];
        let mut ports = Vec::new();
        for (listener, address) in wanted {
            let Some(address) = address else { continue };
            let failed = |source| ServerError::Listen { address, source };
            let socket = listen(address).map_err(failed)?;
            let address = socket.local_addr().map_err(failed)?;
            ports.push(Port { listener, socket, address, places: Places::new(&service.settings.limits) });
        }
        Ok(Self { service: Arc::new(service), ports, tls, balancers: listeners.balancers.clone() })
    }

    /// Where a listener is.
    #[must_use]
    pub fn address(&self, listener: Listener) -> Option<SocketAddr> {
        self.ports.iter().find(|port| port.listener == listener).map(|port| port.address)
    }

    /// Serves until `shutdown` turns true (or its sender is gone): then accepts nobody, says 421 to who is idle, and waits
    /// for the transactions under way, at most `Limits::drain_time_max`. What is unfinished then got no 250, so its sender
    /// still has it.
    pub async fn serve(self, mut shutdown: watch::Receiver<bool>) {
        let (abort, aborted) = watch::channel(false);
        let (give_up, given_up) = watch::channel(false);
        let drain_time_max = self.service.settings.limits.drain_time_max;
        let accepting = self.ports.iter().map(|port| self.accept(port, [&aborted, &given_up]));
        tokio::select! {
            _ = futures::future::join_all(accepting) => {}
            () = self.notice_drain(&give_up) => {}
            () = told(&mut shutdown) => {}
        }
        // Closes the sockets.
        let places: Vec<Arc<Places>> = self.ports.into_iter().map(|port| port.places).collect();
        places.iter().for_each(|places| places.stop());
        let drained = futures::future::join_all(places.iter().map(|places| places.empty()));
        if timeout(drain_time_max, drained).await.is_err() {
            warn!("some clients did not finish in time and are cut off; they keep their messages");
            abort.send_replace(true);
        }
        info!("SMTP listeners are closed");
    }

    /// Says when who comes by a balancer is to be turned away, too: `Limits::drain_grace` after the node was drained, so that
    /// the balancer hears of it first, from the health service, and no client is lost. A node that starts drained has
    /// nobody to wait for. Never ends.
    async fn notice_drain(&self, give_up: &watch::Sender<bool>) {
        let node = &self.service.settings.node;
        let mut view = self.service.view.clone();
        give_up.send_replace(view.borrow().is_drained(node));
        loop {
            let wanted = !*give_up.borrow();
            if view.wait_for(|view| view.is_drained(node) == wanted).await.is_err() {
                // The process is about to end; the accepting must not end by it.
                return std::future::pending().await;
            }
            if wanted {
                let undrained = view.wait_for(|view| !view.is_drained(node));
                if timeout(self.service.settings.limits.drain_grace, undrained).await.is_ok() {
                    continue;
                }
            }
            give_up.send_replace(wanted);
        }
    }

    async fn accept(&self, port: &Port, flags: [&watch::Receiver<bool>; 2]) {
        loop {
            // Without a permit the client waits in the kernel's queue: that costs us nothing.
            let Some(place) = port.places.connection().await else { return };
            match port.socket.accept().await {
                Ok((socket, peer)) => self.begin(port, socket, peer.ip().to_canonical(), place, flags),
                Err(error) => {
                    warn!(%error, "accept failed; next try in 100 ms");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn begin(
        &self,
        port: &Port,
        socket: TcpStream,
        peer: IpAddr,
        place: ConnectionPlace,
        [aborted, given_up]: [&watch::Receiver<bool>; 2],
    ) {
        metrics().connection(port.listener.as_str());
        place.taken();
        let balanced = self.balancers.iter().any(|balancers| balancers.contains(&peer));
        let arrival = Arrival {
            service: Arc::clone(&self.service),
            listener: port.listener,
            tls: self.tls.clone(),
            places: Arc::clone(&port.places),
            given_up: balanced.then(|| given_up.clone()),
        };
        let mut aborted = aborted.clone();
        tokio::spawn(async move {
            let _held = place;
            tokio::select! {
                () = arrival.serve(socket, peer) => {}
                () = told(&mut aborted) => {}
            }
        });
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait for the connections of before.
    socket.set_reuseaddr(true)?;
    // Each connection has it of its listener: replies do not wait for acknowledgements.
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What a connection that was accepted needs.
struct Arrival {
    service: Arc<Service>,
    listener: Listener,
    tls: Option<ServerCertificate>,
    places: Arc<Places>,
    /// Of who comes from a balancer.
    given_up: Option<watch::Receiver<bool>>,
}

impl Arrival {
    async fn serve(self, mut socket: TcpStream, peer: IpAddr) {
        let client = if self.given_up.is_some() {
            match proxy::client(&mut socket).await {
                Ok(client) => client.unwrap_or(peer),
                Err(error) => {
                    warn!(balancer = %peer, %error, "a connection of a load balancer was turned away");
                    let reply =
                        Reply::temporary(21, (3, 0), "the load balancer does not say who you are; come back later")
                            .because("PROXY_HEADER");
                    return turn_away(socket, &reply).await;
                }
            }
        } else {
            peer
        };
        let Some(seat) = Places::seat(&self.places, client) else {
            debug!(%client, "too many connections of one client");
            let reply = Reply::temporary(21, (7, 0), "too many connections from you; come back later")
                .because("CLIENT_CONNECTIONS");
            return turn_away(socket, &reply).await;
        };
        let early_talk = has_spoken(&socket);
        let connection = Connection::new(self.service, client, self.listener, self.tls, seat, self.given_up);
        connection.run(socket, early_talk).await;
    }
}

/// Whether the client has sent something before the greeting: a look at what the kernel already has, without waiting.
fn has_spoken(socket: &TcpStream) -> bool {
    matches!(SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]), Ok(1..))
}

async fn turn_away(mut socket: TcpStream, reply: &Reply) {
    metrics().turned_away(reply.code());
    if let Some(rule) = reply.rule() {
        metrics().refused("connect", rule);
    }
    drop(timeout(Duration::from_secs(5), socket.write_all(reply.to_string().as_bytes())).await);
}
