//! What openraft is told about our entries, answers and members.

use std::{collections::BTreeMap, fmt};

use proto::{
    codec,
    mutation::{Batch, Outcome},
};
use serde::{Deserialize, Serialize};

use super::{Server, snapshots::SnapshotFile};
use crate::state::digest::StateDigest;

/// Latest version of entries that this program knows. Version 1 carries mutations, 2 also what servers tell each other about
/// versions and digests, 3 backups and restores, 4 the worst score of a client,
/// 5 what is asked of clients before they have sent a message, 6 envelopes with UTF-8 and with what the sender asked of every
/// server, 7 policy that has mail scanned again, with the kinds `macro`, `active` and `encrypted` and with fingerprints, 8 policy
/// about the content of messages, with rules that people write, 9 policy about single attachments,
/// lessons and what a cluster has learnt from them.
pub(super) const PROPOSAL_VERSION: u32 = 9;
/// What a server must know to take part in comparisons.
pub(super) const DIGESTS_VERSION: u32 = 2;

/// What one entry carries: its version in front of bytes that only those look into who know it. So a server can keep, and
/// pass on, what it cannot read.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    version: u32,
    #[serde(with = "serde_bytes")]
    contents: Vec<u8>,
}

/// Never the contents: they may hold subjects and recipients.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal(version {}, {} bytes)", self.version, self.contents.len())
    }
}

/// What an entry means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Contents {
    /// The mutations, with the leader's clock.
    Batch(Batch),
    /// All members know this version: from now on it needs no asking, also not while one of them is away.
    Knows(u32),
    /// The digests of the voters' states at an earlier index.
    Digests {
        /// Log index.
        at: u64,
        /// By node id; who did not answer is missing.
        found: BTreeMap<u64, StateDigest>,
    },
}

impl Contents {
    /// What a server must know to apply this.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self {
            Self::Batch(batch) => batch.mutations.iter().map(|mutation| mutation.change.version()).max().unwrap_or(1),
            Self::Knows(version) => *version,
            Self::Digests { .. } => DIGESTS_VERSION,
        }
    }
}

/// Why an entry cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Of a later version of Postern.
    #[error("it is of version {version}, and this server knows versions up to {knows}: update this server")]
    Version {
        /// The entry's.
        version: u32,
        /// The server's.
        knows: u32,
    },
    /// Not what the version says.
    #[error(transparent)]
    Decode(#[from] codec::DecodeError),
}

impl Proposal {
    /// Encodes the contents.
    #[must_use]
    pub fn new(contents: &Contents) -> Self {
        Self { version: contents.version(), contents: codec::encode(contents) }
    }

    /// What a server must know to read this.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Looks at the version, then decodes.
    ///
    /// # Errors
    /// When the server does not know the version, or the bytes are not what it says.
    pub fn read(&self, knows: u32) -> Result<Contents, ReadError> {
        if self.version > knows {
            return Err(ReadError::Version { version: self.version, knows });
        }
        Ok(codec::decode("the contents of an entry", &self.contents)?)
    }

    /// What a later version of Postern might write.
    #[cfg(test)]
    pub(super) fn unknown(version: u32) -> Self {
        Self { version, contents: b"nobody can read this yet".to_vec() }
    }
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
