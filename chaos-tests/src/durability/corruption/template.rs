//! The folders that are copied and damaged: a purged log, a state beside it, bodies; and the same folder in the middle of the
//! installation of a snapshot.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use control::{server::Look, state::store::StateStore};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{
    damage::{copy, files_of},
    judge::{self, Opened},
};
use crate::{
    durability::{Bench, ledger::Ledger, load, solo::Solo},
    shim::{Cut, Shim},
};

/// Cycles of load that the folder has seen before it is damaged.
const CYCLES: u32 = 4;
const BODIES: u8 = 3;
const BODY_BYTES: usize = 50_000;
/// The log is purged behind a snapshot that is made after so many bytes, but for so many entries.
pub(super) const LOG_BYTES_MAX: u64 = 128 * 1024;
pub(super) const LOGS_KEPT: u64 = 50;

/// A folder that is copied and damaged, and an older copy of it.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) name: &'static str,
    pub(super) settings: PathBuf,
    pub(super) data: PathBuf,
    pub(super) older: PathBuf,
    pub(super) files: Vec<PathBuf>,
    /// What is in it.
    pub(super) whole: Look,
}

/// Loads a server, and gives its folder as it is after an orderly stop, and as it is in the middle of an installation.
pub(super) async fn make(bench: &Bench) -> anyhow::Result<[Template; 2]> {
    let home = bench.root.join("template");
    std::fs::create_dir(&home).with_context(|| format!("make {}", home.display()))?;
    let mut solo = Solo::make(&bench.programs, &home).await?;
    let settings = solo.folder.join("control.yaml");
    solo.keep_short_log(&bench.programs, LOG_BYTES_MAX, LOGS_KEPT);
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
    for number in 0..BODIES {
        let body = vec![number; BODY_BYTES];
        let name = hex::encode(Sha256::digest(&body));
        std::fs::write(data.join("bodies").join(name), &body).context("write a body")?;
    }
    let installing = home.join("installing");
    interrupt(bench, &settings, (&data, &installing)).await?;
    let stopped = judged(bench, "stopped", settings.clone(), data, older.clone()).await?;
    anyhow::ensure!(stopped.whole.raft.purged.is_some(), "the log was never purged: {:?}", stopped.whole);
    let installing = judged(bench, "installing", settings, installing, older).await?;
    Ok([stopped, installing])
}

/// What a folder holds, by a copy of it.
async fn judged(
    bench: &Bench,
    name: &'static str,
    settings: PathBuf,
    data: PathBuf,
    older: PathBuf,
) -> anyhow::Result<Template> {
    let files = files_of(&data).context("list the folder")?;
    let copied = bench.root.join(format!("whole-{name}"));
    copy(&data, &copied).context("copy the folder")?;
    match judge::look(bench, &settings, &copied, Vec::new()).await? {
        Opened::Well(whole) => Ok(Template { name, settings, data, older, files, whole: *whole }),
        Opened::Ended { said, .. } => bail!("the folder ({name}) is refused undamaged:\n{said}"),
        Opened::Hung => bail!("the undamaged folder ({name}) cannot be opened in time"),
    }
}

/// Makes the folder of a server that was killed while a snapshot, here one of its own state, was replacing its state.
async fn interrupt(bench: &Bench, settings: &Path, (data, to): (&Path, &Path)) -> anyhow::Result<()> {
    let with_snapshot = bench.root.join("snapshot");
    copy(data, &with_snapshot).context("copy the folder")?;
    let snapshots = with_snapshot.join("snapshots");
    let state = with_snapshot.join("state");
    tokio::task::spawn_blocking(move || {
        let file = std::fs::File::create(snapshots.join("installing")).context("make a snapshot")?;
        StateStore::open(&state).and_then(|state| state.export(file)).context("write a snapshot")
    })
    .await??;
    // Later and later, until it was killed within: `state` has begun to change and the snapshot's name is still there.
    for (number, at) in (10..).step_by(5).enumerate() {
        std::fs::remove_dir_all(to).or_else(absent).context("begin anew")?;
        copy(&with_snapshot, to).context("copy the folder")?;
        let shim = Shim::new(&bench.library, &bench.root, &format!("interrupt-{number}"), to)?;
        shim.cut(Some(Cut { at, after: true }))?;
        if matches!(judge::look(bench, settings, to, shim.environment()).await?, Opened::Well(_)) {
            bail!("no installation was interrupted within {at} operations on the disk");
        }
        let torn = to.join("state");
        let torn = tokio::task::spawn_blocking(move || StateStore::open(&torn)?.is_torn()).await?;
        if torn.context("open the state of an interrupted installation")? {
            return Ok(());
        }
    }
    Ok(())
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
