//! The clients of one server, in its own site: a cut between the sites never comes between a client and the server it asks. What
//! each call brings is translated into the words of the histories.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use proto::{
    codec,
    held::{Held, HeldId, MutationId},
    identity::{Credentials, Role},
    mutation::{Change, Outcome, Refused},
    time::UnixMs,
    wire::{
        edge::{ProposeRequest, edge_client::EdgeClient},
        operator::{
            ActRequest, ApplyRequest, HeldDetail, HeldRequest, HistoryRequest, PolicyFile, PolicyFiles,
            operator_client::OperatorClient,
        },
    },
};
use tokio::time::timeout;
use tonic::{
    Code,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use super::{NODES, OPERATORS};
use crate::{
    histories::{
        held::{HeldAnswer, Shown},
        policy::{InForce, PolicyAnswer},
    },
    wan::namespace::Namespace,
};

/// A client gives up after this long. Shorter than the servers' own patience: what they do after it is unknown, too.
const CALL_MAX: Duration = Duration::from_secs(4);
/// Longer than any run, so that no lease runs out in it: at most what the state allows.
const LEASE_MS: u64 = 10 * 60 * 1000;
/// Most entries of one answer.
const RECORDS_MAX: u32 = 1_000;

/// The certificates of all clients.
#[derive(Debug)]
pub struct Credentialed {
    nodes: Vec<Credentials>,
    operators: Vec<Credentials>,
}

impl Credentialed {
    /// Reads what `cluster init` made.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn load(directory: &Path) -> anyhow::Result<Self> {
        let load = |folder: &str, name: &str| {
            let folder = directory.join(folder).join(name);
            Credentials::load(&folder).with_context(|| format!("load {}", folder.display()))
        };
        Ok(Self {
            nodes: NODES.iter().map(|name| load("nodes", name)).collect::<Result<_, _>>()?,
            operators: OPERATORS.iter().map(|name| load("operators", name)).collect::<Result<_, _>>()?,
        })
    }
}

/// Clients of one server.
#[derive(Clone, Debug)]
pub struct Doors {
    nodes: Vec<EdgeClient<Channel>>,
    operators: Vec<OperatorClient<Channel>>,
}

fn channel(credentials: &Credentials, namespace: &Arc<Namespace>, address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).context("make an endpoint")?;
    let endpoint = endpoint.tls_config(credentials.client_tls(Role::Control)).context("use the certificate")?;
    let namespace = Arc::clone(namespace);
    let connector = service_fn(move |_: Uri| {
        let namespace = Arc::clone(&namespace);
        async move {
            let stream = namespace.socket().await?.connect(address).await?;
            stream.set_nodelay(true)?;
            std::io::Result::Ok(TokioIo::new(stream))
        }
    });
    Ok(endpoint.connect_timeout(Duration::from_secs(1)).connect_with_connector_lazy(connector))
}

impl Doors {
    /// To the server at `address`, from within `namespace`; connects with the first call.
    ///
    /// # Errors
    /// When a certificate cannot be used.
    pub fn open(credentials: &Credentialed, namespace: &Arc<Namespace>, address: SocketAddr) -> anyhow::Result<Self> {
        let open = |credentials: &Credentials| channel(credentials, namespace, address);
        let nodes = credentials.nodes.iter().map(|credentials| Ok(EdgeClient::new(open(credentials)?)));
        let operators = credentials.operators.iter().map(|credentials| Ok(OperatorClient::new(open(credentials)?)));
        Ok(Self { nodes: nodes.collect::<anyhow::Result<_>>()?, operators: operators.collect::<anyhow::Result<_>>()? })
    }

    /// The client of an operator, by number.
    #[must_use]
    pub fn operator(&self, number: usize) -> OperatorClient<Channel> {
        self.operators[number % self.operators.len()].clone()
    }

    /// The client of a node, by number.
    #[must_use]
    pub fn node(&self, number: usize) -> EdgeClient<Channel> {
        self.nodes[number % self.nodes.len()].clone()
    }

