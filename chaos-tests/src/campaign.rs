//! Runs: each starts a cluster of its own and goes from window to window until its time is up, checks every invariant, and writes
//! down what was found.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::{
    faults::{Spell, strike},
    histories::{History, Spec},
    invariants::{
        Violation,
        a_confirmed_view_is_up_to_date::{self, Acknowledged},
        a_cut_off_server_answers_nothing, a_cut_off_server_refuses_soon, a_healed_cluster_serves_again,
        a_release_takes_effect_at_most_once, a_view_never_moves_back, all_replicas_end_with_the_same_digest,
        histories_are_linearizable, no_server_ends_by_itself, nothing_acknowledged_is_lost,
    },
    oracle::{Clock, Told},
    report::{Found, Healed, Tally},
    schedule::{FaultKind, Schedule, Window},
    sites::{Options, Settled, Sites},
    watchers::{Seen, Watchers},
    workload::{Histories, Workload},
};

/// How long a cluster may take to be well after a fault.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// Clients go on for so long after a fault.
const TAIL: Duration = Duration::from_millis(600);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many runs.
    pub runs: u64,
    /// Of the first run; the next ones have the next numbers.
    pub seed: u64,
    /// What may go wrong.
    pub kinds: Vec<FaultKind>,
    /// How long each run goes from window to window.
    pub lasts: Duration,
    /// Three or five.
    pub servers: usize,
    /// A folder with a `peer` to run in the place of the workspace's.
    pub programs: Option<PathBuf>,
    /// Everything of each run is kept in a folder below.
    pub keep: Option<PathBuf>,
    /// End with the first violation.
    pub until_found: bool,
    /// Where progress is shown.
    pub progress: ProgressBar,
}

impl Plan {
    fn has(&self, kind: FaultKind) -> bool {
        self.kinds.contains(&kind)
    }

    fn options(&self, seed: u64) -> Options {
        Options {
            servers: self.servers,
            seed,
            programs: self.programs.clone(),
            short_logs: true,
            keep: self.keep.as_ref().map(|folder| folder.join(format!("run-{seed}"))),
            small_disks: self.has(FaultKind::Diskfull),
            shims: [FaultKind::Slowdisk, FaultKind::Eio, FaultKind::Clock].into_iter().any(|kind| self.has(kind)),
            progress: self.progress.clone(),
            ..Options::default()
        }
    }
}

/// Runs the plan to its end.
///
/// # Errors
/// When something around the cluster fails: what was found in the cluster is in the tally.
pub async fn run(plan: &Plan) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for seed in (0..plan.runs).map(|number| plan.seed.wrapping_add(number)) {
        let sites = Sites::start(&plan.options(seed)).await.with_context(|| format!("start the run of seed {seed}"))?;
        let clock = Clock::start();
        let mut run = Run { plan, seed, clock, windows: Vec::new(), seen: Vec::new(), acknowledged: Vec::new() };
        let found = run.windows(&sites, &mut tally).await?;
        let found = if found.is_empty() { run.end(&sites).await? } else { found };
        run.write_down(&sites.root, &found)?;
        sites.finish().await?;
        tally.runs += 1;
        let shown = run.schedule();
        if plan.progress.is_hidden() {
            eprintln!("run of seed {seed}: {} windows; {}", tally.windows, tally.line());
        }
        tally.found.extend(found.into_iter().map(|violation| Found { seed, schedule: shown.clone(), violation }));
        if plan.until_found && !tally.found.is_empty() {
            break;
        }
    }
    Ok(tally)
}

struct Run<'p> {
    plan: &'p Plan,
    seed: u64,
    clock: Clock,
    /// Those that have begun.
    windows: Vec<Window>,
    /// What nodes saw of the view in the whole run.
    seen: Vec<Seen>,
    /// The policies that were acknowledged in it.
    acknowledged: Vec<Acknowledged>,
}

