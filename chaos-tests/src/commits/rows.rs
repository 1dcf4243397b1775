//! The rows of the benchmark: each starts its store in a new folder, measures it and stops it again.

use control::raft::Batching;
use serde_json::{Value, json};

use super::{
    Ground, Load, Sample,
    disk::Pages,
    edge::Servers,
    etcd::Etcd,
    installed, measure,
    redis::Redis,
    voters::{Proposals, Voters},
    work::Work,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One client that writes 4 KiB and waits for fsync.
    Disk {
        /// At the end of a file that grows, as a log does, or over the same page, as the high-water mark does: a file system
        /// has much less to do for the latter.
        grows: bool,
    },
    /// Control servers in this process, with batches as in production.
    Batched {
        /// How many voters.
        voters: usize,
    },
    /// One mutation an entry, and one entry at a time: what each proposal costs that shares nothing. openraft waits for an
    /// append and its fsyncs before it makes the next one, so more on their way would only queue up.
    Single {
        /// How many voters.
        voters: usize,
    },
    /// `postern-control` processes over gRPC.
    Edge {
        /// How many voters.
        voters: usize,
    },
    /// One etcd.
    Etcd,
    /// One Redis, `appendfsync always`.
    Redis,
}

/// A line of the result.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is measured.
    pub target: Target,
    /// With what; the disk has no choice.
    pub work: Work,
    /// A sample for each round.
    pub samples: Vec<Sample>,
    /// Why there is none.
    pub missing: Option<&'static str>,
}

const NOT_INSTALLED: &str = "not installed: apt-get install etcd-server redis-server";

/// All rows, the disk first.
#[must_use]
pub fn all() -> Vec<Row> {
    let row = |target, work| Row { target, work, samples: Vec::new(), missing: None };
    let mut rows =
        [true, false].into_iter().map(|grows| row(Target::Disk { grows }, Work::Discard)).collect::<Vec<_>>();
    for work in [Work::Discard, Work::Hold] {
        for voters in [1, 3] {
            rows.push(row(Target::Batched { voters }, work));
            rows.push(row(Target::Single { voters }, work));
        }
        rows.extend([row(Target::Edge { voters: 1 }, work), row(Target::Edge { voters: 3 }, work)]);
        rows.extend([row(Target::Etcd, work), row(Target::Redis, work)]);
    }
    rows
}

impl Row {
    /// Its name in the table.
    #[must_use]
    pub fn name(&self) -> String {
        match self.target {
            Target::Disk { grows: true } => "appends of 4 KiB, fsync each, one at a time".into(),
            Target::Disk { grows: false } => "writes of 4 KiB in place, fsync each, one at a time".into(),
            Target::Batched { voters } => format!("library, {} voter(s), many mutations an entry", voters),
            Target::Single { voters } => format!("library, {} voter(s), one mutation an entry, one at a time", voters),
            Target::Edge { voters } => format!("postern-control, {} voter(s), gRPC and mTLS", voters),
            Target::Etcd => "one etcd, gRPC without TLS".into(),
            Target::Redis => "one Redis, appendfsync always".into(),
        }
    }

    /// What it writes.
    #[must_use]
    pub fn writes(&self) -> String {
        match (self.target, self.work) {
            (Target::Disk { .. }, _) => "4096 bytes".into(),
            (_, Work::Hold) => format!("hold, {} bytes", Work::Hold.pair().1.len()),
            (_, Work::Discard) => format!("discard, {} bytes", Work::Discard.pair().1.len()),
        }
    }

