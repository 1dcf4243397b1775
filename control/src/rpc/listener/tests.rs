//! Places on the listener, and connections that end by themselves.

use std::{net::SocketAddr, time::Duration};

use proto::identity::{Credentials, Role};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};

use super::{BOUNDS, Bounds, bounded};
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
