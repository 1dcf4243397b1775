//! Places for connections, messages and the bytes of messages: how many a listener has, and how many of them one client may
//! take. Each listener has its own, so that nobody on the Internet can crowd out the mail between departments.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures::future::poll_immediate;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use crate::limits::Limits;

/// Room for a message is taken in blocks of this many bytes, as it comes: who only announces a large message takes nothing.
const BLOCK_BYTES: usize = 64 * 1024;
/// One client may take this part of the bytes of a listener.
const BYTES_SHARE: usize = 4;

/// What those who hold a place are to give way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Nothing.
    None,
    /// All places are taken.
    Crowded,
    /// The listener stops.
    Stopping,
}

/// The places of one listener.
#[derive(Debug)]
pub struct Places {
    connections: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    blocks: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    connections_max: usize,
    messages_max: usize,
    blocks_max: usize,
    connections_per_client_max: usize,
    handshakes_per_client_max: usize,
    messages_per_client_max: usize,
    blocks_per_client_max: usize,
    wait_max: Duration,
    /// What the connections are to give way to.
    pressure: watch::Sender<Pressure>,
    /// The same for those that have a place for a message.
    messages_pressure: watch::Sender<Pressure>,
    /// Those who hold a place now.
    clients: Mutex<HashMap<IpAddr, Weak<Client>>>,
}

impl Places {
    /// As many as the limits say. The largest message always fits, also into the share of one client.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let largest = limits.message_bytes_max.div_ceil(BLOCK_BYTES);
        let blocks = (limits.messages_bytes_max / BLOCK_BYTES).max(largest);
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            messages: Arc::new(Semaphore::new(limits.messages_max)),
            blocks: Arc::new(Semaphore::new(blocks)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            connections_max: limits.connections_max,
            messages_max: limits.messages_max,
            blocks_max: blocks,
            connections_per_client_max: limits.connections_per_client_max,
            handshakes_per_client_max: limits.handshakes_per_client_max,
            messages_per_client_max: limits.messages_per_client_max,
            blocks_per_client_max: (blocks / BYTES_SHARE).max(largest),
            wait_max: limits.messages_wait_max,
            pressure: watch::channel(Pressure::None).0,
            messages_pressure: watch::channel(Pressure::None).0,
            clients: Mutex::default(),
        })
    }

    /// Waits for a connection's place, whoever will come. `None` never happens: the semaphore is not closed.
    pub async fn connection(self: &Arc<Self>) -> Option<ConnectionPlace> {
        let permit = Arc::clone(&self.connections).acquire_owned().await.ok()?;
        Some(ConnectionPlace { permit: Some(permit), places: Arc::clone(self) })
    }

    fn look_around(&self) {
        look(&self.pressure, &[(&self.connections, self.connections_max)]);
    }

    /// Messages are crowded also while room for their bytes is all taken.
    fn look_at_messages(&self) {
        look(&self.messages_pressure, &[(&self.messages, self.messages_max), (&self.blocks, self.blocks_max)]);
    }

    /// Has all who are idle told that the listener stops.
    pub fn stop(&self) {
        self.pressure.send_replace(Pressure::Stopping);
    }

    /// Waits until there is no connection any more.
    pub async fn empty(&self) {
        let all = u32::try_from(self.connections_max).unwrap_or(u32::MAX);
        drop(self.connections.acquire_many(all).await);
    }

    /// A seat for a connection of this client; `None` when it has as many as it may have.
    #[must_use]
    pub fn seat(places: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        // The lock is given back before a client can be dropped, which takes it too.
        let client = places.client(network(address));
        let connection = Arc::clone(&client.connections).try_acquire_owned().ok()?;
        Some(Seat { client, _connection: connection })
    }

    fn client(self: &Arc<Self>, network: IpAddr) -> Arc<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&network).and_then(Weak::upgrade) {
            return known;
        }
        let client = Arc::new(Client {
            places: Arc::clone(self),
            network,
            connections: Arc::new(Semaphore::new(self.connections_per_client_max)),
            messages: Arc::new(Semaphore::new(self.messages_per_client_max)),
            blocks: Arc::new(Semaphore::new(self.blocks_per_client_max)),
            handshakes: Arc::new(Semaphore::new(self.handshakes_per_client_max)),
        });
        clients.insert(network, Arc::downgrade(&client));
        client
    }
}

/// It is crowded from when the last place is taken until a tenth is free again: one who comes and goes changes nothing.
fn look(pressure: &watch::Sender<Pressure>, places: &[(&Semaphore, usize)]) {
    pressure.send_if_modified(|pressure| {
        let all = |enough: fn(usize, usize) -> bool| {
            places.iter().all(|(places, most)| enough(places.available_permits(), *most))
        };
        let now = match *pressure {
            Pressure::Stopping => Pressure::Stopping,
            Pressure::None if all(|free, _| free > 0) => Pressure::None,
            Pressure::Crowded if all(|free, most| free > 0 && free * 10 >= most) => Pressure::None,
            Pressure::None | Pressure::Crowded => Pressure::Crowded,
        };
        std::mem::replace(pressure, now) != now
    });
}

