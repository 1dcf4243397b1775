//! A whole control server and callers who speak for others: nothing of it reaches Raft, and all of it is counted.

use std::{collections::BTreeMap, net::SocketAddr};

use openraft::{Vote, raft::VoteRequest};
use proto::{
    codec,
    identity::{Credentials, Role},
    wire::{
        operator::{
            FormRequest, HistoryRequest, Server, StatusRequest, StatusResponse, operator_client::OperatorClient,
        },
        raft::{BodyChunk, CopyRequest, Payload, SnapshotChunk, raft_client::RaftClient},
    },
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Code, Status, transport::Channel};

use crate::{config::Config, raft::stamp, server, test_pki::Ca};

/// A group of one.
struct Alone {
    ca: Ca,
    _folder: TempDir,
    address: SocketAddr,
    end: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Alone {
    async fn start() -> Self {
        let (ca, folder) = (Ca::new(), TempDir::new().expect("a folder"));
        ca.write(folder.path(), "c1", Role::Control, "alpha");
        let text = "id: 1\nname: alpha\nsite: north\ndata: data\nlisten: \"127.0.0.1:0\"\nadvertise: \"alpha.test:1\"\n\
                    credentials: .\n";
        stamp::mark_new(&folder.path().join("data")).expect("a new folder");
        let config = Config::parse("control.yaml", text, folder.path()).expect("a configuration");
        let ((end, ended), (ready, address)) = (oneshot::channel::<()>(), oneshot::channel());
        let running = tokio::spawn(async move {
            let told = |address| ready.send(address).expect("the test waits");
            server::run(config, async { drop(ended.await) }, told).await
        });
        let address = address.await.expect("it answers");
        Self { ca, _folder: folder, address, end, running }
    }

    async fn channel(&self, credentials: Credentials) -> Channel {
        let endpoint = credentials.endpoint(&self.address.to_string(), Role::Control).expect("an address");
        endpoint.connect().await.expect("connected")
    }

    async fn people(&self) -> OperatorClient<Channel> {
        OperatorClient::new(self.channel(self.ca.credentials("c1", Role::Operator, "anna")).await)
    }

    async fn peer(&self, name: &str) -> RaftClient<Channel> {
        RaftClient::new(self.channel(self.ca.credentials("c1", Role::Control, name)).await)
    }

    async fn form(&self) {
        let mut people = self.people().await;
        let address = "alpha.test:1".to_owned();
        let alpha = Server { id: 1, name: "alpha".into(), site: "north".into(), address };
        people.form(FormRequest { servers: vec![alpha] }).await.expect("formed");
        // Waits for the leader.
        people.policy_history(HistoryRequest { max: 1 }).await.expect("a leader");
    }

    async fn status(&self) -> StatusResponse {
        self.people().await.status(StatusRequest {}).await.expect("a status").into_inner()
    }

    async fn end(self) {
        self.end.send(()).expect("it runs");
        self.running.await.expect("no panic").expect("ended well");
    }
}

fn payload(cluster: &str, to: u64, vote: Vote<u64>) -> Payload {
    let data = codec::encode(&(to, VoteRequest { vote, last_log_id: None }));
    Payload { cluster: cluster.into(), version: codec::VERSION, data, knows: 1 }
}

async fn vote(peer: &mut RaftClient<Channel>, to: u64, vote: Vote<u64>) -> Result<(), Status> {
    peer.vote(payload("c1", to, vote)).await.map(drop)
}

async fn snapshot(peer: &mut RaftClient<Channel>, head: Payload) -> Result<(), Status> {
    let head = SnapshotChunk { head: Some(head), ..SnapshotChunk::default() };
    peer.snapshot(tokio_stream::iter([head])).await.map(drop)
}

#[tokio::test]
async fn a_message_that_speaks_for_another_server_never_reaches_raft() {
    let alone = Alone::start().await;
    alone.form().await;
    let term = alone.status().await.term;
    let (mut alpha, mut removed) = (alone.peer("alpha").await, alone.peer("beta").await);
    let high = term + 5;

    for (refused, why) in [
        (vote(&mut removed, 1, Vote::new(high, 1)).await, "another server's id"),
        (vote(&mut removed, 1, Vote::new(high, 2)).await, "an id that nobody has"),
        (vote(&mut alpha, 2, Vote::new(high, 1)).await, "meant for another server"),
        (vote(&mut alpha, 1, Vote::new_committed(high, 1)).await, "a candidate that claims to be elected"),
        (vote(&mut alpha, 1, Vote::new(u64::MAX, 1)).await, "the last of all terms"),
        (removed.append_entries(payload("c1", 1, Vote::new_committed(high, 2))).await.map(drop), "no leader"),
        (snapshot(&mut removed, payload("c1", 1, Vote::new_committed(high, 2))).await, "no leader"),
        (removed.forward(payload("c1", 1, Vote::new(0, 2))).await.map(drop), "no member"),
        (removed.put_copy(tokio_stream::iter([BodyChunk::default()])).await.map(drop), "no member"),
        (removed.get_copy(CopyRequest::default()).await.map(drop), "no member"),
    ] {
        assert_eq!(refused.expect_err(why).code(), Code::PermissionDenied, "{why}");
    }
    let stale = alpha.vote(payload("c0", 1, Vote::new(high, 1))).await.expect_err("another cluster's message");
    assert_eq!(stale.code(), Code::FailedPrecondition);
    let garbled = Payload { data: vec![0xc1], ..payload("c1", 1, Vote::new(high, 1)) };
    assert_eq!(alpha.vote(garbled).await.expect_err("unreadable").code(), Code::PermissionDenied);

    // Said once more, an old vote of a server's own is answered and changes nothing.
    for _ in 0..2 {
        vote(&mut alpha, 1, Vote::new(term.saturating_sub(1), 1)).await.expect("an answer");
    }
    let status = alone.status().await;
    assert_eq!((status.term, status.leader), (term, 1), "Raft has seen none of it");
    let expected = [
        ("raft-cluster", 1),
        ("raft-forged", 1),
        ("raft-stranger", 6),
        ("raft-target", 1),
        ("raft-term", 1),
        ("raft-unreadable", 1),
        ("raft-vote", 1),
    ];
    let expected = expected.map(|(reason, count)| (reason.to_owned(), count));
    assert_eq!(status.refused.into_iter().collect::<BTreeMap<_, _>>(), BTreeMap::from(expected));
    alone.end().await;
}

#[tokio::test]
async fn a_server_without_a_group_hears_every_server_of_its_cluster() {
    let alone = Alone::start().await;
    let mut first = alone.peer("first").await;
    vote(&mut first, 1, Vote::new(1, 7)).await.expect("it may become a member of any group");
    let own = vote(&mut first, 1, Vote::new(1, 1)).await.expect_err("but nobody is itself");
    assert_eq!(own.code(), Code::PermissionDenied);
    alone.end().await;
}
