//! The processes around the cluster start, obey, end and leave nothing behind.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use chaos_tests::{
    cluster::clamd::{self, Clamd},
    janitor::Janitor,
    letters::{self, Letter},
    process::Program,
    runtime::run,
    sink::Order,
    sink_feed::{DnsPeer, SinkPeer},
    smtp_client::{Conversation, Envelope},
    zones::{self, SigningKey},
};
use node::{
    checks::virus::{ClamdAddress, VirusScanner},
    limits::Limits,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
};

const PEER: &str = env!("CARGO_BIN_EXE_peer");

fn program(root: &Path, name: &str, arguments: &[&str]) -> Program {
    Program {
        name: name.to_owned(),
        path: PathBuf::from(PEER),
        arguments: arguments.iter().map(OsString::from).collect(),
        environment: Vec::new(),
        log: root.join(format!("{name}.log")),
    }
}

#[test]
fn a_sink_process_reports_obeys_and_stops() -> anyhow::Result<()> {
    run(async {
        let root = tempfile::tempdir()?;
        let janitor = Janitor::start(Path::new(PEER), None)?;
        let folder = root.path().to_string_lossy().into_owned();
        let arguments = ["sink", "--name", "health.sink.test", "--folder", &folder, "--refuse", "full=452"];
        let sink = SinkPeer::start("health", &program(root.path(), "sink", &arguments), &janitor).await?;
        let envelope = Envelope { from: String::new(), to: vec!["full@x.test".into()] };
        let mut conversation = Conversation::open(sink.address, Some(zones::GOOD), "client.test").await?;
        let refused = conversation.send(&envelope, b"Message-ID: <1>\r\n\r\n").await?;
        assert_eq!(refused.last().code, 452);
        sink.order(&Order::Accept("full".into())).await?;
        let accepted = conversation.send(&envelope, b"Message-ID: <1>\r\n\r\n").await?;
        assert_eq!(accepted.last().code, 250);
        let seen = sink.received.first("the message", |seen| seen.message_id == "<1>").await?;
        assert_eq!((seen.n, seen.from.as_str(), seen.to.as_slice()), (1, "", ["full@x.test".to_owned()].as_slice()));
        sink.stop().await?;
        assert!(TcpStream::connect(sink.address).await.is_err(), "nobody listens any more");
        janitor.finish();
        Ok(())
    })
}

