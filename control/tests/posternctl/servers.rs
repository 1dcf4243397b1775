//! A cluster of one control server and one node with real certificates and made-up answers.

use std::{
    net::TcpListener as StdListener,
    path::PathBuf,
    pin::Pin,
    process::Output,
    sync::atomic::{AtomicU32, Ordering},
};

use control::{
    ctl::{args::Init, init},
    policy_files::{self, PolicySet},
};
use futures::Stream;
use proto::{
    identity::{Credentials, Identity, Role},
    wire::{
        inspect::{
            self, RulesRequest, RulesResponse, ScanRequest, ScanResponse, ViewInUseRequest, ViewInUseResponse,
            inspect_server::{Inspect, InspectServer},
        },
        operator::{
            ActRequest, ActResponse, ApplyRequest, ApplyResponse, AuditEntry, AuditRequest, AuditResponse, BackupPart,
            BackupRequest, BodyPart, BodyRestored, Fault, ForgetReputationRequest, FormRequest, FormResponse,
            HeldDetail, HeldRequest, HistoryRequest, HistoryResponse, LearningForgetRequest, LearningRequest,
            LearningResponse, ListRequest, ListResponse, Member, MemberAddRequest, MemberChanged, MemberRequest,
            NodeDrainRequest, NodeDrained, NodeListRequest, NodeListResponse, Plan, PolicyFiles, ReportMailRequest,
            Reputation, RestoreStepDone, RestoreStepRequest, Server as Listed, SetReputationRequest, StatusRequest,
            StatusResponse, SubjectRequest,
            operator_server::{Operator, OperatorServer},
        },
    },
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// Length of the made-up audit log.
pub(crate) const AUDIT_RECORDS: u64 = 2500;
/// The version in force at the made-up control server.
const BASE_VERSION: u64 = 7;

/// A running cluster; its servers end with the test's runtime.
pub(crate) struct Cluster {
    folder: TempDir,
    /// Address of the control server.
    pub(crate) control: String,
    /// Inspect address of the node.
    pub(crate) node: String,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let control = listener.local_addr().expect("an address").to_string();
        let args = Init {
            dir: folder.path().join("cluster"),
            server: vec![format!("alpha=north@{control}")],
            node: vec!["mx1=north".into()],
            operator: vec!["anna".into()],
        };
        init::make(&args).expect("made");
        let load = |name: &str| Credentials::load(&args.dir.join(name)).expect("credentials");
        serve_operator(listener, &load("servers/alpha"));
        let node = serve_inspect(&load("nodes/mx1")).await;
        Self { folder, control, node }
    }

    /// Runs the program with anna's settings.
    pub(crate) async fn run(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_posternctl"));
        command.arg("--config").arg(self.path("operators/anna/posternctl.yaml")).args(args).kill_on_drop(true);
        command.output().await.expect("posternctl runs")
    }

    /// A path in the folder that `cluster init` made.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("cluster").join(below)
    }

    /// Credentials of a member with this role.
    pub(crate) fn credentials(&self, role: Role) -> Credentials {
        let folder = match role {
            Role::Control => "servers/alpha",
            Role::Node => "nodes/mx1",
            Role::Operator => "operators/anna",
        };
        Credentials::load(&self.path(folder)).expect("credentials")
    }
}

/// An address where nobody listens.
pub(crate) fn closed_address() -> String {
    StdListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").to_string()
}

/// The operator service under any credentials.
pub(crate) async fn operator_service(credentials: &Credentials) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    serve_operator(listener, credentials);
    address
}

fn serve_operator(listener: TcpListener, credentials: &Credentials) {
    let service = MadeUpControl { cluster: credentials.identity.cluster.clone(), promotions: AtomicU32::new(0) };
    let mut server = Server::builder().tls_config(credentials.server_tls()).expect("TLS");
    let server = server.add_service(OperatorServer::new(service));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
}

async fn serve_inspect(credentials: &Credentials) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let mut server = Server::builder().tls_config(credentials.server_tls()).expect("TLS");
    let server = server.add_service(InspectServer::new(MadeUpNode));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

struct MadeUpControl {
    cluster: String,
    /// Tries to promote a server so far.
    promotions: AtomicU32,
}

impl MadeUpControl {
    fn is_operator<T>(&self, request: &Request<T>) -> Result<(), Status> {
        Identity::of_request(request, &self.cluster, &[Role::Operator]).map(|_| ())
    }
}

