//! What each client was told, and when: the only witness that the checks trust.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A point of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Orders all moments of a run: a smaller one was before.
    pub tick: u64,
    /// Since the run began, for people and for comparing with faults.
    pub at: Duration,
}

/// Gives moments. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    ticks: Arc<AtomicU64>,
    began: Instant,
}

impl Clock {
    /// Begins a run.
    #[must_use]
    pub fn start() -> Self {
        Self { ticks: Arc::default(), began: Instant::now() }
    }

    /// Now, after all moments before.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment { tick: self.ticks.fetch_add(1, Ordering::SeqCst), at: self.began.elapsed() }
    }
}

/// One operation, as its client saw it.
#[derive(Clone, Debug)]
pub struct Told<Op, Answer> {
    /// Number of the server that was asked.
    pub server: usize,
    /// What was asked for.
    pub op: Op,
    /// Before the request was sent.
    pub from: Moment,
    /// After the answer came, or when the client gave up.
    pub to: Moment,
    /// What the server said. `None`: nothing that can be relied on (a time-out, a broken connection, "unavailable"): it may
    /// have taken effect, may take effect later, or never. There is no "failed".
    pub answer: Option<Answer>,
}

impl<Op, Answer> Told<Op, Answer> {
    /// Asks and writes down what came of it.
    pub async fn by(clock: &Clock, server: usize, op: Op, ask: impl Future<Output = Option<Answer>>) -> Self {
        let from = clock.now();
        let answer = ask.await;
        Self { server, op, from, to: clock.now(), answer }
    }
}

impl<Op: fmt::Debug, Answer: fmt::Debug> fmt::Display for Told<Op, Answer> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.at.as_secs_f64(), self.to.at.as_secs_f64());
        write!(f, "{from:9.3}-{to:9.3} s  server {}  {:?} -> ", self.server, self.op)?;
        match &self.answer {
            Some(answer) => write!(f, "{answer:?}"),
            None => f.write_str("unknown"),
        }
    }
}
