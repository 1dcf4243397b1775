//! TLS over a real socket: nothing in the clear crosses STARTTLS, and each listener demands what it was told to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use node::{
    limits::Limits,
    smtp::{
        demand::{TlsDemand, TlsDemands},
        tls::{ServerCertificate, TlsSettings},
    },
};
use proto::{
    identity::{Renewable as _, Reread, keep_fresh},
    time::UnixMs,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
        version::{TLS12, TLS13},
    },
};

use crate::{
    fixture,
    loopback::{Client, PATIENCE, World, bound_behind, serve},
};

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];
const NAME: &str = "mx.gov.test";
/// A TLS record that carries data or an alert (RFC 8446 section 5.1).
const ALERT_OR_DATA: std::ops::RangeInclusive<u8> = 21..=23;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}

/// A chain and its key.
type Issued = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn issue(ca: &Issuer, name: &str) -> Issued {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, ca).expect("a certificate");
    (vec![certificate.der().clone()], key.serialize_der().try_into().expect("a key"))
}

/// The files of a server, and the CA that they are of.
struct Files {
    _folder: tempfile::TempDir,
    settings: TlsSettings,
    ca: Issuer,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let settings = TlsSettings {
            certificate: path("mx.pem"),
            key: path("mx.key"),
            clients: Some(path("clients.pem")),
            internet: TlsDemands::all(TlsDemand::Offered),
            departments: TlsDemands::all(TlsDemand::Offered),
        };
        let files = Self { _folder: folder, settings, ca: ca() };
        std::fs::write(path_of(&files.settings), files.ca.pem()).expect("written");
        files.renew(CertificateParams::new([NAME.to_owned()]).expect("a name"));
        files
    }

    /// Writes another certificate and its key.
    fn renew(&self, params: CertificateParams) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate");
        std::fs::write(&self.settings.key, key.serialize_pem()).expect("written");
        std::fs::write(&self.settings.certificate, certificate.pem()).expect("written");
    }

    fn certificate(&self) -> ServerCertificate {
        ServerCertificate::load(&self.settings).expect("a certificate")
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], shown: Option<Issued>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match shown {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a client certificate"),
            None => builder.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

fn path_of(settings: &TlsSettings) -> &std::path::Path {
    settings.clients.as_deref().expect("a path")
}

/// A server whose departments' side takes clients on this host.
async fn world(limits: Limits, certificate: ServerCertificate) -> World {
    let world = serve(limits, Some(certificate)).await;
    world.view.send_replace(fixture::view_with_local(60_000));
    world
}

/// A connection up to the answer to STARTTLS.
async fn ready(address: SocketAddr) -> Client<TcpStream> {
    let mut client = Client::connect_to(address).await;
    client.ask("EHLO c.example\r\n").await;
    assert_eq!(client.ask("STARTTLS\r\n").await, "220 2.0.0 go ahead");
    client
}

async fn handshake(connector: &TlsConnector, client: Client<TcpStream>) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(NAME).expect("a name");
    timeout(PATIENCE, connector.connect(name, client.into_inner())).await.expect("in time")
}

async fn under_tls(connector: &TlsConnector, address: SocketAddr) -> Client<TlsStream<TcpStream>> {
    Client::over(handshake(connector, ready(address).await).await.expect("a handshake"))
}

#[tokio::test]
async fn starttls_forgets_what_was_said_in_the_clear() {
    let files = Files::new();
    let mut world = world(Limits::default(), files.certificate()).await;
    world.gate.add_permits(1);
    let mut client = Client::connect(&world).await;
    client.ask("EHLO c.example\r\n").await;
    client.ask("MAIL FROM:<x@a.example>\r\n").await;
    // What was said before it is answered before it.
    client.say("NOOP\r\nSTARTTLS\r\n").await;
    assert_eq!(client.hear().await, "250 2.0.0 OK");
    assert_eq!(client.hear().await, "220 2.0.0 go ahead");
    let mut client = Client::over(handshake(&files.client(BOTH, None), client).await.expect("a handshake"));
    assert_eq!(client.ask("RCPT TO:<anna@interior.gov.test>\r\n").await, "503 5.5.1 MAIL first");
    assert_eq!(client.ask("MAIL FROM:<x@a.example>\r\n").await, "503 5.5.1 EHLO first");
    assert_eq!(client.ask("EHLO c.example\r\n").await, "250 REQUIRETLS");
    client.begin().await;
    assert_eq!(client.ask("x\r\n.\r\n").await, "250 2.0.0 delivered");
    assert!(world.delivered.recv().await.expect("a message").0.client.tls);
}

