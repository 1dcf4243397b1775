//! Damaged files: a data folder is copied, one file of it damaged, and opened as the server opens it. Only two things may come of
//! it: everything is as it was, or the server refuses and says why. What is less and says nothing is silent loss.

use std::{
    collections::BTreeMap,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use control::{
    bodies::{Bodies, Sender},
    config::Config,
    raft::{Group, GroupConfig, Rules, Server},
};
use fastrand::Rng;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::{process::Command, sync::watch, task::JoinSet};

use super::{Bench, ledger::Ledger, load, solo::Solo};

/// Cycles of load that the folder has seen before it is damaged.
const CYCLES: u32 = 6;
/// A folder that is not judged within this time hangs the server.
const JUDGE_MAX: Duration = Duration::from_secs(30);
/// What the judge was at when a server that was let pass did not come to serve.
const APPLY: &str = "apply the log that the gate has let pass";
const PAGE_BYTES: u64 = 4096;
const BODY_BYTES: usize = 100_000;

/// What a data folder holds, as a server that opens it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Term of the last vote.
    pub term: u64,
    /// Index of the last entry.
    pub last: u64,
    /// Digest of the replicated state.
    pub digest: String,
    /// Bodies that were given as good.
    pub bodies: usize,
}

/// Opens a folder as the server does, waits until the log is applied, and says what is there.
///
/// # Errors
/// When the server would refuse, with its reason.
pub async fn judge(config: &Path, data: PathBuf) -> anyhow::Result<Contents> {
    let config = Config::load(config).context("load the settings")?;
    let bodies = Bodies::open(&data).context("open the body store")?;
    let server = Server { name: config.name, site: config.site, address: config.advertise };
    let group = GroupConfig {
        id: config.id,
        server,
        data_dir: data.clone(),
        credentials: config.credentials,
        rules: Rules::default(),
    };
    let group = Group::open(group).await.context("open the Raft group")?;
    group.linearize().await.context(APPLY)?;
    let status = group.status();
    let mut good = 0;
    for entry in std::fs::read_dir(data.join("bodies")).context("list the bodies")? {
        let name = entry.context("list the bodies")?.file_name().to_string_lossy().into_owned();
        good += usize::from(bodies.read(Sender::Node, &name, BODY_BYTES as u64).await.is_ok());
    }
    let digest = group.state().digest();
    Ok(Contents { term: status.term, last: status.last_log_index, digest: digest.to_string(), bodies: good })
}

/// One damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// One bit is the other way round.
    Flip,
    /// A page is all zeros.
    Zeroed,
    /// The file is shorter.
    Truncated,
    /// The file is empty.
    Emptied,
    /// The file is gone.
    Removed,
    /// The file is as it was some time ago.
    Older,
}

const DAMAGES: [Damage; 6] =
    [Damage::Flip, Damage::Zeroed, Damage::Truncated, Damage::Emptied, Damage::Removed, Damage::Older];

/// What came of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything is there.
    AsItWas,
    /// Refused, with a reason.
    Refused,
    /// Opened, and then out of Raft with a word in its log: it serves nothing, and should have refused at the start.
    LeftRaft,
    /// A body is not given, because it is damaged; everything else is there.
    BodyMissed,
    /// The process ended with a panic, without a word for the operator.
    Panicked,
    /// Opened, and something is missing or different: this must not be.
    SilentLoss,
    /// Neither opened nor refused: this must not be.
    Hung,
}

/// How often each damage of each file had each result, and what must not be.
#[derive(Clone, Debug, Default)]
pub struct Corruptions {
    /// By file, damage and verdict.
    pub counts: BTreeMap<(String, Damage, Verdict), u64>,
    /// One sentence for each that must not be.
    pub violations: Vec<String>,
}

/// The folder that is copied and damaged, and an older copy of it.
#[derive(Debug)]
struct Template {
    settings: PathBuf,
    data: PathBuf,
    older: PathBuf,
    files: Vec<PathBuf>,
    contents: Contents,
}

