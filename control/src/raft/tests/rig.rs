//! Control servers in one process: certificates, listeners on loopback, and the `raft` service without bodies.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proto::{
    codec,
    held::MutationId,
    identity::{Credentials, Identity, Role},
    mutation::{Change, Mutation, Principal},
    wire::raft::{
        BodyChunk, CopyRequest, CopyStored, Payload, SnapshotChunk,
        raft_server::{Raft, RaftServer},
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport};

use crate::{
    raft::{Group, GroupConfig, RaftCall, Rules, Server, stamp},
    rpc::raft::{SnapshotAnswer, snapshot_answer, snapshot_head},
};

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
        if !folder.join("data").exists() {
            std::fs::create_dir_all(folder.join("data")).expect("a folder");
            stamp::mark_new(&folder.join("data")).expect("a new folder");
        }
        GroupConfig {
            id,
            credentials: self.credentials(&server.name),
            server,
            data_dir: folder.join("data"),
            rules: Rules::default(),
        }
    }

    /// Opens a server and its listener.
    pub(super) async fn start(&self, id: u64) -> Running {
        self.start_with(id, Rules::default()).await
    }

    /// The same under other rules.
    pub(super) async fn start_with(&self, id: u64, rules: Rules) -> Running {
        let address = self.servers[&id].address.clone();
        self.start_at(id, &address, Damage::default(), rules).await
    }

    /// The same for a server that others reach by way of a proxy in front of `listen`. A byte of the next snapshot that
    /// comes is wrong when `damage` says so.
    pub(super) async fn start_at(&self, id: u64, listen: &str, damage: Damage, rules: Rules) -> Running {
        let config = GroupConfig { rules, ..self.config(id) };
        let listener = TcpListener::bind(listen).await.expect("the port is free");
        let tls = config.credentials.server_tls();
        let group = open(config).await.expect("the gate lets it pass");
        let service = RaftServer::new(Service(group.clone(), damage))
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

/// Opens log and state as often as sled says that they are locked. Within one process sled may keep its lock for a moment after the last handle is gone, in a thread of
/// its own that nobody can await.
pub(super) async fn open(config: GroupConfig) -> anyhow::Result<Group> {
    let mut tries = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        tries.tick().await;
        match Group::open(config.clone()).await {
            Err(error) if format!("{error:#}").contains("could not acquire lock") => {}
            opened => return opened,
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
    /// How many snapshot files there are in its folder.
    pub(super) fn snapshot_files(&self, rig: &Rig) -> usize {
        let folder = rig.config(self.group.me().0).data_dir.join("snapshots");
        std::fs::read_dir(folder).expect("a folder").count()
    }

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

/// Whether the next snapshot is to be damaged; it says no afterwards.
pub(super) type Damage = Arc<AtomicBool>;

struct Service(Group, Damage);

impl Service {
    fn hear(&self, from: &Identity, call: RaftCall, data: &[u8]) -> Result<(), Status> {
        self.0.hear(&from.name, call, data).map_err(|abuse| Status::permission_denied(abuse.to_string()))
    }

    async fn answer(&self, call: RaftCall, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let from = Identity::of_request(&request, "c1", &[Role::Control])?;
        let Payload { cluster, data, .. } = request.into_inner();
        self.hear(&from, call, &data)?;
        let answer = self.0.answer(call, &data).await.map_err(|error| Status::internal(format!("{error:#}")))?;
        Ok(Response::new(Payload { cluster, version: codec::VERSION, data: answer, knows: self.0.knows() }))
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

    type SnapshotStream = SnapshotAnswer;

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotAnswer>, Status> {
        let from = Identity::of_request(&request, "c1", &[Role::Control])?;
        let mut chunks = request.into_inner();
        let head = snapshot_head(&mut chunks).await?;
        self.hear(&from, RaftCall::Snapshot, &head.data)?;
        let damage = Arc::clone(&self.1);
        let chunks = chunks.map(move |chunk| {
            chunk.map(|mut chunk| {
                let middle = chunk.data.len() / 2;
                if let Some(byte) = chunk.data.get_mut(middle).filter(|_| damage.swap(false, Ordering::AcqRel)) {
                    *byte ^= 1;
                }
                chunk
            })
        });
        Ok(Response::new(snapshot_answer(self.0.clone(), head, chunks)))
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
