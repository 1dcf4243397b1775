//! Real control servers, one a site, far apart: started, killed, frozen, and asked how they are. Whatever way the program ends,
//! nothing of it stays behind.

pub mod doors;
mod nodes;
mod settle;
mod start;

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::sync::{Mutex, mpsc};

use self::doors::Doors;
pub use self::settle::Settled;
use crate::{
    janitor::Janitor,
    process::{Process, Program},
    shim::{Faults, Shim},
    wan::Wan,
};

/// Names of the servers, and of their sites.
pub const SERVERS: [(&str, &str); 5] =
    [("alpha", "north"), ("beta", "south"), ("gamma", "west"), ("delta", "east"), ("epsilon", "centre")];
/// Names of the nodes that clients speak as.
pub const NODES: [&str; 2] = ["n1", "n2"];
/// Names of the operators that clients speak as.
pub const OPERATORS: [&str; 3] = ["ann", "bob", "carl"];

/// What may be different from one run to another.
#[derive(Clone, Debug)]
pub struct Options {
    /// Three or five.
    pub servers: usize,
    /// Between two sites, in milliseconds each way.
    pub delay_ms: RangeInclusive<u64>,
    /// For the delays between the sites.
    pub seed: u64,
    /// A folder with programs to run in the place of the workspace's.
    pub programs: Option<PathBuf>,
    /// The servers keep only a short log and compare their states often, so that a short run has many snapshots, purges and
    /// comparisons: `peer control` runs in the place of `postern-control`.
    pub short_logs: bool,
    /// Keep everything in this folder, which must not exist yet.
    pub keep: Option<PathBuf>,
    /// Each server's data folder is a small file system in memory that can be filled.
    pub small_disks: bool,
    /// The servers run under the preload shim, so that disk and clock can be made wrong.
    pub shims: bool,
    /// Where progress is shown.
    pub progress: ProgressBar,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: 3,
            delay_ms: 10..=39,
            seed: 1,
            programs: None,
            short_logs: false,
            keep: None,
            small_disks: false,
            shims: false,
            progress: ProgressBar::hidden(),
        }
    }
}

/// A control server.
#[derive(Debug)]
struct Server {
    program: Program,
    data: PathBuf,
    shim: Option<Shim>,
    process: Mutex<Option<Process>>,
}

/// The servers and the network between them. Dropping it kills all processes and removes folder and namespaces.
#[derive(Debug)]
pub struct Sites {
    /// Everything is in here.
    pub root: PathBuf,
    /// The network.
    pub wan: Wan,
    /// Clients of each server, in its own site.
    pub doors: Vec<Doors>,
    servers: Vec<Server>,
    janitor: Janitor,
}

impl Sites {
    /// Builds the programs and starts everything; ready when the first policy is in force.
    ///
    /// # Errors
    /// When the rights are missing or something does not get ready, with the end of its log.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        start::sites(options).await
    }

    /// How many servers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// The name of a server.
    #[must_use]
    pub fn name(&self, server: usize) -> &str {
        &self.servers[server].program.name
    }

    /// The data folder of a server.
    #[must_use]
    pub fn data(&self, server: usize) -> &Path {
        &self.servers[server].data
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill9(&self, server: usize) -> anyhow::Result<()> {
        let process = self.servers[server].process.lock().await.take();
        process.with_context(|| format!("{} is not running", self.name(server)))?.kill9().await
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it is not running or had to be killed.
    pub async fn terminate(&self, server: usize) -> anyhow::Result<()> {
        let process = self.servers[server].process.lock().await.take();
        process.with_context(|| format!("{} is not running", self.name(server)))?.stop().await
    }

    /// SIGSTOP or SIGCONT.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn freeze(&self, server: usize, freeze: bool) -> anyhow::Result<()> {
        let process = self.servers[server].process.lock().await;
        process.as_ref().with_context(|| format!("{} is not running", self.name(server)))?.freeze(freeze)
    }

    /// Says what is wrong with a server's disk and clock from now on.
    ///
    /// # Errors
    /// When it does not run under the shim.
    pub fn shim(&self, server: usize, faults: &Faults) -> anyhow::Result<()> {
        let shim = self.servers[server].shim.as_ref();
        shim.with_context(|| format!("{} runs without the shim", self.name(server)))?.set(faults)
    }

    /// Starts it unless it runs, and waits until it is ready. True when it had to be started.
    ///
    /// # Errors
    /// When it does not get ready, with the end of its log.
    pub async fn start_again(&self, server: usize) -> anyhow::Result<bool> {
        let mut process = self.servers[server].process.lock().await;
        if process.as_mut().is_some_and(|process| !process.has_ended()) {
            return Ok(false);
        }
        let (lines, _) = mpsc::channel(1);
        let (started, _) = self.servers[server].program.start(&self.janitor, lines).await?;
        *process = Some(started);
        Ok(true)
    }

    /// Whether it runs, frozen or not.
    pub async fn runs(&self, server: usize) -> bool {
        self.servers[server].process.lock().await.as_mut().is_some_and(|process| !process.has_ended())
    }

    /// The last lines of a server's log.
    #[must_use]
    pub fn log_end(&self, server: usize) -> String {
        self.servers[server].program.log_end()
    }

    /// Stops all servers at the same time, so that hardly anything is logged after the first one has gone; their folders stay.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop_servers(&self) -> anyhow::Result<()> {
        let mut stopping = tokio::task::JoinSet::new();
        for server in &self.servers {
            if let Some(process) = server.process.lock().await.take() {
                stopping.spawn(process.stop());
            }
        }
        stopping.join_all().await.into_iter().collect()
    }

    /// Stops what still runs and takes everything away.
    ///
    /// # Errors
    /// When a process had to be killed.
    pub async fn finish(self) -> anyhow::Result<()> {
        let stopped = self.stop_servers().await;
        let deleted = self.wan.delete().await;
        self.janitor.finish();
        stopped.and(deleted)
    }
}
