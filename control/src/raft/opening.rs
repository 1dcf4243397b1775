//! Opens log, mark and state, lets the gate judge them, and starts Raft.

use std::sync::Arc;

use anyhow::Context;
use openraft::{Config, SnapshotPolicy};
use proto::codec;
use tokio::sync::mpsc;

use super::{
    ELECTION_MS_MAX, ELECTION_MS_MIN, GroupConfig, HEARTBEAT_MS,
    gate::{self, Facts, Start, StateFacts},
    high_water::HighWaterFile,
    log_store::{LogFile, LogStore},
    network::{Network, Peers},
    snapshots::Snapshots,
    stamp::{Stamp, sync_folder},
    state_machine::{Standing, StateMachine},
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
    /// Ends when Raft has let go of log and state.
    pub(super) closed: mpsc::Receiver<()>,
}

/// Everything on disk, judged and stamped.
pub(super) struct Files {
    pub(super) log: LogFile,
    pub(super) mark: HighWaterFile,
    pub(super) state: Arc<StateStore>,
    pub(super) snapshots: Snapshots,
}

impl Files {
    /// Opens what is in the folder and lets the gate judge it.
    pub(super) fn open(folder: &std::path::Path, wanted: Stamp) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("create the data folder {}", folder.display()))?;
        let what = || format!("in the data folder {}", folder.display());
        let identity = Stamp::read(folder).context("read the identity file").with_context(what)?;
        let log = LogFile::open(folder).context("open the log").with_context(what)?;
        let state = StateStore::open(&folder.join("state")).with_context(what)?;
        let snapshots = Snapshots::open(folder).context("open the snapshots").with_context(what)?;
        match snapshots.recover(&state) {
            // The gate says what a store is that an unreadable snapshot has left torn.
            Err(error @ StoreError::Snapshot(_)) => tracing::error!("finish the installation of a snapshot: {error}"),
            recovered => recovered.with_context(what)?,
        }
        let (mark, file) = HighWaterFile::open(folder).context("open the high-water mark").with_context(what)?;
        let facts = Facts {
            wanted: wanted.clone(),
            identity,
            mark,
            log: log.facts().context("read the log").with_context(what)?,
            state: state_facts(&state).with_context(what)?,
        };
        let start = gate::judge(&facts).with_context(what)?;
        tracing::info!(?start, last = ?facts.log.last, applied = ?facts.state.applied, "the start-up gate lets this server pass");
        let mark = match (start, file) {
            (Start::Resume, Some(file)) => file,
            (Start::Fresh, _) | (Start::Resume, None) => stamp_all(folder, &log, &state, &wanted)?,
        };
        Ok(Self { log, mark, state: Arc::new(state), snapshots })
    }
}

fn state_facts(state: &StateStore) -> anyhow::Result<StateFacts> {
    let position = state.position()?;
    let stamp = state.stamp().map(|stamp| codec::decode("the state's stamp", &stamp)).transpose()?;
    Ok(StateFacts {
        stamp,
        applied: Standing::of(state)?.applied,
        installed: position.is_some_and(|position| position.installed),
        torn: state.is_torn(),
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
    let machine = StateMachine::new(Arc::clone(&state), files.snapshots, open.clone());
    let log = LogStore::new(files.log, files.mark, (files.state, machine.applied()), open);
    let settings = Arc::new(raft_config(cluster, config.id).validate().context("check Raft's settings")?);
    let raft = Raft::new(config.id, settings, Network(peers), log, machine.clone()).await.context("start Raft")?;
    Ok(Opened { raft, state, machine, closed })
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
