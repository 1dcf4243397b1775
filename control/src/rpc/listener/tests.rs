//! Places on the listener, and connections that end by themselves.

use std::{net::SocketAddr, time::Duration};

use proto::{
    identity::{Credentials, Role},
    time::UnixMs,
    wire::operator::{StatusRequest, operator_client::OperatorClient},
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};

use super::{BOUNDS, Bounds, Connection, bounded};
use crate::{rpc::gate::Guard, test_pki::Ca};

async fn connect(to: SocketAddr, credentials: &Credentials) -> Channel {
    let endpoint = Endpoint::from_shared(format!("https://{to}")).expect("an address");
    let endpoint = endpoint.tls_config(credentials.client_tls(Role::Control)).expect("TLS");
    endpoint.connect().await.expect("a connection")
}

#[tokio::test]
async fn nodes_cannot_take_the_places_of_the_other_control_servers() {
    let ca = Ca::new();
    let me = ca.credentials("c1", Role::Control, "alpha");
    let (node, peer) = (ca.credentials("c1", Role::Node, "n1"), ca.credentials("c1", Role::Control, "beta"));
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("an address");
    let mut incoming = bounded(port, &Guard::new(me), Bounds { connections: 4, ..BOUNDS });
    let mut open = Vec::new();
    for _ in 0..3 {
        let channel = connect(address, &node).await;
        open.push((channel, incoming.next().await.expect("open").expect("a connection")));
    }
    let _fourth = connect(address, &node).await;
    let nobody = tokio::time::timeout(Duration::from_millis(200), incoming.next()).await;
    assert!(nobody.is_err(), "a fourth node came in");
    let peer = connect(address, &peer).await;
    open.push((peer, incoming.next().await.expect("open").expect("the peer")));
    // A place that is left is there for the next node.
    open.clear();
    let _next = connect(address, &node).await;
    incoming.next().await.expect("open").expect("a node");
}

/// Reads until the server ends the connection.
async fn until_ended(channel: Channel, refused: &str, guard: &Guard) {
    // HTTP/2 on the other side is nobody: a request waits until the connection ends.
    let mut people = OperatorClient::new(channel);
    people.status(StatusRequest::default()).await.expect_err("nobody answers");
    assert!(guard.refusals.snapshot().iter().any(|(reason, _)| *reason == refused), "{:?}", guard.refusals.snapshot());
}

/// Polls a connection as HTTP/2 does, until it fails.
async fn read_to_end(mut connection: Connection) -> std::io::Error {
    let mut buffer = [0; 1024];
    loop {
        match connection.read(&mut buffer).await {
            Ok(0) => panic!("the client ended it"),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_connection_ends_when_its_certificate_is_revoked_or_its_time_is_over() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().expect("a folder"));
    ca.write(folder.path(), "c1", Role::Control, "alpha");
    let me = Credentials::load(folder.path()).expect("credentials");
    let guard = Guard::new(me.clone());
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("an address");
    let mut incoming = bounded(port, &guard, Bounds { look_every: Duration::from_millis(20), ..BOUNDS });

    let node = ca.credentials("c1", Role::Node, "n1");
    let channel = connect(address, &node).await;
    let reading = tokio::spawn(read_to_end(incoming.next().await.expect("open").expect("a connection")));
    std::fs::write(folder.path().join("crl.pem"), ca.revoke(&node)).expect("written");
    me.reread(UnixMs::now()).expect("a list");
    assert!(reading.await.expect("read").to_string().contains("revoked"));
    until_ended(channel, "revoked", &guard).await;

    // Two seconds are enough for the handshake; X.509 counts whole seconds.
    let soon = ca.odd("c1", Role::Node, "n2", |params| {
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(UnixMs::now().0);
        params.not_after = now + Duration::from_secs(2);
    });
    let channel = connect(address, &soon).await;
    let error = read_to_end(incoming.next().await.expect("open").expect("a connection")).await;
    assert!(error.to_string().contains("expired"), "{error}");
    until_ended(channel, "expired", &guard).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_request_under_way_is_not() {
    let ca = Ca::new();
    let guard = Guard::new(ca.credentials("c1", Role::Control, "alpha"));
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("an address");
    let bounds = Bounds { look_every: Duration::from_millis(20), idle_max: Duration::from_millis(60), ..BOUNDS };
    let mut incoming = bounded(port, &guard, bounds);
    let _channel = connect(address, &ca.credentials("c1", Role::Node, "n1")).await;
    let connection = incoming.next().await.expect("open").expect("a connection");
    let call = connection.peer.begin();
    let mut reading = tokio::spawn(read_to_end(connection));
    let still = tokio::time::timeout(Duration::from_millis(300), &mut reading).await;
    assert!(still.is_err(), "a request is under way");
    drop(call);
    assert!(reading.await.expect("read").to_string().contains("idle"));
}

#[tokio::test]
async fn one_holder_has_a_bounded_number_of_connections_and_one_address_of_handshakes() {
    let ca = Ca::new();
    let guard = Guard::new(ca.credentials("c1", Role::Control, "alpha"));
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("an address");
    let mut incoming = bounded(port, &guard, Bounds { of_one_holder: 1, handshakes_from_one: 2, ..BOUNDS });
    let n1 = ca.credentials("c1", Role::Node, "n1");
    let first = connect(address, &n1).await;
    let held = incoming.next().await.expect("open").expect("a connection");
    let second = connect(address, &n1).await;
    until_ended(second, "connections", &guard).await;
    let _other = connect(address, &ca.credentials("c1", Role::Node, "n2")).await;
    incoming.next().await.expect("open").expect("another holder");
    drop((first, held));

    // Two that say nothing, and a third one that is not listened to.
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(address).await.expect("a connection"));
    }
    let mut third = TcpStream::connect(address).await.expect("a connection");
    assert!(matches!(third.read(&mut [0; 1]).await, Ok(0) | Err(_)), "it is closed at once");
    assert!(guard.refusals.snapshot().iter().any(|(reason, _)| *reason == "handshakes"));
}
