//! This node beside Debian's Postfix: the same load, the same next hop, one machine, one run. What is measured is what each
//! transaction costs of CPU time, how long it takes, and what an idle connection costs of memory.

pub mod drain;
pub mod generator;
pub mod idle;
pub mod keys;
pub mod mails;
pub mod ours;
pub mod postfix;
pub mod report;
pub mod rows;
pub mod talk;
pub mod usage;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    drain::Drain,
    keys::Key,
    mails::{Mails, Route},
    ours::Ours,
    postfix::Postfix,
};
use crate::commits::Ground;

/// Where all mail goes.
pub const DOMAIN: &str = "dest.test";
/// Who sends from the Internet.
pub const SENDER_DOMAIN: &str = "good.example";
/// Recipients that both servers know.
const RECIPIENTS: usize = 10_000;
/// Files that are open at once in the largest row: a connection each, and some.
const FILES: u64 = 65_536;
/// Files of a process that are no connections of a row, at most.
const FILES_APART: u64 = 500;

/// Where a load comes from: the first three parts of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A department's servers.
    Department,
    /// Servers of the Internet.
    Internet,
    /// The same, told by a load balancer.
    Announced,
    /// Servers that nobody lets in.
    Denied,
}

impl Network {
    /// The first three parts.
    #[must_use]
    pub fn prefix(self) -> [u8; 3] {
        match self {
            Self::Department => [127, 1, 1],
            Self::Internet => [127, 0, 10],
            // Addresses for documentation (RFC 5737): filters skip checks of what comes from their own machine.
            Self::Announced => [203, 0, 113],
            Self::Denied => [127, 66, 1],
        }
    }

    /// All of it, as `a.b.c.0/24`.
    #[must_use]
    pub fn net(self) -> String {
        let [a, b, c] = self.prefix();
        format!("{a}.{b}.{c}.0/24")
    }
}

/// The local parts of all recipients.
pub fn recipients() -> impl Iterator<Item = String> {
    (0..RECIPIENTS).map(|n| format!("user{n}"))
}

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections of a closed loop.
    pub connections: usize,
    /// What counts of each row.
    pub lasting: Duration,
    /// Before that.
    pub warm_up: Duration,
    /// Threads of the generator.
    pub threads: usize,
    /// Idle connections, from the least to the most.
    pub idle: Vec<usize>,
    /// Messages from a folder, besides those that are built.
    pub messages: Option<std::path::PathBuf>,
}

/// Both servers and what surrounds them.
#[derive(Debug)]
pub struct World {
    /// What is measured.
    pub plan: Plan,
    /// Where all mail goes.
    pub drain: Drain,
    /// The keys of both servers, the first of which the node begins with.
    pub keys: [Key; 2],
    /// Postfix.
    pub postfix: Postfix,
    /// The node.
    pub ours: Ours,
}

impl World {
    /// Starts all.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(ground: &Ground, plan: Plan, progress: &ProgressBar) -> anyhow::Result<Self> {
        ensure!(postfix::installed(), "Postfix is not installed (Debian: postfix)");
        allow_files()?;
        let drain = Drain::start()?;
        let keys = Key::both(&ground.fresh("keys")?)?;
        progress.set_message("starting Postfix");
        let postfix = Postfix::start(ground, drain.address, None, &keys).await?;
        progress.set_message("starting a node, a control server and a name server");
        let ours = Ours::start(ground, drain.address, None, &keys[0]).await?;
        Ok(Self { plan, drain, keys, postfix, ours })
    }

    /// The messages of the relay rows for a sender: built ones of three sizes, and those of the folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn mails(&self, network: Network) -> anyhow::Result<Vec<Arc<Mails>>> {
        let route = route(network);
        let mut all = Vec::new();
        for (name, bytes) in [("2 KB", 2_000), ("10 KB", 10_000), ("75 KB", 75_000)] {
            let message = mails::built(&route, bytes);
            let message = if network == Network::Internet { self.ours.signing.sign(&message)? } else { message };
            all.push(Arc::new(Mails::new(name, &route, &[message])?));
        }
        if let Some(folder) = &self.plan.messages {
            all.push(Arc::new(Mails::new("of the folder", &route, &mails::of_folder(folder)?)?));
        }
        Ok(all)
    }

    /// Stops all.
    ///
    /// # Errors
    /// When a process had to be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.ours.stop().await?;
        self.postfix.stop().await
    }
}

/// From whom and to whom the mail of a network goes.
#[must_use]
pub fn route(network: Network) -> Route {
    let from = match network {
        Network::Department => "clerk@source.test".to_owned(),
        Network::Internet | Network::Announced | Network::Denied => format!("friend@{SENDER_DOMAIN}"),
    };
    Route { from, to: format!("user17@{DOMAIN}") }
}

/// As many open files as the largest row needs, for this program and what it starts, or as many as the system allows.
fn allow_files() -> anyhow::Result<()> {
    let now = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= FILES);
    if enough(now.current) {
        return Ok(());
    }
    let most = Rlimit { current: Some(FILES), maximum: if enough(now.maximum) { now.maximum } else { Some(FILES) } };
    // Only who may do so can go beyond the maximum.
    let raised = setrlimit(Resource::Nofile, most);
    let raised = raised.or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: now.maximum, ..now }));
    raised.context("raise the limit of open files")
}

/// Connections that a process can have open, some files apart that it needs for itself.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(FILES);
    usize::try_from(files.saturating_sub(FILES_APART)).unwrap_or(usize::MAX)
}
