//! Group commit and shared reads: many callers, one entry or one round to the leader.

use std::{sync::Arc, time::Duration};

use proto::{
    codec,
    mutation::{Mutation, Outcome, Refused},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Applied, ProposeError,
    leader::{Answer, Ask, Leader, PATIENCE},
};

/// How many mutations share an entry, and with it its fsyncs.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Most mutations of a batch; at least one.
    pub mutations_max: usize,
    /// A batch closes when it has reached this many encoded bytes. One larger mutation makes a batch of its own.
    pub bytes_max: usize,
    /// A batch closes this long after its first mutation.
    pub close_after: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self { mutations_max: 256, bytes_max: 256 * 1024, close_after: Duration::from_millis(3) }
    }
}

/// Largest mutation, encoded, in bytes: a policy with all departments.
const MUTATION_BYTES_MAX: usize = 9 * 1024 * 1024;
/// Mutations that wait for a batch, at most. Who comes later waits at the door until the deadline.
const QUEUE_MAX: usize = 2_048;
/// Batches on their way at the same time.
const IN_FLIGHT_MAX: usize = 4;

/// A mutation that waits for its outcome.
struct Waiting {
    mutation: Mutation,
    bytes: usize,
    deadline: Instant,
    reply: oneshot::Sender<Result<Outcome, ProposeError>>,
}

/// Takes mutations and gives outcomes. Cheap to clone; ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Batcher {
    queue: mpsc::Sender<Waiting>,
}

impl Batcher {
    /// Starts the task that makes batches.
    pub(super) fn start(leader: Leader, batching: Batching) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(leader, batching, waiting));
        Self { queue }
    }

    pub(super) async fn propose(&self, mutation: Mutation) -> Result<Outcome, ProposeError> {
        let bytes = codec::encode(&mutation).len();
        if bytes > MUTATION_BYTES_MAX {
            let cap = u64::try_from(MUTATION_BYTES_MAX).unwrap_or(u64::MAX);
            return Ok(Outcome::Refused(Refused::Full { what: "bytes of a mutation".into(), cap }));
        }
        let deadline = Instant::now() + PATIENCE;
        let (reply, outcome) = oneshot::channel();
        let waiting = Waiting { mutation, bytes, deadline, reply };
        match tokio::time::timeout_at(deadline, self.queue.send(waiting)).await {
            // Whoever had it is gone and cannot say whether it was on its way.
            Ok(Ok(())) => outcome.await.unwrap_or(Err(ProposeError::Unknown)),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(ProposeError::NoLeader),
        }
    }
}

fn stopped() -> ProposeError {
    ProposeError::Stopped("it is ending".into())
}

async fn run(leader: Leader, batching: Batching, mut queue: mpsc::Receiver<Waiting>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut first = None;
    loop {
        let Some(next) = first.take().or(queue.recv().await) else { return };
        let mut bytes = next.bytes;
        let mut batch = vec![next];
        let close = Instant::now() + batching.close_after;
        while batch.len() < batching.mutations_max && bytes < batching.bytes_max {
            let Ok(Some(next)) = tokio::time::timeout_at(close, queue.recv()).await else { break };
            if bytes + next.bytes > batching.bytes_max {
                first = Some(next);
                break;
            }
            bytes += next.bytes;
            batch.push(next);
        }
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let leader = leader.clone();
        tokio::spawn(async move {
            deliver(&leader, batch).await;
            drop(permit);
        });
    }
}

async fn deliver(leader: &Leader, batch: Vec<Waiting>) {
    // Who has given up or waited too long is not proposed; of the others who waited longest sets the deadline.
    let batch = still_waiting(batch, Instant::now());
    let Some(deadline) = batch.iter().map(|waiting| waiting.deadline).min() else { return };
    let mutations = batch.iter().map(|waiting| waiting.mutation.clone()).collect();
    let answer = leader.ask(&Ask::Commit(mutations), deadline).await;
    let outcomes = match answer {
        Ok(Answer::Outcomes(outcomes)) if outcomes.len() == batch.len() => outcomes.into_iter().map(Ok).collect(),
        Ok(other) => {
            // Counts only: outcomes may carry held records, with subjects and recipients.
            let outcomes = if let Answer::Outcomes(outcomes) = &other { outcomes.len() } else { 0 };
            tracing::error!(mutations = batch.len(), outcomes, "a batch got an answer that does not fit");
            repeated(&ProposeError::Unknown, batch.len())
        }
        Err(error) => repeated(&error, batch.len()),
    };
    for (waiting, outcome) in batch.into_iter().zip(outcomes) {
        // A caller that has gone needs no answer.
        waiting.reply.send(outcome).ok();
    }
}

