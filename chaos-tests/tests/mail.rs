//! Mail through a real cluster: each kind of message meets its fate, and what was promised is kept.

use std::{collections::BTreeSet, ffi::OsString, time::Duration};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaos_tests::{
    cases,
    cluster::{Cluster, Side, operator::until},
    fate::{self, Fate},
    letters::{self, Letter},
    runtime::run,
    shared,
    sink::{Order, Received, fields},
    smtp_client::{Conversation, Envelope, stuffed},
    zones,
};

const ANNA: &str = "anna@interior.gov.test";
const FRIEND: &str = "friend@good.example";
/// A lease of a node that died must run out.
const LEASE_MAX: Duration = Duration::from_secs(180);

fn envelope(to: &[&str]) -> Envelope {
    Envelope { from: FRIEND.into(), to: to.iter().map(|to| (*to).to_owned()).collect() }
}

fn signed(cluster: &Cluster, letter: &Letter) -> anyhow::Result<Vec<u8>> {
    cluster.signing.sign(&letter.bytes())
}

/// How often a transaction arrived at a sink for a recipient.
fn copies(all: &[std::sync::Arc<Received>], transaction: &str, to: &str) -> usize {
    all.iter().filter(|seen| seen.transaction == transaction && seen.to.iter().any(|seen| seen == to)).count()
}

#[test]
fn each_message_of_the_demo_meets_its_fate_at_both_nodes() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let mut wrong = Vec::new();
        for node in 0..2 {
            for case in cases::all(&cluster)? {
                let accounts = fate::send_and_follow(&cluster, &case, node).await.context(case.title)?;
                let fates: Vec<&Fate> = accounts.iter().map(|account| &account.fate).collect();
                if !case.expected.iter().eq(fates.iter().copied()) {
                    wrong.push(format!("{} at node {node}: {accounts:?}, not {:?}", case.title, case.expected));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

#[test]
fn our_header_fields_are_added_and_forged_ones_removed() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let signed = signed(&cluster, &Letter::new(FRIEND, ANNA, "Header fields"))?;
        let mut message = b"Authentication-Results: mx1.gov.test; dmarc=pass header.from=bank.example\r\n\
            X-Postern-Verdict: accept forged\r\n"
            .to_vec();
        message.extend(&signed);
        let answers = cluster.send(cluster.smtp(0, Side::Internet), zones::GOOD, &envelope(&[ANNA]), &message).await?;
        let transaction = answers.transaction().with_context(|| format!("{answers:?}"))?.to_owned();
        let seen = cluster.interior.received.first("the message", |seen| seen.transaction == transaction).await?;
        let bytes = std::fs::read(&seen.file)?;
        let fields = fields(&bytes);
        let of = |name: &str| fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).collect::<Vec<_>>();
        let verdict = of("X-Postern-Verdict");
        assert!(verdict.len() == 1 && !verdict[0].1.contains("forged"), "{verdict:?}");
        let results: Vec<_> = of("Authentication-Results");
        assert!(results.iter().all(|(_, value)| !value.contains("bank.example")), "{results:?}");
        let ours = &results.first().context("ours is there")?.1;
        for passed in ["spf=pass", "dkim=pass", "dmarc=pass"] {
            assert!(ours.contains(passed), "{passed} is not in {ours}");
        }
        assert!(bytes.ends_with(&signed), "what the sender signed has changed");
        Ok(())
    })
}