    /// Proposes as a node. `None`: unknown.
    async fn propose(&self, node: usize, change: Change) -> Option<Outcome> {
        let proposal = codec::encode(&(MutationId::fresh(), change));
        let mut client = self.node(node);
        let answer = timeout(CALL_MAX, client.propose(ProposeRequest { proposal })).await.ok()?.ok()?;
        codec::decode("outcome", &answer.into_inner().outcome).ok()
    }

    /// Keeps a message.
    pub async fn hold(&self, node: usize, record: Held) -> Option<HeldAnswer> {
        self.propose(node, Change::Hold { records: vec![record] }).await.map(held_answer)
    }

    /// Takes a released message for delivery.
    pub async fn lease(&self, node: usize, held: HeldId) -> Option<HeldAnswer> {
        self.propose(node, Change::Lease { held, for_ms: LEASE_MS }).await.map(held_answer)
    }

    /// Says that a message is delivered to its recipients.
    pub async fn deliver(&self, node: usize, record: &Held) -> Option<HeldAnswer> {
        let change = Change::Attempted {
            held: record.id,
            delivered: record.recipients.clone(),
            refused: Vec::new(),
            next_attempt: UnixMs(0),
            problem: String::new(),
        };
        self.propose(node, change).await.map(held_answer)
    }

    /// Releases a message.
    pub async fn release(&self, operator: usize, held: HeldId) -> Option<HeldAnswer> {
        let act = ActRequest { id: held.to_string(), why: "chaos".into(), ticket: String::new() };
        let mut client = self.operator(operator);
        let answer = timeout(CALL_MAX, client.quarantine_release(act)).await.ok()?.ok()?.into_inner();
        Some(if answer.done { HeldAnswer::Done } else { refused_release(&answer.refused) })
    }

    /// Looks at a message.
    pub async fn show(&self, operator: usize, held: HeldId) -> Option<HeldAnswer> {
        let mut client = self.operator(operator);
        let answer = timeout(CALL_MAX, client.quarantine_show(HeldRequest { id: held.to_string() })).await.ok()?;
        match answer {
            Ok(detail) => Some(shown(&detail.into_inner())),
            Err(status) if status.code() == Code::NotFound => Some(HeldAnswer::NoSuch),
            Err(_) => None,
        }
    }

    /// The policy in force.
    pub async fn policy(&self, operator: usize) -> Option<PolicyAnswer> {
        let mut client = self.operator(operator);
        let answer = timeout(CALL_MAX, client.policy_history(HistoryRequest { max: 1 })).await.ok()?.ok()?;
        let newest = answer.into_inner().entries.into_iter().next();
        Some(PolicyAnswer::Read(
            newest.map_or_else(InForce::default, |entry| InForce { version: entry.version, tag: entry.why }),
        ))
    }

    /// The newest versions of the policy with their tags.
    pub async fn policies(&self, operator: usize) -> Option<BTreeMap<u64, String>> {
        let mut client = self.operator(operator);
        let answer = timeout(CALL_MAX, client.policy_history(HistoryRequest { max: RECORDS_MAX })).await.ok()?.ok()?;
        Some(answer.into_inner().entries.into_iter().map(|entry| (entry.version, entry.why)).collect())
    }

    /// Replaces version `base` of the policy by one that `tag` names.
    pub async fn apply(&self, operator: usize, base: u64, tag: &str) -> Option<PolicyAnswer> {
        let request = ApplyRequest {
            files: Some(policy_files(tag)),
            base_version: base,
            why: tag.to_owned(),
            ticket: String::new(),
        };
        let mut client = self.operator(operator);
        match timeout(CALL_MAX, client.policy_apply(request)).await.ok()? {
            Ok(answer) => {
                let answer = answer.into_inner();
                let faulty = !answer.faults.is_empty() || answer.version == 0;
                Some(if faulty {
                    PolicyAnswer::Strange(format!("{answer:?}"))
                } else {
                    PolicyAnswer::Applied(answer.version)
                })
            }
            Err(status) if status.code() == Code::FailedPrecondition => Some(moved(status.message())),
            Err(_) => None,
        }
    }
}

