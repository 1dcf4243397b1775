//! The Raft group: one handle for proposing, reading and watching.

use std::{collections::BTreeMap, path::PathBuf};

use proto::{
    identity::Credentials,
    mutation::{Mutation, Outcome},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A control server as the membership names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Name in its certificate.
    pub name: String,
    /// Where it stands.
    pub site: String,
    /// `host:port` of its gRPC listener.
    pub address: String,
}

/// What a server needs to be a member.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Raft node id; never used again after the server is lost.
    pub id: u64,
    /// Name, site, address.
    pub server: Server,
    /// Folder of log and state.
    pub data_dir: PathBuf,
    /// Who it is, and the cluster.
    pub credentials: Credentials,
}

/// How far this server has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Log index.
    pub index: u64,
    /// Policy version in force.
    pub policy_version: u64,
}

/// Why a proposal has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written; another try may do.
    #[error("no leader is known: a majority of the control servers must be up and reach each other")]
    NoLeader,
    /// It may yet come to be; the same mutation id may be proposed again without harm.
    #[error("no quorum answered in time: the change may or may not come to be; ask again")]
    Unknown,
    /// The server is ending or refuses to take part.
    #[error("this control server is out of service: {0}")]
    Stopped(String),
}

/// What `cluster status` shows.
#[derive(Clone, Debug, Default)]
pub struct GroupStatus {
    /// The leader's id, while one is known.
    pub leader: Option<u64>,
    /// Raft term.
    pub term: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Index of the last entry in the log.
    pub last_log_index: u64,
    /// On the leader: since a majority last answered.
    pub quorum_age_ms: Option<u64>,
    /// Members by id.
    pub members: BTreeMap<u64, Server>,
    /// On the leader: how far each member's log matches.
    pub matched: BTreeMap<u64, u64>,
}

/// A handle on the group. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Group {}

impl Group {
    /// Opens log and state through the start-up gate and takes part.
    ///
    /// # Errors
    /// When the gate refuses, with the reason and the way out.
    pub async fn open(_config: GroupConfig) -> anyhow::Result<Self> {
        todo!()
    }

    /// Who this server is.
    #[must_use]
    pub fn me(&self) -> (u64, &Server) {
        todo!()
    }

    /// Makes the first membership.
    ///
    /// # Errors
    /// When there is one already.
    pub async fn form(&self, _servers: BTreeMap<u64, Server>) -> anyhow::Result<()> {
        todo!()
    }

    /// Proposes a mutation, wherever the leader is, and waits until it is applied here or there.
    ///
    /// # Errors
    /// See `ProposeError`; `Change::allowed_for` has been checked by the caller.
    pub async fn propose(&self, _mutation: Mutation) -> Result<Outcome, ProposeError> {
        todo!()
    }

    /// Waits until this server has applied everything that was committed before the call (one shared round for all who wait).
    ///
    /// # Errors
    /// Without a quorum.
    pub async fn linearize(&self) -> Result<(), ProposeError> {
        todo!()
    }

    /// Moves with each applied entry.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Applied> {
        todo!()
    }

    /// Whether this server is the leader with a quorum, or follows one that it has heard from within an election time-out.
    #[must_use]
    pub fn in_touch(&self) -> bool {
        todo!()
    }

    /// For `cluster status`.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        todo!()
    }

    /// The state as applied here, for reading. Synchronous and local (memory or disk cache): call it inside `spawn_blocking`
    /// only for long scans.
    #[must_use]
    pub fn state(&self) -> &crate::state::store::StateStore {
        todo!()
    }

    /// Answers the `raft` service's calls: AppendEntries, Vote, InstallSnapshot, Forward. Cluster id and certificate have been
    /// checked by the caller.
    ///
    /// # Errors
    /// When the payload cannot be decoded or Raft refuses.
    pub async fn answer(&self, _call: RaftCall, _data: &[u8]) -> anyhow::Result<Vec<u8>> {
        todo!()
    }

    /// Leaves Raft and closes the files.
    pub async fn stop(&self) {
        todo!()
    }
}

/// A call of the `raft` service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftCall {
    /// openraft's AppendEntries.
    AppendEntries,
    /// openraft's Vote.
    Vote,
    /// openraft's InstallSnapshot.
    InstallSnapshot,
    /// Mutations on their way to the leader.
    Forward,
}
