//! Roles × methods over real mTLS on loopback. Behind the gates stand services that answer "unimplemented" to everything:
//! whoever gets that answer was let in.

mod holders;
mod places;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    marker::PhantomData,
    net::SocketAddr,
    task::{Context, Poll},
};

use proto::{
    identity::{Credentials, Role},
    wire::{edge, operator, raft},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    rpc::{gate::Guard, listener, refusals::Refusals, router},
    test_pki::Ca,
};

/// Stands for the service `S` and answers nothing.
pub(crate) struct Closed<S>(PhantomData<fn() -> S>);

impl<S> Closed<S> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<S> Clone for Closed<S> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<S: NamedService> NamedService for Closed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Closed<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(Status::unimplemented("let in").into_http()))
    }
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) refusals: Refusals,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) async fn start(credentials: &Credentials) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = port.local_addr().expect("an address");
        let guard = Guard::new(credentials.clone());
        let incoming = listener::incoming(port, &guard);
        let (stop, stopped) = oneshot::channel::<()>();
        let services = router(
            &guard,
            Closed::<raft::raft_server::RaftServer<()>>::new(),
            Closed::<edge::edge_server::EdgeServer<()>>::new(),
            Closed::<operator::operator_server::OperatorServer<()>>::new(),
        );
        let task = tokio::spawn(async move {
            let ended = async { drop(stopped.await) };
            services.serve_with_incoming_shutdown(incoming, ended).await.expect("served");
        });
        Self { address, refusals: guard.refusals, stop, task }
    }

    pub(super) fn endpoint(&self, tls: ClientTlsConfig) -> Endpoint {
        Endpoint::from_shared(format!("https://{}", self.address))
            .and_then(|to| to.tls_config(tls))
            .expect("an endpoint")
    }

    pub(super) async fn connect(&self, credentials: &Credentials) -> Result<Channel, tonic::transport::Error> {
        self.endpoint(credentials.client_tls(Role::Control)).connect().await
    }

    pub(super) async fn end(self) {
        drop(self.stop);
        self.task.await.expect("ended");
    }
}

pub(super) fn code<T>(answer: Result<Response<T>, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

/// Calls every method of the three services: its name, the role that may, and what came of it.
pub(super) async fn all_methods(channel: &Channel) -> Vec<(&'static str, Role, Code)> {
    let mut raft = raft::raft_client::RaftClient::new(channel.clone());
    let mut edge = edge::edge_client::EdgeClient::new(channel.clone());
    let mut people = operator::operator_client::OperatorClient::new(channel.clone());
    let (of_raft, of_edge) = (tokio_stream::empty::<raft::BodyChunk>, tokio_stream::empty::<edge::BodyChunk>);
    macro_rules! calls {
        ($($client:ident.$method:ident($request:expr): $role:ident;)*) => {
            vec![$((stringify!($method), Role::$role, code($client.$method(Request::new($request)).await)),)*]
        };
    }
    calls! {
        raft.append_entries(raft::Payload::default()): Control;
        raft.vote(raft::Payload::default()): Control;
        raft.snapshot(tokio_stream::empty::<raft::SnapshotChunk>()): Control;
        raft.forward(raft::Payload::default()): Control;
        raft.put_copy(of_raft()): Control;
        raft.get_copy(raft::CopyRequest::default()): Control;
        edge.watch(edge::WatchRequest::default()): Node;
        edge.propose(edge::ProposeRequest::default()): Node;
        edge.put_body(of_edge()): Node;
        edge.get_body(edge::BodyRequest::default()): Node;
        edge.due(edge::DueRequest::default()): Node;
        people.form(operator::FormRequest::default()): Operator;
        people.status(operator::StatusRequest::default()): Operator;
        people.policy_plan(operator::PolicyFiles::default()): Operator;
        people.policy_apply(operator::ApplyRequest::default()): Operator;
        people.policy_history(operator::HistoryRequest::default()): Operator;
        people.quarantine_list(operator::ListRequest::default()): Operator;
        people.quarantine_show(operator::HeldRequest::default()): Operator;
        people.quarantine_release(operator::ActRequest::default()): Operator;
        people.quarantine_delete(operator::ActRequest::default()): Operator;
        people.audit(operator::AuditRequest::default()): Operator;
    }
}

#[tokio::test]
async fn each_role_may_call_its_own_service_and_no_other() {
    let ca = Ca::new();
    let server = Running::start(&ca.credentials("c1", Role::Control, "control-1")).await;
    for role in [Role::Control, Role::Node, Role::Operator] {
        let channel = server.connect(&ca.credentials("c1", role, "caller")).await.expect("TLS lets it in");
        for (method, may, code) in all_methods(&channel).await {
            let expected = if role == may { Code::Unimplemented } else { Code::PermissionDenied };
            assert_eq!(code, expected, "{role} calls {method}");
        }
    }
    server.end().await;
}

#[tokio::test]
async fn a_certificate_of_another_cluster_under_the_same_ca_may_nothing() {
    let ca = Ca::new();
    let server = Running::start(&ca.credentials("c1", Role::Control, "control-1")).await;
    for role in [Role::Control, Role::Node, Role::Operator] {
        let channel = server.connect(&ca.credentials("c2", role, "caller")).await.expect("TLS lets it in");
        for (method, _, code) in all_methods(&channel).await {
            assert_eq!(code, Code::Unauthenticated, "{role} calls {method}");
        }
    }
    server.end().await;
}

/// In TLS 1.3 a client learns only with its first request that the server has turned it away.
pub(super) async fn nothing_works(connected: Result<Channel, tonic::transport::Error>) {
    let Ok(channel) = connected else { return };
    for (method, _, code) in all_methods(&channel).await {
        assert!(matches!(code, Code::Unavailable | Code::Unknown | Code::Internal), "{method}: {code:?}");
    }
}

#[tokio::test]
async fn without_a_certificate_of_the_ca_not_even_tls_lets_anyone_in() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let credentials = ca.credentials("c1", Role::Control, "control-1");
    let server = Running::start(&credentials).await;

    let folder = tempfile::tempdir().expect("a folder");
    ca.write(folder.path(), "c1", Role::Operator, "anna");
    let trusted = Certificate::from_pem(std::fs::read(folder.path().join("ca.pem")).expect("read"));
    let nameless = ClientTlsConfig::new().ca_certificate(trusted).domain_name(Role::Control.dns_name());
    nothing_works(server.endpoint(nameless).connect().await).await;

    // Right CA to trust, a certificate of another CA to show.
    foreign.write(folder.path(), "c1", Role::Operator, "anna");
    let ours = tempfile::tempdir().expect("a folder");
    ca.write(ours.path(), "c1", Role::Operator, "anna");
    std::fs::copy(ours.path().join("ca.pem"), folder.path().join("ca.pem")).expect("copied");
    nothing_works(server.connect(&Credentials::load(folder.path()).expect("credentials")).await).await;

    let channel = server.connect(&ca.credentials("c1", Role::Operator, "anna")).await.expect("TLS lets it in");
    assert!(all_methods(&channel).await.iter().any(|(.., code)| *code == Code::Unimplemented));
    drop(channel);
    server.end().await;
}

#[tokio::test]
async fn a_nodes_certificate_cannot_answer_in_a_control_servers_place() {
    let ca = Ca::new();
    let server = Running::start(&ca.credentials("c1", Role::Node, "node-1")).await;
    assert!(server.connect(&ca.credentials("c1", Role::Node, "node-2")).await.is_err());
    server.end().await;
}
