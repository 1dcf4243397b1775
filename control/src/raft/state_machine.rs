//! Applies committed entries to the state, and makes and installs snapshots of it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, storage::RaftStateMachine,
};
use proto::{codec, mutation::Outcome};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::{
    Applied, Server,
    comparison::Comparison,
    gate::Refusal,
    snapshots::{SnapshotFile, Snapshots},
    types::{
        Contents, Entry, LogId, Membership, Outcomes, Proposal, ReadError, StorageError, StorageIOError, TypeConfig,
    },
};
use crate::state::{
    State,
    keys::Writes,
    store::{Position, Reading, StateStore, StoreError, end_process},
};

/// What Raft wants kept together with the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) applied: Option<LogId>,
    pub(super) membership: Membership,
    /// Latest version of an entry that was applied.
    #[serde(default)]
    pub(super) used: u32,
}

impl Standing {
    /// Reads it out of the store; the default before the first entry.
    pub(super) fn of(state: &StateStore) -> Result<Self, StoreError> {
        Self::within(state.position()?.as_ref())
    }

    pub(super) fn within(position: Option<&Position>) -> Result<Self, StoreError> {
        let decoded = position.map(|position| codec::decode("Raft's standing", &position.raft)).transpose();
        decoded.map(Option::unwrap_or_default).map_err(crate::state::store::disk("read the state's position"))
    }

    fn position(&self) -> Position {
        let index = self.applied.map_or(0, |id| id.index);
        Position { index, raft: codec::encode(self), ..Position::default() }
    }
}

/// The state machine as openraft uses it; also its own snapshot builder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StateMachine {
    inner: Arc<Inner>,
    /// Kept so that `Group::stop` can see when the last user of the state is gone.
    _open: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    state: Arc<StateStore>,
    snapshots: Snapshots,
    checks: Checks,
    applied: watch::Sender<Applied>,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    meta: SnapshotMeta<u64, Server>,
    file: SnapshotFile,
}

/// What a state machine holds the log and its own state to.
#[derive(Clone, Debug)]
pub struct Checks {
    /// Latest version of entries that may be applied.
    pub knows: u32,
    /// With the other servers.
    pub comparison: Arc<Comparison>,
}

/// Why an entry cannot be applied.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("apply the entry at {0}: {1}")]
    Entry(u64, ReadError),
    /// From now on the start-up gate says the same.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl StateMachine {
    /// Over a state that the gate has let pass.
    #[must_use]
    pub fn new(state: Arc<StateStore>, snapshots: Snapshots, checks: Checks, open: mpsc::Sender<()>) -> Self {
        let applied = watch::Sender::new(Applied::default());
        let inner = Inner { state, snapshots, checks, applied, current: Mutex::new(None) };
        let this = Self { inner: Arc::new(inner), _open: open };
        this.inner.announce();
        this
    }

    #[cfg(test)]
    pub(super) fn digest(&self) -> crate::state::digest::StateDigest {
        self.inner.state.digest()
    }

    /// Moves with each applied entry.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.inner.applied.subscribe()
    }

    /// A file for a snapshot that another server sends.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn receiving(&self) -> io::Result<(std::fs::File, tempfile::TempPath)> {
        self.inner.snapshots.receiving()
    }

    /// Runs beside the runtime's worker threads, because sled may wait for the disk and for a snapshot being written.
    /// When the disk fails the process ends.
    async fn working<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, ApplyError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(ApplyError::Store(error @ StoreError::Disk { .. }))) => end_process(what, &error),
            Ok(Err(error)) => {
                tracing::error!("{what}: {error}; this server leaves Raft");
                Err(StorageIOError::write_state_machine(AnyError::new(&error)).into())
            }
            Err(error) if error.is_cancelled() => {
                Err(StorageIOError::write_state_machine(AnyError::new(&error)).into())
            }
            Err(error) => end_process(what, &error),
        }
    }
}

