//! The same conversations over a real socket: what only the connection and the server can get wrong.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use ipnet::IpNet;
use node::{
    actions::relay::Relay,
    checks::authentication::resolver,
    limits::Limits,
    reception::{Reception, Recipients},
    reputation::Outcomes,
    smtp::{
        connection::{Deliver, Service},
        reply::Reply,
        server::{Listeners, Server},
        tls::ServerCertificate,
        transaction::{Listener, Transaction},
    },
};
use proto::view::View;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::fixture;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) delivered: mpsc::Receiver<(Transaction, Bytes)>,
    /// A permit for each delivery that has begun.
    pub(crate) begun: Arc<Semaphore>,
    /// A permit lets one delivery end.
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) departments: SocketAddr,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) server: JoinHandle<()>,
}

async fn bound(limits: Limits, tls: Option<ServerCertificate>) -> (Server, World) {
    bound_behind(limits, tls, Vec::new(), Vec::new()).await
}

pub(crate) async fn bound_behind(
    limits: Limits,
    tls: Option<ServerCertificate>,
    balancers: Vec<IpNet>,
    xclient: Vec<IpNet>,
) -> (Server, World) {
    let (sender, delivered) = mpsc::channel(16);
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(Semaphore::new(0));
    let (open, begin) = (Arc::clone(&gate), Arc::clone(&begun));
    let deliver: Deliver = Arc::new(move |transaction: Transaction, bytes: Bytes| {
        let (sender, open, begin) = (sender.clone(), Arc::clone(&open), Arc::clone(&begin));
        async move {
            assert!(!bytes.starts_with(b"panic"), "a delivery that breaks off");
            begin.add_permits(1);
            open.acquire().await.expect("a gate").forget();
            sender.send((transaction, bytes)).await.expect("a listener");
            Reply::done(50, (0, 0), "delivered")
        }
        .boxed()
    });
    let (view, watched) = watch::channel(fixture::view());
    let mut settings = fixture::settings(limits);
    settings.xclient = xclient;
    let resolver = resolver(&[SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9)]).expect("a resolver");
    let relay = Relay::new("mx.gov.test", &settings.limits, resolver.clone(), None);
    let recipients = Recipients::new(Arc::new(relay), Vec::new());
    let reception = Reception::new(settings.hostname.clone(), resolver, Outcomes::default(), recipients);
    let service = Service::new(settings, watched, Arc::new(|| Duration::ZERO), reception, deliver);
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let listeners = Listeners { internet: Some(any), departments: Some(any), balancers, xclient: Vec::new() };
    let server = Server::bind(&listeners, tls, service).await.expect("a server");
    let address = server.address(Listener::Internet).expect("an address");
    let departments = server.address(Listener::Departments).expect("an address");
    let (stop, _) = watch::channel(false);
    let server_task = tokio::spawn(async {});
    (server, World { address, delivered, begun, gate, departments, view, stop, server: server_task })
}

pub(crate) async fn serve(limits: Limits, tls: Option<ServerCertificate>) -> World {
    let (server, mut world) = bound(limits, tls).await;
    world.server = tokio::spawn(server.serve(world.stop.subscribe()));
    world
}

pub(crate) struct Client<S> {
    io: BufReader<S>,
}

impl Client<TcpStream> {
    pub(crate) async fn connect(world: &World) -> Self {
        Self::connect_to(world.address).await
    }

    pub(crate) async fn connect_to(address: SocketAddr) -> Self {
        let mut client = Self::silent(address).await;
        assert_eq!(client.hear().await, "220 mx.gov.test ESMTP Postern");
        client
    }

