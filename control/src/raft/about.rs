//! What a server says of itself, and which nodes watch its view: for `cluster status`, `node list`, and the leader that wants to
//! know whom it can count on.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use proto::{codec, time::UnixMs};
use serde::{Deserialize, Serialize};

use super::{
    Group, RaftCall, Server,
    leader::{Answer, Ask},
    network::Peers,
};
use crate::bodies::keep::BodyHealth;

/// How long a server may take to say how it is before it counts as down.
const SAY_WITHIN: Duration = Duration::from_millis(1_500);
/// Most files of a data folder that are looked at for their size; log and state have a few dozen.
const FILES_MAX: usize = 10_000;
/// The folder of message bodies, which may have a million files: not looked into.
const BODIES: &str = "bodies";

/// What a server says of itself. A later version may add fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Raft node id.
    pub id: u64,
    /// Name, site, address, by its configuration.
    pub server: Server,
    /// Whether it has a vote in the membership that it knows.
    pub voter: bool,
    /// The leader that it knows.
    pub leader: Option<u64>,
    /// Raft term.
    pub term: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Index of the last entry in its log.
    pub last_log_index: u64,
    /// Policy version in force.
    pub policy_version: u64,
    /// On the leader: since a majority last answered.
    pub quorum_age_ms: Option<u64>,
    /// On the leader: how far each member's log matches.
    pub matched: BTreeMap<u64, u64>,
    /// Version of its program.
    pub version: String,
    /// Version of its encoding.
    pub encoding: u32,
    /// Since it was started.
    pub uptime_ms: u64,
    /// Its disk; `None` when the system does not say.
    pub disk: Option<Disk>,
    /// Its wall clock.
    pub now: UnixMs,
    /// Log time: what leases and deadlines go by. It never goes back.
    pub log_time: UnixMs,
    /// The log index at which the servers' states differed and none had a majority; `None` when the last comparison went well.
    pub undecided_at: Option<u64>,
    /// Nodes that watch its view.
    pub nodes: Vec<Seen>,
    /// What the rest of its process has to say.
    pub vitals: Vitals,
}

/// What a server's process says of what is not Raft's. A later version may add fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vitals {
    /// Last second of its certificate's validity.
    pub certificate_until: UnixMs,
    /// The bodies that it must have.
    pub bodies: BodyHealth,
    /// Whom it turned away since its start, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// Asks the process for its vitals.
pub(super) type AskVitals = Box<dyn Fn() -> Vitals + Send + Sync>;

/// The file system of the data folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// What is left, in bytes.
    pub free_bytes: u64,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// What log and state take, without bodies, in bytes.
    pub used_bytes: u64,
}

impl Disk {
    /// Looks at a data folder.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn of(folder: &Path) -> std::io::Result<Self> {
        let system = rustix::fs::statvfs(folder)?;
        Ok(Self {
            free_bytes: system.f_bavail.saturating_mul(system.f_frsize),
            size_bytes: system.f_blocks.saturating_mul(system.f_frsize),
            used_bytes: size_of(folder, &mut FILES_MAX.clone()),
        })
    }
}

/// Adds up the files of a folder, at most `left` of them. What cannot be read counts nothing.
fn size_of(folder: &Path, left: &mut usize) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file() {
            bytes += meta.len();
        } else if meta.is_dir() && entry.file_name() != BODIES {
            bytes += size_of(&entry.path(), left);
        }
    }
    bytes
}

/// A node that watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// Name in its certificate.
    pub name: String,
    /// Where it says that it stands; may be empty.
    pub site: String,
    /// Version of its program, as it says; may be empty.
    pub version: String,
    /// When the watch began, by the server's wall clock.
    pub since: UnixMs,
    /// Index of the view that it was last sent.
    pub index: u64,
    /// Last second of its certificate's validity.
    pub certificate_until: UnixMs,
}

/// The nodes that watch this server's view; no more than it has connections. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watchers {
    seen: Arc<Mutex<BTreeMap<u64, Seen>>>,
    next: Arc<AtomicU64>,
}

impl Watchers {
    /// A node's watch has begun; it lasts as long as what is returned.
    #[must_use]
    pub fn begin(&self, seen: Seen) -> Watching {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, seen);
        Watching { watchers: self.clone(), number }
    }

    /// Who watches now.
    #[must_use]
    pub fn all(&self) -> Vec<Seen> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch that lasts.
