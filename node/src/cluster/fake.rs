//! A control server for tests: the edge service over mTLS on loopback, with its answers given by the test.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use proto::{
    codec,
    held::{Held, MutationId},
    identity::{Credentials, Identity, Role},
    mutation::{Change, Outcome},
    view::{StateSettings, ViewChange},
    wire::edge::{
        BodyChunk, BodyRequest, BodyStored, DueRequest, DueResponse, ProposeRequest, ProposeResponse, ViewUpdate,
        WatchRequest,
        edge_server::{Edge, EdgeServer},
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc},
};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

type Answers = dyn Fn(&Change) -> Result<Outcome, Status> + Send + Sync;
type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A certificate authority, for servers and nodes of one cluster.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn credentials(&self, role: Role, name: &str) -> Credentials {
        let identity = Identity { cluster: "c1".to_owned(), role, name: name.to_owned() };
        let mut params = CertificateParams::new(vec![role.dns_name().to_owned()]).expect("a name");
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into().expect("a URI")));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let folder = TempDir::new().expect("a folder");
        let files =
            [("ca.pem", self.pem.clone()), ("certificate.pem", certificate.pem()), ("key.pem", key.serialize_pem())];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        Credentials::load(folder.path()).expect("credentials")
    }
}

/// What a server is told, and what it has.
pub(crate) struct Fake {
    pub(crate) address: String,
    /// Sent to each watch that begins.
    pub(crate) first: Arc<Mutex<Vec<ViewUpdate>>>,
    /// Sent to each watch that is running.
    pub(crate) updates: broadcast::Sender<ViewUpdate>,
    pub(crate) bodies: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    pub(crate) due: Arc<Mutex<Vec<Held>>>,
    /// Each watch that began, with its index.
    pub(crate) watches: mpsc::Receiver<u64>,
    /// Each proposal.
    pub(crate) proposals: mpsc::Receiver<(MutationId, Change)>,
    server: tokio::task::JoinHandle<()>,
}

struct Service {
    first: Arc<Mutex<Vec<ViewUpdate>>>,
    updates: broadcast::Sender<ViewUpdate>,
    bodies: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    due: Arc<Mutex<Vec<Held>>>,
    watches: mpsc::Sender<u64>,
    proposals: mpsc::Sender<(MutationId, Change)>,
    answers: Box<Answers>,
}

impl Fake {
    /// Starts one that answers proposals so.
    pub(crate) async fn start(
        credentials: Credentials,
        answers: impl Fn(&Change) -> Result<Outcome, Status> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (watches_to, watches) = mpsc::channel(64);
        let (proposals_to, proposals) = mpsc::channel(64);
        let service = Service {
            first: Arc::default(),
            updates: broadcast::channel(64).0,
            bodies: Arc::default(),
            due: Arc::default(),
            watches: watches_to,
            proposals: proposals_to,
            answers: Box::new(answers),
        };
        let (first, updates) = (Arc::clone(&service.first), service.updates.clone());
        let (bodies, due) = (Arc::clone(&service.bodies), Arc::clone(&service.due));
        let mut builder = Server::builder().tls_config(credentials.server_tls()).expect("TLS");
        let router = builder.add_service(EdgeServer::new(service));
        let server = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("a server");
        });
        Self { address, first, updates, bodies, due, watches, proposals, server }
    }

    /// Ends it, with all its connections.
    pub(crate) fn kill(&self) {
        self.server.abort();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A whole view without departments, confirmed.
pub(crate) fn whole(index: u64) -> ViewUpdate {
    let change = ViewChange {
        index,
        policy_version: index,
        whole: true,
        settings: Some(StateSettings::default()),
        departments: Vec::new(),
        ..ViewChange::default()
    };
    update(&change)
}

pub(crate) fn update(change: &ViewChange) -> ViewUpdate {
    ViewUpdate { index: change.index, change: codec::encode(change), confirmed: true }
}

#[tonic::async_trait]
impl Edge for Service {
    type WatchStream = Updates<ViewUpdate>;
    type GetBodyStream = Updates<BodyChunk>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Identity::of_request(&request, "c1", &[Role::Node])?;
        self.watches.try_send(request.get_ref().from_index).map_err(|_| Status::internal("too many watches"))?;
        let later = tokio_stream::wrappers::BroadcastStream::new(self.updates.subscribe());
        let first = self.first.lock().expect("a lock").clone();
        let later = later.map(|update| update.map_err(|error| Status::internal(error.to_string())));
        Ok(Response::new(Box::pin(tokio_stream::iter(first.into_iter().map(Ok)).chain(later))))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let proposal = codec::decode::<(MutationId, Change)>("proposal", &request.get_ref().proposal)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let outcome = (self.answers)(&proposal.1);
        self.proposals.try_send(proposal).map_err(|_| Status::internal("too many proposals"))?;
        Ok(Response::new(ProposeResponse { outcome: codec::encode(&outcome?) }))
    }

    async fn put_body(&self, request: Request<Streaming<BodyChunk>>) -> Result<Response<BodyStored>, Status> {
        let mut chunks = request.into_inner();
        let (mut digest, mut bytes) = (String::new(), Vec::new());
        while let Some(chunk) = chunks.message().await? {
            digest = chunk.digest;
            bytes.extend(chunk.data);
        }
        self.bodies.lock().expect("a lock").insert(digest, bytes);
        Ok(Response::new(BodyStored { servers: vec!["a".to_owned(), "b".to_owned()] }))
    }

    async fn get_body(&self, request: Request<BodyRequest>) -> Result<Response<Self::GetBodyStream>, Status> {
        let body = self.bodies.lock().expect("a lock").get(&request.get_ref().digest).cloned();
        let data = body.ok_or_else(|| Status::not_found("no such body"))?;
        let chunk = BodyChunk { digest: String::new(), size_bytes: 0, data };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(chunk)]))))
    }

    async fn due(&self, request: Request<DueRequest>) -> Result<Response<DueResponse>, Status> {
        let due = std::mem::take(&mut *self.due.lock().expect("a lock"));
        if due.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(request.get_ref().wait_ms)).await;
        }
        Ok(Response::new(DueResponse { held: due.iter().map(codec::encode).collect() }))
    }
}
