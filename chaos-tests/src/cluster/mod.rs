//! The cluster in a box: three control servers in three sites, two nodes, and a world around them, as real processes on
//! loopback. Whatever way the program ends, nothing of it stays behind.

pub mod balancer;
pub mod clamd;
pub mod layout;
pub mod operator;
pub mod slapd;
mod start;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::{
    process::Command,
    sync::{Mutex, mpsc},
};

use self::{
    clamd::Clamd,
    layout::{NodePlan, ServerPlan},
    operator::Operator,
};
use crate::{
    binaries::Programs,
    janitor::Janitor,
    ports::Reserved,
    process::{Process, Program},
    sink_feed::{DnsPeer, SinkPeer},
    smtp_client::{Answers, Conversation, Envelope},
    zones::{self, SigningKey},
};

/// What may be different from one box to another.
#[derive(Clone, Debug)]
pub struct Options {
    /// Use clamd if it is installed. Without it the policy says that nothing is scanned.
    pub clamd: bool,
    /// Keep everything in this folder, which must not exist yet.
    pub keep: Option<PathBuf>,
    /// Added to the nodes' environment, such as `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub node_environment: Vec<(String, String)>,
    /// Lines added to the nodes' settings.
    pub node_settings: String,
    /// Limits of the nodes beside those of the box, such as `, connections_max: 10`.
    pub node_limits: String,
    /// First of four ports for SMTP, if they are free; else others are taken.
    pub smtp_port: Option<u16>,
    /// Whether the sinks store the messages.
    pub store_mail: bool,
    /// Whether the first policy is applied; without it the cluster is as new as `posternctl cluster form` leaves it.
    pub first_policy: bool,
    /// Where progress is shown.
    pub progress: ProgressBar,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clamd: true,
            keep: None,
            node_environment: Vec::new(),
            node_settings: String::new(),
            node_limits: String::new(),
            smtp_port: None,
            store_mail: true,
            first_policy: true,
            progress: ProgressBar::hidden(),
        }
    }
}

/// A control server or a node.
#[derive(Debug)]
struct Member {
    program: Program,
    reserved: Mutex<Vec<Reserved>>,
    process: Mutex<Option<Process>>,
}

/// Which side of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The MX side.
    Internet,
    /// The departments' side.
    Departments,
}

/// The box. Dropping it kills all processes and removes its folder.
#[derive(Debug)]
pub struct Cluster {
    /// Everything is in here.
    pub root: PathBuf,
    /// What `posternctl cluster init` made.
    pub directory: PathBuf,
    /// The policy files in force at the start.
    pub policy: PathBuf,
    /// Control servers.
    pub servers: Vec<ServerPlan>,
    /// Nodes.
    pub nodes: Vec<NodePlan>,
    /// The interior department's mail server.
    pub interior: SinkPeer,
    /// The health department's mail server, which offers STARTTLS; mailbox `full` gets 452, `nobody` 550.
    pub health: SinkPeer,
    /// The Internet.
    pub internet: SinkPeer,
    /// The test DNS.
    pub dns: DnsPeer,
    /// The virus scanner, if it is there.
    pub clamd: Option<Clamd>,
    /// Signs as `good.example`.
    pub signing: std::sync::Arc<SigningKey>,
    /// gRPC clients of operator `anna`.
    pub operator: Operator,
    programs: Programs,
    members: BTreeMap<String, Member>,
    janitor: Janitor,
}

