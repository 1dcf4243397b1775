//! The handle on the group.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::Context;
use futures::{Stream, StreamExt as _};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use proto::{
    codec,
    mutation::{Mutation, Outcome},
    time::UnixMs,
    wire::raft::SnapshotChunk,
};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::{
    Applied, GroupConfig, GroupStatus, ProposeError, RaftCall, Server,
    about::{AskVitals, Watchers},
    batcher::{Batcher, Reads},
    comparing, comparison, election,
    gate::Refusal,
    leader::{Answer, Ask, Leader},
    lines,
    members::Turn,
    network::Peers,
    opening,
    speaker::Followed,
    transfer,
    types::TypeConfig,
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
    pub(super) followed: Mutex<Option<Followed>>,
    /// One snapshot at a time.
    receiving: tokio::sync::Mutex<()>,
    stopped: AtomicBool,
    closed: tokio::sync::Mutex<mpsc::Receiver<()>>,
    pub(super) data_dir: PathBuf,
    pub(super) started: Instant,
    pub(super) watchers: Watchers,
    pub(super) vitals: OnceLock<AskVitals>,
}

/// A handle on the group for as long as another one keeps it open.
#[derive(Clone)]
pub struct WeakGroup(Weak<Inner>);

impl WeakGroup {
    /// The group, if it is still there.
    #[must_use]
    pub fn upgrade(&self) -> Option<Group> {
        self.0.upgrade().map(|inner| Group { inner })
    }
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
        let knows = config.rules.knows;
        let peers = Arc::new(Peers::new(config.credentials.clone(), knows));
        let opened = opening::open(&config, Arc::clone(&peers)).await?;
        let (state, comparison) = (Arc::clone(&opened.state), opened.comparison);
        let leader = Leader {
            me: config.id,
            raft: opened.raft,
            peers,
            contact: Arc::default(),
            clocks: Arc::default(),
            state,
            comparison,
            knows,
            turn: Turn::default(),
        };
        let applied = opened.machine.applied();
        tokio::spawn(comparing::run(leader.clone(), applied.clone()));
        tokio::spawn(election::run(leader.raft.clone(), Arc::clone(&leader.contact)));
        let (peers, clocks) = (Arc::clone(&leader.peers), Arc::clone(&leader.clocks));
        tokio::spawn(lines::keep_open(peers, clocks, leader.raft.metrics()));
        let inner = Inner {
            server: config.server,
            batcher: Batcher::start(leader.clone(), config.rules.batching),
            reads: Reads::start(leader.clone(), applied.clone()),
            leader,
            state: opened.state,
            applied,
            followed: Mutex::new(None),
            receiving: tokio::sync::Mutex::new(()),
            stopped: AtomicBool::new(false),
            closed: tokio::sync::Mutex::new(opened.closed),
            data_dir: config.data_dir,
            started: Instant::now(),
            watchers: Watchers::default(),
            vitals: OnceLock::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A handle that does not keep log and state open.
    #[must_use]
    pub fn downgrade(&self) -> WeakGroup {
        WeakGroup(Arc::downgrade(&self.inner))
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

    /// Proposes a mutation, wherever the leader is, and waits until it is applied here or there: at most five seconds, and
    /// not at all at a server that has long lost touch with the others.
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

    pub(super) fn running(&self) -> Result<(), ProposeError> {
        if self.inner.stopped.load(Ordering::Acquire) {
            return Err(ProposeError::Stopped("it is ending".into()));
        }
        let running = self.inner.leader.raft.metrics().borrow().running_state.clone();
        running.map_err(|fatal| ProposeError::Stopped(fatal.to_string()))
    }

    /// Latest version of log entries that this server knows.
    #[must_use]
    pub fn knows(&self) -> u32 {
        self.inner.leader.knows
    }

    /// Resolves when this server has left Raft by itself, with the reason: damage that it met, an entry that it does not
    /// know, or a state that is not that of the others. The process is to end then.
    pub async fn left(&self) -> String {
        let mut metrics = self.inner.leader.raft.metrics();
        let left = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
        // Raft may have noticed only that its state machine has ended; the mark says why.
        if let Ok(Some(why)) = comparison::left(&self.inner.data_dir) {
            return Refusal::Diverged(why).to_string();
        }
        let why = left.ok().and_then(|metrics| metrics.running_state.clone().err());
        why.map_or_else(|| "Raft has ended".to_owned(), |fatal| fatal.to_string())
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
        let leader = &self.inner.leader;
        leader.contact.in_touch(&leader.raft.metrics().borrow())
    }

    /// Whether this server has been without a quorum or a leader for longer than an election takes, or is not heard by its leader:
    /// then whoever asks is told at once.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.inner.leader.is_lost()
    }

    /// What time it is for the group: log time goes by the middle of the servers' clocks.
    #[must_use]
    pub fn time(&self) -> UnixMs {
        self.inner.leader.clocks.time(UnixMs::now())
    }

    /// For `cluster status`.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let metrics = self.inner.leader.raft.metrics();
        let metrics = metrics.borrow();
        let matched = metrics.replication.iter().flatten();
        let membership = &metrics.membership_config;
        let joint = membership.membership().get_joint_config();
        GroupStatus {
            leader: metrics.current_leader,
            term: metrics.current_term,
            applied_index: self.inner.applied.borrow().index,
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            quorum_age_ms: metrics.millis_since_quorum_ack,
            members: membership.nodes().map(|(id, server)| (*id, server.clone())).collect(),
            voters: membership.voter_ids().collect(),
            joint: if joint.len() > 1 { joint.clone() } else { Vec::new() },
            matched: matched.filter_map(|(id, last)| Some((*id, last.as_ref()?.index))).collect(),
        }
    }