/// EICAR where the scanner, left to itself with the raw message, does not see it and mail programs do.
fn hidden_malware() -> [(&'static str, String); 3] {
    let eicar = letters::eicar();
    let (head, tail) = eicar.split_at(10);
    let quoted: String = eicar.iter().map(|byte| format!("={byte:02X}")).collect();
    let (begin, end) = quoted.split_at(30);
    let file = "Content-Type: application/octet-stream; name=a.bin\r\nContent-Disposition: attachment\r\n";
    let inner = format!("{file}Content-Transfer-Encoding: base64\r\n\r\n{}\r\n", STANDARD.encode(&eicar));
    let wrapped = STANDARD.encode(format!(
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        STANDARD.encode(inner)
    ));
    let encoded = |encoding: &str, body: &str| format!("{file}Content-Transfer-Encoding: {encoding}\r\n\r\n{body}\r\n");
    [
        (
            "padding in the middle",
            encoded("base64", &format!("{}\r\n{}", STANDARD.encode(head), STANDARD.encode(tail))),
        ),
        ("a blank after a soft line break", encoded("quoted-printable", &format!("{begin}= \r\n{end}"))),
        (
            "messages in encoded messages",
            format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n{wrapped}\r\n"),
        ),
    ]
}

#[test]
fn malware_in_an_odd_encoding_is_never_delivered() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        if cluster.clamd.is_none() {
            eprintln!("virus scan off: no clamd");
            return Ok(());
        }
        for (title, part) in hidden_malware() {
            let message = format!(
                "From: x@lottery-claims.example\r\nTo: {ANNA}\r\nSubject: {title}\r\nMIME-Version: 1.0\r\n\
                 Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{part}\r\n--b--\r\n"
            );
            let server = cluster.smtp(0, Side::Internet);
            let to = envelope(&[ANNA]);
            let answers = cluster.send(server, zones::GOOD, &to, message.as_bytes()).await?;
            assert!(answers.last().to_string().contains("malware"), "{title}: {answers:?}");
        }
        Ok(())
    })
}

#[test]
fn mail_between_departments_goes_straight_and_never_asks_for_mx() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let [between, _] = cases::between_departments();
        let accounts = fate::send_and_follow(&cluster, &between, 1).await?;
        assert_eq!(accounts[0].fate, Fate::Delivered("health".into()), "{accounts:?}");
        let asked = cluster.dns.asked.all();
        let mx: Vec<_> = asked.iter().filter(|asked| asked.kind == "MX" && asked.name.ends_with("gov.test")).collect();
        assert!(mx.is_empty(), "{mx:?}");
        let seen = cluster.health.received.all();
        assert!(seen.iter().all(|seen| seen.tls), "the health department's server offers STARTTLS");
        Ok(())
    })
}

#[test]
fn one_department_cannot_speak_for_another() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let letter = Letter::new("carl@health.gov.test", ANNA, "Not from Carl").bytes();
        let from = Envelope { from: "carl@health.gov.test".into(), to: vec![ANNA.into()] };
        let answers = cluster.send(cluster.smtp(0, Side::Departments), zones::INTERIOR, &from, &letter).await?;
        assert_eq!(answers.last().code / 100, 5, "{answers:?}");
        let stranger = Envelope { from: FRIEND.into(), to: vec!["someone@partner.example".into()] };
        let server = cluster.smtp(0, Side::Departments);
        // A client in no department's network is turned away at the greeting or at MAIL, never relayed for.
        if let Ok(answers) = cluster.send(server, zones::NAMELESS, &stranger, &letter).await {
            assert!(answers.last().code >= 400, "{answers:?}");
        }
        Ok(())
    })
}

#[test]
fn what_a_full_mailbox_cannot_take_now_is_delivered_later_by_the_other_node_and_once() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        cluster.health.order(&Order::Refuse("later".into(), 452)).await?;
        let message = signed(&cluster, &Letter::new(FRIEND, ANNA, "To both of you"))?;
        let to = ["anna@interior.gov.test", "later@health.gov.test"];
        let answers = cluster.send(cluster.smtp(0, Side::Internet), zones::GOOD, &envelope(&to), &message).await?;
        let accounts = fate::follow(&cluster, &envelope(&to).to, &answers).await?;
        let fates: Vec<&Fate> = accounts.iter().map(|account| &account.fate).collect();
        assert_eq!(fates, [&Fate::Delivered("interior".into()), &Fate::Deferred], "{answers:?}");
        let transaction = answers.transaction().context("accepted")?;
        cluster.kill9("mx1").await?;
        cluster.health.order(&Order::Accept("later".into())).await?;
        let later = |seen: &Received| seen.transaction == transaction;
        let delivered = cluster.health.received.first_within(LEASE_MAX, "the deferred message", later).await;
        cluster.restart("mx1").await?;
        delivered?;
        let held = accounts[1].held.clone().context("it was held")?;
        until("the record says that it is delivered", || async {
            let held = cluster.operator.held().await.ok()?.into_iter().find(|record| record.id == held)?;
            held.status.starts_with("delivered").then_some(())
        })
        .await?;
        assert_eq!(copies(&cluster.health.received.all(), transaction, to[1]), 1);
        assert_eq!(copies(&cluster.interior.received.all(), transaction, to[0]), 1);
        Ok(())
    })
}