impl Cluster {
    /// Builds the programs and starts everything; ready when the first policy is in force at both nodes.
    ///
    /// # Errors
    /// When something does not get ready, with the end of its log. What was started is ended.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        start::cluster(options).await
    }

    fn member(&self, name: &str) -> anyhow::Result<&Member> {
        self.members.get(name).with_context(|| format!("there is no {name} in the cluster"))
    }

    /// SIGKILL for a control server or a node.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill9(&self, name: &str) -> anyhow::Result<()> {
        let process = self.member(name)?.process.lock().await.take();
        process.with_context(|| format!("{name} is not running"))?.kill9().await
    }

    /// Starts a control server or a node (again) and waits until it is ready.
    ///
    /// # Errors
    /// When it is running already or does not get ready.
    pub async fn restart(&self, name: &str) -> anyhow::Result<Value> {
        let member = self.member(name)?;
        let mut process = member.process.lock().await;
        if process.is_some() {
            bail!("{name} is running already");
        }
        member.reserved.lock().await.clear();
        let (lines, _) = mpsc::channel(1);
        let (started, ready) = member.program.start(&self.janitor, lines).await?;
        *process = Some(started);
        Ok(ready)
    }

    /// Freezes a control server or a node (SIGSTOP), or lets it go on.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn freeze(&self, name: &str, freeze: bool) -> anyhow::Result<()> {
        self.member(name)?
            .process
            .lock()
            .await
            .as_ref()
            .with_context(|| format!("{name} is not running"))?
            .freeze(freeze)
    }

    /// The process of a control server or a node.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn pid(&self, name: &str) -> anyhow::Result<u32> {
        let process = self.member(name)?.process.lock().await;
        Ok(process.as_ref().with_context(|| format!("{name} is not running"))?.pid())
    }

    /// The leader's name.
    ///
    /// # Errors
    /// When there is none within half a minute.
    pub async fn leader(&self) -> anyhow::Result<String> {
        self.operator.leader().await
    }

    /// Where a server or node logs.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn log(&self, name: &str) -> anyhow::Result<&Path> {
        Ok(&self.member(name)?.program.log)
    }

    /// Arguments that make `posternctl` speak to this cluster as operator `anna`.
    #[must_use]
    pub fn posternctl_prefix(&self) -> Vec<OsString> {
        let settings = self.directory.join("operators/anna/posternctl.yaml");
        vec![self.programs.ctl.clone().into(), "--config".into(), settings.into()]
    }

    /// Runs `posternctl` as operator `anna` to its end.
    ///
    /// # Errors
    /// When it cannot be started; that it failed is in the output.
    pub async fn posternctl<I>(&self, arguments: I) -> anyhow::Result<Output>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let prefix = self.posternctl_prefix();
        let mut command = Command::new(&self.programs.ctl);
        command.args(prefix.iter().skip(1)).args(arguments.into_iter().map(Into::into));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command.output().await.context("run posternctl")
    }

    /// Runs `posternctl` and gives its standard output.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn posternctl_ok<I>(&self, arguments: I) -> anyhow::Result<String>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let output = self.posternctl(arguments.clone()).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        bail!("posternctl {arguments:?} failed:\n{}{}", text(&output.stdout), text(&output.stderr))
    }

    /// Where a node takes mail.
    #[must_use]
    pub fn smtp(&self, node: usize, side: Side) -> SocketAddr {
        let node = &self.nodes[node % self.nodes.len()];
        match side {
            Side::Internet => node.internet,
            Side::Departments => node.departments,
        }
    }

    /// Sends a message to a node in a conversation of its own.
    ///
    /// # Errors
    /// When the connection breaks: what became of the message is then unknown.
    pub async fn send(
        &self,
        server: SocketAddr,
        client: IpAddr,
        envelope: &Envelope,
        message: &[u8],
    ) -> anyhow::Result<Answers> {
        let mut conversation = Conversation::open(server, Some(client), zones::own_name(client)).await?;
        let answers = conversation.send(envelope, message).await?;
        // The answer to the message counts, not the one to QUIT.
        let _ = conversation.quit().await;
        Ok(answers)
    }

    /// The three sinks.
    #[must_use]
    pub fn sinks(&self) -> [&SinkPeer; 3] {
        [&self.interior, &self.health, &self.internet]
    }

    /// Applies the policy files of a folder by `posternctl`, and waits until both nodes use it. Gives what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn apply_policy(&self, folder: &Path, why: &str) -> anyhow::Result<String> {
        let mut arguments: Vec<OsString> = vec!["policy".into(), "apply".into(), folder.into()];
        arguments.extend(["--why".into(), why.into()]);
        for node in &self.nodes {
            arguments.extend(["--wait".into(), node.inspect.to_string().into()]);
        }
        self.posternctl_ok(arguments).await
    }

    /// Stops everything in order and removes the folder unless it is to be kept.
    ///
    /// # Errors
    /// When a process had to be killed.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let mut problems = Vec::new();
        let nodes = self.nodes.iter().map(|node| node.name);
        for name in nodes.chain(self.servers.iter().map(|server| server.name)) {
            let process = self.member(name)?.process.lock().await.take();
            if let Some(process) = process {
                problems.extend(process.stop().await.err());
            }
        }
        for sink in self.sinks() {
            problems.extend(sink.stop().await.err());
        }
        problems.extend(self.dns.stop().await.err());
        if let Some(clamd) = &self.clamd {
            problems.extend(clamd.stop().await.err());
        }
        self.janitor.finish();
        match problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }
}

/// Output as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
