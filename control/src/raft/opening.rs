//! Opens log, mark and state, lets the gate judge them, and starts Raft.

use std::{io, path::Path, sync::Arc};

use anyhow::Context;
use openraft::{Config, SnapshotPolicy};
use proto::codec;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    ELECTION_MS_MAX, ELECTION_MS_MIN, GroupConfig, HEARTBEAT_MS, compaction,
    comparison::{self, Comparison},
    gate::{self, Facts, Refusal, Start, StateFacts},
    high_water::{self, HighWaterFile},
    log_file::{self, LogFile},
    log_store::LogStore,
    network::{Network, Peers},
    snapshots::Snapshots,
    stamp::{self, Stamp, make_folder, sync_folder},
    state_machine::{Checks, Standing, StateMachine},
    types::{LogId, Raft, Vote},
    watched::{self, Step},
};
use crate::state::store::{StateStore, StoreError};

/// A snapshot is made after about this many entries: it reads and writes the whole state.
const SNAPSHOT_EVERY: u64 = 50_000;
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

/// Name of the folder of the state in the data folder.
const STATE: &str = "state";

/// What lies in a data folder, opened and not judged yet.
struct Found {
    log: LogFile,
    mark: Option<HighWaterFile>,
    state: StateStore,
    snapshots: Snapshots,
    facts: Facts,
    /// Latest version of an entry that was applied.
    used: u32,
}

impl Found {
    fn open(folder: &Path, wanted: Stamp, step: &Step) -> anyhow::Result<Self> {
        let identity = step.read("the identity file", || Stamp::read(folder))?;
        let log = step.read("the log", || LogFile::open(folder))?;
        let log_facts = step.read("the log", || log.facts())?;
        let state = step.read("the state", || StateStore::open(&folder.join(STATE)))?;
        let snapshots = step.read("the snapshots", || Snapshots::open(folder))?;
        step.read("the state", || match snapshots.recover(&state) {
            // The gate says what a store is that an unreadable snapshot has left torn.
            Err(error @ StoreError::Snapshot(_)) => {
                tracing::error!("finish the installation of a snapshot: {error}");
                Ok(())
            }
            recovered => recovered,
        })?;
        let (found, mark) = step.read("the high-water mark", || HighWaterFile::open(folder))?;
        let diverged = step.read("why this server has left", || comparison::left(folder))?;
        let (state_facts, used) = step.read("the state", || state_facts(&state, diverged))?;
        let facts = Facts { wanted, identity, mark: found, log: log_facts, state: state_facts };
        Ok(Self { log, mark, state, snapshots, facts, used })
    }

    /// Whether this server may take part: what the gate says, and whether it knows all that was applied.
    fn judge(&self, knows: u32) -> Result<Start, Refusal> {
        let start = gate::judge(&self.facts)?;
        if self.used > knows { Err(Refusal::Newer { used: self.used, knows }) } else { Ok(start) }
    }
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
    /// Opens what is in the folder and lets the gate judge it, for a server that knows entries up to version `knows`.
    pub(super) fn open(folder: &Path, wanted: Stamp, knows: u32, step: &Step) -> anyhow::Result<Self> {
        make_folder(folder).with_context(|| format!("create the data folder {}", folder.display()))?;
        Self::open_made(folder, wanted, knows, step).with_context(|| format!("in the data folder {}", folder.display()))
    }

    fn open_made(folder: &Path, wanted: Stamp, knows: u32, step: &Step) -> anyhow::Result<Self> {
        let found = Found::open(folder, wanted.clone(), step)?;
        let start = found.judge(knows)?;
        let Found { log, mark, state, snapshots, facts, .. } = found;
        tracing::info!(?start, last = ?facts.log.last, applied = ?facts.state.applied, "the start-up gate lets this server pass");
        let mark = match (start, mark) {
            (Start::Resume, Some(mark)) => mark,
            (Start::Fresh, _) | (Start::Resume, None) => stamp_all(folder, &log, &state, &wanted)?,
        };
        Ok(Self { log, mark, state: Arc::new(state), snapshots, log_bytes: facts.log.bytes })
    }
}

/// What a look at a data folder has found that a server may start with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Whose folder, as it names itself; `None` when it is new.
    pub owner: Option<Stamp>,
    /// The last vote.
    pub vote: Option<Vote>,
    /// The last entry of the log.
    pub last: Option<LogId>,
    /// The last entry that was purged from the log.
    pub purged: Option<LogId>,
    /// CRC-32 of all entries that are in the log, as they are stored.
    pub checksum: u32,
    /// The last entry that the state has applied.
    pub applied: Option<LogId>,
    /// Digest of all that is in the state; that kept with the state is the same.
    pub digest: String,
}

