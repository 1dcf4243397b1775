//! How long nobody can write: after the leader is killed or stopped, and after its site is cut off.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Interval, interval, sleep, timeout},
};

use crate::{
    histories::held::HeldAnswer,
    report::percentile,
    sites::{Options, Sites},
    workload,
};

/// Between two tries of the client.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// How long the client writes on after a server has ended in order.
const AFTER: Duration = Duration::from_secs(2);
/// After so long without a write something is broken.
const WRITE_MAX: Duration = Duration::from_secs(60);
/// How long a cluster may take to be well again.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long a site is cut off.
const CUT: Duration = Duration::from_secs(4);

/// What was measured, by what was done to the leader.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    times: BTreeMap<&'static str, Vec<Duration>>,
}

/// Clients that write on: a try each 50 ms, at each server in turn, without waiting for earlier tries.
struct Writers<'s> {
    sites: &'s Sites,
    next: usize,
    every: Interval,
    tries: JoinSet<bool>,
}

impl<'s> Writers<'s> {
    fn new(sites: &'s Sites) -> Self {
        Self { sites, next: 0, every: interval(TRY_EVERY), tries: JoinSet::new() }
    }

    fn try_once(&mut self) -> anyhow::Result<()> {
        let doors = self.sites.doors[self.next % self.sites.count()].clone();
        let record = workload::record(&mut fastrand::Rng::new())?;
        self.next += 1;
        self.tries.spawn(async move { doors.hold(0, record).await == Some(HeldAnswer::Done) });
        Ok(())
    }

    /// When something is written next.
    ///
    /// # Errors
    /// When nothing is.
    async fn written(&mut self) -> anyhow::Result<Instant> {
        let Ok(written) = timeout(WRITE_MAX, self.write()).await else {
            bail!("nothing was written within {WRITE_MAX:?}")
        };
        written
    }

    async fn write(&mut self) -> anyhow::Result<Instant> {
        loop {
            tokio::select! {
                _ = self.every.tick() => self.try_once()?,
                Some(written) = self.tries.join_next() => if written.context("a try")? {
                    return Ok(Instant::now());
                },
            }
        }
    }
}

/// From now until a write is committed that was asked for after now.
async fn next_write(sites: &Sites) -> anyhow::Result<Duration> {
    let start = Instant::now();
    Ok(Writers::new(sites).written().await?.duration_since(start))
}

/// The longest time without a committed write, from now until something is done and for two seconds more.
async fn longest_pause(sites: &Sites, done: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Duration> {
    let mut writers = Writers::new(sites);
    // Connections are made before.
    let (mut last, mut longest) = (writers.written().await?, Duration::ZERO);
    let whole = async {
        done.await?;
        sleep(AFTER).await;
        anyhow::Ok(())
    };
    let mut whole = std::pin::pin!(whole);
    loop {
        tokio::select! {
            ended = &mut whole => {
                ended?;
                return Ok(longest.max(last.elapsed()));
            }
            written = writers.written() => {
                let written = written?;
                longest = longest.max(written.duration_since(last));
                last = written;
            }
        }
    }
}

/// Kills, stops and cuts off the leader `times` times each.
///
/// # Errors
/// When the cluster does not come back.
pub async fn measure(options: &Options, times: usize) -> anyhow::Result<Figures> {
    let sites = Sites::start(options).await?;
    let mut figures = Figures::default();
    for round in 0..times {
        for what in ["leader killed", "leader stopped in order", "leader's site cut off"] {
            options.progress.set_message(format!("round {} of {times}: {what}", round + 1));
            let leader = sites.settled(SETTLE_MAX).await?.leader;
            let mut note = |name, time: Duration| {
                if options.progress.is_hidden() {
                    eprintln!("round {} of {times}: {name} {:.2} s", round + 1, time.as_secs_f64());
                }
                figures.times.entry(name).or_default().push(time);
            };
            match what {
                "leader killed" => {
                    sites.kill9(leader).await?;
                    note("SIGKILL of the leader: next write", next_write(&sites).await?);
                    sites.start_again(leader).await?;
                    note("start of the killed leader: all caught up", sites.settled(SETTLE_MAX).await?.took);
                }
                "leader stopped in order" => {
                    let pause = longest_pause(&sites, sites.terminate(leader)).await?;
                    note("SIGTERM of the leader: longest time without a write", pause);
                    sites.start_again(leader).await?;
                }
                _ => {
                    sites.wan.set_sends(leader, false);
                    sites.wan.set_receives(leader, false);
                    note("leader's site cut off: next write", next_write(&sites).await?);
                    sleep(CUT).await;
                    sites.wan.heal().await?;
                    note("heal of the cut: all caught up", sites.settled(SETTLE_MAX).await?.took);
                }
            }
        }
    }
    sites.finish().await?;
    Ok(figures)
}

impl Figures {
    fn rows(&self) -> Vec<(&'static str, usize, [Duration; 3])> {
        let row = |(name, times): (&&'static str, &Vec<Duration>)| {
            let mut sorted = times.clone();
            sorted.sort();
            (*name, sorted.len(), [50, 99, 100].map(|percent| percentile(&sorted, percent)))
        };
        self.times.iter().map(row).collect()
    }

    /// As a table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(["from what to what", "times", "p50", "p99", "longest"]);
        for (name, count, times) in self.rows() {
            let [p50, p99, longest] = times.map(|time| format!("{:.2} s", time.as_secs_f64()));
            table.add_row([name.to_owned(), count.to_string(), p50, p99, longest]);
        }
        format!("{table}\n")
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let row = |(name, count, times): (&str, usize, [Duration; 3])| {
            let [p50, p99, longest] = times.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            json!({"what": name, "times": count, "p50_ms": p50, "p99_ms": p99, "longest_ms": longest})
        };
        Value::Array(self.rows().into_iter().map(row).collect())
    }
}