impl Run<'_> {
    /// Window after window until the time is up or something is wrong.
    async fn windows(&mut self, sites: &Sites, tally: &mut Tally) -> anyhow::Result<Vec<Violation>> {
        let watchers = Watchers::start(sites, &self.clock);
        for window in Schedule::new(self.seed, &self.plan.kinds) {
            if self.clock.now().at >= self.plan.lasts {
                break;
            }
            let time = self.clock.now().at.as_secs();
            self.plan.progress.set_message(format!("run {}, {time} s, {window}; {}", self.seed, tally.line()));
            self.windows.push(window.clone());
            let found = self.window(sites, &window, &watchers, tally).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        self.seen.extend(watchers.seen());
        let mut found = a_view_never_moves_back::check(&self.seen);
        found.extend(a_confirmed_view_is_up_to_date::check(&self.acknowledged, &self.seen));
        Ok(found)
    }

    /// One window. An error is one of the world around the cluster.
    async fn window(
        &mut self,
        sites: &Sites,
        window: &Window,
        watchers: &Watchers,
        tally: &mut Tally,
    ) -> anyhow::Result<Vec<Violation>> {
        let span = window.after + window.lasts + TAIL;
        let before = match a_healed_cluster_serves_again::check(sites.settled(SETTLE_MAX).await) {
            Ok(settled) => settled,
            Err(violation) => return Ok(vec![violation]),
        };
        let begun = Workload::begin(sites, &self.clock, (window.number, window.seed), span).await;
        let workload = match a_healed_cluster_serves_again::check(begun) {
            Ok(workload) => workload,
            Err(violation) => return Ok(vec![violation]),
        };
        let struck = strike(sites, &self.clock, window, before.leader).await;
        let settled = match &struck {
            Ok(_) => sites.settled(SETTLE_MAX).await,
            Err(_) => Ok(Settled::default()),
        };
        let healed_at = self.clock.now().at;
        tokio::time::sleep(TAIL).await;
        let mut ended = workload.end().await;
        let spell = match a_healed_cluster_serves_again::check(struck) {
            Ok(spell) => spell,
            Err(violation) => return Ok(vec![violation]),
        };
        let looked = match settled {
            Ok(settled) => {
                let took = healed_at.saturating_sub(spell.to.at);
                // Without a leader at the end of the fault the first election is not an extra one.
                let new = settled.terms.iter().filter(|term| **term > spell.term).count();
                let extra_elections = if spell.term == 0 { new.saturating_sub(1) } else { new };
                tally.healed(spell.kind, Healed { took, extra_elections });
                ended.look_again().await
            }
            Err(problem) => Err(problem),
        };
        let mut violations: Vec<Violation> = a_healed_cluster_serves_again::check(looked).err().into_iter().collect();
        violations.extend(no_server_ends_by_itself::check(&spell, &down(sites).await));
        let seen = watchers.seen();
        let versions = versions(sites).await;
        violations.extend(nothing_acknowledged_is_lost::check(&ended.histories, &versions));
        violations.extend(a_release_takes_effect_at_most_once::check(&ended.histories));
        violations.extend(a_cut_off_server_answers_nothing::check(&ended.histories, &seen, &spell));
        violations.extend(a_cut_off_server_refuses_soon::check(&ended.histories, &spell));
        self.seen.extend(seen);
        self.acknowledged.extend(a_confirmed_view_is_up_to_date::acknowledged(&ended.histories.policy));
        count(&ended.histories, &spell, tally)?;
        let histories = ended.histories;
        let judged = tokio::task::spawn_blocking(move || histories_are_linearizable::check(&histories));
        violations.extend(judged.await.context("judge the histories")?);
        Ok(violations)
    }

    /// Stops the servers in order and compares what is on their disks.
    async fn end(&self, sites: &Sites) -> anyhow::Result<Vec<Violation>> {
        if let Err(violation) = a_healed_cluster_serves_again::check(sites.settled(SETTLE_MAX).await) {
            return Ok(vec![violation]);
        }
        sites.stop_servers().await?;
        let data: Vec<PathBuf> = (0..sites.count()).map(|server| sites.data(server).to_owned()).collect();
        let compared = tokio::task::spawn_blocking(move || all_replicas_end_with_the_same_digest::check(&data));
        compared.await.context("compare the states")?
    }

    /// The seed and the windows that have begun, a line each.
    fn schedule(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        for window in &self.windows {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{window}");
        }
        text
    }

    /// Keeps schedule and violations beside logs and data, when they are to be kept.
    fn write_down(&self, root: &Path, found: &[Violation]) -> anyhow::Result<()> {
        if self.plan.keep.is_none() {
            return Ok(());
        }
        std::fs::write(root.join("schedule.txt"), self.schedule()).context("write the schedule")?;
        let shown: Vec<String> = found.iter().map(|one| format!("{}:\n{}\n", one.invariant, one.seen)).collect();
        std::fs::write(root.join("violations.txt"), shown.join("\n")).context("write the violations")
    }
}

/// The policy's versions with their tags, from whichever server answers first.
async fn versions(sites: &Sites) -> BTreeMap<u64, String> {
    for doors in &sites.doors {
        if let Some(versions) = doors.policies(0).await {
            return versions;
        }
    }
    BTreeMap::new()
}

/// Servers that should run and do not, with the end of their logs.
async fn down(sites: &Sites) -> Vec<String> {
    let mut down = Vec::new();
    for server in 0..sites.count() {
        if !sites.runs(server).await {
            down.push(format!("{} has ended; its log ends with:\n{}", sites.name(server), sites.log_end(server)));
        }
    }
    down
}

/// Counts what a window brought.
fn count(histories: &Histories, spell: &Spell, tally: &mut Tally) -> anyhow::Result<()> {
    tally.windows += 1;
    let before = tally.answered;
    counted(&histories.policy, spell, tally);
    histories.messages.iter().for_each(|message| counted(message, spell, tally));
    // A harness that cannot speak to the cluster would find nothing wrong for ever.
    anyhow::ensure!(
        tally.answered > before + histories.messages.len(),
        "hardly anything was answered in a whole window"
    );
    Ok(())
}

fn counted<S: Spec>(history: &History<S>, spell: &Spell, tally: &mut Tally) {
    let overlaps = |told: &Told<S::Op, S::Answer>| told.from.tick < spell.to.tick && told.to.tick > spell.from.tick;
    tally.histories += 1;
    tally.overlapped += u64::from(history.told.iter().any(overlaps));
    tally.operations += history.told.len();
    tally.answered += history.told.iter().filter(|told| told.answer.is_some()).count();
}
