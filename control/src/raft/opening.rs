//! Opens log, mark and state, lets the gate judge them, and starts Raft.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use anyhow::Context;
use openraft::{Config, SnapshotPolicy};
use proto::codec;
use tokio::sync::mpsc;

use super::{
    ELECTION_MS_MAX, ELECTION_MS_MIN, GroupConfig, HEARTBEAT_MS, compaction,
    comparison::{self, Comparison},
    gate::{self, Facts, Refusal, Start, StateFacts},
    high_water::HighWaterFile,
    log_store::{LogFile, LogStore},
    network::{Network, Peers},
    snapshots::Snapshots,
    stamp::{Stamp, make_folder, sync_folder},
    state_machine::{Checks, Standing, StateMachine},
    types::Raft,
};
use crate::state::store::{StateStore, StoreError};

/// A snapshot is made after about this many entries: it reads and writes the whole state.
const SNAPSHOT_EVERY: u64 = 50_000;
/// Entries that stay in the log behind a snapshot, for servers that are only a little behind.
const LOGS_KEPT: u64 = 1_000;
/// A server further behind than this is filled by a snapshot. More than `SNAPSHOT_EVERY`, or a snapshot would not help.
const LAG_MAX: u64 = 100_000;

/// What runs after the gate.
pub(super) struct Opened {
    pub(super) raft: Raft,
    pub(super) state: Arc<StateStore>,
    pub(super) machine: StateMachine,
    pub(super) comparison: Arc<Comparison>,
    /// Ends when Raft has let go of log and state.
    pub(super) closed: mpsc::Receiver<()>,
}

/// Everything on disk, judged and stamped.
pub(super) struct Files {
    pub(super) log: LogFile,
    pub(super) mark: HighWaterFile,
    pub(super) state: Arc<StateStore>,
    pub(super) snapshots: Snapshots,
    /// Length of all entries of the log, in bytes.
    pub(super) log_bytes: u64,
}

impl Files {
    /// Opens what is in the folder and lets the gate judge it.
    pub(super) fn open(folder: &std::path::Path, wanted: Stamp) -> anyhow::Result<Self> {
        make_folder(folder).with_context(|| format!("create the data folder {}", folder.display()))?;
        let what = || format!("in the data folder {}", folder.display());
        let identity = Stamp::read(folder).context("read the identity file").with_context(what)?;
        let log = readable("the log", || LogFile::open(folder)).with_context(what)?;
        let log_facts = readable("the log", || log.facts()).with_context(what)?;
        let state = readable("the state", || StateStore::open(&folder.join("state"))).with_context(what)?;
        let snapshots = Snapshots::open(folder).context("open the snapshots").with_context(what)?;
        readable("the state", || match snapshots.recover(&state) {
            // The gate says what a store is that an unreadable snapshot has left torn.
            Err(error @ StoreError::Snapshot(_)) => {
                tracing::error!("finish the installation of a snapshot: {error}");
                Ok(())
            }
            recovered => recovered,
        })
        .with_context(what)?;
        let (mark, file) = HighWaterFile::open(folder).context("open the high-water mark").with_context(what)?;
        let diverged = comparison::left(folder).context("read why this server has left").with_context(what)?;
        let log_bytes = log_facts.bytes;
        let facts = Facts {
            wanted: wanted.clone(),
            identity,
            mark,
            log: log_facts,
            state: readable("the state", || state_facts(&state, diverged)).with_context(what)?,
        };
        let start = gate::judge(&facts).with_context(what)?;
        tracing::info!(?start, last = ?facts.log.last, applied = ?facts.state.applied, "the start-up gate lets this server pass");
        let mark = match (start, file) {
            (Start::Resume, Some(file)) => file,
            (Start::Fresh, _) | (Start::Resume, None) => stamp_all(folder, &log, &state, &wanted)?,
        };
        Ok(Self { log, mark, state: Arc::new(state), snapshots, log_bytes })
    }
}

/// Opens or reads what may be damaged. redb and sled panic at some damage and report other; both come out as a refusal with
/// the way out. What the operating system says (locked, no permission, disk full) is told as it is.
fn readable<T, E: Into<anyhow::Error>>(what: &'static str, read: impl FnOnce() -> Result<T, E>) -> anyhow::Result<T> {
    let problem = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => {
            let error = error.into();
            let text = format!("{error:#}");
            if ["acquire lock", "os error"].iter().any(|said| text.contains(said)) {
                return Err(error.context(format!("open {what}")));
            }
            text
        }
        Err(panic) => told(&*panic),
    };
    Err(Refusal::Unreadable { what, problem }.into())
}