fn files_of(folder: &Path, below: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() { files_of(folder, &path, into)? } else { into.push(path) }
    }
    into.sort();
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

async fn template(bench: &Bench) -> anyhow::Result<Template> {
    let home = bench.root.join("template");
    std::fs::create_dir(&home).with_context(|| format!("make {}", home.display()))?;
    let solo = Solo::make(&bench.programs, &home).await?;
    let (older, data) = (home.join("older"), home.join("data"));
    let ledger = Arc::new(Ledger::default());
    let mut process = solo.start(&bench.janitor).await?;
    solo.form().await?;
    for cycle in 1..=CYCLES {
        let (acknowledged, _) = watch::channel(0);
        let loaded = load::run(&solo, &ledger, cycle, &acknowledged).await;
        anyhow::ensure!(!loaded.broken_off && loaded.faults.is_empty(), "the load has failed: {:?}", loaded.faults);
        if cycle == CYCLES / 2 {
            process.stop().await?;
            copy(&solo.data(), &older).context("copy the folder of half the way")?;
            process = solo.start(&bench.janitor).await?;
            solo.form().await?;
        }
    }
    process.stop().await?;
    copy(&solo.data(), &data).context("copy the folder")?;
    let body = vec![b'x'; BODY_BYTES];
    std::fs::write(data.join("bodies").join(hex::encode(Sha256::digest(&body))), &body).context("write a body")?;
    let mut files = Vec::new();
    files_of(&data, Path::new(""), &mut files).context("list the folder")?;
    let settings = solo.folder.join("control.yaml");
    let mut template = Template {
        settings,
        data,
        older,
        files,
        contents: Contents { term: 0, last: 0, digest: String::new(), bodies: 0 },
    };
    let whole = home.join("whole");
    copy(&template.data, &whole).context("copy the folder")?;
    match open(bench, &template, &whole).await? {
        Opened::Well(contents) => template.contents = contents,
        Opened::Ended { panicked, said } => bail!("the folder cannot be opened undamaged (panic: {panicked}):\n{said}"),
        Opened::Hung => bail!("the undamaged folder cannot be opened in time"),
    }
    Ok(template)
}

enum Opened {
    Well(Contents),
    Ended { panicked: bool, said: String },
    Hung,
}

async fn open(bench: &Bench, template: &Template, data: &Path) -> anyhow::Result<Opened> {
    let mut command = Command::new(&bench.programs.peer);
    command.arg("judge").arg("--config").arg(&template.settings).arg("--data").arg(data);
    let output = match tokio::time::timeout(JUDGE_MAX, command.kill_on_drop(true).output()).await {
        Err(_) => return Ok(Opened::Hung),
        Ok(output) => output.context("run the judge")?,
    };
    if output.status.success() {
        return Ok(Opened::Well(serde_json::from_slice(&output.stdout).context("read what the judge found")?));
    }
    // A panic ends the process with 101, an abort with a signal.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Opened::Ended { panicked: output.status.code() != Some(1) && output.status.code() != Some(70), said })
}

/// Damages a file; `false` when this damage would change nothing.
fn harm(template: &Template, data: &Path, file: &Path, damage: Damage, rng: &mut Rng) -> anyhow::Result<bool> {
    let path = data.join(file);
    let before = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let size = before.len() as u64;
    match damage {
        Damage::Removed => std::fs::remove_file(&path)?,
        Damage::Older if template.older.join(file).exists() => {
            std::fs::copy(template.older.join(file), &path)?;
        }
        Damage::Older => return Ok(false),
        _ if size == 0 => return Ok(false),
        Damage::Emptied => std::fs::File::options().write(true).open(&path)?.set_len(0)?,
        Damage::Truncated => std::fs::File::options().write(true).open(&path)?.set_len(rng.u64(..size))?,
        Damage::Flip => {
            let at = rng.usize(..before.len());
            let byte = before.get(at).copied().unwrap_or_default() ^ (1 << rng.u8(..8));
            std::fs::File::options().write(true).open(&path)?.write_all_at(&[byte], at as u64)?;
        }
        Damage::Zeroed => {
            let at = rng.u64(..size.div_ceil(PAGE_BYTES)) * PAGE_BYTES;
            let zeros = vec![0; usize::try_from(PAGE_BYTES.min(size - at))?];
            std::fs::File::options().write(true).open(&path)?.write_all_at(&zeros, at)?;
        }
    }
    Ok(std::fs::read(&path).map_or(true, |after| after != before))
}

