//! Group commit and shared reads: many callers, one entry or one round to the leader.

use std::time::Duration;

use proto::{
    codec,
    mutation::{Mutation, Outcome, Refused},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
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
    /// A batch closes this long after its first mutation, or after the end of those before it: sooner when as many have come
    /// as were answered last.
    pub close_after: Duration,
    /// While others are on their way, a batch with room grows this long.
    pub grow_for: Duration,
    /// Batches on their way at the same time; at least one.
    pub in_flight_max: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            mutations_max: 256,
            bytes_max: 256 * 1024,
            close_after: Duration::from_millis(3),
            grow_for: Duration::from_millis(20),
            in_flight_max: 4,
        }
    }
}

/// Largest mutation, encoded, in bytes: a policy with all departments.
const MUTATION_BYTES_MAX: usize = 9 * 1024 * 1024;
/// Mutations that wait for a batch, at most. Who comes later waits at the door until the deadline.
const QUEUE_MAX: usize = 2_048;

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
        tokio::spawn(run(batching, waiting, move |batch| deliver(leader.clone(), batch)));
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

/// A batch that is being filled.
struct Filling {
    batch: Vec<Waiting>,
    bytes: usize,
}

impl Filling {
    fn begin(first: Waiting) -> Self {
        Self { bytes: first.bytes, batch: vec![first] }
    }

    fn is_full(&self, batching: &Batching) -> bool {
        self.batch.len() >= batching.mutations_max || self.bytes >= batching.bytes_max
    }

    /// Gives back what does not fit.
    fn add(&mut self, next: Waiting, batching: &Batching) -> Option<Waiting> {
        if self.bytes + next.bytes > batching.bytes_max {
            return Some(next);
        }
        self.bytes += next.bytes;
        self.batch.push(next);
        None
    }
}

/// While a batch is on its way the next one grows, because each entry costs two fsyncs whatever it carries. When it is
/// answered, those who got their answers often ask again at once: the next batch waits for as many, but not for long.
async fn run<D: Future<Output = usize> + Send + 'static>(
    batching: Batching,
    mut queue: mpsc::Receiver<Waiting>,
    deliver: impl Fn(Vec<Waiting>) -> D,
) {
    // What ends gives its size.
    let mut on_their_way: JoinSet<usize> = JoinSet::new();
    let mut left_over = None;
    while let Some(first) = match left_over.take() {
        Some(first) => Some(first),
        None => queue.recv().await,
    } {
        let mut answered = 0;
        while let Some(ended) = on_their_way.try_join_next() {
            answered += ended.unwrap_or(0);
        }
        let mut filling = Filling::begin(first);
        let mut wanted = answered.max(1);
        let patience = if on_their_way.is_empty() { batching.close_after } else { batching.grow_for };
        let mut close = Instant::now() + patience;
        while !filling.is_full(&batching) {
            if on_their_way.is_empty() && filling.batch.len() >= wanted && queue.is_empty() {
                break;
            }
            tokio::select! {
                next = queue.recv() => {
                    left_over = next.and_then(|next| filling.add(next, &batching));
                    if left_over.is_some() || queue.is_closed() {
                        break;
                    }
                }
                Some(ended) = on_their_way.join_next() => {
                    answered += ended.unwrap_or(0);
                    wanted = filling.batch.len() + answered;
                    if on_their_way.is_empty() {
                        close = Instant::now() + batching.close_after;
                    }
                }
                () = tokio::time::sleep_until(close) => break,
            }
        }
        if on_their_way.len() >= batching.in_flight_max {
            on_their_way.join_next().await;
        }
        on_their_way.spawn(deliver(filling.batch));
    }
    while on_their_way.join_next().await.is_some() {}
}

/// Commits a batch, answers all who wait, and gives its size.
async fn deliver(leader: Leader, batch: Vec<Waiting>) -> usize {
    // Who has given up or waited too long is not proposed; of the others who waited longest sets the deadline.
    let batch = still_waiting(batch, Instant::now());
    let Some(deadline) = batch.iter().map(|waiting| waiting.deadline).min() else { return 0 };
    let (mutations, replies): (Vec<Mutation>, Vec<_>) =
        batch.into_iter().map(|waiting| (waiting.mutation, waiting.reply)).unzip();
    let answer = leader.ask(&Ask::Commit(mutations), deadline).await;
    let outcomes = match answer {
        Ok(Answer::Outcomes(outcomes)) if outcomes.len() == replies.len() => outcomes.into_iter().map(Ok).collect(),
        Ok(other) => {
            // Counts only: outcomes may carry held records, with subjects and recipients.
            let outcomes = if let Answer::Outcomes(outcomes) = &other { outcomes.len() } else { 0 };
            tracing::error!(mutations = replies.len(), outcomes, "a batch got an answer that does not fit");
            repeated(&ProposeError::Unknown, replies.len())
        }
        Err(error) => repeated(&error, replies.len()),
    };
    let size = replies.len();
    for (reply, outcome) in replies.into_iter().zip(outcomes) {
        // A caller that has gone needs no answer.
        reply.send(outcome).ok();
    }
    size
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
    use std::{sync::Arc, time::Duration};

    use proto::{
        held::MutationId,
        mutation::{Mutation, Outcome},
    };
    use tokio::{
        sync::{Semaphore, mpsc, oneshot},
        time::Instant,
    };

    use super::{Batcher, Batching, ProposeError, Waiting, run, still_waiting};
    use crate::state::testing::{node, release};

    fn mutation() -> Mutation {
        Mutation { id: MutationId::fresh(), by: node("n1"), change: release(1) }
    }

    fn waiting(deadline: Instant) -> (Waiting, oneshot::Receiver<Result<Outcome, ProposeError>>) {
        let (reply, outcome) = oneshot::channel();
        (Waiting { mutation: mutation(), bytes: 1, deadline, reply }, outcome)
    }

    #[tokio::test]
    async fn a_batch_grows_while_another_is_on_its_way_and_then_waits_for_those_who_were_answered() {
        let never = Duration::from_secs(3_600);
        let batching = Batching { close_after: never, grow_for: never, mutations_max: 8, ..Batching::default() };
        let (queue, queued) = mpsc::channel(16);
        let (sizes, mut size) = mpsc::channel(16);
        let answers = Arc::new(Semaphore::new(0));
        let may_answer = Arc::clone(&answers);
        let batcher = tokio::spawn(run(batching, queued, move |batch| {
            let (sizes, may_answer) = (sizes.clone(), Arc::clone(&may_answer));
            async move {
                sizes.send(batch.len()).await.expect("the test listens");
                may_answer.acquire().await.expect("open").forget();
                batch.len()
            }
        }));
        let ask = async |count| {
            for _ in 0..count {
                queue.send(waiting(Instant::now() + never).0).await.expect("taken");
            }
        };
        ask(1).await;
        assert_eq!(size.recv().await, Some(1), "alone it does not wait");
        ask(5).await;
        ask(3).await;
        assert_eq!(size.recv().await, Some(8), "what is full goes beside the other");
        answers.add_permits(2);
        ask(1).await;
        ask(7).await;
        assert_eq!(size.recv().await, Some(8), "nine were answered");
        answers.add_permits(1);
        drop(queue);
        batcher.await.expect("no panic");
    }

    #[tokio::test]
    async fn who_has_waited_too_long_is_told_so_and_not_proposed() {
        let now = Instant::now();
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
