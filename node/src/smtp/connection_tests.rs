//! What a connection costs while nothing happens.

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use proto::{address::Domain, view::View};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Connection, Deliver, Service};
use crate::{
    actions::relay::Relay,
    checks::authentication::resolver,
    limits::Limits,
    reception::{Reception, Recipients},
    reputation::Outcomes,
    smtp::{places::Places, reply::Reply, step::Settings, transaction::Listener},
};

/// 50,000 idle connections are to fit into 512 MiB, and this is not all that one takes.
#[tokio::test]
async fn a_connection_takes_little_memory_while_nothing_happens() {
    let limits = Limits::default();
    let places = Places::new(&limits);
    let client = "192.0.2.1".parse().expect("an address");
    let hostname = Domain::parse("mx.gov.test").expect("a domain");
    let settings = Settings { node: "mx".into(), hostname, xclient: Vec::new(), limits };
    let deliver: Deliver = Arc::new(|_, _| async { Reply::done(50, (0, 0), "taken") }.boxed());
    let resolver = resolver(&["127.0.0.1:9".parse().expect("an address")]).expect("a resolver");
    let relay = Relay::new("mx.gov.test", &settings.limits, resolver.clone(), None);
    let recipients = Recipients::new(Arc::new(relay), Vec::new());
    let reception = Reception::new(settings.hostname.clone(), resolver, Outcomes::default(), recipients);
    let view = watch::channel(Arc::new(View::empty())).1;
    let service = Arc::new(Service::new(settings, view, Arc::new(|| Duration::ZERO), reception, deliver));
    let seat = Places::seat(&places, client).expect("a seat");
    let stopping = watch::channel(false).1;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let socket = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
    let connection = Connection::new(service, client, Listener::Internet, None, seat, stopping, None);
    let bytes = size_of_val(&connection.run(socket, false));
    assert!(bytes <= 3072, "{bytes}");
}
