//! Control servers in one process: certificates, listeners on loopback, and the `raft` service without bodies.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use proto::{
    codec,
    held::MutationId,
    identity::{Credentials, Identity, Role},
    mutation::{Change, Mutation, Principal},
    wire::raft::{
        BodyChunk, CopyRequest, CopyStored, Payload,
        raft_server::{Raft, RaftServer},
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport};

use crate::raft::{Batching, Group, GroupConfig, RaftCall, Server};

/// What the servers of one test share.
pub(super) struct Rig {
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    folder: TempDir,
    pub(super) servers: BTreeMap<u64, Server>,
}

impl Rig {
    /// Names and addresses for this many servers.
    pub(super) async fn new(count: u64) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("a CA").pem();
        let mut servers = BTreeMap::new();
        for id in 1..=count {
            let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = free.local_addr().expect("an address").to_string();
            servers.insert(id, Server { name: format!("control-{id}"), site: format!("site-{id}"), address });
        }
        Self { issuer: Issuer::new(params, key), ca, folder: tempfile::tempdir().expect("a folder"), servers }
    }

    fn credentials(&self, name: &str) -> Credentials {
        let identity = Identity { cluster: "c1".into(), role: Role::Control, name: name.to_owned() };
        let mut params = CertificateParams::new(vec![Role::Control.dns_name().to_owned()]).expect("parameters");
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into().expect("ASCII")));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let folder = self.folder.path().join(name).join("tls");
        std::fs::create_dir_all(&folder).expect("a folder");
        for (file, text) in
            [("ca.pem", self.ca.clone()), ("certificate.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(folder.join(file), text).expect("written");
        }
        Credentials::load(&folder).expect("credentials")
    }

    pub(super) fn config(&self, id: u64) -> GroupConfig {
        let server = self.servers[&id].clone();
        let folder = self.folder.path().join(&server.name);
        let (credentials, batching) = (self.credentials(&server.name), Batching::default());
        GroupConfig { id, credentials, server, data_dir: folder.join("data"), batching }
    }

    /// Opens a server and its listener.
    pub(super) async fn start(&self, id: u64) -> Running {
        let config = self.config(id);
        let listener = TcpListener::bind(&config.server.address).await.expect("the port is free");
        let tls = config.credentials.server_tls();
        let group = open(config).await;
        let service = RaftServer::new(Service(group.clone()))
            .max_decoding_message_size(crate::raft::network::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(crate::raft::network::MESSAGE_BYTES_MAX);
        let router = transport::Server::builder().tls_config(tls).expect("a TLS setting").add_service(service);
        let (ending, ended) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let ended = async { ended.await.unwrap_or_default() };
            router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended).await.expect("served");
        });
        Running { group, serving, ending }
    }
}

/// Opens log and state. Within one process sled may keep its lock for a moment after the last handle is gone, in a thread of
/// its own that nobody can await.
async fn open(config: GroupConfig) -> Group {
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        tries.tick().await;
        match Group::open(config.clone()).await {
            Ok(group) => return group,
            Err(error) if format!("{error:#}").contains("could not acquire lock") => {}
            Err(error) => panic!("the gate does not let it pass: {error:#}"),
        }
    }
    panic!("sled keeps its lock");
}

/// A server that runs.
pub(super) struct Running {
    pub(super) group: Group,
    serving: JoinHandle<()>,
    ending: oneshot::Sender<()>,
}

impl Running {
    /// Stops it, so that its files can be opened again.
    pub(super) async fn stop(self) {
        self.group.stop().await;
        self.ending.send(()).expect("it serves");
        // Connections hold handles on the group, and with them its files.
        self.serving.await.expect("served");
    }
}

/// A mutation under a fresh id.
pub(super) fn mutation(by: Principal, change: Change) -> Mutation {
    Mutation { id: MutationId::fresh(), by, change }
}

struct Service(Group);

impl Service {
    async fn answer(&self, call: RaftCall, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Identity::of_request(&request, "c1", &[Role::Control])?;
        let Payload { cluster, data, .. } = request.into_inner();
        let answer = self.0.answer(call, &data).await.map_err(|error| Status::internal(format!("{error:#}")))?;
        Ok(Response::new(Payload { cluster, version: codec::VERSION, data: answer }))
    }
}

#[tonic::async_trait]
impl Raft for Service {
    async fn append_entries(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::AppendEntries, request).await
    }

    async fn vote(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::Vote, request).await
    }

    async fn install_snapshot(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::InstallSnapshot, request).await
    }

    async fn forward(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::Forward, request).await
    }

    async fn put_copy(&self, _: Request<Streaming<BodyChunk>>) -> Result<Response<CopyStored>, Status> {
        Err(Status::unimplemented("no bodies here"))
    }

    type GetCopyStream = Pin<Box<dyn Stream<Item = Result<BodyChunk, Status>> + Send>>;

    async fn get_copy(&self, _: Request<CopyRequest>) -> Result<Response<Self::GetCopyStream>, Status> {
        Err(Status::unimplemented("no bodies here"))
    }
}
