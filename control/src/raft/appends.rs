//! Entries on their way to a follower over a slow line.
//!
//! openraft gives an append one heartbeat interval, then drops it and sends the same again: entries that take longer on the
//! line would never arrive. So the call lives on here, and while it does the follower hears a heartbeat and openraft that
//! nothing more has arrived yet: the follower calls no election, and the leader keeps its quorum.

use std::{sync::Arc, time::Duration};

use openraft::{
    error::RaftError,
    raft::{AppendEntriesRequest, AppendEntriesResponse},
};
use tokio::task::JoinSet;

use super::{
    RaftCall, Server,
    network::{CallError, Peers},
    types::{LogId, TypeConfig, Vote},
};

/// How long openraft waits for entries before it is told that they are still on their way: well below its own patience,
/// so that a heartbeat fits in between.
pub(super) const PATIENCE: Duration = Duration::from_millis(super::HEARTBEAT_MS / 2);
/// How long entries may take: the largest mutation at 300 kB/s.
const APPEND_MAX: Duration = Duration::from_secs(30);

/// What the follower says.
pub(super) type Answer = Result<AppendEntriesResponse<u64>, RaftError<u64>>;

/// An append that is on its way; dropped, it is given up.
#[derive(Debug)]
pub(super) struct UnderWay {
    vote: Vote,
    prev: Option<LogId>,
    last: LogId,
    /// One task, as long as there is no answer.
    call: JoinSet<Result<Answer, CallError>>,
}

impl UnderWay {
    /// Sends entries, of which `last` is the last.
    pub(super) fn start(
        peers: &Arc<Peers>,
        (target, server): (u64, &Server),
        rpc: AppendEntriesRequest<TypeConfig>,
        last: LogId,
    ) -> Self {
        let (peers, server) = (Arc::clone(peers), server.clone());
        let (vote, prev) = (rpc.vote, rpc.prev_log_id);
        let mut call = JoinSet::new();
        call.spawn(async move { peers.ask((target, &server), RaftCall::AppendEntries, &rpc, APPEND_MAX).await });
        Self { vote, prev, last, call }
    }

    /// Whether the answer to this is one to that request too, which may go further.
    pub(super) fn serves(&self, rpc: &AppendEntriesRequest<TypeConfig>, last: &LogId) -> bool {
        self.vote == rpc.vote && self.prev == rpc.prev_log_id && self.last <= *last
    }

    /// The answer for a request up to `last`, if it comes within `PATIENCE`. May be called again after it gave `None`, or
    /// was dropped.
    pub(super) async fn answer(&mut self, last: &LogId) -> Option<Result<Answer, CallError>> {
        let joined = tokio::time::timeout(PATIENCE, self.call.join_next()).await.ok()??;
        let answer = joined.unwrap_or_else(|error| Err(CallError::broken(&self.last, &error)));
        let partial = self.last < *last && matches!(answer, Ok(Ok(AppendEntriesResponse::Success)));
        Some(if partial { Ok(Ok(AppendEntriesResponse::PartialSuccess(Some(self.last)))) } else { answer })
    }
}