#[test]
fn what_the_sender_asks_of_every_server_reaches_the_next_hop_at_once_and_after_it_was_held() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        cluster.health.order(&Order::Refuse("sp\u{e4}ter".into(), 452)).await?;
        let now = "J\u{fc}rgen@health.gov.test> NOTIFY=NEVER ORCPT=rfc822;J+2Bx@elsewhere.example";
        let later = "sp\u{e4}ter@health.gov.test> NOTIFY=FAILURE,DELAY ORCPT=utf-8;sp\\x{E4}ter@elsewhere.example";
        let mail = "MAIL FROM:<friend@good.example>";
        let asked = "SMTPUTF8 RET=HDRS ENVID=QQ+2B314159";
        let server = cluster.smtp(0, Side::Internet);
        let mut conversation = Conversation::open(server, Some(zones::GOOD), "mail.good.example").await?;
        for command in [format!("{mail} {asked}"), format!("RCPT TO:<{now}"), format!("RCPT TO:<{later}")] {
            let reply = conversation.say(&command).await?;
            assert_eq!(reply.code, 250, "{command}: {reply}");
        }
        assert_eq!(conversation.say("DATA").await?.code, 354);
        conversation.raw(&stuffed(&signed(&cluster, &Letter::new(FRIEND, ANNA, "For the two of you"))?)).await?;
        let reply = conversation.reply().await?;
        let transaction = reply.transaction().with_context(|| reply.to_string())?;
        cluster.health.order(&Order::Accept("sp\u{e4}ter".into())).await?;
        for (to, whom) in [(now, "J\u{fc}rgen@health.gov.test"), (later, "sp\u{e4}ter@health.gov.test")] {
            let ours = |seen: &Received| seen.transaction == transaction && seen.to.iter().any(|seen| seen == whom);
            let seen = cluster.health.received.first_within(LEASE_MAX, "the message", ours).await?;
            let (first, second) = (&seen.envelope[0], &seen.envelope[1]);
            assert!(first.starts_with(mail) && first.ends_with(&format!(" {asked}")), "{first}");
            assert_eq!(*second, format!("RCPT TO:<{to}"));
            let received = fields(&std::fs::read(&seen.file)?).into_iter().find(|(name, _)| name == "Received");
            assert!(received.is_some_and(|(_, value)| value.contains(" with UTF8SMTP id ")));
        }
        Ok(())
    })
}

#[test]
fn a_department_that_is_away_gets_its_mail_when_it_is_back() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        cluster.health.order(&Order::Away(true)).await?;
        let message = signed(&cluster, &Letter::new(FRIEND, "carl@health.gov.test", "Are you there?"))?;
        let server = cluster.smtp(1, Side::Internet);
        let alone = cluster.send(server, zones::GOOD, &envelope(&["carl@health.gov.test"]), &message).await?;
        assert_eq!(alone.last().code / 100, 4, "the sender can still keep it: {alone:?}");
        let to = [ANNA, "carl@health.gov.test"];
        let both = cluster.send(server, zones::GOOD, &envelope(&to), &message).await?;
        cluster.health.order(&Order::Away(false)).await?;
        let transaction = both.transaction().with_context(|| format!("one of two is delivered: {both:?}"))?;
        cluster.health.received.first("the message", |seen| seen.transaction == transaction).await?;
        Ok(())
    })
}

