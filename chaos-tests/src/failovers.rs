//! How long nobody can write: after the leader is killed or stopped, and after its site is cut off.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    report::percentile,
    sites::{Options, Sites},
    workload,
};

/// Between two tries of the client.
const TRY_EVERY: Duration = Duration::from_millis(100);
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

/// From now until a write is committed that was asked for after now: a client tries on, a try each 100 ms, at each server in turn,
/// without waiting for earlier tries.
async fn next_write(sites: &Sites) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut tries = JoinSet::new();
    for server in (0..sites.count()).cycle() {
        let (doors, record) = (sites.doors[server].clone(), workload::record(&mut fastrand::Rng::new())?);
        tries.spawn(async move { doors.hold(0, record).await.is_some() });
        let next = sleep(TRY_EVERY);
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut next => break,
                Some(written) = tries.join_next() => if written.context("a try")? {
                    return Ok(start.elapsed());
                },
            }
        }
        if start.elapsed() > WRITE_MAX {
            break;
        }
    }
    bail!("nothing was written within {WRITE_MAX:?}")
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
            let mut note = |name, time| figures.times.entry(name).or_default().push(time);
            match what {
                "leader killed" => {
                    sites.kill9(leader).await?;
                    note("SIGKILL of the leader: next write", next_write(&sites).await?);
                    sites.start_again(leader).await?;
                    note("start of the killed leader: all caught up", sites.settled(SETTLE_MAX).await?.took);
                }
                "leader stopped in order" => {
                    let (write, stopped) = tokio::join!(next_write(&sites), sites.terminate(leader));
                    stopped?;
                    note("SIGTERM of the leader: next write", write?);
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
