//! Connections to next hops that have taken a message and may take another: a few for each hop, for a few seconds, and never for
//! anything but what they were opened for.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use proto::department::TlsRule;
use tokio::time::{Instant, sleep};

use super::dialogue::Greeted;
use crate::limits::Limits;

/// Messages over one connection: a balancer in front of a next hop gets its say again.
const MESSAGES_MAX: u32 = 100;
/// Age of a connection that still takes a message, as of Postfix (`smtp_connection_reuse_time_limit`).
const AGE_MAX: Duration = Duration::from_secs(300);
/// Connections that are kept for all next hops together.
const ALL_MAX: usize = 512;

/// What a connection was opened for. A hop under another rule or name is another one, so that mail which demands TLS, or a certificate
/// of this name, never goes over a connection that has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) rule: TlsRule,
}

/// Greeted connections without a transaction.
pub(super) struct Pool {
    kept: Mutex<Shelf>,
    each_max: usize,
    idle_max: Duration,
}

#[derive(Default)]
struct Shelf {
    /// Those of a hop in the order in which they were put down.
    hops: HashMap<Key, Vec<(Greeted, Instant)>>,
    count: usize,
    /// A task throws away what is too old.
    swept: bool,
}

impl Pool {
    /// As many and as long as the limits say.
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let (each_max, idle_max) = (limits.relay_idle_max, limits.relay_idle_time);
        Arc::new(Self { kept: Mutex::default(), each_max, idle_max })
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, of those whose next hop has said nothing since: neither farewell nor nonsense.
    pub(super) fn take(&self, key: &Key) -> Option<Greeted> {
        let mut shelf = self.lock();
        loop {
            let hop = shelf.hops.get_mut(key)?;
            let Some((mut greeted, since)) = hop.pop() else {
                shelf.hops.remove(key);
                return None;
            };
            shelf.count -= 1;
            if since.elapsed() < self.idle_max && greeted.is_quiet() {
                return Some(greeted);
            }
        }
    }

    /// Keeps a connection for the next message; gives it back when it has been used for long, or others are kept already.
    pub(super) fn keep(self: &Arc<Self>, key: Key, greeted: Greeted) -> Option<Greeted> {
        if greeted.messages() >= MESSAGES_MAX || greeted.age() >= AGE_MAX {
            return Some(greeted);
        }
        let mut shelf = self.lock();
        let hop = shelf.hops.get(&key).map_or(0, Vec::len);
        if hop >= self.each_max || shelf.count >= ALL_MAX {
            return Some(greeted);
        }
        shelf.hops.entry(key).or_default().push((greeted, Instant::now()));
        shelf.count += 1;
        if !std::mem::replace(&mut shelf.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_max));
        }
        None
    }

    /// Those that were not used for too long; whether there are others.
    fn expired(&self) -> (Vec<Greeted>, bool) {
        let mut shelf = self.lock();
        let mut expired = Vec::new();
        for hop in shelf.hops.values_mut() {
            let young = hop.iter().position(|(_, since)| since.elapsed() < self.idle_max).unwrap_or(hop.len());
            expired.extend(hop.drain(..young).map(|(greeted, _)| greeted));
        }
        shelf.hops.retain(|_, hop| !hop.is_empty());
        shelf.count -= expired.len();
        shelf.swept = shelf.count > 0;
        (expired, shelf.swept)
    }
}

/// Says good-bye to connections that are not needed any more, until none is left.
async fn sweep(pool: Weak<Pool>, every: Duration) {
    let mut others = true;
    while others {
        sleep(every).await;
        let Some(pool) = pool.upgrade() else { return };
        let (expired, left) = pool.expired();
        drop(pool);
        futures::future::join_all(expired.into_iter().map(Greeted::quit)).await;
        others = left;
    }
}
