//! A group with as many held records as it may have: what a snapshot costs those who write meanwhile, how long a new server
//! takes to be filled, how much memory and disk the servers use.

pub mod builds;
pub mod fill;
pub mod servers;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use proto::{held::HeldId, mutation::Change, time::UnixMs};
use tokio::sync::watch;

use self::{
    builds::{Build, Builds},
    servers::{Member, Servers},
};
use crate::{
    commits::{Ground, Store as _, edge::Proposals, voters::NAMES, work::Work},
    load::Percentiles,
};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Held records of the group.
    pub records: u64,
    /// Proposers at the same time.
    pub clients: usize,
    /// How long is measured without a snapshot.
    pub quiet: Duration,
}

/// Bytes of a mutation that does nothing but lengthen the log.
const BALLAST_BYTES: usize = 100_000;
/// How many of them are on their way at the same time.
const BALLAST_CLIENTS: usize = 4;

/// What commits took while something went on.
#[derive(Clone, Debug)]
pub struct Phase {
    /// While what.
    pub name: &'static str,
    /// How long it went on.
    pub lasted: Duration,
    /// Of each commit.
    pub took: Percentiles,
    /// Writes without an answer.
    pub failed: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Figures {
    /// To make the records, beforehand.
    pub prepared: Duration,
    /// The slowest start of a server with all records.
    pub started: Duration,
    /// Commits without and with a snapshot being built.
    pub phases: Vec<Phase>,
    /// The snapshots that were built meanwhile.
    pub builds: Vec<Build>,
    /// From the start of the new server's process until it has its vote.
    pub filled: Duration,
    /// How it is with each server at the end.
    pub members: Vec<Member>,
}

/// Measures all.
///
/// # Errors
/// When a server does not do what it should, or the servers' states differ in the end.
pub async fn measure(ground: &Ground, plan: Plan, progress: &ProgressBar) -> anyhow::Result<Figures> {
    let mut servers = Servers::make(ground)?;
    progress.set_message("forming a group of two");
    servers.start(0).await?;
    servers.start(1).await?;
    servers.form(2).await?;
    servers.stop().await?;

    progress.set_message("making the records");
    let begun = Instant::now();
    let (one, other) = (servers.state_of(0), servers.state_of(1));
    let bar = progress.clone();
    let fill = move || fill::fill(&one, plan.records, &bar).and_then(|()| fill::copy(&one, &other));
    tokio::task::spawn_blocking(fill).await??;
    let prepared = begun.elapsed();

    progress.set_message("starting two servers that have them");
    let mut started = Duration::ZERO;
    for which in 0..2 {
        started = started.max(servers.start(which).await?);
    }
    servers.leader().await?;
    let proposals = servers.proposals(2)?;
    progress.set_message("committing without a snapshot");
    let quiet = phase("no snapshot", &proposals, plan.clients, async {
        tokio::time::sleep(plan.quiet).await;
        Ok(())
    });
    let (quiet, _) = quiet.await?;
    progress.set_message("lengthening the log until the servers make a snapshot");
    let builds = Builds::watch((0..2).map(|which| servers.snapshots_of(which)).collect());
    lengthen(&proposals, &builds).await?;
    progress.set_message("committing while the servers make a snapshot");
    let (mut during, commits) = phase("snapshots being built", &proposals, plan.clients, builds.all_done()).await?;
    let builds = builds.finish();
    let overlapping = |commit: &&Commit| builds.iter().any(|build| commit.0 < build.to && commit.1 > build.from);
    during.took = Percentiles::of(commits.iter().filter(overlapping).map(|(from, to)| *to - *from).collect());

    progress.set_message("filling a third server");
    let begun = Instant::now();
    servers.start(2).await?;
    servers.take_in(2).await?;
    let filled = begun.elapsed();
    let members = servers.look()?;
    progress.set_message("comparing the servers' states");
    let leader = servers.leader().await?;
    for (name, _) in NAMES {
        servers.operator.caught_up(name).await.with_context(|| format!("{name} follows {leader}"))?;
    }
    servers.stop().await?;
    let digests: Vec<_> = (0..3).map(|which| fill::digest(&servers.state_of(which))).collect::<Result<_, _>>()?;
    ensure!(digests.iter().all(|digest| *digest == digests[0]), "the servers' states differ: {digests:?}");
    Ok(Figures { prepared, started, phases: vec![quiet, during], builds, filled, members })
}

/// When a commit was begun and when it was done.
type Commit = (Instant, Instant);

/// Has clients commit for as long as `until` takes.
async fn phase(
    name: &'static str,
    proposals: &Proposals,
    clients: usize,
    until: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<(Phase, Vec<Commit>)> {
    let begun = Instant::now();
    let (stop, stopping) = watch::channel(false);
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            let (proposals, stopping) = (proposals.clone(), stopping.clone());
            tokio::spawn(async move {
                let (mut commits, mut failed) = (Vec::new(), 0);
                while !*stopping.borrow() {
                    let begun = Instant::now();
                    match proposals.write(client, Work::Discard).await {
                        Ok(()) => commits.push((begun, Instant::now())),
                        Err(_) => failed += 1,
                    }
                }
                (commits, failed)
            })
        })
        .collect();
    let ended = until.await;
    stop.send_replace(true);
    let lasted = begun.elapsed();
    let (mut commits, mut failed) = (Vec::new(), 0);
    for client in clients {
        let (done, not) = client.await.context("a client")?;
        commits.extend(done);
        failed += not;
    }
    ended?;
    let took = Percentiles::of(commits.iter().map(|(from, to)| *to - *from).collect());
    Ok((Phase { name, lasted, took, failed }, commits))
}

/// Commits what changes nothing but is long, until a server begins to make a snapshot.
async fn lengthen(proposals: &Proposals, builds: &Builds) -> anyhow::Result<()> {
    let clients: Vec<_> = (0..BALLAST_CLIENTS)
        .map(|client| {
            let (proposals, began) = (proposals.clone(), builds.began());
            tokio::spawn(async move {
                while !*began.borrow() {
                    let attempted = Change::Attempted {
                        held: HeldId::fresh(),
                        delivered: Vec::new(),
                        refused: Vec::new(),
                        next_attempt: UnixMs(0),
                        problem: "x".repeat(BALLAST_BYTES),
                    };
                    proposals.propose(client, &attempted).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.await.context("a client")??;
    }
    Ok(())
}