#[test]
fn a_sink_with_a_certificate_takes_mail_under_tls() -> anyhow::Result<()> {
    run(async {
        let root = tempfile::tempdir()?;
        let janitor = Janitor::start(Path::new(PEER), None)?;
        let folder = root.path().to_string_lossy().into_owned();
        let arguments = ["sink", "--name", "health.sink.test", "--tls", &folder];
        let sink = SinkPeer::start("health", &program(root.path(), "sink", &arguments), &janitor).await?;
        let mut plain = TcpStream::connect(sink.address).await?;
        plain.write_all(b"EHLO a\r\nSTARTTLS\r\n").await?;
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("220 2.0.0") {
            anyhow::ensure!(plain.read_buf(&mut said).await? > 0, "{}", String::from_utf8_lossy(&said));
        }
        assert!(String::from_utf8_lossy(&said).contains("250-STARTTLS"));
        let mut roots = rustls::RootCertStore::empty();
        let pem = std::fs::read(root.path().join("health.sink.test.pem"))?;
        roots.add(rustls_pki_types::pem::PemObject::from_pem_slice(&pem)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let connector =
            tokio_rustls::TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
        let mut secure = connector.connect("health.sink.test".try_into()?, plain).await?;
        secure.write_all(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nhi\r\n.\r\n").await?;
        let seen = sink.received.first("the message", |seen| seen.to == ["b@x.test"]).await?;
        assert!(seen.tls && seen.bytes == 4);
        sink.stop().await?;
        janitor.finish();
        Ok(())
    })
}

#[test]
fn a_letter_signed_with_the_key_in_the_test_dns_passes_dkim() -> anyhow::Result<()> {
    run(async {
        let root = tempfile::tempdir()?;
        let janitor = Janitor::start(Path::new(PEER), None)?;
        let key = SigningKey::fresh()?;
        let records = root.path().join("dns.json");
        std::fs::write(&records, serde_json::to_vec(&zones::records(&key))?)?;
        let path = records.to_string_lossy().into_owned();
        let dns = DnsPeer::start(&program(root.path(), "dns", &["dns", "--records", &path]), &janitor).await?;
        let resolver = resolver(dns.address)?;
        let signed = key.sign(&Letter::new("friend@good.example", "anna@interior.gov.test", "Signed").bytes())?;
        let changed = String::from_utf8(signed.clone())?.replace("Subject: Signed", "Subject: Changed").into_bytes();
        for (message, expected) in [(signed, true), (changed, false)] {
            let message = mail_auth::AuthenticatedMessage::parse(&message).context("a message")?;
            let results = resolver.verify_dkim(&message).await;
            let passed = results.iter().any(|result| *result.result() == mail_auth::DkimResult::Pass);
            assert_eq!(passed, expected, "{results:?}");
        }
        let asked = dns.asked.first("the key is asked for", |asked| asked.name.starts_with("k1._domainkey")).await?;
        assert_eq!(asked.kind, "TXT");
        dns.stop().await?;
        janitor.finish();
        Ok(())
    })
}

fn resolver(at: std::net::SocketAddr) -> anyhow::Result<mail_auth::MessageAuthenticator> {
    use mail_auth::hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
    let mut connection = ConnectionConfig::udp();
    connection.port = at.port();
    let server = NameServerConfig::new(at.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    mail_auth::MessageAuthenticator::new(config, ResolverOpts::default()).context("make a resolver")
}

#[test]
fn clamd_of_the_box_knows_eicar_and_comes_back_after_a_kill() -> anyhow::Result<()> {
    run(async {
        let Some(path) = clamd::installed() else {
            eprintln!("virus scan off: no clamd");
            return Ok(());
        };
        let root = tempfile::tempdir()?;
        let janitor = Janitor::start(Path::new(PEER), None)?;
        let clamd = Clamd::start(&path, root.path(), root.path().join("clamd.log"), &janitor).await?;
        clamd.kill9().await?;
        assert!(TcpStream::connect(clamd.address).await.is_err());
        clamd.restart().await?;
        let eicar = letters::eicar();
        let mut stream = TcpStream::connect(clamd.address).await?;
        stream.write_all(b"zINSTREAM\0").await?;
        stream.write_all(&u32::try_from(eicar.len())?.to_be_bytes()).await?;
        stream.write_all(&eicar).await?;
        stream.write_all(&[0; 4]).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        assert!(answer.contains("EICAR") && answer.contains("FOUND"), "{answer}");
        clamd.stop().await?;
        janitor.finish();
        Ok(())
    })
}

#[test]
fn what_a_real_clamd_leaves_out_is_never_clean() -> anyhow::Result<()> {
    run(async {
        let Some(path) = clamd::installed() else {
            eprintln!("virus scan off: no clamd");
            return Ok(());
        };
        let janitor = Janitor::start(Path::new(PEER), None)?;
        let small = Bytes::from_static(b"Subject: small\r\n\r\nhello\r\n");
        let eicar = Bytes::from(letters::eicar());
        // Behind the limits, and where `AlertExceedsMax no` is what clamd has without a word.
        let behind = |bytes: usize| Bytes::from([vec![b'x'; bytes], b"\r\n".to_vec(), letters::eicar()].concat());
        let limits = "MaxFileSize 100K\nMaxScanSize 100K\nStreamMaxLength 150K\n";
        for (lines, expected) in [
            (format!("{limits}AlertExceedsMax yes\n"), ["clean", "infected", "unscannable", "unscannable"]),
            (format!("{limits}AlertExceedsMax no\n"), ["unavailable"; 4]),
        ] {
            let root = tempfile::tempdir()?;
            let log = root.path().join("clamd.log");
            let clamd = Clamd::start_with(&lines, &path, root.path(), log, &janitor).await?;
            let scanner = VirusScanner::new(vec![ClamdAddress::Tcp(clamd.address)], &Limits::default());
            for (message, expected) in [&small, &eicar, &behind(120_000), &behind(200_000)].into_iter().zip(expected) {
                let found = scanner.scan(message, &[]).await;
                assert_eq!(found.as_str(), expected, "{lines}{} bytes: {found:?}", message.len());
            }
            let warnings = scanner.warnings().join("\n");
            let expected = if scanner.is_alive() { "does not tell the age" } else { "AlertExceedsMax yes" };
            assert!(warnings.contains(expected), "{warnings}");
            clamd.stop().await?;
        }
        janitor.finish();
        Ok(())
    })
}

/// What happens when the starter is killed: the janitor's input ends.
#[test]
fn the_janitor_kills_what_is_left_and_removes_the_folder() -> anyhow::Result<()> {
    run(async {
        let folder = tempfile::tempdir()?.keep();
        let janitor = Janitor::start(Path::new(PEER), Some(folder.clone()))?;
        let mut child = Command::new("cat");
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn()?;
        janitor.started(child.id().context("it runs")?);
        let output = child.stdout.take().context("a pipe")?;
        janitor.finish();
        assert_eq!(BufReader::new(output).lines().next_line().await?, None, "it is dead");
        assert!(!folder.exists());
        child.wait().await?;
        Ok(())
    })
}

#[test]
fn a_process_that_ends_before_it_is_ready_is_an_error_with_its_log() -> anyhow::Result<()> {
    run(async {
        let root = tempfile::tempdir()?;
        let janitor = Janitor::start(Path::new(PEER), None)?;
        let broken = program(root.path(), "broken", &["sink", "--name", "x", "--refuse", "full"]);
        let error = SinkPeer::start("broken", &broken, &janitor).await.expect_err("LOCAL=CODE is missing");
        let said = format!("{error:#}");
        assert!(said.contains("ended before it was ready") && said.contains("LOCAL=CODE"), "{said}");
        janitor.finish();
        Ok(())
    })
}
