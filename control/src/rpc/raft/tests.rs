//! What reaches Raft, and bodies between control servers over real mTLS on loopback.

mod abuse;

use proto::{
    codec,
    identity::Role,
    wire::{
        edge::edge_server::EdgeServer,
        operator::operator_server::OperatorServer,
        raft::{
            BodyChunk, CopyRequest, CopyStored, Payload, SnapshotChunk,
            raft_server::{Raft, RaftServer},
        },
    },
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};

use super::{check, send_copy, store_copy};
use crate::{
    bodies::{
        Bodies, Body, BodyError, Sender, chunks,
        copies::{Copies, CopyError, LoadError},
        peers::{Keeper, Peers},
    },
    rpc::{
        gate::{Guard, tests::Closed},
        listener, router,
    },
    test_pki::Ca,
};

#[test]
fn a_message_of_another_cluster_or_encoding_is_refused() {
    let payload = |cluster: &str, version| Payload { cluster: cluster.into(), version, ..Payload::default() };
    assert!(check(&payload("c1", codec::VERSION), "c1").is_ok());
    assert!(check(&payload("c2", codec::VERSION), "c1").is_err());
    assert!(check(&payload("", codec::VERSION), "c1").is_err());
    assert!(check(&payload("c1", codec::VERSION + 1), "c1").is_err());
    assert!(check(&payload("c1", 0), "c1").is_err());
}

/// The half of the raft service that keeps copies.
#[derive(Clone)]
struct Half {
    bodies: Bodies,
    says: Keeper,
}

#[tonic::async_trait]
impl Raft for Half {
    async fn append_entries(&self, _: Request<Payload>) -> Result<Response<Payload>, Status> {
        Err(Status::unimplemented("only copies here"))
    }
    async fn vote(&self, _: Request<Payload>) -> Result<Response<Payload>, Status> {
        Err(Status::unimplemented("only copies here"))
    }
    type SnapshotStream = super::SnapshotAnswer;
    async fn snapshot(&self, _: Request<Streaming<SnapshotChunk>>) -> Result<Response<super::SnapshotAnswer>, Status> {
        Err(Status::unimplemented("only copies here"))
    }
    async fn forward(&self, _: Request<Payload>) -> Result<Response<Payload>, Status> {
        Err(Status::unimplemented("only copies here"))
    }
    async fn put_copy(&self, request: Request<Streaming<BodyChunk>>) -> Result<Response<CopyStored>, Status> {
        store_copy(&self.bodies, &self.says, request.into_inner()).await.map(Response::new)
    }
    type GetCopyStream = ReceiverStream<Result<BodyChunk, Status>>;
    async fn get_copy(&self, request: Request<CopyRequest>) -> Result<Response<Self::GetCopyStream>, Status> {
        send_copy(&self.bodies, request.into_inner()).await.map(Response::new)
    }
}

/// Two servers in two sites; the second one answers over the network.
struct Pair {
    ca: Ca,
    folders: [TempDir; 2],
    there: Bodies,
    copies: Copies,
    members: Vec<Keeper>,
}

impl Pair {
    /// `says` is what the second server answers about where it stands.
    async fn start(says: &str) -> Self {
        let ca = Ca::new();
        let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
        let [here, there] = folders.each_ref().map(|folder| Bodies::open(folder.path()).expect("a body store"));
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = port.local_addr().expect("an address").to_string();
        let keeper = |name: &str, site: &str| Keeper { name: name.into(), site: site.into(), address: address.clone() };
        let members = vec![keeper("a", "north"), keeper("b", "south")];
        let half = RaftServer::new(Half { bodies: there.clone(), says: keeper("b", says) });
        let closed = (Closed::<EdgeServer<()>>::new(), Closed::<OperatorServer<()>>::new());
        let guard = Guard::new(ca.credentials("c1", Role::Control, "b"));
        let router = router(&guard, half, closed.0, closed.1);
        // Ends with the test's runtime.
        tokio::spawn(router.serve_with_incoming(listener::incoming(port, &guard)));
        let peers = Peers::new(ca.credentials("c1", Role::Control, "a"));
        let copies = Copies { me: members[0].clone(), bodies: here, peers };
        Self { ca, folders, there, copies, members }
    }

