//! An operator's gRPC clients: one for each control server, so that a test can choose whom it asks.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use proto::{
    identity::{Credentials, Role},
    wire::{
        inspect::{ViewInUseRequest, ViewInUseResponse, inspect_client::InspectClient},
        operator::{
            ActRequest, ActResponse, ApplyRequest, ApplyResponse, HeldDetail, HeldRequest, HeldSummary, ListRequest,
            PolicyFile, PolicyFiles, StatusRequest, StatusResponse, operator_client::OperatorClient,
        },
    },
};
use tokio::time::interval;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

/// How long a cluster may take for what it must do by itself.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// One call.
const CALL_MAX: Duration = Duration::from_secs(15);
const LIST_MAX: u32 = 100_000;

/// All clients under one certificate.
#[derive(Clone, Debug)]
pub struct Operator {
    servers: BTreeMap<String, OperatorClient<Channel>>,
    nodes: BTreeMap<String, InspectClient<Channel>>,
}

/// A channel under a certificate, opened with the first call.
///
/// # Errors
/// When the certificate cannot be used.
pub fn channel(credentials: &Credentials, server: Role, address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).context("make an endpoint")?;
    let endpoint = endpoint.tls_config(credentials.client_tls(server)).context("use the certificate")?;
    Ok(endpoint.connect_timeout(Duration::from_secs(2)).timeout(CALL_MAX).connect_lazy())
}

/// Asks again and again, every 25 ms, until there is an answer: for what no process announces.
///
/// # Errors
/// When there is none within half a minute.
pub async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    let mut again = interval(Duration::from_millis(25));
    while start.elapsed() < SETTLE_MAX {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        again.tick().await;
    }
    bail!("{what}: not within {SETTLE_MAX:?}")
}

impl Operator {
    /// Clients for these servers and nodes under the certificate in `folder`.
    ///
    /// # Errors
    /// When the certificate cannot be read or used.
    pub fn open(
        folder: &Path,
        servers: impl Iterator<Item = (String, SocketAddr)>,
        nodes: impl Iterator<Item = (String, SocketAddr)>,
    ) -> anyhow::Result<Self> {
        let credentials = Credentials::load(folder).context("load the operator's certificate")?;
        let servers = servers
            .map(|(name, at)| anyhow::Ok((name, OperatorClient::new(channel(&credentials, Role::Control, at)?))));
        let nodes =
            nodes.map(|(name, at)| anyhow::Ok((name, InspectClient::new(channel(&credentials, Role::Node, at)?))));
        Ok(Self { servers: servers.collect::<Result<_, _>>()?, nodes: nodes.collect::<Result<_, _>>()? })
    }

    /// The client of one server.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn at(&self, server: &str) -> anyhow::Result<OperatorClient<Channel>> {
        self.servers.get(server).cloned().with_context(|| format!("there is no control server {server}"))
    }

    /// What a server knows about the group.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, server: &str) -> anyhow::Result<StatusResponse> {
        Ok(self.at(server)?.status(StatusRequest {}).await.with_context(|| format!("status of {server}"))?.into_inner())
    }

    /// The leader's name, as soon as it says so itself.
    ///
    /// # Errors
    /// When there is none within half a minute.
    pub async fn leader(&self) -> anyhow::Result<String> {
        until("a leader is there", || async {
            for name in self.servers.keys() {
                let Ok(status) = self.status(name).await else { continue };
                let itself = status.answering.is_some_and(|server| server.id == status.leader);
                if itself && status.leader != 0 && status.quorum_age_ms.is_some_and(|age| age < 1000) {
                    return Some(name.clone());
                }
            }
            None
        })
        .await
    }

    /// Waits until a server has applied what the leader has by now.
    ///
    /// # Errors
    /// When that takes longer than half a minute.
    pub async fn caught_up(&self, server: &str) -> anyhow::Result<()> {
        let leader = self.leader().await?;
        let index = self.status(&leader).await?.applied_index;
        until("it has caught up", || async {
            self.status(server).await.ok().filter(|status| status.applied_index >= index)
        })
        .await
        .map(|_| ())
    }

    /// All held messages, those that have ended too, from whichever server answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn held(&self) -> anyhow::Result<Vec<HeldSummary>> {
        let mut problem = anyhow::anyhow!("there is no server");
        for name in self.servers.keys() {
            match self.held_at(name).await {
                Ok(held) => return Ok(held),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    /// All held messages, as one server lists them.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn held_at(&self, server: &str) -> anyhow::Result<Vec<HeldSummary>> {
        let all = ListRequest { department: String::new(), recipient: String::new(), ended: true, max: LIST_MAX };
        let answer = self.at(server)?.quarantine_list(all).await;
        Ok(answer.with_context(|| format!("quarantine list at {server}"))?.into_inner().held)
    }

    /// One held message in detail. Asked again while there is no leader: on a busy machine that may be so for a moment.
    ///
    /// # Errors
    /// When the server does not answer or has no such message.
    pub async fn show(&self, server: &str, id: &str) -> anyhow::Result<HeldDetail> {
        let client = self.at(server)?;
        let answer = until("a leader", || async {
            let answer = client.clone().quarantine_show(HeldRequest { id: id.to_owned() }).await;
            let is_leaderless = answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable);
            (!is_leaderless).then_some(answer)
        })
        .await?;
        Ok(answer.with_context(|| format!("quarantine show {id}"))?.into_inner())
    }

    /// Releases at one server.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn release(&self, server: &str, id: &str, why: &str) -> anyhow::Result<ActResponse> {
        let act = ActRequest { id: id.to_owned(), why: why.to_owned(), ticket: String::new() };
        Ok(self.at(server)?.quarantine_release(act).await.with_context(|| format!("release {id}"))?.into_inner())
    }

    /// Applies the policy files of a folder at one server, over whatever is in force there.
    ///
    /// # Errors
    /// When the files cannot be read or the server does not answer.
    pub async fn apply(&self, server: &str, folder: &Path, why: &str) -> anyhow::Result<ApplyResponse> {
        let base_version = self.status(server).await?.policy_version;
        let request = ApplyRequest {
            files: Some(policy_files(folder)?),
            base_version,
            why: why.to_owned(),
            ticket: String::new(),
        };
        let answer = self.at(server)?.policy_apply(request).await;
        Ok(answer.with_context(|| format!("policy apply at {server}"))?.into_inner())
    }

    /// Answers when a node uses this policy version or a later one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn in_use(&self, node: &str, policy_version: u64) -> anyhow::Result<ViewInUseResponse> {
        let mut client = self.nodes.get(node).cloned().with_context(|| format!("there is no node {node}"))?;
        let answer = client.view_in_use(ViewInUseRequest { policy_version }).await;
        Ok(answer.with_context(|| format!("view in use at {node}"))?.into_inner())
    }
}

/// The YAML files of a folder.
///
/// # Errors
/// When one cannot be read.
pub fn policy_files(folder: &Path) -> anyhow::Result<PolicyFiles> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.ends_with(".yaml") {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            files.push(PolicyFile { name, text });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(PolicyFiles { files })
}