fn read(files: &PolicyFiles) -> Result<PolicySet, Vec<Fault>> {
    let files: Vec<_> = files.files.iter().map(|file| (file.name.clone(), file.text.clone())).collect();
    policy_files::read(&files).map_err(|faults| {
        let wire = |it: proto::yaml::Fault| Fault {
            file: it.file,
            line: it.line as u32,
            column: it.column as u32,
            key: it.key,
            problem: it.problem,
        };
        faults.into_iter().map(wire).collect()
    })
}

#[tonic::async_trait]
impl Operator for MadeUpControl {
    async fn form(&self, request: Request<FormRequest>) -> Result<Response<FormResponse>, Status> {
        self.is_operator(&request)?;
        let servers = request.into_inner().servers;
        let as_expected = servers.len() == 1 && servers[0].id == 1 && servers[0].name == "alpha";
        if as_expected {
            Ok(Response::new(Default::default()))
        } else {
            Err(Status::invalid_argument(format!("{servers:?}")))
        }
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.is_operator(&request)?;
        let alpha = Listed { id: 1, name: "alpha".into(), site: "north".into(), address: "a:1".into() };
        let members = vec![Member { server: Some(alpha), role: "leader".into(), answers: true, ..Default::default() }];
        Ok(Response::new(StatusResponse { leader: 1, members, ..Default::default() }))
    }

    async fn members(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.status(request).await
    }

    async fn member_add(&self, request: Request<MemberAddRequest>) -> Result<Response<MemberChanged>, Status> {
        let notes = vec![format!("{} is a learner now", request.into_inner().server.unwrap_or_default().name)];
        Ok(Response::new(MemberChanged { done: true, notes, ..Default::default() }))
    }

    /// The first two times it has not caught up.
    async fn member_promote(&self, _: Request<MemberRequest>) -> Result<Response<MemberChanged>, Status> {
        let changed = match self.promotions.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => MemberChanged { refused: "it lacks 500 entries".into(), lag: Some(500), ..Default::default() },
            2.. => MemberChanged { done: true, notes: vec!["it has a vote".into()], ..Default::default() },
        };
        Ok(Response::new(changed))
    }

    async fn member_remove(&self, request: Request<MemberRequest>) -> Result<Response<MemberChanged>, Status> {
        let done = request.into_inner().force;
        let refused = if done { "" } else { "one site: say --force" };
        Ok(Response::new(MemberChanged { done, refused: refused.into(), ..Default::default() }))
    }

    async fn transfer_leader(&self, _: Request<MemberRequest>) -> Result<Response<MemberChanged>, Status> {
        Ok(Response::new(MemberChanged { done: true, ..Default::default() }))
    }

    async fn node_list(&self, _: Request<NodeListRequest>) -> Result<Response<NodeListResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn node_drain(&self, _: Request<NodeDrainRequest>) -> Result<Response<NodeDrained>, Status> {
        Ok(Response::new(NodeDrained { done: true, ..Default::default() }))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupPart, Status>> + Send>>;

    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }

    async fn restore_step(&self, _: Request<RestoreStepRequest>) -> Result<Response<RestoreStepDone>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn restore_body(&self, _: Request<Streaming<BodyPart>>) -> Result<Response<BodyRestored>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn policy_plan(&self, request: Request<PolicyFiles>) -> Result<Response<Plan>, Status> {
        let plan = match read(request.get_ref()) {
            Ok(policy) => Plan {
                base_version: BASE_VERSION,
                changes: policy_files::changes(&PolicySet::default(), &policy),
                faults: Vec::new(),
            },
            Err(faults) => Plan { base_version: BASE_VERSION, changes: Vec::new(), faults },
        };
        Ok(Response::new(plan))
    }

    async fn policy_apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let request = request.into_inner();
        if request.base_version != BASE_VERSION || request.why.is_empty() {
            return Err(Status::failed_precondition("plan again"));
        }
        let changes = vec!["+ something".into()];
        Ok(Response::new(ApplyResponse { version: BASE_VERSION + 1, changes, faults: Vec::new() }))
    }

    async fn policy_history(&self, _: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        Ok(Response::new(HistoryResponse { more: true, ..Default::default() }))
    }

    async fn quarantine_list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Ok(Response::new(ListResponse { more: true, ..Default::default() }))
    }

    async fn quarantine_show(&self, _: Request<HeldRequest>) -> Result<Response<HeldDetail>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn quarantine_release(&self, request: Request<ActRequest>) -> Result<Response<ActResponse>, Status> {
        let done = request.get_ref().id.ends_with('0');
        let refused = if done { "" } else { "already released by operator/bob at 2026-11-21T10:00:00Z" };
        Ok(Response::new(ActResponse { done, refused: refused.into() }))
    }

    async fn quarantine_delete(&self, _: Request<ActRequest>) -> Result<Response<ActResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn reputation_show(&self, _: Request<SubjectRequest>) -> Result<Response<Reputation>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn reputation_set(&self, _: Request<SetReputationRequest>) -> Result<Response<ActResponse>, Status> {
        Ok(Response::new(ActResponse { done: true, ..Default::default() }))
    }

    async fn reputation_forget(&self, _: Request<ForgetReputationRequest>) -> Result<Response<ActResponse>, Status> {
        Ok(Response::new(ActResponse { done: true, ..Default::default() }))
    }

    async fn learning_show(&self, _: Request<LearningRequest>) -> Result<Response<LearningResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn learning_forget(&self, _: Request<LearningForgetRequest>) -> Result<Response<ActResponse>, Status> {
        Ok(Response::new(ActResponse { done: true, ..Default::default() }))
    }

    async fn report_mail(&self, request: Request<ReportMailRequest>) -> Result<Response<ActResponse>, Status> {
        let ReportMailRequest { bad, lessons, why, .. } = request.into_inner();
        let done = bad && !why.is_empty() && lessons.len() <= 50 && lessons.iter().all(|lesson| lesson == b"a lesson");
        Ok(Response::new(ActResponse { done, refused: "not a report".into() }))
    }

    async fn audit(&self, request: Request<AuditRequest>) -> Result<Response<AuditResponse>, Status> {
        let AuditRequest { max, before_seq } = request.into_inner();
        let hash = |seq: u64| if seq == 0 { String::new() } else { format!("hash {seq}") };
        let entry = |seq| AuditEntry { seq, hash: hash(seq), previous: hash(seq - 1), ..Default::default() };
        let newest = if before_seq == 0 { AUDIT_RECORDS } else { before_seq - 1 };
        let entries = (1..=newest).rev().take(max.min(1000) as usize).map(entry).collect();
        Ok(Response::new(AuditResponse { entries, head_seq: AUDIT_RECORDS, head_hash: hash(AUDIT_RECORDS) }))
    }
}