#[tokio::test]
async fn what_comes_with_starttls_is_never_a_command() {
    let files = Files::new();
    let world = world(Limits::default(), files.certificate()).await;
    for more in ["RSET\r\nNOOP\r\n", "N", "\r\n", "\0"] {
        let mut client = Client::connect(&world).await;
        client.ask("EHLO c.example\r\n").await;
        assert_eq!(client.ask(&format!("STARTTLS\r\n{more}")).await, "501 5.5.4 more came with STARTTLS");
        assert_eq!(client.rest().await, b"", "{more:?}");
    }
}

#[tokio::test]
async fn what_comes_in_the_clear_after_starttls_is_no_command_either() {
    let files = Files::new();
    let world = world(Limits::default(), files.certificate()).await;
    let mut client = ready(world.address).await;
    client.say("NOOP\r\nEHLO c.example\r\n").await;
    let rest = client.rest().await;
    assert!(rest.first().is_none_or(|kind| *kind == 21), "an alert and no reply: {rest:?}");
    // The same in front of a handshake that would do.
    let mut client = ready(world.address).await;
    client.say("NOOP\r\n").await;
    assert!(handshake(&files.client(BOTH, None), client).await.is_err());
}

/// Bytes that a server under TLS has sent: alerts and data, no reply in the clear.
fn only_records(mut bytes: &[u8]) -> bool {
    while let [kind, 3, 3, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !ALERT_OR_DATA.contains(kind) || rest.len() < length {
            return false;
        }
        bytes = &rest[length..];
    }
    bytes.is_empty()
}

#[tokio::test]
async fn what_comes_in_the_clear_after_the_end_of_tls_is_neither_a_message_nor_a_command() {
    let files = Files::new();
    let world = world(Limits::default(), files.certificate()).await;
    world.gate.add_permits(10);
    let begin = "MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\n";
    for version in BOTH {
        for (half, rest, replies) in [
            ("BDAT 20 LAST\r\n0123456789", "01234567\r\nNOOP\r\n", 0),
            ("BDAT 10\r\n0123456789", "BDAT 2 LAST\r\n\r\nNOOP\r\n", 1),
            ("DATA\r\nx", "\r\n.\r\nNOOP\r\n", 1),
            ("RSET\r\n", "NOOP\r\nEHLO c.example\r\n", 1),
        ] {
            let mut client = under_tls(&files.client(&[version], None), world.address).await;
            client.ask("EHLO c.example\r\n").await;
            client.say(&format!("{begin}{half}")).await;
            for _ in 0..2 + replies {
                client.hear().await;
            }
            let (mut socket, mut tls) = client.into_inner().into_inner();
            tls.send_close_notify();
            let mut end = Vec::new();
            tls.write_tls(&mut end).expect("encoded");
            end.extend_from_slice(rest.as_bytes());
            socket.write_all(&end).await.expect("sent");
            let mut heard = Vec::new();
            timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("in time").unwrap_or_default();
            assert!(only_records(&heard), "{half:?}: {:?}", String::from_utf8_lossy(&heard));
        }
    }
    assert_eq!(world.begun.available_permits(), 0, "nothing was delivered");
}

