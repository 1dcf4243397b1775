//! A cluster of one control server: its folder, its process and the clients that speak to it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use proto::{
    codec,
    held::MutationId,
    identity::{Credentials, Role},
    mutation::{Change, Outcome},
    wire::{
        edge::{ProposeRequest, edge_client::EdgeClient},
        operator::{FormRequest, HeldSummary, ListRequest, Server, StatusRequest, operator_client::OperatorClient},
    },
};
use tokio::{process::Command, sync::mpsc};
use tonic::transport::Channel;

use crate::{
    binaries::Programs,
    cluster::operator::{channel, until},
    janitor::Janitor,
    ports,
    process::{Process, Program},
};

const NAME: &str = "solo";
/// Most records that a server lists in one answer.
const LIST_MAX: u32 = 1_000;

/// The server and whoever speaks to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Solo {
    /// Its settings, credentials and, in `data`, all that it stores. A fault of the disk hits what is below.
    pub folder: PathBuf,
    program: Program,
    member: Server,
    edge: EdgeClient<Channel>,
    operator: OperatorClient<Channel>,
}

impl Solo {
    /// Makes settings and certificates below `home`. Nothing runs yet.
    ///
    /// # Errors
    /// When `posternctl cluster init` fails, with what it said.
    pub async fn make(programs: &Programs, home: &Path) -> anyhow::Result<Self> {
        // Free until the server takes it; every start takes it anew.
        let address = ports::reserve(None)?.address();
        let directory = home.join("cluster");
        let mut command = Command::new(&programs.ctl);
        command.args(["cluster", "init"]).arg(&directory).kill_on_drop(true);
        command.arg("--server").arg(format!("{NAME}=north@{address}"));
        command.args(["--node", "mx1=north", "--operator", "anna"]);
        let output = command.output().await.context("run posternctl cluster init")?;
        if !output.status.success() {
            bail!("posternctl cluster init failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let folder = directory.join("servers").join(NAME);
        let client = |folder: &str| -> anyhow::Result<Channel> {
            let credentials = Credentials::load(&directory.join(folder)).context("load a client's certificate")?;
            channel(&credentials, Role::Control, address)
        };
        let program = Program {
            name: NAME.to_owned(),
            path: programs.control.clone(),
            arguments: vec!["--config".into(), folder.join("control.yaml").into()],
            environment: Vec::new(),
            log: home.join("solo.log"),
        };
        let member = Server { id: 1, name: NAME.into(), site: "north".into(), address: address.to_string() };
        Ok(Self {
            edge: EdgeClient::new(client("nodes/mx1")?),
            operator: OperatorClient::new(client("operators/anna")?),
            folder,
            program,
            member,
        })
    }

    /// What the server stores.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Added to the environment of the server from its next start on.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.program.environment = environment;
    }

    /// From its next start on the server makes a snapshot after every `log_bytes_max` bytes of log and keeps `logs_kept` entries,
    /// so that even a short life has purges, in several pieces each.
    pub fn keep_short_log(&mut self, programs: &Programs, log_bytes_max: u64, logs_kept: u64) {
        self.program.path = programs.peer.clone();
        let rules = [("--log-bytes-max", log_bytes_max), ("--logs-kept", logs_kept), ("--purged-at-once", 5)];
        let mut arguments: Vec<OsString> = vec!["control".into()];
        arguments.extend(rules.iter().flat_map(|(name, value)| [OsString::from(name), value.to_string().into()]));
        arguments.extend(["--config".into(), self.folder.join("control.yaml").into()]);
        self.program.arguments = arguments;
    }

    /// Starts the server.
    ///
    /// # Errors
    /// When it does not get ready, with the end of its log.
    pub async fn start(&self, janitor: &Janitor) -> anyhow::Result<Process> {
        let (lines, _) = mpsc::channel(1);
        let (process, _) = self.program.start(janitor, lines).await?;
        Ok(process)
    }

    /// The last lines that the server has logged.
    #[must_use]
    pub fn log_end(&self) -> String {
        self.program.log_end()
    }

    /// Forms the group of this one server unless that was done before, and waits until it leads.
    ///
    /// # Errors
    /// When it does not.
    pub async fn form(&self) -> anyhow::Result<()> {
        let mut operator = self.operator.clone();
        let status = operator.status(StatusRequest {}).await.context("ask for the status")?.into_inner();
        if status.members.is_empty() {
            let request = FormRequest { servers: vec![self.member.clone()] };
            operator.form(request).await.context("form the group")?;
        }
        until("the server leads", || async {
            let status = self.operator.clone().status(StatusRequest {}).await.ok()?.into_inner();
            (status.leader == self.member.id).then_some(())
        })
        .await
    }

    /// Proposes as the node does.
    ///
    /// # Errors
    /// When there is no outcome: it may or may not come to be.
    pub async fn propose(&self, id: MutationId, change: &Change) -> anyhow::Result<Outcome> {
        let proposal = codec::encode(&(id, change));
        let answer = self.edge.clone().propose(ProposeRequest { proposal }).await.context("propose")?;
        Ok(codec::decode("an outcome", &answer.into_inner().outcome)?)
    }

    /// The held records of a recipient, as a linearizable read gives them.
    ///
    /// # Errors
    /// When the server does not answer, or has more than it lists at once.
    pub async fn held_of(&self, recipient: &str) -> anyhow::Result<Vec<HeldSummary>> {
        let request =
            ListRequest { department: String::new(), recipient: recipient.into(), ended: true, max: LIST_MAX };
        let answer = self.operator.clone().quarantine_list(request).await.context("list what is held")?.into_inner();
        anyhow::ensure!(!answer.more, "more than {LIST_MAX} records are held for {recipient}");
        Ok(answer.held)
    }
}