    /// The state as applied here, for reading. Synchronous and local (memory or disk cache): call it inside `spawn_blocking`
    /// only for long scans.
    #[must_use]
    pub fn state(&self) -> &StateStore {
        &self.inner.state
    }

    /// Answers the `raft` service's calls: AppendEntries, Vote, Forward. Cluster id and certificate have been
    /// checked by the caller, and `hear` lets it pass.
    ///
    /// # Errors
    /// When the payload cannot be decoded, is meant for another server, or this one has stopped.
    pub async fn answer(&self, call: RaftCall, data: &[u8]) -> anyhow::Result<Vec<u8>> {
        let raft = &self.inner.leader.raft;
        self.running()?;
        Ok(match call {
            RaftCall::AppendEntries => {
                let request: AppendEntriesRequest<TypeConfig> = self.addressed(data)?;
                let _appending = self.inner.leader.contact.appending();
                let answer = raft.append_entries(request).await;
                match &answer {
                    Ok(AppendEntriesResponse::HigherVote(_)) | Err(_) => {}
                    Ok(
                        AppendEntriesResponse::Success
                        | AppendEntriesResponse::PartialSuccess(_)
                        | AppendEntriesResponse::Conflict,
                    ) => self.inner.leader.contact.heard(),
                }
                codec::encode(&answer)
            }
            RaftCall::Vote => {
                let request: VoteRequest<u64> = self.addressed(data)?;
                let led = raft.metrics().borrow().current_leader == Some(self.inner.leader.me);
                let answer = raft.vote(request).await;
                if led && answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
                    self.inner.leader.contact.yielded();
                }
                codec::encode(&answer)
            }
            RaftCall::Snapshot => anyhow::bail!("a snapshot comes as a stream"),
            RaftCall::Forward => {
                let ask: Ask = self.addressed(data)?;
                let deadline = tokio::time::Instant::now() + ask.patience();
                codec::encode(&match ask {
                    Ask::Clock => Answer::Clock(UnixMs::now()),
                    Ask::About => Answer::About(Box::new(self.about().await)),
                    Ask::Elect { term } => self.inner.leader.stand(term).await,
                    Ask::DigestAt(index) => Answer::Digest(self.inner.leader.comparison.at(index)),
                    ask @ (Ask::Commit(_) | Ask::ReadIndex | Ask::Member(_)) => {
                        self.inner.leader.answer(ask, deadline).await
                    }
                })
            }
        })
    }

    /// Takes the `raft` service's snapshots: the data of the first chunk's head, then the other chunks. Gives the data of the
    /// answer when the snapshot is installed. Cluster id and certificate have been checked by the caller, and `hear` lets it pass.
    ///
    /// # Errors
    /// When another one is being received, or this one is meant for another server, is cut short or damaged: nothing has
    /// changed then, and the leader sends it again.
    pub async fn receive_snapshot(
        &self,
        head: &[u8],
        chunks: impl Stream<Item = Result<SnapshotChunk, tonic::Status>> + Unpin,
    ) -> anyhow::Result<Vec<u8>> {
        self.running()?;
        let head: transfer::Head = self.addressed(head)?;
        let _only = self.inner.receiving.try_lock().context("another snapshot is being received")?;
        let chunks = chunks.inspect(|_| self.inner.leader.contact.heard());
        let vote = transfer::receive(&self.inner.leader.raft, head, chunks).await;
        Ok(codec::encode(&vote.inspect_err(|error| tracing::warn!("receive a snapshot: {error:#}"))?))
    }

    /// Reads a question, and whom it is meant for: an address may have been given to another server.
    fn addressed<T: DeserializeOwned>(&self, data: &[u8]) -> anyhow::Result<T> {
        let (to, question): (u64, T) = codec::decode("a question", data)?;
        let me = self.inner.leader.me;
        anyhow::ensure!(to == me, "the question is meant for node {to}, but this is node {me}");
        Ok(question)
    }

    /// Hands leadership over, if this server leads and another one can: before it ends, so that nobody has to wait for an
    /// election time-out.
    pub async fn step_aside(&self) {
        self.inner.leader.step_aside().await;
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