/// Who counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer gets at the least (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// The share of one client. It lives as long as one of its places is held: also a delivery that outlives its connection
/// counts.
#[derive(Debug)]
struct Client {
    places: Arc<Places>,
    network: IpAddr,
    connections: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    blocks: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut clients = self.places.clients.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have come in its place between its end and this lock.
        if clients.get(&self.network).is_some_and(|client| client.strong_count() == 0) {
            clients.remove(&self.network);
        }
    }
}

/// The place of one connection among all of its listener.
#[derive(Debug)]
pub struct ConnectionPlace {
    permit: Option<OwnedSemaphorePermit>,
    places: Arc<Places>,
}

impl ConnectionPlace {
    /// A connection has come for it.
    pub fn taken(&self) {
        self.places.look_around();
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.permit = None;
        self.places.look_around();
    }
}

/// The place of one connection among those of its client.
#[derive(Debug)]
pub struct Seat {
    client: Arc<Client>,
    _connection: OwnedSemaphorePermit,
}

impl Seat {
    /// A seat for another client at the same listener, in the place of this one; `None` when it has as many as it may have.
    #[must_use]
    pub fn of_other(&self, address: IpAddr) -> Option<Self> {
        Places::seat(&self.client.places, address)
    }

    /// A place for one message, without room for any byte yet; `None` when there is none within
    /// `Limits::messages_wait_max`.
    pub async fn message(&self) -> Option<MessagePlace> {
        let client = &self.client;
        let message = client.take(&client.messages, &client.places.messages, 1).await?;
        client.places.look_at_messages();
        Some(MessagePlace { client: Arc::clone(client), message: Some(message), room: None, held: None })
    }

    /// What connections are to give way to, as it moves.
    #[must_use]
    pub fn pressure(&self) -> watch::Receiver<Pressure> {
        self.client.places.pressure.subscribe()
    }

    /// The same for those that have a place for a message.
    #[must_use]
    pub fn messages_pressure(&self) -> watch::Receiver<Pressure> {
        self.client.places.messages_pressure.subscribe()
    }

    /// A place for one TLS handshake; `None` when there is none within `Limits::messages_wait_max`.
    pub async fn handshake(&self) -> Option<HandshakePlace> {
        let client = &self.client;
        client.take(&client.handshakes, &client.places.handshakes, 1).await.map(HandshakePlace)
    }
}

/// A permit of the client's share and one of the listener's whole.
type Both = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Client {
    /// Always its own share first, so that who waits for that keeps nothing from the others.
    async fn take(&self, own: &Arc<Semaphore>, all: &Arc<Semaphore>, count: u32) -> Option<Both> {
        let both = async {
            let own = Arc::clone(own).acquire_many_owned(count).await.ok()?;
            let all = Arc::clone(all).acquire_many_owned(count).await.ok()?;
            Some((own, all))
        };
        timeout(self.places.wait_max, both).await.ok().flatten()
    }
}

/// The place of one TLS handshake.
#[derive(Debug)]
pub struct HandshakePlace(#[expect(dead_code, reason = "held until it is dropped")] Both);

/// The place of one message, from 354 to its reply.
#[derive(Debug)]
pub struct MessagePlace {
    client: Arc<Client>,
    message: Option<Both>,
    room: Option<Both>,
    /// What else is counted as long as the message is under way.
    held: Option<Box<dyn fmt::Debug + Send + Sync>>,
}

impl Drop for MessagePlace {
    fn drop(&mut self) {
        (self.message, self.room) = (None, None);
        self.client.places.look_at_messages();
    }
}

impl MessagePlace {
    /// Holds this too until the message's reply.
    pub fn holding(&mut self, held: impl fmt::Debug + Send + Sync + 'static) {
        self.held = Some(Box::new(held));
    }

    /// How many bytes of the message may be kept.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        self.room.as_ref().map_or(0, |(own, _)| own.num_permits() * BLOCK_BYTES)
    }

    /// Makes room for so many bytes in all; false when there is none within `Limits::messages_wait_max`. Messages that wait
    /// for each other's room thus end, one after the other, and the next ones find it.
    pub async fn make_room(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.room_bytes()).div_ceil(BLOCK_BYTES);
        let Ok(missing) = u32::try_from(missing) else { return false };
        let client = &self.client;
        let taking = client.take(&client.blocks, &client.places.blocks, missing);
        tokio::pin!(taking);
        let taken = match poll_immediate(&mut taking).await {
            Some(taken) => taken,
            None => {
                // Who waits for all of them has taken what was left.
                client.places.look_at_messages();
                taking.await
            }
        };
        client.places.look_at_messages();
        let Some(more) = taken else { return false };
        match &mut self.room {
            Some((own, all)) => {
                own.merge(more.0);
                all.merge(more.1);
            }
            None => self.room = Some(more),
        }
        true
    }

    /// Gives all room back: nothing is kept of the message.
    pub fn clear(&mut self) {
        self.room = None;
        self.client.places.look_at_messages();
    }
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
