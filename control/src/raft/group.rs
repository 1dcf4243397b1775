//! The handle on the group.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use openraft::raft::AppendEntriesResponse;
use proto::{
    codec,
    mutation::{Mutation, Outcome},
};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::{
    Applied, ELECTION_MS_MAX, GroupConfig, GroupStatus, ProposeError, RaftCall, Server,
    batcher::{Batcher, Reads},
    leader::{Leader, PATIENCE, has_quorum},
    network::Peers,
    opening,
};
use crate::state::store::{StateStore, end_process};

/// A handle on the group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    server: Server,
    pub(super) leader: Leader,
    batcher: Batcher,
    reads: Reads,
    state: Arc<StateStore>,
    applied: watch::Receiver<Applied>,
    /// When a leader's entries or heartbeat were last accepted here.
    heard: Mutex<Option<Instant>>,
    stopped: AtomicBool,
    closed: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("me", &self.inner.leader.me).finish_non_exhaustive()
    }
}

impl Group {
    /// Opens log and state through the start-up gate and takes part.
    ///
    /// # Errors
    /// When the gate refuses, with the reason and the way out.
    pub async fn open(config: GroupConfig) -> anyhow::Result<Self> {
        let peers = Arc::new(Peers::new(config.credentials.clone()));
        let opened = opening::open(&config, Arc::clone(&peers)).await?;
        let leader = Leader { me: config.id, raft: opened.raft, peers, state: Arc::clone(&opened.state) };
        let applied = opened.machine.applied();
        let inner = Inner {
            server: config.server,
            batcher: Batcher::start(leader.clone(), config.batching),
            reads: Reads::start(leader.clone(), applied.clone()),
            leader,
            state: opened.state,
            applied,
            heard: Mutex::new(None),
            stopped: AtomicBool::new(false),
            closed: tokio::sync::Mutex::new(opened.closed),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who this server is.
    #[must_use]
    pub fn me(&self) -> (u64, &Server) {
        (self.inner.leader.me, &self.inner.server)
    }

    /// Makes the first membership.
    ///
    /// # Errors
    /// When there is one already, or this server is not in it.
    pub async fn form(&self, servers: BTreeMap<u64, Server>) -> anyhow::Result<()> {
        self.inner.leader.raft.initialize(servers).await.context("form the cluster")
    }

    /// Proposes a mutation, wherever the leader is, and waits until it is applied here or there: at most five seconds.
    ///
    /// # Errors
    /// See `ProposeError`; `Change::allowed_for` has been checked by the caller.
    pub async fn propose(&self, mutation: Mutation) -> Result<Outcome, ProposeError> {
        self.running()?;
        self.inner.batcher.propose(mutation).await
    }

    /// Waits until this server has applied everything that was committed before the call (one shared round for all who wait).
    ///
    /// # Errors
    /// Without a quorum.
    pub async fn linearize(&self) -> Result<(), ProposeError> {
        self.running()?;
        self.inner.reads.linearize().await
    }

    fn running(&self) -> Result<(), ProposeError> {
        if self.inner.stopped.load(Ordering::Acquire) {
            return Err(ProposeError::Stopped("it is ending".into()));
        }
        let running = self.inner.leader.raft.metrics().borrow().running_state.clone();
        running.map_err(|fatal| ProposeError::Stopped(fatal.to_string()))
    }

    /// Moves with each applied entry.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.inner.applied.clone()
    }

    /// Whether this server is the leader with a quorum, or follows one that it has heard from within an election time-out.
    #[must_use]
    pub fn in_touch(&self) -> bool {
        if self.running().is_err() {
            return false;
        }
        let metrics = self.inner.leader.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.current_leader == Some(self.inner.leader.me) {
            return has_quorum(&metrics);
        }
        let heard = *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|heard| heard.elapsed() <= Duration::from_millis(ELECTION_MS_MAX))
    }

    /// For `cluster status`.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let metrics = self.inner.leader.raft.metrics();
        let metrics = metrics.borrow();
        let matched = metrics.replication.iter().flatten();
        GroupStatus {
            leader: metrics.current_leader,
            term: metrics.current_term,
            applied_index: self.inner.applied.borrow().index,
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            quorum_age_ms: metrics.millis_since_quorum_ack,
            members: metrics.membership_config.nodes().map(|(id, server)| (*id, server.clone())).collect(),
            matched: matched.filter_map(|(id, last)| Some((*id, last.as_ref()?.index))).collect(),
        }
    }

    /// The state as applied here, for reading. Synchronous and local (memory or disk cache): call it inside `spawn_blocking`
    /// only for long scans.
    #[must_use]
    pub fn state(&self) -> &StateStore {
        &self.inner.state
    }

    /// Answers the `raft` service's calls: AppendEntries, Vote, InstallSnapshot, Forward. Cluster id and certificate have been
    /// checked by the caller.
    ///
    /// # Errors
    /// When the payload cannot be decoded, is meant for another server, or this one has stopped.
    pub async fn answer(&self, call: RaftCall, data: &[u8]) -> anyhow::Result<Vec<u8>> {
        let raft = &self.inner.leader.raft;
        self.running()?;
        Ok(match call {
            RaftCall::AppendEntries => {
                let answer = raft.append_entries(self.addressed(data)?).await;
                match &answer {
                    Ok(AppendEntriesResponse::HigherVote(_)) | Err(_) => {}
                    Ok(
                        AppendEntriesResponse::Success
                        | AppendEntriesResponse::PartialSuccess(_)
                        | AppendEntriesResponse::Conflict,
                    ) => *self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now()),
                }
                codec::encode(&answer)
            }
            RaftCall::Vote => codec::encode(&raft.vote(self.addressed(data)?).await),
            RaftCall::InstallSnapshot => codec::encode(&raft.install_snapshot(self.addressed(data)?).await),
            RaftCall::Forward => {
                let deadline = tokio::time::Instant::now() + PATIENCE;
                codec::encode(&self.inner.leader.answer(self.addressed(data)?, deadline).await)
            }
        })
    }

    /// Reads a question, and whom it is meant for: an address may have been given to another server.
    fn addressed<T: DeserializeOwned>(&self, data: &[u8]) -> anyhow::Result<T> {
        let (to, question): (u64, T) = codec::decode("a question", data)?;
        let me = self.inner.leader.me;
        anyhow::ensure!(to == me, "the question is meant for node {to}, but this is node {me}");
        Ok(question)
    }

    /// Leaves Raft and closes the files; the state stays readable until the last handle is dropped.
    pub async fn stop(&self) {
        self.inner.stopped.store(true, Ordering::Release);
        if let Err(error) = self.inner.leader.raft.shutdown().await {
            tracing::error!("stop Raft: {error}");
        }
        // Nobody sends: this ends when Raft's tasks have let go of log and state.
        while self.inner.closed.lock().await.recv().await.is_some() {}
        let state = Arc::clone(&self.inner.state);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || state.sync()).await {
            end_process("make the state durable", &error);
        }
    }
}