fn verdict(template: &Template, file: &Path, opened: &Opened) -> Verdict {
    match opened {
        Opened::Hung => Verdict::Hung,
        Opened::Ended { panicked: true, .. } => Verdict::Panicked,
        Opened::Ended { said, .. } if said.contains(APPLY) => Verdict::LeftRaft,
        Opened::Ended { panicked: false, .. } => Verdict::Refused,
        Opened::Well(found) => {
            let whole = &template.contents;
            // The server that opened it has voted for itself and added an entry.
            let same = found.digest == whole.digest && found.last >= whole.last && found.term >= whole.term;
            match (same, found.bodies == whole.bodies, file.starts_with("bodies")) {
                (true, true, _) => Verdict::AsItWas,
                (true, false, true) => Verdict::BodyMissed,
                (false, _, _) | (true, false, false) => Verdict::SilentLoss,
            }
        }
    }
}

/// Damages one file of one copy.
async fn case(
    bench: &Bench,
    template: &Template,
    number: u64,
) -> anyhow::Result<Option<(String, Damage, Verdict, String)>> {
    let mut rng = Rng::with_seed(bench.seed.wrapping_mul(7_368_787).wrapping_add(number));
    let file = rng.choice(&template.files).context("the folder has files")?.clone();
    // Flips and zeroed pages have many places, the others few.
    let damage =
        if rng.u8(..4) == 0 { *rng.choice(&DAMAGES).context("there are damages")? } else { DAMAGES[rng.usize(..3)] };
    let data = bench.root.join(format!("case-{number}"));
    copy(&template.data, &data).with_context(|| format!("copy to {}", data.display()))?;
    let harmed = harm(template, &data, &file, damage, &mut rng)?;
    let mut result = None;
    if harmed {
        let opened = open(bench, template, &data).await?;
        let verdict = verdict(template, &file, &opened);
        let said = match opened {
            Opened::Well(contents) => format!("{contents:?} instead of {:?}", template.contents),
            Opened::Ended { said, .. } => said.lines().rev().take(3).collect::<Vec<_>>().join(" | "),
            Opened::Hung => "no word".to_owned(),
        };
        result = Some((file.display().to_string(), damage, verdict, said));
    }
    std::fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
    Ok(result)
}

/// Runs `count` cases that follow from the seed, `jobs` at the same time.
///
/// # Errors
/// When the harness itself fails.
pub async fn run(bench: &Arc<Bench>, count: u64, jobs: u64, bar: &ProgressBar) -> anyhow::Result<Corruptions> {
    let template = Arc::new(template(bench).await?);
    let next = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..jobs.max(1) {
        let (bench, template, next, bar) = (Arc::clone(bench), Arc::clone(&template), Arc::clone(&next), bar.clone());
        running.spawn(async move {
            let mut results = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(results);
                }
                let result = case(&bench, &template, number).await.with_context(|| format!("case {number}"))?;
                results.extend(result.map(|result| (number, result)));
                bar.inc(1);
            }
        });
    }
    let mut all = Corruptions::default();
    while let Some(results) = running.join_next().await {
        for (number, (file, damage, verdict, said)) in results.context("run a case")?? {
            if matches!(verdict, Verdict::SilentLoss | Verdict::Hung) {
                all.violations.push(format!("case {number}: {file}, {damage:?}: {verdict:?}: {said}"));
            }
            *all.counts.entry((file, damage, verdict)).or_default() += 1;
        }
    }
    Ok(all)
}
