//! Damaged files: a data folder is copied, one file of it damaged, and opened as the server opens it. Only two things may come of
//! it: everything is as it was, or the server refuses and says why and what to do. What is less and says nothing is silent loss.

mod damage;
pub mod judge;
mod template;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use fastrand::Rng;
use indicatif::ProgressBar;
use tokio::task::JoinSet;

pub use self::damage::Damage;
use self::{
    damage::copy,
    judge::{APPLY, Opened},
    template::Template,
};
use super::Bench;

/// Of the folders that look as they were, one in this many is opened by a server that runs, too.
const SERVED_EVERY: u64 = 50;
/// Each refusal ends with one of these: what the operator does next.
const WAYS_OUT: [&str; 3] =
    ["The way out: ", "correct data folder, node id or certificate", "start the version of Postern"];

/// What came of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything is there.
    AsItWas,
    /// The state had lost some, and the log gave it back.
    Healed,
    /// Refused, with the reason and the way out.
    Refused,
    /// Refused after the longest time that opening may take.
    GivenUp,
    /// A body is not given, because it is damaged; everything else is there.
    BodyMissed,
    /// Let pass, and then out of Raft with a word in its log: it should have been refused before. This must not be.
    LeftRaft,
    /// The process ended without telling the operator what to do: this must not be.
    Wordless,
    /// The process ended by a panic or a signal: this must not be.
    Panicked,
    /// Opened, and something is missing or different: this must not be.
    SilentLoss,
    /// Neither opened nor refused: this must not be.
    Hung,
}

impl Verdict {
    fn is_violation(self) -> bool {
        match self {
            Self::AsItWas | Self::Healed | Self::Refused | Self::GivenUp | Self::BodyMissed => false,
            Self::LeftRaft | Self::Wordless | Self::Panicked | Self::SilentLoss | Self::Hung => true,
        }
    }
}

/// How often each damage of each file had each result, and what must not be.
#[derive(Clone, Debug, Default)]
pub struct Corruptions {
    /// Cases in which something was damaged; in the others the damage would have changed nothing.
    pub damaged: u64,
    /// By file, damage and verdict.
    pub counts: BTreeMap<(String, Damage, Verdict), u64>,
    /// One sentence for each that must not be.
    pub violations: Vec<String>,
}

/// What became of one damage.
struct Outcome {
    file: String,
    damage: Damage,
    verdict: Verdict,
    said: String,
}

/// What a refusal is, by what was said.
fn ended(orderly: bool, said: &str) -> Verdict {
    let last = said.lines().last().unwrap_or_default();
    match orderly {
        false => Verdict::Panicked,
        true if said.contains(APPLY) => Verdict::LeftRaft,
        true if last.contains("--open-within") => Verdict::GivenUp,
        true if WAYS_OUT.iter().any(|way| last.contains(way)) => Verdict::Refused,
        true => Verdict::Wordless,
    }
}

/// A server that runs on the folder has to have everything.
async fn served(bench: &Bench, template: &Template, data: &Path, well: Verdict) -> anyhow::Result<(Verdict, String)> {
    let whole = &template.whole.raft;
    Ok(match judge::serve(bench, &template.settings, data).await? {
        Opened::Hung => (Verdict::Hung, "no word of a server that runs".to_owned()),
        Opened::Ended { orderly, said } => (ended(orderly, &said), said),
        // It has voted for itself and added an entry.
        Opened::Well(found) => {
            let last = whole.last.map_or(0, |id| id.index);
            let term = whole.vote.map_or(0, |vote| vote.leader_id().term);
            let same = found.digest == whole.digest && found.last >= last && found.term >= term;
            (if same { well } else { Verdict::SilentLoss }, format!("{found:?} instead of {whole:?}"))
        }
    })
}

