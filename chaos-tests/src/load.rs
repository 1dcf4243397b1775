//! A load generator: a closed loop of connections that each send one message after the other, and a ledger of each answer.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    smtp_client::{Answers, Conversation, Envelope},
    zones,
};

/// How long a cluster that works takes at most to accept a batch.
const ACCEPTED_MAX: Duration = Duration::from_secs(60);

/// Between two tries at a server that is away.
const RECONNECT: Duration = Duration::from_millis(20);

/// A message of the load.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Names the kind of message in the ledger.
    pub kind: &'static str,
    /// From whom and to whom.
    pub envelope: Envelope,
    /// The bytes.
    pub message: Vec<u8>,
}

/// What is sent, by whom and how fast.
#[derive(Clone, Debug)]
pub struct Load {
    /// Connections at once, spread over the servers.
    pub connections: usize,
    /// Where to.
    pub servers: Vec<SocketAddr>,
    /// Where from.
    pub client: IpAddr,
    /// Stop after this many messages; zero: when told to.
    pub messages: u64,
}

/// What became of one message.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its kind.
    pub kind: &'static str,
    /// The answers; `None` when the connection broke before the last one: nothing was promised.
    pub answers: Option<Answers>,
    /// From MAIL to the last answer.
    pub took: Duration,
}

/// A load under way.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    entries: mpsc::Receiver<Entry>,
    workers: Vec<JoinHandle<()>>,
    started: Instant,
    ledger: Ledger,
}

/// What became of all messages.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Each message that was sent or tried.
    pub entries: Vec<Entry>,
    /// From the first connection to the last answer.
    pub took: Duration,
}

impl Load {
    /// Starts it. `make` gives the message number n, counted from 0.
    #[must_use]
    pub fn start(self, make: impl Fn(u64) -> Parcel + Send + Sync + 'static) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let make: Arc<dyn Fn(u64) -> Parcel + Send + Sync> = Arc::new(make);
        let (report, entries) = mpsc::channel(1024);
        let worker = |at: usize| {
            let server = self.servers[at % self.servers.len()];
            let worker = Worker {
                server,
                client: self.client,
                messages: self.messages,
                stop: stop.clone(),
                next: next.clone(),
                make: make.clone(),
                report: report.clone(),
            };
            tokio::spawn(worker.run())
        };
        let workers = (0..self.connections).map(worker).collect();
        Running { stop: stop.clone(), entries, workers, started: Instant::now(), ledger: Ledger::default() }
    }
}

struct Worker {
    server: SocketAddr,
    client: IpAddr,
    messages: u64,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    make: Arc<dyn Fn(u64) -> Parcel + Send + Sync>,
    report: mpsc::Sender<Entry>,
}

impl Worker {
    async fn run(self) {
        let mut open: Option<Conversation> = None;
        let mut again = interval(RECONNECT);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.stop.load(Ordering::SeqCst) {
            let Some(mut conversation) = self.connection(open.take()).await else {
                again.tick().await;
                continue;
            };
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            if self.messages > 0 && n >= self.messages {
                let _ = conversation.quit().await;
                return;
            }
            let parcel = (self.make)(n);
            let start = Instant::now();
            let answers = conversation.send(&parcel.envelope, &parcel.message).await.ok();
            let lasting = answers.as_ref().is_some_and(|answers| answers.last().code != 421);
            let entry = Entry { kind: parcel.kind, answers, took: start.elapsed() };
            if self.report.send(entry).await.is_err() {
                return;
            }
            open = lasting.then_some(conversation);
        }
    }

    async fn connection(&self, open: Option<Conversation>) -> Option<Conversation> {
        match open {
            Some(conversation) => Some(conversation),
            None => Conversation::open(self.server, Some(self.client), zones::own_name(self.client)).await.ok(),
        }
    }
}

impl Running {
    /// Waits until this many messages more got 250.
    ///
    /// # Errors
    /// When that takes more than a minute, or the load ends before.
    pub async fn accepted(&mut self, count: usize) -> anyhow::Result<()> {
        let mut accepted = 0;
        let waiting = async {
            while accepted < count {
                let Some(entry) = self.next().await else { return false };
                accepted += usize::from(entry.answers.is_some_and(|answers| answers.last().code == 250));
            }
            true
        };
        let enough = timeout(ACCEPTED_MAX, waiting).await;
        match enough {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the load has ended"),
            Err(_) => bail!("{accepted} of {count} messages got 250 within {ACCEPTED_MAX:?}"),
        }
    }

    /// Each answer as it comes; `None` when the load has ended by itself.
    pub async fn next(&mut self) -> Option<Entry> {
        let entry = self.entries.recv().await?;
        self.ledger.entries.push(entry.clone());
        Some(entry)
    }

    /// Waits for the end by itself.
    pub async fn end(mut self) -> Ledger {
        while self.next().await.is_some() {}
        self.ledger.took = self.started.elapsed();
        std::mem::take(&mut self.ledger)
    }

    /// No further message; waits for the answers that are under way.
    pub async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::SeqCst);
        self.end().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.workers.iter().for_each(JoinHandle::abort);
    }
}

impl Ledger {
    /// Messages by kind and final code; 0 for a connection that broke.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(&'static str, u16), usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            let code = entry.answers.as_ref().map_or(0, |answers| answers.last().code);
            *counts.entry((entry.kind, code)).or_default() += 1;
        }
        counts
    }

    /// Transaction ids of a kind that got 250.
    #[must_use]
    pub fn promised(&self, kind: &str) -> Vec<&str> {
        let of_kind = self.entries.iter().filter(|entry| entry.kind == kind);
        of_kind.filter_map(|entry| entry.answers.as_ref().and_then(Answers::transaction)).collect()
    }

    /// How long messages that got 250 took.
    #[must_use]
    pub fn latencies(&self) -> Percentiles {
        let accepted = self
            .entries
            .iter()
            .filter(|entry| entry.answers.as_ref().is_some_and(|answers| answers.last().code == 250));
        Percentiles::of(accepted.map(|entry| entry.took).collect())
    }
}

/// A sorted sample of durations.
#[derive(Clone, Debug, Default)]
pub struct Percentiles {
    sorted: Vec<Duration>,
}

impl Percentiles {
    /// Of these.
    #[must_use]
    pub fn of(mut sample: Vec<Duration>) -> Self {
        sample.sort_unstable();
        Self { sorted: sample }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The nearest-rank percentile in milliseconds, `p` from 0 to 100; zero of an empty sample.
    #[must_use]
    pub fn ms(&self, p: usize) -> f64 {
        let rank = (self.sorted.len() * p).div_ceil(100).saturating_sub(1);
        self.sorted.get(rank).map_or(0.0, |value| value.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Percentiles;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let sample = Percentiles::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!((sample.ms(0), sample.ms(50), sample.ms(99), sample.ms(100)), (1.0, 100.0, 198.0, 200.0));
        assert_eq!(Percentiles::of(Vec::new()).ms(50).to_bits(), 0.0_f64.to_bits());
    }
}
