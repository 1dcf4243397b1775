//! Handing leadership over, which openraft 0.9 does not know: the leader lets nothing new in, waits until the other one has its
//! whole log, stops its heartbeats and tells it to stand for election. Callers wait meanwhile and lose nothing.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use proto::member::MemberAct;
use tokio::time::{Instant, timeout};

use super::{
    ELECTION_MS_MAX, RaftCall, Server, about,
    contact::has_quorum,
    leader::{Answer, Ask, Leader},
    members::{Known, LAG_MAX, MemberAsk, Stop, best, refused},
};

/// How long writes under way may take to end, and the other's log to become whole.
const LEVEL_WITHIN: Duration = Duration::from_secs(1);
/// Who is to lead because this server ends answers within this time.
const NEAR: Duration = Duration::from_millis(300);
/// How long an election may take before the old leader goes on: the other's own first try and one more.
const ELECTED_WITHIN: Duration = Duration::from_millis(3 * ELECTION_MS_MAX);
/// For so long after a heartbeat a follower votes for nobody else.
const LEASE: Duration = Duration::from_millis(ELECTION_MS_MAX + 50);
/// With no more voters than this the votes of the two that hand over are a majority, and neither has a lease to wait for.
const TWO_SUFFICE: usize = 3;

/// Heartbeats are off as long as this lives.
struct Silence<'l>(&'l Leader);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.raft.runtime_config().heartbeat(true);
    }
}

impl Leader {
    /// Hands leadership to a voter that has caught up.
    pub(super) async fn transfer(
        &self,
        ask: &MemberAsk,
        from: u64,
        to: Option<&str>,
        deadline: Instant,
    ) -> Result<Vec<String>, Stop> {
        let known = self.known();
        let me = known.members.get(&self.me).map(|server| server.name.clone()).unwrap_or_default();
        if from != self.me || to == Some(me.as_str()) {
            return Ok(vec![format!("{me} leads.")]);
        }
        let (id, server) = match to {
            Some(name) => {
                let Some((id, server)) = known.named(name).filter(|(id, _)| known.voters.contains(id)) else {
                    return refused(format!("{name} has no vote: see `posternctl cluster status` for who has"));
                };
                if let Err(problem) = about::ask(&self.peers, id, server).await {
                    return refused(format!("{name} does not answer ({problem}): it cannot lead now"));
                }
                (id, server)
            }
            None => match self.furthest(&known, LEVEL_WITHIN).await {
                Some(found) => found,
                None => return refused("no other voter answers: see `posternctl cluster status`"),
            },
        };
        let to = server.name.clone();
        let lag = known.lag(id);
        if lag > LAG_MAX {
            return refused(format!("{to} lacks {lag} entries; wait until it has caught up, or name another"));
        }
        self.trace(ask, MemberAct::Transfer { from: me, to }, deadline).await?;
        let (leads, took) = self.hand_over(&known, id, server).await?;
        let name = known.members.get(&leads).map_or_else(|| leads.to_string(), |server| server.name.clone());
        Ok(vec![format!("{name} leads; there was no leader for {} ms.", took.as_millis())])
    }

    /// The voter that has come furthest of the others that answer within `limit`.
    async fn furthest<'k>(&self, known: &'k Known, limit: Duration) -> Option<(u64, &'k Server)> {
        let others = known.members.iter().filter(|(id, _)| known.voters.contains(*id) && **id != self.me);
        let asked = others.map(async |(id, server)| {
            let answer = timeout(limit, about::ask(&self.peers, *id, server)).await;
            (*id, answer.is_ok_and(|answer| answer.is_ok()))
        });
        let up: BTreeSet<u64> =
            join_all(asked).await.into_iter().filter(|(_, answers)| *answers).map(|(id, _)| id).collect();
        best(known, &up)
    }

    /// Hands leadership to whoever has come furthest, if this server leads. Where that fails, an election after its end will do.
    pub(super) async fn step_aside(&self) {
        let _turn = self.turn.changing.lock().await;
        let known = self.known();
        if !has_quorum(&self.raft.metrics().borrow()) {
            return;
        }
        let Some((id, server)) = self.furthest(&known, NEAR).await else { return };
        if let Err(Stop::Refused { why, .. }) = self.hand_over(&known, id, server).await {
            tracing::info!(why, "leadership is not handed over");
        }
    }

    /// Moves leadership: who leads then, and for how long nothing could be written.
    pub(super) async fn hand_over(&self, known: &Known, to: u64, server: &Server) -> Result<(u64, Duration), Stop> {
        let began = Instant::now();
        // Writes under way end; those that come now are told that nobody leads, and wait.
        let Ok(closed) = timeout(LEVEL_WITHIN, self.turn.gate.write()).await else {
            return refused("writes under way do not end: nothing was changed; see `posternctl cluster status`");
        };
        let me = self.me;
        let waiting = self.raft.wait(Some(LEVEL_WITHIN));
        let level = waiting.metrics(
            |metrics| {
                let matched = metrics.replication.as_ref().and_then(|all| all.get(&to)).and_then(Option::as_ref);
                metrics.current_leader != Some(me) || matched.map(|id| id.index) == metrics.last_log_index
            },
            "the next leader has the whole log",
        );
        if level.await.is_err() {
            return refused(format!("{} did not catch up in time: nothing was changed", server.name));
        }
        let silence = Silence(self);
        self.raft.runtime_config().heartbeat(false);
        if known.voters.len() > TWO_SUFFICE {
            tokio::time::sleep(LEASE).await;
        }
        let told =
            self.peers.ask((to, server), RaftCall::Forward, &Ask::Elect { term: known.term }, LEVEL_WITHIN).await;
        match told {
            Ok(Answer::Standing) => {}
            Ok(_) => return refused(format!("{} does not stand for election: nothing was changed", server.name)),
            Err(error) => return refused(format!("{} does not answer: {}", server.name, error.reason())),
        }
        let waiting = self.raft.wait(Some(ELECTED_WITHIN));
        let elected =
            waiting.metrics(|metrics| metrics.current_leader.is_some_and(|leader| leader != me), "somebody else leads");
        let leads = elected.await.ok().and_then(|metrics| metrics.current_leader);
        drop((silence, closed));
        match leads {
            Some(leads) => {
                let took = began.elapsed();
                tracing::info!(leads, took_ms = took.as_millis(), "leadership is handed over");
                Ok((leads, took))
            }
            None => refused(format!("{} was not elected in time: see `posternctl cluster status`", server.name)),
        }
    }

    /// Stands for election at the leader's word, unless the term has moved on.
    pub(super) async fn stand(&self, term: u64) -> Answer {
        if self.raft.metrics().borrow().current_term != term {
            return Answer::NotLeader;
        }
        match self.raft.trigger().elect().await {
            Ok(()) => Answer::Standing,
            Err(_) => Answer::Stopped,
        }
    }
}