/// Opens a data folder and judges it as a start does, and does not take part. What a start finishes (the installation of a
/// snapshot that was interrupted, a repair that redb makes) is finished.
///
/// # Errors
/// When a server would not start: the reason and the way out.
pub async fn look(config: &GroupConfig) -> anyhow::Result<Findings> {
    let stamp = Stamp::new(&config.credentials.identity.cluster, config.id);
    let (folder, knows) = (config.data_dir.clone(), config.rules.knows);
    let what = format!("in the data folder {}", folder.display());
    let looked = watched::within(config.rules.open_within, move |step| {
        anyhow::ensure!(folder.is_dir(), "there is no such folder: correct the key data");
        is_not_just_empty(&folder, stamp.node)?;
        let found = Found::open(&folder, stamp, step)?;
        found.judge(knows)?;
        let Facts { identity, log, state, .. } = found.facts;
        Ok(Findings {
            owner: identity,
            vote: log.vote,
            last: log.last,
            purged: log.purged,
            checksum: log.checksum,
            applied: state.applied,
            digest: state.digests.1.to_string(),
        })
    });
    looked.await.context(what)
}

/// Refuses a folder that no server has begun with and none is said to begin with. What else may be missing is for the gate.
fn is_not_just_empty(folder: &Path, node: u64) -> Result<(), Refusal> {
    let begun = [stamp::FILE, high_water::FILE, log_file::FILE, STATE].iter().any(|name| folder.join(name).exists());
    let new = stamp::new_server(folder);
    if begun || new.exists() {
        return Ok(());
    }
    Err(Refusal::Empty { node, new: new.display().to_string() })
}

/// A first start that was killed may leave a log that is none yet. Nothing was promised then: the identity file is written last,
/// the high-water mark before it, and the folder is still said to be new.
fn clear_first_start(folder: &Path) -> io::Result<()> {
    let begun = [stamp::FILE, high_water::FILE].iter().any(|name| folder.join(name).exists());
    if begun || !stamp::new_server(folder).exists() {
        return Ok(());
    }
    let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    std::fs::remove_file(folder.join(log_file::FILE)).or_else(absent)?;
    std::fs::remove_dir_all(folder.join(STATE)).or_else(absent)
}

/// With the latest version of an entry that was applied.
fn state_facts(state: &StateStore, diverged: Option<String>) -> anyhow::Result<(StateFacts, u32)> {
    let found = state.measure()?;
    let position = state.position()?;
    let kept = position.as_ref().map_or_else(Default::default, |position| position.digest);
    let stamp = state.stamp()?.map(|stamp| codec::decode("the state's stamp", &stamp)).transpose()?;
    let Standing { applied, used, .. } = Standing::within(position.as_ref())?;
    let facts = StateFacts {
        stamp,
        applied,
        installed: position.is_some_and(|position| position.installed),
        torn: state.is_torn()?,
        digests: (kept, found),
        diverged,
    };
    Ok((facts, used))
}

/// Stamps a new folder; the identity file comes last, because from then on the gate expects the others.
fn stamp_all(folder: &Path, log: &LogFile, state: &StateStore, stamp: &Stamp) -> anyhow::Result<HighWaterFile> {
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
    let knows = config.rules.knows;
    let files = watched::within(config.rules.open_within, move |step| {
        is_not_just_empty(&folder, stamp.node).with_context(|| format!("in the data folder {}", folder.display()))?;
        clear_first_start(&folder).context("remove what a first start has left that did not come to its end")?;
        let files = Files::open(&folder, stamp, knows, step)?;
        stamp::used(&folder).context("say that the data folder is in use")?;
        anyhow::Ok(files)
    });
    let files = files.await?;
    let (open, closed) = mpsc::channel(1);
    let state = Arc::clone(&files.state);
    let comparison = Arc::new(Comparison::new(config.id, &config.data_dir, config.rules.compare_every));
    let checks = Checks { knows, comparison: Arc::clone(&comparison) };
    let machine = StateMachine::new(Arc::clone(&state), files.snapshots, checks, open.clone());
    let log = LogStore::new((files.log, files.mark, config.rules.purge_piece), (files.state, machine.applied()), open)
        .context("read the log")?;
    let settings = Arc::new(raft_config(cluster, config).validate().context("check Raft's settings")?);
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

fn raft_config(cluster_name: String, config: &GroupConfig) -> Config {
    Config {
        cluster_name,
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every(config.id)),
        max_in_snapshot_log_to_keep: config.rules.logs_kept,
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
