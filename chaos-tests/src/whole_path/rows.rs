//! The rows: the messages of a set once through one of the two servers, and what that took of everything on the way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use serde::Serialize;
use tokio::time::sleep;

use super::{World, mails::Set};
use crate::{
    edge::{
        Network,
        generator::{Errand, Load, Origin, Pace},
        mails::Mails,
    },
    load::Percentiles,
};

/// What was accepted must be at the next hop so long after the last that came there.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);
/// After the last arrival: servers clear up.
const SETTLE: Duration = Duration::from_millis(500);
/// No round is ended by time.
const LASTING: Duration = Duration::from_secs(24 * 3600);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Who {
    /// Postfix, its milter Rspamd, clamd.
    #[serde(rename = "Postfix, Rspamd, clamd")]
    Theirs,
    /// This node and clamd.
    #[serde(rename = "node, clamd")]
    Ours,
}

impl Who {
    /// Both, in the order in which a round asks them.
    pub const ALL: [Self; 2] = [Self::Theirs, Self::Ours];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Theirs => "Postfix, Rspamd, clamd",
            Self::Ours => "node, clamd",
        }
    }
}

/// CPU time of what stands on the way, so far or of one message.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Parts<T> {
    /// Postfix, or the node.
    pub gateway: T,
    /// The control server.
    pub control: T,
    /// Rspamd.
    pub filter: T,
    /// Rspamd's Redis.
    pub store: T,
    /// clamd.
    pub clamd: T,
    /// The name server.
    pub dns: T,
    /// The next hop.
    pub next_hop: T,
}

impl<T: Copy> Parts<T> {
    /// Each with the one of another.
    pub fn with<R>(&self, other: &Self, of: impl Fn(T, T) -> R) -> Parts<R> {
        Parts {
            gateway: of(self.gateway, other.gateway),
            control: of(self.control, other.control),
            filter: of(self.filter, other.filter),
            store: of(self.store, other.store),
            clamd: of(self.clamd, other.clamd),
            dns: of(self.dns, other.dns),
            next_hop: of(self.next_hop, other.next_hop),
        }
    }
}

/// A line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which messages.
    pub mails: &'static str,
    /// Who passed them on.
    pub who: Who,
    /// Mean size of a message.
    pub bytes_mean: usize,
    /// Messages that were accepted.
    pub done: usize,
    /// Those that were not.
    pub failed: u64,
    /// Those that were accepted and did not come to the next hop: a gateway keeps them.
    pub kept: u64,
    /// The first problem.
    pub problem: Option<String>,
    /// Messages at the next hop a second.
    pub per_s: f64,
    /// CPU time of a message, in milliseconds.
    pub cpu_ms: Parts<f64>,
    /// CPU time of the generator for each, in milliseconds.
    pub generator_ms: f64,
    /// Scans by clamd for each.
    pub scans: f64,
    /// Milliseconds from the connection to the answer to the message: 50 %, 99 %.
    pub latency_ms: [f64; 2],
}

impl World {
    fn spent(&self, who: Who) -> anyhow::Result<Parts<Duration>> {
        let (dns, next_hop) = (self.ours.dns.cpu()?, self.drain.cpu());
        Ok(match who {
            Who::Theirs => Parts {
                gateway: self.postfix.account.cpu()?,
                control: Duration::ZERO,
                filter: self.rspamd.account.cpu()?,
                store: self.rspamd.store.cpu()?,
                clamd: self.their_clamd.account.cpu()?,
                dns,
                next_hop,
            },
            Who::Ours => Parts {
                gateway: self.ours.node.cpu()?,
                control: self.ours.control.cpu()?,
                filter: Duration::ZERO,
                store: Duration::ZERO,
                clamd: self.our_clamd.account.cpu()?,
                dns,
                next_hop,
            },
        })
    }

    fn scans(&self, who: Who) -> anyhow::Result<u64> {
        match who {
            Who::Theirs => self.their_clamd.scans(),
            Who::Ours => self.our_clamd.scans(),
        }
    }

    fn load(&self, who: Who, mails: Arc<Mails>, connections: usize) -> Load {
        Load {
            server: match who {
                Who::Theirs => self.filtered,
                Who::Ours => self.ours.internet,
            },
            origin: Origin::Announced(Network::Announced.prefix()),
            pace: Pace::Closed(connections),
            lasting: LASTING,
            count_max: mails.count() as u64,
            threads: 1,
            errand: Errand::Relay { mails, pipelined: true },
        }
    }

    /// Sends all of a set by so many connections, after some that do not count. `mark` is of this row alone.
    ///
    /// # Errors
    /// When the system does not tell what was used, or nothing was done.
    pub async fn measure(
        &self,
        who: Who,
        set: &Set,
        mark: u32,
        connections: usize,
        warm_up: usize,
    ) -> anyhow::Result<Row> {
        // The highest bit: no message of the warm-up is one that counts.
        if warm_up > 0 {
            let before = self.drain.messages();
            let warm = self.load(who, set.fresh(mark | 1 << 31, warm_up)?, connections).run().await?;
            self.settle(before + warm.took.len() as u64).await;
        }
        let mails = set.fresh(mark, set.count())?;
        let (before, spent, scans) = (self.drain.messages(), self.spent(who)?, self.scans(who)?);
        let began = Instant::now();
        let tally = self.load(who, Arc::clone(&mails), connections).run().await?;
        let done = tally.took.len();
        let last = self.settle(before + done as u64).await;
        let after = self.spent(who)?;
        if done == 0 {
            bail!("{}: nothing was done: {}", who.name(), tally.problem.unwrap_or_default());
        }
        let arrived = self.drain.messages() - before;
        let each_ms = |time: Duration| time.as_secs_f64() * 1e3 / done as f64;
        let lasted = last.saturating_duration_since(began).max(Duration::from_millis(1));
        let latencies = Percentiles::of(tally.took.clone());
        Ok(Row {
            mails: set.name,
            who,
            bytes_mean: mails.bytes_mean(),
            done,
            failed: tally.failures(),
            kept: (done as u64).saturating_sub(arrived),
            problem: tally.problem.clone(),
            per_s: arrived as f64 / lasted.as_secs_f64(),
            cpu_ms: after.with(&spent, |after, before| each_ms(after.saturating_sub(before))),
            generator_ms: each_ms(tally.cpu),
            scans: (self.scans(who)? - scans) as f64 / done as f64,
            latency_ms: [50, 99].map(|p| latencies.ms(p)),
        })
    }

    /// Waits until so many messages are at the next hop, and for what is cleared up behind them; when the last one came.
    async fn settle(&self, messages: u64) -> Instant {
        let last = self.drain.until(messages, ARRIVAL_MAX).await;
        sleep(SETTLE).await;
        last
    }
}