#[derive(Debug)]
pub struct Watching {
    watchers: Watchers,
    number: u64,
}

impl Watching {
    /// The node was sent the view at this index.
    pub fn sent(&self, index: u64) {
        if let Some(seen) = self.watchers.lock().get_mut(&self.number) {
            seen.index = index;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watchers.lock().remove(&self.number);
    }
}

/// Asks another server how it is.
///
/// # Errors
/// Why it cannot be asked, in words for the operator.
pub(super) async fn ask(peers: &Peers, id: u64, server: &Server) -> Result<About, String> {
    match peers.ask((id, server), RaftCall::Forward, &Ask::About, SAY_WITHIN).await {
        Ok(Answer::About(about)) => Ok(*about),
        Ok(other) => Err(format!("it answered something else: {other:?}")),
        Err(error) => Err(error.reason().to_owned()),
    }
}

impl Group {
    /// What this server says of itself.
    pub async fn about(&self) -> About {
        let inner = &self.inner;
        let folder = inner.data_dir.clone();
        let disk = tokio::task::spawn_blocking(move || Disk::of(&folder)).await;
        let disk = disk.map_err(std::io::Error::other).flatten();
        let disk = disk.inspect_err(|error| tracing::warn!("look at the disk of the data folder: {error}")).ok();
        let (status, (id, server)) = (self.status(), self.me());
        About {
            id,
            server: server.clone(),
            voter: status.voters.contains(&id),
            leader: status.leader,
            term: status.term,
            applied_index: status.applied_index,
            last_log_index: status.last_log_index,
            policy_version: self.applied().borrow().policy_version,
            quorum_age_ms: status.quorum_age_ms,
            matched: status.matched,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            encoding: codec::VERSION,
            uptime_ms: u64::try_from(inner.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            disk,
            now: UnixMs::now(),
            log_time: self.state().log_time(),
            undecided_at: inner.leader.comparison.undecided(),
            nodes: inner.watchers.all(),
            vitals: inner.vitals.get().map(|ask| ask()).unwrap_or_default(),
        }
    }

    /// Has `ask` asked for what the process says beside Raft, whenever somebody wants to know how this server is. Once; it must
    /// not hold the group.
    pub fn tell_vitals(&self, ask: impl Fn() -> Vitals + Send + Sync + 'static) {
        drop(self.inner.vitals.set(Box::new(ask)));
    }

    /// What each member says of itself, all asked at once, or why it cannot be asked.
    pub async fn about_all(&self) -> BTreeMap<u64, Result<About, String>> {
        let (me, _) = self.me();
        let peers = &self.inner.leader.peers;
        let asked = self.status().members.into_iter().map(async |(id, server)| {
            let about = if id == me { Ok(self.about().await) } else { ask(peers, id, &server).await };
            (id, about)
        });
        join_all(asked).await.into_iter().collect()
    }

    /// The nodes that watch this server's view.
    #[must_use]
    pub fn watchers(&self) -> &Watchers {
        &self.inner.watchers
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, Seen, Watchers};

    #[test]
    fn a_node_is_seen_as_long_as_its_watch_lasts() {
        let watchers = Watchers::default();
        let node = |name: &str| Seen { name: name.into(), ..Seen::default() };
        let first = watchers.begin(node("mx1"));
        let again = watchers.begin(node("mx1"));
        again.sent(7);
        drop(first);
        let seen = watchers.all();
        assert_eq!((seen.len(), seen[0].name.as_str(), seen[0].index), (1, "mx1", 7));
        drop(again);
        assert!(watchers.all().is_empty());
    }

    #[test]
    fn bodies_do_not_count_as_log_and_state() {
        let folder = tempfile::tempdir().expect("a folder");
        for (sub, bytes) in [("state", 10), ("bodies", 1_000)] {
            std::fs::create_dir(folder.path().join(sub)).expect("a folder");
            std::fs::write(folder.path().join(sub).join("file"), vec![0; bytes]).expect("a file");
        }
        std::fs::write(folder.path().join("log"), [0; 5]).expect("a file");
        let disk = Disk::of(folder.path()).expect("a disk");
        assert_eq!(disk.used_bytes, 15);
        assert!(disk.size_bytes >= disk.free_bytes && disk.size_bytes > 0);
    }
}