/// Those whose time has not come; the others learn that nothing was written.
fn still_waiting(batch: Vec<Waiting>, now: Instant) -> Vec<Waiting> {
    let (late, left): (Vec<Waiting>, _) = batch.into_iter().partition(|waiting| waiting.deadline <= now);
    for waiting in late {
        // A caller that has gone needs no answer.
        waiting.reply.send(Err(ProposeError::NoLeader)).ok();
    }
    left.into_iter().filter(|waiting| !waiting.reply.is_closed()).collect()
}

fn repeated(error: &ProposeError, count: usize) -> Vec<Result<Outcome, ProposeError>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// Shares rounds to the leader among readers: who asks during a round waits for the next one, which starts after its
/// question. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    queue: mpsc::Sender<oneshot::Sender<Result<(), ProposeError>>>,
}

impl Reads {
    /// Starts the task that makes rounds.
    pub(super) fn start(leader: Leader, applied: watch::Receiver<Applied>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(rounds(leader, applied, waiting));
        Self { queue }
    }

    pub(super) async fn linearize(&self) -> Result<(), ProposeError> {
        let (reply, done) = oneshot::channel();
        match tokio::time::timeout(PATIENCE, self.queue.send(reply)).await {
            Ok(Ok(())) => done.await.unwrap_or_else(|_| Err(stopped())),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(ProposeError::NoLeader),
        }
    }
}

type Reader = oneshot::Sender<Result<(), ProposeError>>;

async fn rounds(leader: Leader, mut applied: watch::Receiver<Applied>, mut queue: mpsc::Receiver<Reader>) {
    while let Some(first) = queue.recv().await {
        let mut readers = vec![first];
        while let Ok(reader) = queue.try_recv() {
            readers.push(reader);
        }
        let round = round(&leader, &mut applied).await;
        for reader in readers {
            // A reader that has gone needs no answer.
            reader.send(round.clone()).ok();
        }
    }
}

async fn round(leader: &Leader, applied: &mut watch::Receiver<Applied>) -> Result<(), ProposeError> {
    let deadline = Instant::now() + PATIENCE;
    let Answer::ReadIndex(index) = leader.ask(&Ask::ReadIndex, deadline).await? else {
        return Err(ProposeError::NoLeader);
    };
    match tokio::time::timeout_at(deadline, applied.wait_for(|applied| applied.index >= index)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(stopped()),
        Err(_) => Err(ProposeError::NoLeader),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::{held::MutationId, mutation::Mutation};
    use tokio::{sync::oneshot, time::Instant};

    use super::{Batcher, ProposeError, Waiting, still_waiting};
    use crate::state::testing::{node, release};

    fn mutation() -> Mutation {
        Mutation { id: MutationId::fresh(), by: node("n1"), change: release(1) }
    }

    #[tokio::test]
    async fn who_has_waited_too_long_is_told_so_and_not_proposed() {
        let now = Instant::now();
        let waiting = |deadline| {
            let (reply, outcome) = oneshot::channel();
            (Waiting { mutation: mutation(), bytes: 1, deadline, reply }, outcome)
        };
        let (late, late_outcome) = waiting(now);
        let (gone, _) = waiting(now + Duration::from_secs(1));
        let (left, _left_outcome) = waiting(now + Duration::from_secs(2));
        let batch = still_waiting(vec![late, gone, left], now);
        assert_eq!(batch.iter().map(|waiting| waiting.deadline).collect::<Vec<_>>(), [now + Duration::from_secs(2)]);
        assert_eq!(late_outcome.await.expect("an answer"), Err(ProposeError::NoLeader));
    }

    #[tokio::test]
    async fn a_mutation_that_was_taken_and_lost_is_unknown() {
        let (queue, mut taken) = tokio::sync::mpsc::channel(1);
        let batcher = Batcher { queue };
        let lose = async { drop(taken.recv().await.expect("a mutation")) };
        let (outcome, ()) = tokio::join!(batcher.propose(mutation()), lose);
        assert_eq!(outcome, Err(ProposeError::Unknown));
        drop(taken);
        let outcome = batcher.propose(mutation()).await;
        assert!(matches!(outcome, Err(ProposeError::Stopped(_))), "{outcome:?}");
    }
}