impl Inner {
    fn announce(&self) {
        let position = self.state.position().unwrap_or_else(|error| end_process("read the state", &error));
        let index = position.map_or(0, |position| position.index);
        let (policy_version, view_index) = (self.state.policy_version(), self.state.view_index());
        self.applied.send_replace(Applied { index, policy_version, view_index });
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, entries: Vec<Entry>) -> Result<Vec<Outcomes>, ApplyError> {
        let mut standing = Standing::of(&self.state)?;
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            standing.applied = Some(entry.log_id);
            let index = entry.log_id.index;
            let reading = self.state.reading();
            let (writes, outcomes) = match entry.payload {
                EntryPayload::Blank => (Writes::default(), Vec::new()),
                EntryPayload::Membership(membership) => {
                    standing.membership = Membership::new(Some(entry.log_id), membership);
                    (Writes::default(), Vec::new())
                }
                EntryPayload::Normal(proposal) => self.normal(&reading, index, &proposal, &mut standing)?,
            };
            let digest = reading.commit(&writes, &standing.position())?;
            self.checks.comparison.remember(index, digest);
            answers.push(Outcomes(outcomes));
        }
        self.announce();
        Ok(answers)
    }

    /// What an entry of ours wants written.
    fn normal(
        &self,
        reading: &Reading<'_>,
        index: u64,
        proposal: &Proposal,
        standing: &mut Standing,
    ) -> Result<(Writes, Vec<Outcome>), ApplyError> {
        let contents = proposal.read(self.checks.knows).map_err(|error| ApplyError::Entry(index, error))?;
        standing.used = standing.used.max(proposal.version());
        match contents {
            Contents::Batch(batch) => return Ok(State::apply(reading, index, &batch)),
            Contents::Knows(_) => {}
            Contents::Digests { at, found } => {
                let voters = standing.membership.membership().voter_ids().collect();
                if let Some(why) = self.checks.comparison.judge(at, &found, &voters)? {
                    return Err(Refusal::Diverged(why).into());
                }
            }
        }
        Ok(Default::default())
    }

    /// Makes a snapshot the current one unless a later one is there.
    fn keep(&self, position: &Position, file: SnapshotFile) -> Result<SnapshotMeta<u64, Server>, StoreError> {
        let standing = Standing::within(Some(position).filter(|position| !position.raft.is_empty()))?;
        let id = ulid::Ulid::new();
        let meta = SnapshotMeta {
            last_log_id: standing.applied,
            last_membership: standing.membership,
            snapshot_id: format!("{}-{id}", position.index),
        };
        let mut current = self.current();
        if current.as_ref().is_none_or(|current| current.meta.last_log_id <= meta.last_log_id) {
            *current = Some(Current { meta: meta.clone(), file });
        }
        Ok(meta)
    }

    fn build(&self) -> Result<(SnapshotMeta<u64, Server>, SnapshotFile), ApplyError> {
        let (position, file) = self.snapshots.export(&self.state)?;
        // Raft may purge the log up to here from now on.
        self.state.sync()?;
        Ok((self.keep(&position, file.clone())?, file))
    }

    fn install(&self, received: SnapshotFile) -> Result<(), ApplyError> {
        let position = self.snapshots.install(&self.state, &received)?;
        *self.current() = None;
        let Standing { used, .. } = Standing::within(Some(&position))?;
        let knows = self.checks.knows;
        if used > knows {
            return Err(Refusal::Newer { used, knows }.into());
        }
        self.keep(&position, received)?;
        self.announce();
        Ok(())
    }
}

fn snapshot(meta: SnapshotMeta<u64, Server>, file: SnapshotFile) -> Snapshot<TypeConfig> {
    Snapshot { meta, snapshot: Box::new(file) }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (meta, file) = self.working("build a snapshot", Inner::build).await?;
        Ok(snapshot(meta, file))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let standing = Standing::of(&self.inner.state);
        let standing = standing.map_err(|error| StorageIOError::read_state_machine(AnyError::new(&error)))?;
        Ok((standing.applied, standing.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.working("apply the log", move |inner| inner.apply(entries)).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        let file = self.receiving();
        let (_, path) = file.map_err(|error: io::Error| StorageIOError::write_snapshot(None, AnyError::new(&error)))?;
        Ok(Box::new(SnapshotFile::new(path)))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, Server>,
        snapshot: Box<SnapshotFile>,
    ) -> Result<(), StorageError> {
        self.working("install a snapshot", move |inner| inner.install(*snapshot)).await?;
        // The snapshot that others can ask for is named as the leader named it.
        if let Some(current) = self.inner.current().as_mut() {
            current.meta = meta.clone();
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.inner.current();
        Ok(current.as_ref().map(|current| snapshot(current.meta.clone(), current.file.clone())))
    }
}
