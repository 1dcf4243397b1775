//! The Raft group: one handle for proposing, reading and watching.

pub mod about;
mod appends;
mod batcher;
mod clocks;
mod compaction;
mod comparing;
pub mod comparison;
mod contact;
mod election;
mod export;
pub mod gate;
mod group;
mod handover;
pub mod high_water;
mod leader;
mod lines;
pub mod log_error;
pub mod log_file;
pub mod log_store;
pub mod members;
pub mod network;
mod opening;
mod sealed;
pub mod snapshots;
pub mod speaker;
pub mod stamp;
pub mod state_machine;
#[cfg(test)]
mod tests;
mod transfer;
pub mod types;
mod watched;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use proto::identity::Credentials;
use serde::{Deserialize, Serialize};

pub use self::{
    batcher::Batching,
    group::Group,
    log_file::Piece,
    opening::{Findings, look},
};

/// Milliseconds between a leader's heartbeats.
const HEARTBEAT_MS: u64 = 150;
/// Shortest time without a heartbeat until an election, in milliseconds; sites are 10 to 40 ms apart.
const ELECTION_MS_MIN: u64 = 600;
/// Longest; also how old a quorum's last answer may be for a leader to accept writes.
const ELECTION_MS_MAX: u64 = 1_000;

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
    /// What production runs with, unless a test says otherwise.
    pub rules: Rules,
}

/// By which rules a server takes part.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Latest version of log entries that it knows.
    pub knows: u32,
    /// After so many entries the servers compare the digests of their states; at least two.
    pub compare_every: u64,
    /// When the log has grown by more, a snapshot is made that lets Raft purge it, in bytes.
    pub log_bytes_max: u64,
    /// Entries that stay in the log behind a snapshot, for servers that are only a little behind.
    pub logs_kept: u64,
    /// How much of the log is removed in one transaction.
    pub purge_piece: Piece,
    /// How long opening log and state may take at the start; a million records take seconds.
    pub open_within: Duration,
    /// How many mutations share an entry.
    pub batching: Batching,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            knows: types::PROPOSAL_VERSION,
            compare_every: 1_000,
            log_bytes_max: 256 * 1024 * 1024,
            logs_kept: 1_000,
            purge_piece: Piece::default(),
            open_within: Duration::from_secs(600),
            batching: Batching::default(),
        }
    }
}

/// How far this server has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Log index.
    pub index: u64,
    /// Policy version in force.
    pub policy_version: u64,
    /// Log index of the last change that nodes must hear of.
    pub view_index: u64,
}

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

impl ProposeError {
    /// What to report when an earlier try of the same mutation may have been written: then the last try's "nothing was
    /// written" does not hold for the whole.
    #[must_use]
    pub fn after(self, maybe_written: bool) -> Self {
        if maybe_written { Self::Unknown } else { self }
    }
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
    /// Those with a vote; the others are learners.
    pub voters: BTreeSet<u64>,
    /// The voters that each of several majorities is needed of, while a change of the membership is neither done nor given up.
    pub joint: Vec<BTreeSet<u64>>,
    /// On the leader: how far each member's log matches.
    pub matched: BTreeMap<u64, u64>,
}

/// A call of the `raft` service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaftCall {
    /// openraft's AppendEntries.
    AppendEntries,
    /// openraft's Vote.
    Vote,
    /// A whole snapshot, as a stream.
    Snapshot,
    /// What only the leader can do: commit mutations, or name a read index.
    Forward,
}