struct MadeUpNode;

#[tonic::async_trait]
impl Inspect for MadeUpNode {
    type ScanStream = Pin<Box<dyn Stream<Item = Result<ScanResponse, Status>> + Send>>;

    async fn scan(&self, request: Request<Streaming<ScanRequest>>) -> Result<Response<Self::ScanStream>, Status> {
        let answers = request.into_inner().map(|request| {
            let request = request?;
            let message = String::from_utf8_lossy(&request.message).into_owned();
            if message.starts_with("Subject: end") {
                return Err(Status::internal("the node ends"));
            }
            let error = if message.starts_with("Subject: fail") { "told to fail" } else { "" };
            let text = format!("{message} for {}", request.rcpt);
            let lesson = if request.lesson && error.is_empty() { b"a lesson".to_vec() } else { Vec::new() };
            let reasons = vec![inspect::Reason { rule: "R\u{202e}".into(), score: 650, text }];
            Ok(ScanResponse {
                label: request.label,
                disposition: "quarantine".into(),
                score: 650,
                reasons,
                error: error.into(),
                lesson,
                ..Default::default()
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn view_in_use(&self, request: Request<ViewInUseRequest>) -> Result<Response<ViewInUseResponse>, Status> {
        let policy_version = request.into_inner().policy_version;
        let (node, site) = ("mx1".into(), "north".into());
        Ok(Response::new(ViewInUseResponse { node, site, index: 1, policy_version, age_ms: 2, ..Default::default() }))
    }

    async fn rules(&self, _: Request<RulesRequest>) -> Result<Response<RulesResponse>, Status> {
        let rule = |group: &str, name: &str| inspect::Rule {
            group: group.into(),
            name: name.into(),
            score: -150,
            text: "escaped \u{202e}".into(),
            origin: inspect::Origin::BuiltIn.into(),
        };
        let mut own = rule("mine", "OWN_M");
        own.origin = inspect::Origin::Policy.into();
        let group = |name: &str, about: &str| inspect::Group {
            name: name.into(),
            about: about.into(),
            max: 450,
            origin: inspect::Origin::BuiltIn.into(),
        };
        Ok(Response::new(RulesResponse {
            rules: vec![rule("links", "L"), rule("words", "W"), own],
            groups: vec![group("links", "where they go"), group("words", "its words"), group("mine", "people's")],
            left_out: String::new(),
        }))
    }
}
