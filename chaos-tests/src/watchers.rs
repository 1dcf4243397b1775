//! Nodes that watch the view while things go wrong, and write down what each server tells them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::{codec, view::ViewChange, wire::edge::WatchRequest};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    oracle::{Clock, Moment},
    sites::{NODES, Sites, doors::Doors},
};

/// A stream that says nothing for so long is left.
const QUIET_MAX: Duration = Duration::from_secs(3);
/// Before the next stream.
const PAUSE: Duration = Duration::from_millis(200);

/// What a node was told about the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Number of the node's watch.
    pub watcher: usize,
    /// Number of the server that it watched.
    pub server: usize,
    /// When.
    pub at: Moment,
    /// Log index that the view stands at.
    pub index: u64,
    /// Policy version, when the update carried a change.
    pub policy_version: Option<u64>,
    /// The server says that it is in touch with its quorum.
    pub confirmed: bool,
}

/// One watch at each server, and one for each node that goes from server to server. Ends when it is dropped.
#[derive(Debug)]
pub struct Watchers {
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

/// One node's watch.
struct Watch {
    number: usize,
    doors: Vec<Doors>,
    clock: Clock,
    /// After this many updates it goes on to the next server.
    stay: u32,
    index: u64,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Watch {
    async fn run(mut self, first: usize) {
        let count = self.doors.len();
        for server in (0..count).cycle().skip(first) {
            loop {
                self.stream(server).await;
                sleep(PAUSE).await;
                if self.stay < u32::MAX {
                    break;
                }
            }
        }
    }

    async fn stream(&mut self, server: usize) {
        let mut client = self.doors[server].node(self.number);
        let request = WatchRequest { from_index: self.index, ..WatchRequest::default() };
        let Ok(Ok(stream)) = timeout(QUIET_MAX, client.watch(request)).await else { return };
        let mut stream = stream.into_inner();
        for _ in 0..self.stay {
            let Ok(Ok(Some(update))) = timeout(QUIET_MAX, stream.message()).await else { return };
            let change: Option<ViewChange> = codec::decode("view", &update.change).ok();
            let seen = Seen {
                watcher: self.number,
                server,
                at: self.clock.now(),
                index: update.index,
                policy_version: change.map(|change| change.policy_version),
                confirmed: update.confirmed,
            };
            self.index = self.index.max(update.index);
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        }
    }
}

impl Watchers {
    /// Begins to watch.
    #[must_use]
    pub fn start(sites: &Sites, clock: &Clock) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let mut tasks = JoinSet::new();
        let count = sites.count();
        for number in 0..count + NODES.len() {
            let stay = if number < count { u32::MAX } else { 4 };
            let (doors, clock, seen) = (sites.doors.clone(), clock.clone(), Arc::clone(&seen));
            let watch = Watch { number, doors, clock, stay, index: 0, seen };
            tasks.spawn(watch.run(number % count));
        }
        Self { seen, _tasks: tasks }
    }

    /// What they have seen since this was asked last, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