#[test]
fn without_the_virus_scanner_nothing_is_delivered_and_the_sender_keeps_the_mail() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let Some(clamd) = &cluster.clamd else {
            eprintln!("virus scan off: no clamd");
            return Ok(());
        };
        clamd.kill9().await?;
        let letter = Letter::new(FRIEND, ANNA, "Unscanned");
        let message = signed(&cluster, &letter)?;
        let unscanned = cluster.send(cluster.smtp(0, Side::Internet), zones::GOOD, &envelope(&[ANNA]), &message).await;
        clamd.restart().await?;
        let reply = unscanned?.last().clone();
        assert_eq!(reply.code, 451, "{reply}");
        let answers = cluster.send(cluster.smtp(0, Side::Internet), zones::GOOD, &envelope(&[ANNA]), &message).await?;
        let transaction = answers.transaction().with_context(|| format!("{answers:?}"))?;
        cluster.interior.received.first("the scanned one", |seen| seen.transaction == transaction).await?;
        let all = cluster.interior.received.all();
        assert_eq!(all.iter().filter(|seen| seen.message_id == letter.message_id).count(), 1);
        Ok(())
    })
}

#[test]
fn a_virus_scanner_that_hangs_is_no_pass_either() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let Some(clamd) = &cluster.clamd else {
            eprintln!("virus scan off: no clamd");
            return Ok(());
        };
        clamd.freeze(true).await?;
        let letter = Letter::new(FRIEND, ANNA, "Never scanned");
        let message = signed(&cluster, &letter)?;
        let unscanned = cluster.send(cluster.smtp(1, Side::Internet), zones::GOOD, &envelope(&[ANNA]), &message).await;
        clamd.freeze(false).await?;
        let reply = unscanned?.last().clone();
        assert_eq!(reply.code, 451, "{reply}");
        assert!(cluster.interior.received.all().iter().all(|seen| seen.message_id != letter.message_id));
        Ok(())
    })
}

#[test]
fn a_scan_says_what_smtp_would_and_delivers_nothing() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let folder = tempfile::tempdir()?;
        let case = cases::disguised_program(&cluster)?;
        let file = folder.path().join("program.eml");
        std::fs::write(&file, &case.message)?;
        let before = cluster.operator.held().await?.len();
        let arguments: [OsString; 6] = [
            "scan".into(),
            file.into(),
            "--node".into(),
            cluster.nodes[0].inspect.to_string().into(),
            "--client-ip".into(),
            zones::GOOD.to_string().into(),
        ];
        let said = cluster.posternctl_ok(arguments).await?;
        let said: serde_json::Value = serde_json::from_str(said.lines().next().context("a line a message")?)?;
        assert_eq!(said["disposition"], "quarantine", "{said}");
        assert_eq!(cluster.operator.held().await?.len(), before);
        Ok(())
    })
}

#[test]
fn the_rules_of_a_node_are_listed_and_a_group_that_it_has_not_is_an_error() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let node = cluster.nodes[0].inspect.to_string();
        let said = cluster.posternctl_ok(["rules", "list", "-o", "json", "--node", &node].map(OsString::from)).await?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        let groups: BTreeSet<&str> =
            said["rules"].as_array().into_iter().flatten().filter_map(|rule| rule["group"].as_str()).collect();
        assert!(groups.len() > 15 && groups.contains("links") && groups.contains("words"), "{groups:?}");
        let wrong = ["rules", "list", "--group", "nonsense", "--node", &node].map(OsString::from);
        assert!(cluster.posternctl_ok(wrong).await.is_err());
        Ok(())
    })
}

#[test]
fn each_transaction_has_an_id_of_its_own() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let mut ids = BTreeSet::new();
        for node in 0..4 {
            let message = signed(&cluster, &Letter::new(FRIEND, ANNA, "One of several"))?;
            let server = cluster.smtp(node, Side::Internet);
            let answers = cluster.send(server, zones::GOOD, &envelope(&[ANNA]), &message).await?;
            ids.insert(answers.transaction().with_context(|| format!("{answers:?}"))?.to_owned());
        }
        assert_eq!(ids.len(), 4);
        Ok(())
    })
}
