//! Real `postern-control` processes, written to as nodes do: gRPC with mTLS.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, bail};
use control::config::Config;
use proto::{
    codec,
    held::MutationId,
    identity::{Credentials, Role},
    mutation::{Change, Outcome},
    wire::edge::{ProposeRequest, edge_client::EdgeClient},
};
use tokio::{process::Command, sync::mpsc};
use tonic::transport::Channel;

use super::{
    Ground, Store,
    voters::{self, NAMES},
    work::Work,
};
use crate::{
    cluster::operator::{Operator, channel},
    process::{Process, Program},
};

/// How many channels the clients share at each server.
const CHANNELS: usize = 4;

/// The processes.
#[derive(Debug)]
pub struct Servers {
    processes: Vec<Process>,
    /// Writes as node `mx1`.
    pub proposals: Proposals,
}

/// Writes as a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proposals {
    clients: Vec<EdgeClient<Channel>>,
}

impl Servers {
    /// Starts one to three servers and waits for a leader.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(ground: &Ground, count: usize) -> anyhow::Result<Self> {
        let folder = ground.fresh("postern")?;
        let directory = folder.join("cluster");
        voters::init(&directory, count)?;
        let (mut processes, mut addresses) = (Vec::new(), Vec::new());
        for (name, _) in NAMES.iter().take(count) {
            let settings = directory.join("servers").join(name).join("control.yaml");
            let address = Config::load(&settings)?.listen;
            let program = Program {
                name: (*name).to_owned(),
                path: ground.programs.control.clone(),
                arguments: vec!["--config".into(), settings.into()],
                environment: Vec::new(),
                log: folder.join(format!("{name}.log")),
            };
            let (lines, _) = mpsc::channel(1);
            processes.push(program.start(&ground.janitor, lines).await?.0);
            addresses.push(((*name).to_owned(), address));
        }
        let proposals = Proposals::open(&directory, addresses.iter().map(|(_, address)| *address))?;
        let operator = Operator::open(&directory.join("operators/anna"), addresses.into_iter(), std::iter::empty())?;
        form(ground, &directory).await?;
        operator.leader().await?;
        Ok(Self { processes, proposals })
    }

    /// Stops them in order.
    ///
    /// # Errors
    /// When one had to be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        for process in self.processes {
            process.stop().await?;
        }
        Ok(())
    }
}

async fn form(ground: &Ground, directory: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(&ground.programs.ctl);
    command.arg("--config").arg(directory.join("operators/anna/posternctl.yaml"));
    command.args(["cluster", "form"]).arg(directory).kill_on_drop(true);
    let output = command.output().await.context("run posternctl cluster form")?;
    if !output.status.success() {
        bail!("posternctl cluster form failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Proposals {
    /// At these servers of the cluster whose certificates are in `directory`.
    ///
    /// # Errors
    /// When the node's certificate cannot be used.
    pub fn open(directory: &Path, servers: impl Iterator<Item = SocketAddr>) -> anyhow::Result<Self> {
        let credentials = Credentials::load(&directory.join("nodes/mx1"))?;
        let mut clients = Vec::new();
        for address in servers {
            for _ in 0..CHANNELS {
                clients.push(EdgeClient::new(channel(&credentials, Role::Control, address)?));
            }
        }
        Ok(Self { clients })
    }

    /// Has a change committed, and gives its outcome.
    ///
    /// # Errors
    /// When there is none: it may or may not have been committed.
    pub async fn propose(&self, client: usize, change: &Change) -> anyhow::Result<Outcome> {
        let proposal = codec::encode(&(MutationId::fresh(), change));
        let mut client = self.clients[client % self.clients.len()].clone();
        let answer = client.propose(ProposeRequest { proposal }).await.context("propose")?.into_inner();
        Ok(codec::decode("an outcome", &answer.outcome)?)
    }
}

impl Store for Proposals {
    async fn write(&self, client: usize, work: Work) -> anyhow::Result<()> {
        match self.propose(client, &work.change()).await? {
            Outcome::Done => Ok(()),
            other @ (Outcome::PolicyApplied { .. } | Outcome::Leased(_) | Outcome::Refused(_)) => {
                bail!("the mutation was not committed: {other:?}")
            }
        }
    }
}