async fn verdict(bench: &Bench, template: &Template, data: &Path, number: u64) -> anyhow::Result<(Verdict, String)> {
    let whole = &template.whole;
    let found = match judge::look(bench, &template.settings, data, Vec::new()).await? {
        Opened::Hung => return Ok((Verdict::Hung, "no word".to_owned())),
        Opened::Ended { orderly, said } => return Ok((ended(orderly, &said), said)),
        Opened::Well(found) => found,
    };
    let said = format!("{found:?} instead of {whole:?}");
    let same_entries = found.raft.purged != whole.raft.purged || found.raft.checksum == whole.raft.checksum;
    if (found.raft.owner.as_ref(), found.raft.last, found.raft.vote)
        != (whole.raft.owner.as_ref(), whole.raft.last, whole.raft.vote)
        || !same_entries
    {
        return Ok((Verdict::SilentLoss, said));
    }
    if found.raft != whole.raft {
        return served(bench, template, data, Verdict::Healed).await;
    }
    if found.bodies != whole.bodies {
        return Ok((Verdict::BodyMissed, said));
    }
    if number.is_multiple_of(SERVED_EVERY) {
        return served(bench, template, data, Verdict::AsItWas).await;
    }
    Ok((Verdict::AsItWas, said))
}

/// Damages one file of one copy.
async fn case(bench: &Bench, templates: &[Template], number: u64) -> anyhow::Result<Option<Outcome>> {
    let mut rng = Rng::with_seed(bench.seed.wrapping_mul(7_368_787).wrapping_add(number));
    let template = &templates[usize::from(rng.u8(..4) == 0).min(templates.len() - 1)];
    let file = rng.choice(&template.files).context("the folder has files")?.clone();
    let damage = Damage::draw(&mut rng);
    let data = bench.root.join(format!("case-{number}"));
    copy(&template.data, &data).with_context(|| format!("copy to {}", data.display()))?;
    let mut outcome = None;
    if damage.strike(&data, &template.older, &file, &mut rng)? {
        let (mut verdict, said) = verdict(bench, template, &data, number).await?;
        if verdict == Verdict::BodyMissed && !file.starts_with("bodies") {
            verdict = Verdict::SilentLoss;
        }
        let said = said.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
        // Bodies and sled's snapshots have names that say nothing.
        let kind = match file.parent().and_then(Path::to_str).unwrap_or_default() {
            _ if damage == Damage::PutBack => "all but the mark".to_owned(),
            "bodies" => "bodies/…".to_owned(),
            "state" if file.display().to_string().contains("snap.") => "state/snap.…".to_owned(),
            _ => file.display().to_string(),
        };
        outcome = Some(Outcome { file: format!("{}: {kind}", template.name), damage, verdict, said });
    }
    std::fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
    Ok(outcome)
}

/// Runs `count` cases that follow from the seed, `jobs` at the same time.
///
/// # Errors
/// When the harness itself fails.
pub async fn run(bench: &Arc<Bench>, count: u64, jobs: u64, bar: &ProgressBar) -> anyhow::Result<Corruptions> {
    let templates = Arc::new(template::make(bench).await?);
    let next = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..jobs.max(1) {
        let (bench, templates, next, bar) = (Arc::clone(bench), Arc::clone(&templates), Arc::clone(&next), bar.clone());
        running.spawn(async move {
            let mut outcomes = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count || bench.ending() {
                    return anyhow::Ok(outcomes);
                }
                let outcome = case(&bench, &*templates, number).await.with_context(|| format!("case {number}"))?;
                outcomes.extend(outcome.map(|outcome| (number, outcome)));
                bar.inc(1);
            }
        });
    }
    let mut all = Corruptions::default();
    while let Some(outcomes) = running.join_next().await {
        for (number, Outcome { file, damage, verdict, said }) in outcomes.context("run a case")?? {
            if verdict.is_violation() {
                all.violations.push(format!("case {number}: {file}, {damage:?}: {verdict:?}: {said}"));
            }
            all.damaged += 1;
            *all.counts.entry((file, damage, verdict)).or_default() += 1;
        }
    }
    all.violations.sort();
    Ok(all)
}
