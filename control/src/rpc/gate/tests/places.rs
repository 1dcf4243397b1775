//! A caller with too much under way is refused at once, and takes nobody else's place.

use std::{
    convert::Infallible,
    future::Pending,
    marker::PhantomData,
    task::{Context, Poll},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use proto::{
    identity::Role,
    wire::{edge, operator, raft},
};
use tokio::net::TcpListener;
use tonic::{
    Code, Request,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::Channel,
};

use super::{Closed, code};
use crate::{
    rpc::{gate::Guard, listener, router},
    test_pki::Ca,
};

/// Stands for the service `S` and never comes to an end.
struct Slow<S>(PhantomData<fn() -> S>);

impl<S> Clone for Slow<S> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<S: NamedService> NamedService for Slow<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Slow<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pending<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test]
async fn a_greedy_caller_is_refused_and_raft_does_not_wait_for_it() {
    let ca = Ca::new();
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("an address").to_string();
    let guard = Guard::new(ca.credentials("c1", Role::Control, "alpha"));
    let services = router(
        &guard,
        Closed::<raft::raft_server::RaftServer<()>>::new(),
        Closed::<edge::edge_server::EdgeServer<()>>::new(),
        Slow::<operator::operator_server::OperatorServer<()>>(PhantomData),
    );
    // Ends with the test's runtime.
    tokio::spawn(services.serve_with_incoming(listener::incoming(port, &guard)));
    let connect = async |role, name: &str| -> Channel {
        let endpoint = ca.credentials("c1", role, name).endpoint(&address, Role::Control).expect("an address");
        endpoint.connect().await.expect("connected")
    };

    // Four greedy callers take all that is there for their service; nothing of it ever ends.
    let calls = FuturesUnordered::new();
    for name in ["anna", "bert", "cleo", "dora"] {
        let channel = connect(Role::Operator, name).await;
        for _ in 0..33 {
            let mut people = operator::operator_client::OperatorClient::new(channel.clone());
            calls.push(async move { people.status(Request::new(operator::StatusRequest::default())).await });
        }
    }
    let mut calls = calls;
    for _ in 0..4 {
        let refused = calls.next().await.expect("a call").expect_err("one too many");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("this caller"), "{refused}");
    }
    let mut fifth = operator::operator_client::OperatorClient::new(connect(Role::Operator, "emil").await);
    let refused = tokio::select! {
        _ = calls.next() => panic!("the others have their places"),
        refused = fifth.status(Request::new(operator::StatusRequest::default())) => refused,
    };
    assert_eq!(code(refused), Code::ResourceExhausted);
    assert_eq!(guard.refusals.snapshot(), [("requests", 5)]);

    let mut peer = raft::raft_client::RaftClient::new(connect(Role::Control, "beta").await);
    let answer = peer.vote(Request::new(raft::Payload::default())).await;
    assert_eq!(code(answer), Code::Unimplemented, "Raft has places of its own");
}
