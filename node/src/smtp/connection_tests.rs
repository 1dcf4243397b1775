//! What a connection costs while nothing happens, and when it gives way to others.

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use proto::{address::Domain, view::View};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use super::{Connection, Deliver, Service};
use crate::{
    actions::relay::Relay,
    checks::authentication::resolver,
    limits::Limits,
    reception::{Reception, Recipients},
    reputation::Outcomes,
    smtp::{
        places::{Places, Pressure},
        reply::Reply,
        step::Settings,
        stream::Incoming,
        transaction::Listener,
    },
};

/// A connection that has been accepted, and the other end of one.
async fn connection() -> (Connection, TcpStream) {
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
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let socket = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
    (Connection::new(service, client, Listener::Internet, None, seat, None), socket)
}

/// 50,000 idle connections are to fit into 512 MiB, and this is not all that one takes.
#[tokio::test]
async fn a_connection_takes_little_memory_while_nothing_happens() {
    let (connection, socket) = connection().await;
    let bytes = size_of_val(&connection.run(socket, false));
    assert!(bytes <= 3072, "{bytes}");
}

#[tokio::test]
async fn small_talk_is_what_brings_no_message_in_its_time() {
    let (mut connection, _socket) = connection().await;
    let gives_way = |connection: &mut Connection, seconds| {
        connection.gives_way(Instant::now() + Duration::from_secs(seconds), Duration::from_secs(10))
    };
    assert!(!gives_way(&mut connection, 11), "there is room");
    let crowded = watch::channel(Pressure::Crowded).1;
    connection.pressure = crowded.clone();
    assert!(!gives_way(&mut connection, 9));
    assert!(gives_way(&mut connection, 11), "nothing was said for too long");
    connection.mail_at = Some(Instant::now());
    assert!(!gives_way(&mut connection, 59), "a transaction may take longer");
    assert!(gives_way(&mut connection, 61), "but not for ever");
    connection.asked = Duration::from_secs(20);
    assert!(!gives_way(&mut connection, 61), "our own time does not count");
    connection.mail_at = Instant::now().checked_sub(Duration::from_secs(100));
    let place = connection.seat.message().await.expect("a place");
    connection.chunks = Some(Box::new((Incoming::chunked(100), place)));
    assert!(!gives_way(&mut connection, 9), "its message comes at last");
    assert!(gives_way(&mut connection, 11), "and does not go on");
    connection.pressure = watch::channel(Pressure::None).1;
    assert!(!gives_way(&mut connection, 11), "there is room");
    connection.messages_pressure = crowded;
    assert!(gives_way(&mut connection, 11), "and none for messages");
}