    /// Measures it once more.
    ///
    /// # Errors
    /// When the store does not start, a write fails, or it does not stop.
    pub async fn run(&mut self, ground: &Ground, load: Load) -> anyhow::Result<()> {
        let load = Load { work: self.work, ..load };
        let sample = match self.target {
            Target::Disk { grows } => {
                measure(Pages::in_folder(&ground.fresh("disk")?, grows)?, Load { clients: 1, ..load }).await?
            }
            Target::Batched { voters } => library(ground, voters, Batching::default(), load).await?,
            Target::Single { voters } => {
                let batching = Batching { mutations_max: 1, in_flight_max: 1, ..Batching::default() };
                library(ground, voters, batching, load).await?
            }
            Target::Edge { voters } => {
                let servers = Servers::start(ground, voters).await?;
                let sample = measure(servers.proposals.clone(), load).await?;
                servers.stop().await?;
                sample
            }
            Target::Etcd => {
                let Some(path) = installed("etcd") else { return self.is_missing() };
                let etcd = Etcd::start(&path, ground).await?;
                let sample = measure(etcd.puts.clone(), load).await?;
                etcd.stop().await?;
                sample
            }
            Target::Redis => {
                let Some(path) = installed("redis-server") else { return self.is_missing() };
                let Redis { process, sets } = Redis::start(&path, ground, load.clients).await?;
                let sample = measure(sets, load).await?;
                process.stop().await?;
                sample
            }
        };
        self.samples.push(sample);
        Ok(())
    }

    fn is_missing(&mut self) -> anyhow::Result<()> {
        self.missing = Some(NOT_INSTALLED);
        Ok(())
    }

    /// The round with the median rate.
    #[must_use]
    pub fn median(&self) -> Option<&Sample> {
        let mut sorted: Vec<&Sample> = self.samples.iter().collect();
        sorted.sort_by(|one, other| one.writes_per_s.total_cmp(&other.writes_per_s));
        sorted.get(sorted.len() / 2).copied()
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let rounds: Vec<f64> = self.samples.iter().map(|sample| sample.writes_per_s).collect();
        let median = self.median();
        json!({
            "what": self.name(),
            "writes": self.writes(),
            "writes_per_s": median.map(|sample| sample.writes_per_s),
            "p50_ms": median.map(|sample| sample.latencies.ms(50)),
            "p99_ms": median.map(|sample| sample.latencies.ms(99)),
            "writes_per_s_of_each_round": rounds,
            "missing": self.missing,
        })
    }
}

async fn library(ground: &Ground, voters: usize, batching: Batching, load: Load) -> anyhow::Result<Sample> {
    let folder = ground.fresh("library")?;
    let voters = Voters::start(&folder, voters, batching).await?;
    let leader = voters.leader().ok_or_else(|| anyhow::anyhow!("the leader is gone before the load begins"))?;
    let sample = measure(Proposals(leader), load).await?;
    voters.stop().await?;
    Ok(sample)
}

/// How many times the rate of one row is that of another with the same work.
#[must_use]
pub fn ratio(rows: &[Row], work: Work, of: Target, to: Target) -> Option<f64> {
    let rate = |target| {
        let row = rows.iter().find(|row| row.target == target && row.work == work)?;
        row.median().map(|sample| sample.writes_per_s).filter(|rate| *rate > 0.0)
    };
    Some(rate(of)? / rate(to)?)
}

#[cfg(test)]
mod tests {
    use super::{Row, Target, Work, ratio};
    use crate::{commits::Sample, load::Percentiles};

    fn row(target: Target, rates: &[f64]) -> Row {
        let sample = |rate: &f64| Sample { writes_per_s: *rate, latencies: Percentiles::default() };
        Row { target, work: Work::Hold, samples: rates.iter().map(sample).collect(), missing: None }
    }

    #[test]
    fn a_ratio_is_that_of_the_medians_and_a_missing_row_has_none() {
        let rows = [
            row(Target::Etcd, &[10.0, 90.0, 20.0]),
            row(Target::Redis, &[5.0]),
            row(Target::Disk { grows: true }, &[]),
        ];
        assert_eq!(ratio(&rows, Work::Hold, Target::Etcd, Target::Redis).map(f64::to_bits), Some(4.0_f64.to_bits()));
        assert_eq!(ratio(&rows, Work::Hold, Target::Etcd, Target::Disk { grows: true }), None);
        assert_eq!(ratio(&rows, Work::Discard, Target::Etcd, Target::Redis), None);
    }
}
