//! Three control servers, each started when it is wanted, and what they take of the machine.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use control::config::Config;
use proto::wire::operator::{FormRequest, Server};
use tokio::{process::Command, sync::mpsc};

use crate::{
    cluster::operator::Operator,
    commits::{
        Ground,
        edge::Proposals,
        voters::{self, NAMES},
    },
    process::{Process, Program},
};

/// After so many bytes of log a server makes a snapshot: as postern-control.
const LOG_BYTES_MAX: &str = "268435456";

/// The servers.
#[derive(Debug)]
pub struct Servers {
    ground: Ground,
    directory: PathBuf,
    addresses: Vec<SocketAddr>,
    running: Vec<(usize, Process)>,
    /// Asks them.
    pub operator: Operator,
}

/// What a server takes.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Most memory that its process ever had (`VmHWM`).
    pub peak_bytes: u64,
    /// Log.
    pub log_bytes: u64,
    /// State.
    pub state_bytes: u64,
    /// Snapshots.
    pub snapshot_bytes: u64,
}

impl Servers {
    /// Makes certificates and settings; none is started.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(ground: &Ground) -> anyhow::Result<Self> {
        let directory = ground.fresh("snapshot")?.join("cluster");
        voters::init(&directory, NAMES.len())?;
        let settings = |name: &str| directory.join("servers").join(name).join("control.yaml");
        let listen = |(name, _): &(&str, &str)| anyhow::Ok(Config::load(&settings(name))?.listen);
        let addresses: Vec<SocketAddr> = NAMES.iter().map(listen).collect::<Result<_, _>>()?;
        let named = NAMES.iter().zip(&addresses).map(|((name, _), address)| ((*name).to_owned(), *address));
        let operator = Operator::open(&directory.join("operators/anna"), named, std::iter::empty())?;
        Ok(Self { ground: ground.clone(), directory, addresses, running: Vec::new(), operator })
    }

    fn folder(&self, which: usize) -> PathBuf {
        self.directory.join("servers").join(NAMES[which].0)
    }

    /// Where a server has its state.
    #[must_use]
    pub fn state_of(&self, which: usize) -> PathBuf {
        self.folder(which).join("data/state")
    }

    /// Where a server makes snapshots.
    #[must_use]
    pub fn snapshots_of(&self, which: usize) -> PathBuf {
        self.folder(which).join("data/snapshots")
    }

    /// Starts a server, and says how long that took.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&mut self, which: usize) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let program = Program {
            name: NAMES[which].0.to_owned(),
            // As postern-control, but so few entries stay behind a snapshot that what lengthened the log is purged while the
            // commits are timed.
            path: self.ground.programs.peer.clone(),
            arguments: [
                ["control", "--logs-kept", "50", "--log-bytes-max", LOG_BYTES_MAX, "--config"].map(Into::into).to_vec(),
                vec![self.folder(which).join("control.yaml").into()],
            ]
            .concat(),
            environment: Vec::new(),
            log: self.directory.join(format!("{}.log", NAMES[which].0)),
        };
        let (lines, _) = mpsc::channel(1);
        self.running.push((which, program.start(&self.ground.janitor, lines).await?.0));
        Ok(begun.elapsed())
    }

    /// Stops all that run, in order.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for (_, process) in self.running.drain(..) {
            process.stop().await?;
        }
        Ok(())
    }

    fn server(&self, which: usize) -> Server {
        let (name, site) = NAMES[which];
        let id = u64::try_from(which).unwrap_or_default() + 1;
        Server { id, name: name.into(), site: site.into(), address: self.addresses[which].to_string() }
    }

    /// Forms the group of the first `count` servers, and waits for a leader.
    ///
    /// # Errors
    /// When there is none.
    pub async fn form(&self, count: usize) -> anyhow::Result<()> {
        let servers = (0..count).map(|which| self.server(which)).collect();
        self.operator.at(NAMES[0].0)?.form(FormRequest { servers }).await.context("form the group")?;
        self.leader().await.map(drop)
    }

    /// The leader's name.
    ///
    /// # Errors
    /// When there is none within half a minute.
    pub async fn leader(&self) -> anyhow::Result<String> {
        self.operator.leader().await
    }

    /// Writes at the first `count` servers.
    ///
    /// # Errors
    /// When the node's certificate cannot be used.
    pub fn proposals(&self, count: usize) -> anyhow::Result<Proposals> {
        Proposals::open(&self.directory, self.addresses.iter().take(count).copied())
    }

    /// Takes a running server in and waits until it has its vote, by the commands of an operator.
    ///
    /// # Errors
    /// When one of them fails, with what it said.
    pub async fn take_in(&self, which: usize) -> anyhow::Result<()> {
        let Server { id, name, site, address } = self.server(which);
        let (member, id) = (format!("{name}={site}@{address}"), id.to_string());
        self.posternctl(&["cluster", "add", &member, "--id", &id, "--why", "a third server"]).await?;
        self.posternctl(&["cluster", "promote", &name, "--wait", "--why", "it is filled"]).await
    }

    async fn posternctl(&self, words: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.ground.programs.ctl);
        command.arg("--config").arg(self.directory.join("operators/anna/posternctl.yaml"));
        let output = command.args(words).kill_on_drop(true).output().await.context("run posternctl")?;
        if !output.status.success() {
            bail!("posternctl {} failed:\n{}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// What those that run take.
    ///
    /// # Errors
    /// When a process or its folder cannot be looked at.
    pub fn look(&self) -> anyhow::Result<Vec<Member>> {
        let member = |(which, process): &(usize, Process)| {
            let data = self.folder(*which).join("data");
            anyhow::Ok(Member {
                name: NAMES[*which].0,
                peak_bytes: peak_bytes(process.pid())?,
                log_bytes: data.join("log.redb").metadata()?.len(),
                state_bytes: size_bytes(&data.join("state"))?,
                snapshot_bytes: size_bytes(&data.join("snapshots"))?,
            })
        };
        self.running.iter().map(member).collect()
    }
}

/// Most memory that a process ever had.
fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("look at a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the system tells VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM is a number")?;
    Ok(kib * 1024)
}

/// Length of all files in a folder.
fn size_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        sum += if about.is_dir() { size_bytes(&entry.path())? } else { about.len() };
    }
    Ok(sum)
}