#[tokio::test]
async fn a_session_of_one_listener_is_not_resumed_at_the_other() {
    let files = Files::new();
    let world = world(Limits::default(), files.certificate()).await;
    for version in BOTH {
        // One client, one memory of sessions, one name.
        let connector = files.client(&[version], None);
        let kind = async |address| {
            let mut client = under_tls(&connector, address).await;
            // A ticket comes with or before the first answer.
            client.ask("EHLO c.example\r\n").await;
            let kind = client.get_ref().get_ref().1.handshake_kind().expect("it is done");
            client.ask("QUIT\r\n").await;
            kind
        };
        assert_eq!(kind(world.address).await, HandshakeKind::Full);
        assert_eq!(kind(world.address).await, HandshakeKind::Resumed, "{version:?}: it does resume");
        assert_eq!(kind(world.departments).await, HandshakeKind::Full, "{version:?}");
        assert_eq!(kind(world.departments).await, HandshakeKind::Resumed, "{version:?}");
        assert_eq!(kind(world.address).await, HandshakeKind::Full, "{version:?}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_in_use_without_a_restart() {
    let files = Files::new();
    let certificate = files.certificate();
    let (_stop, stopping) = watch::channel(false);
    keep_fresh(certificate.clone(), stopping).expect("a signal");
    let world = world(Limits::default(), certificate).await;
    let connector = files.client(BOTH, None);
    let shown = async || {
        let client = under_tls(&connector, world.address).await;
        let chain = client.get_ref().get_ref().1.peer_certificates().map(<[_]>::to_vec);
        chain.expect("a chain")
    };
    let mut old = under_tls(&connector, world.address).await;
    let first = shown().await;
    files.renew(CertificateParams::new([NAME.to_owned()]).expect("a name"));
    let told = std::process::Command::new("sh").args(["-c", "kill -HUP $PPID"]).status().expect("a shell");
    assert!(told.success());
    let renewed = async { while shown().await == first {} };
    timeout(PATIENCE, renewed).await.expect("the new one is shown");
    assert_eq!(old.ask("NOOP\r\n").await, "250 2.0.0 OK", "who is there stays");
}

#[test]
fn a_certificate_that_does_not_do_leaves_the_old_one_in_use() {
    let files = Files::new();
    let certificate = files.certificate();
    let reread = || certificate.reread(UnixMs::now());
    assert_eq!(reread().expect("the same"), Reread::Unchanged);
    let not_after = certificate.not_after();
    let good = std::fs::read(&files.settings.key).expect("a key");
    let of_another = KeyPair::generate().expect("a key").serialize_pem();
    for (bad, why) in [(of_another.as_str(), "use "), ("nonsense", "read ")] {
        std::fs::write(&files.settings.key, bad).expect("written");
        let problem = reread().expect_err(bad).to_string();
        assert!(problem.starts_with(why) && problem.contains("mx."), "{problem}");
        assert_eq!(reread().expect("told once"), Reread::Unchanged);
    }
    std::fs::remove_file(&files.settings.key).expect("removed");
    assert!(reread().expect_err("no key").to_string().contains("mx.key"));
    std::fs::write(&files.settings.key, good).expect("written");
    let mut params = CertificateParams::new([NAME.to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    files.renew(params);
    let problem = reread().expect_err("it has ended").to_string();
    assert!(problem.contains("not valid now") && problem.contains("2020-01-01"), "{problem}");
    assert_eq!(certificate.not_after(), not_after);
    // At the start there is no other one, and mail goes on.
    let ended = ServerCertificate::load(&files.settings).expect("taken all the same");
    assert!(ended.not_after() < UnixMs::now());
    files.renew(CertificateParams::new([NAME.to_owned()]).expect("a name"));
    assert!(matches!(reread(), Ok(Reread::Taken { .. })));
}

#[tokio::test]
async fn a_network_may_have_another_rule_than_its_listener() {
    let mut files = Files::new();
    files.settings.internet = TlsDemands {
        rule: TlsDemand::None,
        networks: vec![("127.0.0.0/8".parse().expect("a network"), TlsDemand::Required)],
    };
    files.settings.departments = TlsDemands::all(TlsDemand::None);
    let world = world(Limits::default(), files.certificate()).await;
    let mail = "MAIL FROM:<x@a.example>\r\n";
    let mut client = Client::connect(&world).await;
    client.ask("EHLO c.example\r\n").await;
    assert_eq!(client.ask(mail).await, "530 5.7.0 STARTTLS first: mail is taken under TLS only");
    let mut client = under_tls(&files.client(BOTH, None), world.address).await;
    client.ask("EHLO c.example\r\n").await;
    assert_eq!(client.ask(mail).await, "250 2.1.0 sender OK");
    let mut client = Client::connect_to(world.departments).await;
    client.ask("EHLO c.example\r\n").await;
    assert_eq!(client.ask("STARTTLS\r\n").await, "502 5.5.1 no TLS here");
}

#[tokio::test]
async fn what_is_demanded_of_a_client_is_demanded_when_a_proxy_speaks_for_it() {
    let mut files = Files::new();
    let network = |text: &str, demand| (text.parse().expect("a network"), demand);
    files.settings.internet.networks =
        vec![network("192.0.2.0/24", TlsDemand::Required), network("198.51.100.0/24", TlsDemand::None)];
    let here = vec!["127.0.0.0/8".parse().expect("a network")];
    let (server, world) = bound_behind(Limits::default(), Some(files.certificate()), Vec::new(), here).await;
    let running = tokio::spawn(server.serve(world.stop.subscribe()));
    for (client, told) in [("192.0.2.77", "530 5.7.0"), ("203.0.113.7", "250 2.1.0"), ("198.51.100.7", "250 2.1.0")] {
        let mut proxy = Client::connect(&world).await;
        assert!(proxy.ask(&format!("XCLIENT ADDR={client}\r\n")).await.starts_with("220"));
        proxy.ask("EHLO c.example\r\n").await;
        let mail = proxy.ask("MAIL FROM:<x@a.example>\r\n").await;
        assert!(mail.starts_with(told), "{client}: {mail}");
        // What is demanded of the proxy holds all the same.
        assert_eq!(proxy.ask("RSET\r\n").await.get(..3), Some("250"));
        assert_eq!(proxy.ask("STARTTLS\r\n").await, "220 2.0.0 go ahead", "{client}");
    }
    running.abort();
}

#[tokio::test]
async fn who_must_show_a_certificate_shows_one_of_the_right_ca() {
    let mut files = Files::new();
    files.settings.departments = TlsDemands::all(TlsDemand::ClientCertificate);
    let world = world(Limits::default(), files.certificate()).await;
    for version in BOTH {
        let mail = async |shown: Option<Issued>| {
            let mut client = under_tls(&files.client(&[version], shown), world.departments).await;
            client.ask("EHLO c.example\r\n").await;
            client.ask("MAIL FROM:<x@local.gov.test>\r\n").await
        };
        assert_eq!(mail(Some(issue(&files.ca, "exchange.local.gov.test"))).await, "250 2.1.0 sender OK");
        let told = mail(None).await;
        assert!(told.starts_with("550 5.7.0 show a client certificate"), "{told}");
        // The handshake fails; in TLS 1.3 the client learns it after its own end of it.
        let connector = files.client(&[version], Some(issue(&ca(), "exchange.local.gov.test")));
        if let Ok(stream) = handshake(&connector, ready(world.departments).await).await {
            let rest = Client::over(stream).rest().await;
            assert_eq!(rest, b"");
        }
        // Nobody is asked where none is demanded.
        let connector = files.client(&[version], Some(issue(&ca(), "mail.a.example")));
        let mut client = under_tls(&connector, world.address).await;
        assert_eq!(client.ask("EHLO c.example\r\n").await, "250 REQUIRETLS");
    }
}

#[tokio::test]
async fn handshakes_are_bounded_in_time_and_number() {
    let files = Files::new();
    let limits = Limits { handshake_timeout: Duration::from_millis(50), ..Limits::default() };
    let slow = world(limits, files.certificate()).await;
    assert_eq!(ready(slow.address).await.rest().await, b"", "a client that only says STARTTLS is let go");

    let limits = Limits { handshakes_max: 1, messages_wait_max: Duration::from_millis(10), ..Limits::default() };
    let full = world(limits, files.certificate()).await;
    let first = ready(full.address).await;
    let mut second = Client::connect(&full).await;
    second.ask("EHLO c.example\r\n").await;
    assert_eq!(second.ask("STARTTLS\r\n").await, "454 4.7.0 too many TLS handshakes at once");
    assert_eq!(second.ask("MAIL FROM:<x@a.example>\r\n").await, "250 2.1.0 sender OK");
    // The other listener has its own places.
    drop(ready(full.departments).await);
    let mut first = Client::over(handshake(&files.client(BOTH, None), first).await.expect("a handshake"));
    assert_eq!(first.ask("NOOP\r\n").await, "250 2.0.0 OK");
    drop(ready(full.address).await);
}

#[test]
fn who_demands_certificates_names_the_cas() {
    let mut files = Files::new();
    files.settings.internet = TlsDemands::all(TlsDemand::ClientCertificate);
    files.settings.clients = None;
    let told = ServerCertificate::load(&files.settings).expect_err("no CA").to_string();
    assert!(told.contains("tls.clients"), "{told}");
}

#[tokio::test]
async fn a_false_end_is_no_end_in_whatever_records_it_comes() {
    let files = Files::new();
    let mut world = world(Limits::default(), files.certificate()).await;
    world.gate.add_permits(100);
    let mut client = under_tls(&files.client(BOTH, None), world.address).await;
    let (first, second) = ("Subject: a\r\n\r\nx", "MAIL FROM:<b@b.example>\r\nDATA\r\ny\r\n.\r\n");
    for false_end in
        ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r\n.\r\r\n", "\r\n\0.\r\n"]
    {
        client.begin().await;
        client.say(first).await;
        for byte in false_end.chars() {
            // Each byte in a record of its own.
            client.say(&byte.to_string()).await;
        }
        let told = client.ask(second).await;
        assert!(told.starts_with("550 5.") && world.delivered.try_recv().is_err(), "{false_end:?}: {told}");
    }
    client.begin().await;
    assert_eq!(client.ask(&format!("{first}\r\n.\r\n")).await, "250 2.0.0 delivered");
    assert_eq!(world.delivered.recv().await.expect("a message").1, format!("{first}\r\n"));
}
