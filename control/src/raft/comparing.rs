//! What a leader does beside its proposals: it finds out what all members know, and has the servers compare their states.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Applied, RaftCall, Server,
    contact::has_quorum,
    leader::{Answer, Ask, Leader},
    types::{Contents, DIGESTS_VERSION},
};
use crate::state::digest::StateDigest;

/// Time between two looks when nothing is applied.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the others may take to apply what this server has applied; who takes longer is left out this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause before a server is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs on each server, and does something while that one leads; ends with the state machine.
pub(super) async fn run(leader: Leader, mut applied: watch::Receiver<Applied>) {
    let mut turn = tokio::time::interval(LOOK_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut all_know, mut compared) = (false, 0);
    loop {
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            _ = turn.tick() => {}
        }
        if !has_quorum(&leader.raft.metrics().borrow()) {
            continue;
        }
        if !all_know {
            all_know = leader.used() >= leader.knows;
        }
        if !all_know && leader.unknown_to(leader.knows).is_none() {
            tracing::info!(version = leader.knows, "all control servers know this version of entries");
            leader.write(&Contents::Knows(leader.knows), Instant::now() + PATIENCE).await;
        }
        if !all_know && leader.used() < DIGESTS_VERSION {
            continue;
        }
        let due = leader.comparison.due(applied.borrow().index).filter(|at| *at > compared);
        let Some(at) = due else { continue };
        compared = at;
        if let Some(found) = digests(&leader, at).await {
            // An answer that is lost costs nothing: the next comparison comes.
            leader.write(&Contents::Digests { at, found }, Instant::now() + PATIENCE).await;
        }
    }
}

/// What the voters have at an index; `None` when that is no majority of at least two, so that nothing can be learnt.
async fn digests(leader: &Leader, at: u64) -> Option<BTreeMap<u64, StateDigest>> {
    let voters: Vec<(u64, Server)> = {
        let metrics = leader.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let server = |id| Some((id, membership.get_node(&id)?.clone()));
        membership.voter_ids().filter_map(server).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    let answers = join_all(voters.iter().map(|(id, server)| digest(leader, (*id, server), at, deadline))).await;
    let found: BTreeMap<u64, StateDigest> =
        voters.iter().zip(answers).filter_map(|((id, _), digest)| Some((*id, digest?))).collect();
    (found.len() > 1 && found.len() * 2 > voters.len()).then_some(found)
}

/// What one server has, as soon as it has come so far.
async fn digest(leader: &Leader, (id, server): (u64, &Server), at: u64, deadline: Instant) -> Option<StateDigest> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = if id == leader.me {
            Answer::Digest(leader.comparison.at(at))
        } else {
            leader.peers.ask((id, server), RaftCall::Forward, &Ask::DigestAt(at), left).await.ok()?
        };
        if let Answer::Digest(Some(digest)) = answer {
            return Some(digest);
        }
        if Instant::now() + PAUSE >= deadline {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
