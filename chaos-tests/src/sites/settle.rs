//! Whether the cluster is well: one leader with a quorum, known to all, and everybody has applied all there is.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::bail;
use futures::future::join_all;
use proto::wire::operator::{StatusRequest, StatusResponse};
use tokio::time::timeout;

use super::Sites;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// How long one server may take to say how it is.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A quorum that answered within this time is there.
const QUORUM_AGE_MS_MAX: u64 = 1_000;

/// How the cluster became well.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// How long that took.
    pub took: Duration,
    /// Number of the leader.
    pub leader: usize,
    /// The terms in which a leader was seen meanwhile.
    pub terms: BTreeSet<u64>,
}

impl Sites {
    /// What each server says; nothing from those that do not answer.
    pub async fn statuses(&self) -> Vec<Option<StatusResponse>> {
        join_all(self.doors.iter().map(|doors| async move {
            let mut operator = doors.operator(0);
            let answer = timeout(ANSWER_MAX, operator.status(StatusRequest {})).await;
            answer.ok().and_then(Result::ok).map(tonic::Response::into_inner)
        }))
        .await
    }

    /// Number of the server that leads with a quorum, if there is one now.
    pub async fn leader(&self) -> Option<usize> {
        let statuses = self.statuses().await;
        statuses.iter().position(|status| status.as_ref().is_some_and(leads))
    }

    /// The term of a leader that has a quorum now; zero when there is none.
    pub async fn leading_term(&self) -> u64 {
        let statuses = self.statuses().await;
        statuses.iter().flatten().filter(|status| leads(status)).map(|status| status.term).max().unwrap_or_default()
    }

    /// Waits until the cluster is well: all follow one leader with a quorum, and have applied what it had logged when it was
    /// first seen. Clients may be at work meanwhile.
    ///
    /// # Errors
    /// When it is not within `max`, with what each server says.
    pub async fn settled(&self, max: Duration) -> anyhow::Result<Settled> {
        let start = Instant::now();
        let mut terms = BTreeSet::new();
        let mut goal = None;
        loop {
            let statuses = self.statuses().await;
            terms.extend(statuses.iter().flatten().filter(|status| status.leader != 0).map(|status| status.term));
            if let Some(leader) = well(&statuses, &mut goal) {
                return Ok(Settled { took: start.elapsed(), leader, terms });
            }
            if start.elapsed() > max {
                let shown: Vec<String> = (0..self.count()).map(|server| self.shown(server, &statuses)).collect();
                bail!("the cluster is not well after {max:?}:\n{}", shown.join("\n"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn shown(&self, server: usize, statuses: &[Option<StatusResponse>]) -> String {
        let name = self.name(server);
        match &statuses[server] {
            None => format!("{name} does not answer; its log ends with:\n{}", self.log_end(server)),
            Some(status) => format!(
                "{name}: leader {}, term {}, applied {} of {}, quorum age {:?} ms",
                status.leader, status.term, status.applied_index, status.last_log_index, status.quorum_age_ms
            ),
        }
    }
}

fn leads(status: &StatusResponse) -> bool {
    let itself = status.answering.as_ref().is_some_and(|server| server.id == status.leader && server.id != 0);
    itself && status.quorum_age_ms.is_some_and(|age| age <= QUORUM_AGE_MS_MAX)
}

/// The leader, when all is well. `goal`: the term of the leader that was seen first, and where its log ended.
fn well(statuses: &[Option<StatusResponse>], goal: &mut Option<(u64, u64)>) -> Option<usize> {
    let at = statuses.iter().position(|status| status.as_ref().is_some_and(leads))?;
    let leader = statuses[at].as_ref()?;
    let (_, index) =
        *goal.take_if(|(term, _)| *term == leader.term).get_or_insert((leader.term, leader.last_log_index));
    *goal = Some((leader.term, index));
    let follows = |status: &StatusResponse| {
        (status.leader, status.term) == (leader.leader, leader.term) && status.applied_index >= index
    };
    statuses.iter().all(|status| status.as_ref().is_some_and(follows)).then_some(at)
}

#[cfg(test)]
mod tests {
    use proto::wire::operator::{Server, StatusResponse};

    use super::well;

    fn status(id: u64, leader: u64, applied: u64) -> Option<StatusResponse> {
        Some(StatusResponse {
            answering: Some(Server { id, ..Server::default() }),
            leader,
            term: 3,
            applied_index: applied,
            last_log_index: applied,
            quorum_age_ms: (id == leader).then_some(10),
            ..StatusResponse::default()
        })
    }

    #[test]
    fn a_cluster_is_well_when_all_follow_one_leader_and_have_applied_what_it_had() {
        assert_eq!(well(&[status(1, 2, 7), status(2, 2, 7), status(3, 2, 7)], &mut None), Some(1));
        assert_eq!(well(&[status(1, 2, 6), status(2, 2, 7), status(3, 2, 7)], &mut None), None, "one is behind");
        assert_eq!(well(&[status(1, 1, 7), status(2, 2, 7), status(3, 2, 7)], &mut None), None, "two lead");
        assert_eq!(well(&[None, status(2, 2, 7), status(3, 2, 7)], &mut None), None, "one is silent");
        let mut old = status(2, 2, 7);
        old.as_mut().expect("a status").quorum_age_ms = Some(5_000);
        assert_eq!(well(&[status(1, 2, 7), old, status(3, 2, 7)], &mut None), None, "the quorum is gone");
    }

    #[test]
    fn a_log_that_grows_meanwhile_does_not_move_the_goal() {
        let mut goal = None;
        assert_eq!(well(&[status(1, 2, 6), status(2, 2, 7), status(3, 2, 7)], &mut goal), None);
        assert_eq!(well(&[status(1, 2, 7), status(2, 2, 9), status(3, 2, 8)], &mut goal), Some(1));
        // Another leader may have more.
        assert_eq!(well(&[status(1, 2, 7), status(2, 2, 9), status(3, 2, 8)], &mut Some((2, 7))), None);
    }
}
