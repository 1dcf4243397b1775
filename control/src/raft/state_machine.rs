//! Applies committed entries to the state, and makes and installs snapshots of it.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, storage::RaftStateMachine,
};
use proto::codec;
use serde::{Deserialize, Serialize};
use tempfile::TempPath;
use tokio::sync::{mpsc, watch};

use super::{
    Applied, Server,
    snapshots::Snapshots,
    types::{Entry, LogId, Membership, Outcomes, PROPOSAL_VERSION, StorageError, StorageIOError, TypeConfig},
};
use crate::state::{
    State,
    keys::Writes,
    store::{Position, StateStore, StoreError, end_process},
};

/// What Raft wants kept together with the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) applied: Option<LogId>,
    pub(super) membership: Membership,
}

impl Standing {
    /// Reads it out of the store; the default before the first entry.
    pub(super) fn of(state: &StateStore) -> Result<Self, StoreError> {
        Self::within(state.position()?.as_ref())
    }

    fn within(position: Option<&Position>) -> Result<Self, StoreError> {
        let decoded = position.map(|position| codec::decode("Raft's standing", &position.raft)).transpose();
        decoded.map(Option::unwrap_or_default).map_err(crate::state::store::disk("read the state's position"))
    }

    fn position(&self) -> Position {
        let index = self.applied.map_or(0, |id| id.index);
        Position { index, raft: codec::encode(self), installed: false }
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
    applied: watch::Sender<Applied>,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    meta: SnapshotMeta<u64, Server>,
    path: TempPath,
}

/// Why an entry cannot be applied.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the entry at {0} is of version {1}, which this server does not know: update it")]
    Version(u64, u32),
}

impl StateMachine {
    /// Over a state that the gate has let pass.
    #[must_use]
    pub fn new(state: Arc<StateStore>, snapshots: Snapshots, open: mpsc::Sender<()>) -> Self {
        let applied = watch::Sender::new(Applied::default());
        let this =
            Self { inner: Arc::new(Inner { state, snapshots, applied, current: Mutex::new(None) }), _open: open };
        this.inner.announce();
        this
    }

    /// Moves with each applied entry.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.inner.applied.subscribe()
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
            let (writes, outcomes) = match entry.payload {
                EntryPayload::Blank => (Writes::default(), Vec::new()),
                EntryPayload::Membership(membership) => {
                    standing.membership = Membership::new(Some(entry.log_id), membership);
                    (Writes::default(), Vec::new())
                }
                EntryPayload::Normal(proposal) if proposal.version != PROPOSAL_VERSION => {
                    return Err(ApplyError::Version(index, proposal.version));
                }
                EntryPayload::Normal(proposal) => State::apply(&*self.state, index, &proposal.batch),
            };
            self.state.commit(&writes, &standing.position())?;
            answers.push(Outcomes(outcomes));
        }
        self.announce();
        Ok(answers)
    }

    /// Makes a snapshot the current one unless a later one is there.
    fn keep(&self, position: &Position, path: TempPath) -> Result<SnapshotMeta<u64, Server>, StoreError> {
        let standing = Standing::within(Some(position).filter(|position| !position.raft.is_empty()))?;
        let id = ulid::Ulid::new();
        let meta = SnapshotMeta {
            last_log_id: standing.applied,
            last_membership: standing.membership,
            snapshot_id: format!("{}-{id}", position.index),
        };
        let mut current = self.current();
        if current.as_ref().is_none_or(|current| current.meta.last_log_id <= meta.last_log_id) {
            *current = Some(Current { meta: meta.clone(), path });
        }
        Ok(meta)
    }

    fn build(&self) -> Result<(SnapshotMeta<u64, Server>, File), ApplyError> {
        let (position, path) = self.snapshots.export(&self.state)?;
        let file = open(&path)?;
        // Raft may purge the log up to here from now on.
        self.state.sync()?;
        Ok((self.keep(&position, path)?, file))
    }

    fn install(&self, received: File) -> Result<(), ApplyError> {
        let (position, path) = self.snapshots.install(&self.state, received)?;
        *self.current() = None;
        self.keep(&position, path)?;
        self.announce();
        Ok(())
    }
}

fn open(path: &TempPath) -> Result<File, StoreError> {
    File::open(path).map_err(crate::state::store::disk("open a snapshot"))
}

fn snapshot(meta: SnapshotMeta<u64, Server>, file: File) -> Snapshot<TypeConfig> {
    Snapshot { meta, snapshot: Box::new(tokio::fs::File::from_std(file)) }
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

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<tokio::fs::File>, StorageError> {
        let file = self.inner.snapshots.receiving();
        let file = file.map_err(|error: io::Error| StorageIOError::write_snapshot(None, AnyError::new(&error)))?;
        Ok(Box::new(tokio::fs::File::from_std(file)))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, Server>,
        snapshot: Box<tokio::fs::File>,
    ) -> Result<(), StorageError> {
        let received = snapshot.into_std().await;
        self.working("install a snapshot", move |inner| inner.install(received)).await?;
        // The snapshot that others can ask for is named as the leader named it.
        if let Some(current) = self.inner.current().as_mut() {
            current.meta = meta.clone();
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.inner.current();
        let Some(current) = current.as_ref() else { return Ok(None) };
        let file = open(&current.path);
        let file = file.map_err(|error| StorageIOError::read_snapshot(None, AnyError::new(&error)))?;
        Ok(Some(snapshot(current.meta.clone(), file)))
    }
}