    pub(crate) async fn silent(address: SocketAddr) -> Self {
        Self { io: BufReader::new(TcpStream::connect(address).await.expect("a connection")) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// After a handshake.
    pub(crate) fn over(io: S) -> Self {
        Self { io: BufReader::new(io) }
    }

    /// What is below.
    pub(crate) fn get_ref(&self) -> &S {
        self.io.get_ref()
    }

    /// What is below; what was read ahead is lost.
    pub(crate) fn into_inner(self) -> S {
        self.io.into_inner()
    }

    /// All that still comes until the server has closed.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end, too.
        timeout(PATIENCE, self.io.read_to_end(&mut rest)).await.expect("in time").unwrap_or_default();
        rest
    }

    pub(crate) async fn say(&mut self, text: &str) {
        timeout(PATIENCE, self.io.write_all(text.as_bytes())).await.expect("in time").expect("sent");
        self.io.flush().await.expect("sent");
    }

    /// The last line of the next reply; nothing when the server has closed.
    pub(crate) async fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            timeout(PATIENCE, self.io.read_line(&mut line)).await.expect("in time").expect("a line");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    pub(crate) async fn ask(&mut self, text: &str) -> String {
        self.say(text).await;
        self.hear().await
    }

    /// Up to 354.
    pub(crate) async fn begin(&mut self) {
        self.ask("EHLO c.example\r\n").await;
        self.say("MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\nDATA\r\n").await;
        for code in ["250", "250", "354"] {
            assert_eq!(self.hear().await.get(..3), Some(code));
        }
    }
}

#[tokio::test]
async fn a_pipelined_message_arrives_with_its_dots_unstuffed() {
    let mut world = serve(Limits::default(), None).await;
    world.gate.add_permits(1);
    let mut client = Client::connect(&world).await;
    client.begin().await;
    assert_eq!(client.ask("Subject: x\r\n\r\n..x\r\n.\r\nQUIT\r\n").await, "250 2.0.0 delivered");
    assert_eq!(client.hear().await, "221 2.0.0 goodbye");
    assert_eq!(client.hear().await, "");
    let (transaction, bytes) = world.delivered.recv().await.expect("a message");
    assert_eq!(bytes, "Subject: x\r\n\r\n.x\r\n");
    assert_eq!((transaction.client.helo.as_str(), transaction.recipients.len()), ("c.example", 1));
}

#[tokio::test]
async fn a_delivery_goes_on_when_the_client_has_gone() {
    let mut world = serve(Limits::default(), None).await;
    let mut client = Client::connect(&world).await;
    client.begin().await;
    client.say("x\r\n.\r\n").await;
    drop(client);
    // Another client is served meanwhile, so the first one's end has been seen.
    assert_eq!(Client::connect(&world).await.ask("NOOP\r\n").await, "250 2.0.0 OK");
    world.gate.add_permits(1);
    assert!(timeout(PATIENCE, world.delivered.recv()).await.expect("in time").is_some());
}

#[tokio::test]
async fn a_delivery_that_breaks_off_is_temporary_and_the_session_goes_on() {
    let world = serve(Limits::default(), None).await;
    let mut client = Client::connect(&world).await;
    client.begin().await;
    assert_eq!(client.ask("panic\r\n.\r\n").await, "451 4.3.0 internal error; come back later");
    assert_eq!(client.ask("NOOP\r\n").await, "250 2.0.0 OK");
}

#[tokio::test]
async fn a_stop_says_421_to_the_idle_and_lets_a_transaction_end() {
    let mut world = serve(Limits::default(), None).await;
    let (mut idle, mut busy) = (Client::connect(&world).await, Client::connect(&world).await);
    busy.begin().await;
    world.stop.send_replace(true);
    assert_eq!(idle.hear().await, "421 4.3.2 the server stops; come back");
    assert_eq!(idle.hear().await, "");
    world.gate.add_permits(1);
    assert_eq!(busy.ask("x\r\n.\r\n").await, "250 2.0.0 delivered");
    assert_eq!(busy.hear().await, "421 4.3.2 the server stops; come back");
    assert!(world.delivered.recv().await.is_some());
    timeout(PATIENCE, world.server).await.expect("in time").expect("an orderly end");
    assert!(TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn a_stop_ends_although_a_transaction_does_not() {
    let world = serve(Limits { drain_time_max: Duration::from_millis(50), ..Limits::default() }, None).await;
    let mut client = Client::connect(&world).await;
    client.begin().await;
    world.stop.send_replace(true);
    timeout(PATIENCE, world.server).await.expect("in time").expect("an orderly end");
    assert_eq!(client.hear().await, "");
}

#[tokio::test]
async fn a_slow_client_gets_421() {
    let world = serve(Limits { read_timeout: Duration::from_millis(50), ..Limits::default() }, None).await;
    let mut client = Client::connect(&world).await;
    assert_eq!(client.hear().await, "421 4.4.2 too slow; closing");
    let mut client = Client::connect(&world).await;
    client.begin().await;
    client.say("x").await;
    assert_eq!(client.hear().await, "421 4.4.2 too slow; closing");
}

#[tokio::test]
async fn a_command_that_drips_is_as_slow_as_one_that_does_not_come() {
    let world = serve(Limits { read_timeout: Duration::from_millis(200), ..Limits::default() }, None).await;
    let (mut reader, mut writer) = TcpStream::connect(world.address).await.expect("a connection").into_split();
    assert!(reader.read(&mut [0; 100]).await.expect("a greeting") > 0);
    // A byte each 20 ms is never silent for long.
    let dripping = tokio::spawn(async move {
        while writer.write_all(b"N").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut heard = String::new();
    timeout(PATIENCE, BufReader::new(reader).read_to_string(&mut heard)).await.expect("in time").unwrap_or_default();
    assert!(heard.ends_with("421 4.4.2 too slow; closing\r\n"), "{heard}");
    dripping.abort();
}

#[tokio::test]
async fn one_client_has_so_many_connections_and_no_more() {
    let world = serve(Limits { connections_per_client_max: 1, ..Limits::default() }, None).await;
    let mut first = Client::connect(&world).await;
    let mut second = Client { io: BufReader::new(TcpStream::connect(world.address).await.expect("a connection")) };
    assert_eq!(second.hear().await, "421 4.7.0 too many connections from you; come back later");
    assert_eq!(first.ask("QUIT\r\n").await, "221 2.0.0 goodbye");
    assert_eq!(first.hear().await, "");
}

#[tokio::test]
async fn no_more_messages_are_taken_than_there_is_memory_for() {
    let limits = Limits { messages_max: 1, messages_wait_max: Duration::from_millis(20), ..Limits::default() };
    let world = serve(limits, None).await;
    let (mut first, mut second) = (Client::connect(&world).await, Client::connect(&world).await);
    first.begin().await;
    second.ask("EHLO c.example\r\n").await;
    second.ask("MAIL FROM:<x@a.example>\r\n").await;
    second.ask("RCPT TO:<anna@interior.gov.test>\r\n").await;
    assert_eq!(second.ask("DATA\r\n").await, "451 4.3.2 too many messages at once; come back later");
    assert_eq!(second.ask("DATA\r\n").await, "503 5.5.1 MAIL first");
    // A refused message gives its place back.
    assert_eq!(first.ask("a\nb\r\n.\r\n").await, "550 5.5.2 a line of the message ends without CRLF");
    second.begin().await;
}

#[tokio::test]
async fn what_takes_all_places_of_the_internet_leaves_those_of_the_departments() {
    let limits = Limits {
        messages_max: 1,
        connections_max: 1,
        messages_wait_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let world = serve(limits, None).await;
    world.view.send_replace(fixture::view_with_local(60_000));
    let mut outside = Client::connect(&world).await;
    outside.begin().await;
    let mut inside = Client::connect_to(world.departments).await;
    inside.ask("EHLO exchange.local.gov.test\r\n").await;
    inside.say("MAIL FROM:<>\r\nRCPT TO:<anna@interior.gov.test>\r\nDATA\r\n").await;
    for code in ["250", "250", "354"] {
        assert_eq!(inside.hear().await.get(..3), Some(code));
    }
}

#[tokio::test]
async fn a_message_without_room_is_read_to_its_end_and_put_off() {
    let limits = Limits {
        message_bytes_max: 100_000,
        messages_bytes_max: 100_000,
        messages_wait_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let mut world = serve(limits, None).await;
    let (mut first, mut second) = (Client::connect(&world).await, Client::connect(&world).await);
    let message = format!("{}.\r\n", format!("{}\r\n", "x".repeat(998)).repeat(90));
    first.begin().await;
    first.say(&message).await;
    world.begun.acquire().await.expect("a delivery").forget();
    second.begin().await;
    assert_eq!(second.ask(&message).await, "451 4.3.2 too many messages at once; come back later");
    world.gate.add_permits(2);
    assert_eq!(first.hear().await, "250 2.0.0 delivered");
    second.begin().await;
    assert_eq!(second.ask(&message).await, "250 2.0.0 delivered");
    assert_eq!(world.delivered.recv().await.expect("a message").1.len(), 90_000);
}

#[tokio::test]
async fn a_transaction_does_not_outlive_its_view() {
    let world = serve(Limits::default(), None).await;
    let mut client = Client::connect(&world).await;
    client.ask("EHLO c.example\r\n").await;
    client.ask("MAIL FROM:<x@a.example>\r\n").await;
    client.ask("RCPT TO:<anna@interior.gov.test>\r\n").await;
    world.view.send_replace(fixture::view_with_local(0));
    assert_eq!(client.ask("DATA\r\n").await, "451 4.3.0 policy is not up to date here; come back later");
    // The new view is fresh.
    client.begin().await;
}

#[tokio::test]
async fn who_speaks_before_the_greeting_is_turned_away() {
    let (server, world) = bound(Limits::default(), None).await;
    let mut client = Client { io: BufReader::new(TcpStream::connect(world.address).await.expect("a connection")) };
    client.say("EHLO c.example\r\n").await;
    let running = tokio::spawn(server.serve(world.stop.subscribe()));
    assert_eq!(client.hear().await, "554 5.7.1 refused: you spoke before the greeting");
    running.abort();
}

#[tokio::test]
async fn the_private_side_greets_departments_only() {
    let (server, world) = bound(Limits::default(), None).await;
    let address = server.address(Listener::Departments).expect("an address");
    let running = tokio::spawn(server.serve(world.stop.subscribe()));
    let mut client = Client { io: BufReader::new(TcpStream::connect(address).await.expect("a connection")) };
    assert_eq!(client.hear().await, "554 5.7.1 you are no department's mail server");
    assert_eq!(client.hear().await, "");
    running.abort();
}
