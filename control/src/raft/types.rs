//! What openraft is told about our entries, answers and members.

use proto::mutation::{Batch, Outcome};
use serde::{Deserialize, Serialize};

use super::{Server, snapshots::SnapshotFile};

/// Version of what an entry carries. A server that reads a later one stops applying instead of guessing.
pub(super) const PROPOSAL_VERSION: u32 = 1;

/// What one entry carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Version of the meaning of `batch`.
    pub version: u32,
    /// The mutations, with the leader's clock.
    pub batch: Batch,
}

/// What became of an entry's mutations, in order; empty for Raft's own entries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcomes(pub Vec<Outcome>);

openraft::declare_raft_types!(
    /// The types of this Raft group.
    pub TypeConfig:
        D = Proposal,
        R = Outcomes,
        NodeId = u64,
        Node = Server,
        SnapshotData = SnapshotFile,
);

pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type Raft = openraft::Raft<TypeConfig>;
pub(super) type Membership = openraft::StoredMembership<u64, Server>;
pub(super) type StorageError = openraft::StorageError<u64>;
pub(super) type StorageIOError = openraft::StorageIOError<u64>;