fn held_answer(outcome: Outcome) -> HeldAnswer {
    match outcome {
        Outcome::Done | Outcome::Leased(_) => HeldAnswer::Done,
        Outcome::Refused(Refused::NoSuch) => HeldAnswer::NoSuch,
        Outcome::Refused(Refused::LeaseLost) => HeldAnswer::LeaseLost,
        Outcome::Refused(Refused::NotWaiting { .. }) => HeldAnswer::NotReleased,
        Outcome::Refused(Refused::Leased { node, .. }) => HeldAnswer::LeasedBy { node },
        Outcome::Refused(Refused::AlreadyReleased { by, .. }) => HeldAnswer::AlreadyReleased { by: person(&by) },
        other @ (Outcome::PolicyApplied { .. } | Outcome::Refused(_)) => HeldAnswer::Strange(format!("{other:?}")),
    }
}

/// `operator/ann` without the role.
fn person(by: &str) -> String {
    by.strip_prefix("operator/").unwrap_or(by).to_owned()
}

fn refused_release(text: &str) -> HeldAnswer {
    let by = text.strip_prefix("already released by ").and_then(|rest| rest.split_once(" at "));
    match by {
        Some((by, _)) => HeldAnswer::AlreadyReleased { by: person(by) },
        None if text == "no such held message" => HeldAnswer::NoSuch,
        None => HeldAnswer::Strange(text.to_owned()),
    }
}

fn shown(detail: &HeldDetail) -> HeldAnswer {
    let status = detail.summary.as_ref().map(|summary| summary.status.as_str()).unwrap_or_default();
    let lease = detail.lease.split_once(" until ").map(|(node, _)| node.to_owned());
    if status == "waiting" {
        return HeldAnswer::Shown(Shown::Waiting);
    }
    if status.starts_with("delivered at ") {
        return HeldAnswer::Shown(Shown::Delivered);
    }
    match status.strip_prefix("released by ").and_then(|rest| rest.split_once(" at ")) {
        Some((by, _)) => HeldAnswer::Shown(Shown::Released { by: person(by), lease }),
        None => HeldAnswer::Strange(status.to_owned()),
    }
}

/// "planned against version 3, but version 4 is in force: plan again".
fn moved(message: &str) -> PolicyAnswer {
    let current = message.split_once("but version ").and_then(|(_, rest)| rest.split_once(' '));
    match current.and_then(|(number, _)| number.parse().ok()) {
        Some(version) => PolicyAnswer::Moved(version),
        None => PolicyAnswer::Strange(message.to_owned()),
    }
}

/// A policy that differs from all others by its tag.
fn policy_files(tag: &str) -> PolicyFiles {
    let file = |name: &str, text: String| PolicyFile { name: name.to_owned(), text };
    let interior = "department: interior\nname: Department of the Interior\ndomains: [interior.gov.test]\n\
                    next_hops: [{host: \"127.0.0.1\", port: 25, tls: opportunistic}]\n";
    let state = format!("state: \"{tag}\"\npolicy:\n  virus_scan: off\n");
    PolicyFiles { files: vec![file("interior.yaml", interior.to_owned()), file("state.yaml", state)] }
}

#[cfg(test)]
mod tests {
    use super::{HeldAnswer, PolicyAnswer, moved, policy_files, refused_release};

    #[test]
    fn the_servers_words_are_understood() {
        assert_eq!(moved("planned against version 3, but version 14 is in force: plan again"), PolicyAnswer::Moved(14));
        assert!(matches!(moved("something else"), PolicyAnswer::Strange(_)));
        let by = refused_release("already released by operator/ann at 2026-11-21T10:00:00Z");
        assert_eq!(by, HeldAnswer::AlreadyReleased { by: "ann".into() });
        assert!(matches!(refused_release("already deleted by operator/ann at …"), HeldAnswer::Strange(_)));
    }

    #[test]
    fn two_tags_make_two_policies_without_a_fault() {
        let read = |tag| {
            let files = policy_files(tag).files.into_iter().map(|file| (file.name, file.text));
            control::policy_files::read(&files.collect::<Vec<_>>()).expect("no fault")
        };
        assert_ne!(read("w1-a").settings, read("w1-b").settings);
    }
}
