//! When servers make snapshots, as their folders show it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{sync::watch, task::JoinHandle};

/// Time from one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A file that has not grown for so long is complete; what the server does right behind it counts as part of the snapshot.
const QUIET: Duration = Duration::from_secs(3);

/// A snapshot that a server has made.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Which server, from zero.
    pub server: usize,
    /// When its file was there.
    pub from: Instant,
    /// When it had not grown for `QUIET`.
    pub to: Instant,
    /// From the first byte to the last.
    pub wrote: Duration,
    /// Size of the file.
    pub bytes: u64,
}

/// Looks into the folders of several servers.
#[derive(Debug)]
pub struct Builds {
    servers: usize,
    seen: watch::Receiver<Vec<Build>>,
    began: watch::Receiver<bool>,
    looking: JoinHandle<()>,
}

impl Builds {
    /// Begins to look.
    #[must_use]
    pub fn watch(folders: Vec<PathBuf>) -> Self {
        let (seen, seeing) = watch::channel(Vec::new());
        let (begin, began) = watch::channel(false);
        let servers = folders.len();
        Self { servers, seen: seeing, began, looking: tokio::spawn(look(folders, seen, begin)) }
    }

    /// Becomes true with the first file.
    #[must_use]
    pub fn began(&self) -> watch::Receiver<bool> {
        self.began.clone()
    }

    /// Waits until every server has made one.
    ///
    /// # Errors
    /// When nobody looks any more.
    pub async fn all_done(&self) -> anyhow::Result<()> {
        let all = |builds: &Vec<Build>| (0..self.servers).all(|at| builds.iter().any(|build| build.server == at));
        self.seen.clone().wait_for(all).await.map(drop).context("look for snapshots")
    }

    /// All that were made.
    #[must_use]
    pub fn finish(self) -> Vec<Build> {
        self.looking.abort();
        self.seen.borrow().clone()
    }
}

async fn look(folders: Vec<PathBuf>, seen: watch::Sender<Vec<Build>>, begin: watch::Sender<bool>) {
    let mut turn = tokio::time::interval(LOOK_EVERY);
    // A file with when it was seen first and when it last grew.
    let mut files: BTreeMap<PathBuf, (Build, bool)> = BTreeMap::new();
    loop {
        let now = turn.tick().await.into_std();
        for (server, folder) in folders.iter().enumerate() {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            for entry in entries.flatten() {
                let Ok(about) = entry.metadata() else { continue };
                let new = || (Build { server, from: now, to: now, wrote: Duration::ZERO, bytes: 0 }, false);
                let (build, told) = files.entry(entry.path()).or_insert_with(new);
                begin.send_replace(true);
                if about.len() > build.bytes {
                    (build.bytes, build.wrote) = (about.len(), now - build.from);
                } else if !*told && now > build.from + build.wrote + QUIET {
                    (build.to, *told) = (now, true);
                    seen.send_modify(|builds| builds.push(*build));
                }
            }
        }
    }
}