/// The words of a panic.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it broke off without words").to_owned()
}

fn state_facts(state: &StateStore, diverged: Option<String>) -> anyhow::Result<StateFacts> {
    // First, because it reports what cannot be read, where a single read would end the process.
    let found = state.measure()?;
    let position = state.position()?;
    let kept = position.as_ref().map_or_else(Default::default, |position| position.digest);
    let stamp = state.stamp().map(|stamp| codec::decode("the state's stamp", &stamp)).transpose()?;
    Ok(StateFacts {
        stamp,
        applied: Standing::of(state)?.applied,
        installed: position.is_some_and(|position| position.installed),
        torn: state.is_torn(),
        digests: (kept, found),
        diverged,
    })
}

/// Stamps a new folder; the identity file comes last, because from then on the gate expects the others.
fn stamp_all(
    folder: &std::path::Path,
    log: &LogFile,
    state: &StateStore,
    stamp: &Stamp,
) -> anyhow::Result<HighWaterFile> {
    log.set_stamp(stamp).context("stamp the log")?;
    state.set_stamp(&codec::encode(stamp)).context("stamp the state")?;
    let mark = HighWaterFile::create(folder, stamp.clone()).context("create the high-water mark")?;
    sync_folder(folder).context("fsync the data folder")?;
    stamp.write(folder).context("write the identity file")?;
    Ok(mark)
}

/// Opens the files and starts Raft on them.
pub(super) async fn open(config: &GroupConfig, peers: Arc<Peers>) -> anyhow::Result<Opened> {
    let cluster = config.credentials.identity.cluster.clone();
    let stamp = Stamp::new(&cluster, config.id);
    let folder = config.data_dir.clone();
    // Recovery may read everything: not on a worker thread.
    let files = tokio::task::spawn_blocking(move || Files::open(&folder, stamp)).await??;
    let (open, closed) = mpsc::channel(1);
    let state = Arc::clone(&files.state);
    let (used, knows) = (Standing::of(&state)?.used, config.rules.knows);
    if used > knows {
        return Err(Refusal::Newer { used, knows }.into());
    }
    let comparison = Arc::new(Comparison::new(config.id, &config.data_dir, config.rules.compare_every));
    let checks = Checks { knows, comparison: Arc::clone(&comparison) };
    let machine = StateMachine::new(Arc::clone(&state), files.snapshots, checks, open.clone());
    let log = LogStore::new(files.log, files.mark, (files.state, machine.applied()), open);
    let settings = Arc::new(raft_config(cluster, config.id).validate().context("check Raft's settings")?);
    let appended = log.appended();
    let raft = Raft::new(config.id, settings, Network(peers), log, machine.clone()).await.context("start Raft")?;
    tokio::spawn(compaction::run(raft.clone(), files.log_bytes, appended, config.rules.log_bytes_max));
    Ok(Opened { raft, state, machine, comparison, closed })
}

/// How many entries this server lets come before it makes a snapshot: 10 % more or less, so that the servers of a group, who
/// see the same entries, do not all write one at the same time. 8 and 21 have no common factor: up to 21 ids differ.
fn snapshot_every(id: u64) -> u64 {
    SNAPSHOT_EVERY / 100 * (90 + (id % 21) * 8 % 21)
}

fn raft_config(cluster_name: String, id: u64) -> Config {
    Config {
        cluster_name,
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every(id)),
        max_in_snapshot_log_to_keep: LOGS_KEPT,
        replication_lag_threshold: LAG_MAX,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{LAG_MAX, SNAPSHOT_EVERY, snapshot_every};

    #[test]
    fn the_servers_of_a_group_make_their_snapshots_at_different_entries() {
        let all: BTreeSet<u64> = (1..=9).map(snapshot_every).collect();
        assert_eq!(all.len(), 9);
        let (least, most) = (SNAPSHOT_EVERY / 10 * 9, SNAPSHOT_EVERY / 10 * 11);
        assert!(all.iter().all(|every| (least..=most).contains(every) && *every < LAG_MAX), "{all:?}");
    }
}