    async fn body(&self, bytes: &[u8]) -> Body {
        let chunks = chunks::cut(hex::encode(Sha256::digest(bytes)), bytes.to_vec().into());
        let chunks = tokio_stream::iter(chunks.map(Ok::<_, Status>));
        self.copies.bodies.receive(Sender::Node, chunks).await.expect("a right body")
    }

    async fn store(&self, body: &Body) -> Result<Vec<String>, CopyError> {
        self.copies.store(body, &self.members).await
    }

    async fn load(&self, digest: &str, size: usize) -> Result<Body, LoadError> {
        self.copies.load(digest, size as u64, &self.members).await
    }
}

fn large() -> Vec<u8> {
    (0..3 * chunks::CHUNK_BYTES + 5).map(|at| (at % 253) as u8).collect()
}

#[tokio::test]
async fn a_stored_body_is_on_both_disks_and_a_damaged_one_is_repaired_from_the_other() {
    let pair = Pair::start("south").await;
    let bytes = large();
    let body = pair.body(&bytes).await;
    assert_eq!(pair.store(&body).await.expect("stored"), ["a", "b"]);
    for bodies in [&pair.copies.bodies, &pair.there] {
        assert!(bodies.read(Sender::Node, body.digest(), body.size_bytes()).await.is_ok());
    }
    let file = pair.folders[0].path().join("bodies").join(body.digest());
    for damage in [Some(&b"damaged"[..]), None] {
        match damage {
            Some(damage) => std::fs::write(&file, damage).expect("written"),
            None => std::fs::remove_file(&file).expect("removed"),
        }
        let back = pair.load(body.digest(), bytes.len()).await.expect("from the other server");
        assert_eq!(back.bytes().as_ref(), bytes);
        assert_eq!(std::fs::read(&file).expect("repaired"), bytes);
    }
}

#[tokio::test]
async fn a_server_that_stands_in_our_own_site_after_all_is_no_second_site() {
    let pair = Pair::start("north").await;
    let error = pair.store(&pair.body(b"hello").await).await.expect_err("not in two sites");
    assert!(matches!(&error, CopyError::NoneTook(why) if why.contains("site north answered")), "{error}");
}

#[tokio::test]
async fn a_body_is_nowhere_only_when_every_server_has_said_so() {
    let mut pair = Pair::start("south").await;
    let digest = hex::encode(Sha256::digest(b"never stored"));
    assert!(matches!(pair.load(&digest, 12).await.expect_err("nowhere"), LoadError::Nowhere));
    assert!(matches!(pair.load("../x", 1).await.expect_err("no name"), LoadError::Asked(BodyError::Name)));
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let away = Keeper { name: "c".into(), site: "west".into(), address: closed.to_string() };
    pair.members.push(away);
    assert!(matches!(pair.load(&digest, 12).await.expect_err("unknown"), LoadError::NotNow(_)));
}

#[tokio::test]
async fn a_node_cannot_put_a_copy_and_a_wrong_copy_is_refused() {
    let pair = Pair::start("south").await;
    let address = &pair.members[1].address;
    let client = async |role| {
        let tls = pair.ca.credentials("c1", role, "x").client_tls(Role::Control);
        let endpoint = Channel::from_shared(format!("https://{address}")).expect("an address").tls_config(tls);
        let channel = endpoint.expect("TLS").connect().await.expect("connected");
        proto::wire::raft::raft_client::RaftClient::new(channel)
    };
    let chunk =
        |data: &[u8]| BodyChunk { digest: hex::encode(Sha256::digest(b"right")), size_bytes: 5, data: data.to_vec() };
    let mut node = client(Role::Node).await;
    let refused = node.put_copy(tokio_stream::iter([chunk(b"right")])).await.expect_err("a node may not");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut control = client(Role::Control).await;
    let refused = control.put_copy(tokio_stream::iter([chunk(b"wrong")])).await.expect_err("wrong bytes");
    assert_eq!(refused.code(), Code::InvalidArgument);
    control.put_copy(tokio_stream::iter([chunk(b"right")])).await.expect("right bytes");
}
