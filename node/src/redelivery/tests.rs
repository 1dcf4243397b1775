//! Held messages from a fake control server to a scripted next hop.

mod lessons;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use proto::{
    address::{Address, Domain, ReversePath},
    department::{Department, DepartmentId, NextHop, TlsRule, Verification},
    envelope::{Handling, Notification, Notify, Returned},
    held::{BodyRef, Held, HeldId, HeldKind, HeldStatus, TransactionId},
    identity::Role,
    mutation::{Change, Outcome, Refused},
    policy::PolicyLayer,
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Reason, Verdict},
    view::{StateSettings, View, ViewChange},
};
use sha2::{Digest, Sha256};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tonic::Status;

use super::{ATTEMPT, LEASE, Redelivery, delay_ms, routes};
use crate::{
    actions::relay::{
        Relay, no_dns,
        scripted::{Scripted, TAKES_ONE},
    },
    checks::{
        authentication::Authenticator,
        opener::no_openers,
        virus::{ClamdAddress, VirusScanner, clamd},
    },
    cluster::{
        Cluster,
        fake::{Authority, Fake, update},
    },
    examine::Examiner,
    limits::Limits,
    smtp::transaction::Route,
};

const BODY: &[u8] = b"Subject: held\r\n\r\nhi\r\n";

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn held(department: Option<&str>, recipients: &[&str]) -> Held {
    let verdict = Verdict {
        disposition: Disposition::Accept,
        score: Score::default(),
        tagged: false,
        reasons: Vec::new(),
        policy_version: 1,
    };
    let digest = hex::encode(Sha256::digest(BODY));
    Held {
        id: HeldId::fresh(),
        transaction: TransactionId::fresh(),
        kind: HeldKind::Deferred,
        status: HeldStatus::Due { released: None },
        department: department.map(|id| DepartmentId::parse(id).expect("an id")),
        from_department: None,
        reverse_path: ReversePath::Null,
        recipients: recipients.iter().map(|text| address(text)).collect(),
        body: BodyRef { digest, size_bytes: BODY.len() as u64, servers: Vec::new() },
        verdict,
        client: "127.0.0.1".parse().expect("an address"),
        subject: "held".to_owned(),
        received_at: UnixMs(0),
        lease: None,
        attempts: 2,
        next_attempt: UnixMs(0),
        last_problem: String::new(),
        handling: Handling::default(),
        notifications: Default::default(),
    }
}

fn department(id: &str, next_hops: Vec<NextHop>) -> Department {
    Department {
        id: DepartmentId::parse(id).expect("an id"),
        name: id.to_owned(),
        domains: BTreeSet::from([Domain::parse(&format!("{id}.test")).expect("a domain")]),
        next_hops,
        sources: Vec::new(),
        services: Vec::new(),
        recipients: None,
        verification: Verification::None,
        policy: PolicyLayer::default(),
    }
}

/// A view with the department `interior` behind these hops, and relays for the Internet.
fn change(next_hops: Vec<NextHop>, internet_relays: Vec<NextHop>) -> ViewChange {
    let settings = StateSettings { internet_relays, ..StateSettings::default() };
    ViewChange {
        index: 1,
        policy_version: 1,
        whole: true,
        settings: Some(settings),
        departments: vec![department("interior", next_hops)],
        ..ViewChange::default()
    }
}

/// A worker with one message that is due, and the cluster that it asks.
struct Running {
    server: Fake,
    stop: watch::Sender<bool>,
    worker: JoinHandle<()>,
}

impl Running {
    /// `answers` is asked first what the cluster says to a proposal.
    async fn start(
        message: Held,
        change: &ViewChange,
        clamds: Vec<ClamdAddress>,
        limits: &Limits,
        attempt_max: Duration,
        answers: impl Fn(&Change) -> Option<Status> + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new();
        let leased = message.clone();
        let server = Fake::start(authority.credentials(Role::Control, "a"), move |change| {
            if let Some(status) = answers(change) {
                return Err(status);
            }
            Ok(if matches!(change, Change::Lease { held, .. } if *held == leased.id) {
                Outcome::Leased(Box::new(leased.clone()))
            } else if matches!(change, Change::Attempted { .. }) {
                Outcome::Done
            } else {
                Outcome::Refused(Refused::NoSuch)
            })
        })
        .await;
        server.first.lock().expect("a lock").push(update(change));
        server.bodies.lock().expect("a lock").insert(message.body.digest.clone(), BODY.to_vec());
        server.due.lock().expect("a lock").push(message);
        let cluster =
            Cluster::connect(authority.credentials(Role::Node, "n1"), vec![server.address.clone()], "north", limits)
                .expect("a cluster");
        cluster.first_view().await;
        let limits_of_relay = Limits { relay_idle_max: 0, ..limits.clone() };
        let relay = Relay::new("node.test", &limits_of_relay, no_dns(), None);
        let authenticator = Authenticator::new("node.test", no_dns(), limits);
        let (scanner, openers) = (VirusScanner::new(clamds, limits), no_openers(limits));
        let examiner = Examiner::new("node.test", limits, authenticator, scanner, openers);
        let (stop, stopped) = watch::channel(false);
        let redelivery = Redelivery { attempt_max, ..Redelivery::new("n1", cluster, relay, examiner, limits) };
        let worker = tokio::spawn(redelivery.run(stopped));
        let mut running = Self { server, stop, worker };
        let proposed = running.proposed().await;
        let Change::Lease { for_ms, .. } = proposed else { panic!("{proposed:?}") };
        assert_eq!(u128::from(for_ms), LEASE.as_millis());
        running
    }

    /// The next proposal.
    async fn proposed(&mut self) -> Change {
        let proposal = timeout(Duration::from_secs(30), self.server.proposals.recv()).await;
        proposal.expect("a proposal in time").expect("a cluster").1
    }

    async fn end(self) {
        self.stop.send(true).expect("a worker");
        self.worker.await.expect("the worker ends");
    }
}

/// Runs the worker over one held message until it has put down what came of it.
async fn redeliver(message: Held, next_hops: Vec<NextHop>) -> Change {
    redeliver_scanned(message, next_hops, Vec::new()).await
}

async fn redeliver_scanned(message: Held, next_hops: Vec<NextHop>, clamds: Vec<ClamdAddress>) -> Change {
    let change = change(next_hops, Vec::new());
    let mut running = Running::start(message, &change, clamds, &Limits::default(), ATTEMPT, |_| None).await;
    let attempted = running.proposed().await;
    running.end().await;
    attempted
}

/// Who was delivered to, who refused, and the problem.
fn parts(attempted: Change) -> (Vec<Address>, Vec<Address>, String) {
    let Change::Attempted { delivered, refused, problem, .. } = attempted else { panic!("{attempted:?}") };
    (delivered, refused, problem)
}

#[tokio::test]
async fn a_message_that_is_due_is_delivered_once_as_it_was_held() {
    let sink = Scripted::plain(&[TAKES_ONE]).await;
    let attempted = redeliver(held(Some("interior"), &["bob@interior.test"]), vec![sink.hop.clone()]).await;
    let Change::Attempted { delivered, refused, problem, .. } = attempted else { panic!("{attempted:?}") };
    assert_eq!((delivered, refused, problem), (vec![address("bob@interior.test")], Vec::new(), String::new()));
    assert_eq!(sink.heard().await[0].data.as_bytes(), [BODY, b".\r\n"].concat());
}

#[tokio::test]
async fn what_the_sender_asked_is_said_to_the_next_hop() {
    let takes = TAKES_ONE.replace("S: 250-8BITMIME", "S: 250-DSN\nS: 250-SMTPUTF8");
    let sink = Scripted::plain(&[&takes]).await;
    let mut message = held(Some("interior"), &["b\u{f6}b@interior.test"]);
    message.handling = Handling { smtputf8: true, returned: Some(Returned::Headers), ..Handling::default() };
    let never = Notification { notify: Some(Notify::Never), original: None };
    message.notifications.insert(message.recipients[0].clone(), never);
    let (delivered, ..) = parts(redeliver(message, vec![sink.hop.clone()]).await);
    assert_eq!(delivered, [address("b\u{f6}b@interior.test")]);
    let heard = sink.heard().await.remove(0).lines;
    assert!(heard[1].starts_with("MAIL FROM:<> SIZE=") && heard[1].ends_with(" SMTPUTF8 RET=HDRS"), "{heard:?}");
    assert_eq!(heard[2], "RCPT TO:<b\u{f6}b@interior.test> NOTIFY=NEVER");

    let lacking = TAKES_ONE.split_once("C: MAIL").expect("its MAIL").0.to_owned() + "C: QUIT";
    let sink = Scripted::plain(&[&lacking]).await;
    let mut message = held(Some("interior"), &["b\u{f6}b@interior.test"]);
    message.handling.smtputf8 = true;
    let (_, refused, problem) = parts(redeliver(message, vec![sink.hop.clone()]).await);
    assert_eq!(refused, [address("b\u{f6}b@interior.test")]);
    assert!(problem.starts_with("550 5.6.7 "), "{problem}");
    sink.heard().await;
}

#[tokio::test]
async fn what_the_next_hop_says_is_put_down_and_the_next_attempt_is_later() {
    let sink = Scripted::plain(&["
        S: 220 x
        C: EHLO
        S: 250 x
        C: MAIL
        S: 250 ok
        C: RCPT TO:<a@interior.test>
        S: 550 5.1.1 no such user
        C: RCPT TO:<b@interior.test>
        S: 451 4.2.1 later
        C: QUIT"])
    .await;
    let (before, hop) = (UnixMs::now(), sink.hop.to_string());
    let message = held(Some("interior"), &["a@interior.test", "b@interior.test"]);
    let attempted = redeliver(message, vec![sink.hop.clone()]).await;
    let Change::Attempted { delivered, refused, next_attempt, problem, .. } = attempted else {
        panic!("{attempted:?}")
    };
    assert_eq!((delivered, refused), (Vec::new(), vec![address("a@interior.test")]));
    let expected = format!("451 4.2.1 the next hop said: 451 later (next hop {hop})");
    assert_eq!(problem, expected, "operators are told which hop it was");
    assert!(next_attempt.since_ms(before) >= 120_000, "two attempts failed before: two minutes");
    sink.heard().await;
}

#[tokio::test]
async fn a_message_of_a_department_that_is_gone_waits_and_says_so() {
    let attempted = redeliver(held(Some("health"), &["bob@health.test"]), Vec::new()).await;
    let (delivered, refused, problem) = parts(attempted);
    assert!(delivered.is_empty() && refused.is_empty());
    assert!(problem.contains("no department has the recipient's domain now"), "{problem}");
}

#[tokio::test]
async fn what_was_not_known_to_be_clean_is_scanned_before_it_is_delivered() {
    let over_limits: &[u8] = b"INSTREAM size limit exceeded. ERROR\0";
    let known = "malware: found before, and now it cannot be scanned; it is not delivered";
    let silent = "it could not be scanned: clamd closed the connection without an answer; it is tried again";
    let never = "it could not be scanned: the message is over clamd's limits; it is tried again";
    let (people, nobody) = (HeldKind::Quarantined, HeldKind::Deferred);
    // Who has released it, the rule of its verdict, clamd's answer, whether it is refused, and the problem of what is not
    // delivered.
    let cases: [(HeldKind, &str, &'static [u8], bool, &str); 12] = [
        (people, "MALWARE", b"stream: Eicar FOUND\0", true, "malware: Eicar; it is not delivered"),
        (people, "VIRUS_UNAVAILABLE", b"stream: Eicar FOUND\0", true, "malware: Eicar; it is not delivered"),
        (people, "MALWARE", over_limits, true, known),
        (people, "VIRUS_UNAVAILABLE", b"", false, silent),
        (people, "MALWARE", b"stream: OK\0", false, ""),
        (people, "VIRUS_UNSCANNABLE", over_limits, false, ""),
        // What policy or score has caught is not asked about: promise 7.
        (people, "PHRASES", b"stream: Eicar FOUND\0", false, ""),
        (nobody, "VIRUS_UNSCANNABLE", over_limits, false, never),
        (nobody, "VIRUS_RESCAN", over_limits, false, never),
        (nobody, "VIRUS_RESCAN", b"stream: Eicar FOUND\0", true, "malware: Eicar; it is not delivered"),
        (nobody, "VIRUS_RESCAN", b"stream: OK\0", false, ""),
        (nobody, "VIRUS_UNAVAILABLE", b"stream: OK\0", false, ""),
    ];
    for (kind, rule, answer, is_refused, expected) in cases {
        let (sink, bob) = (Scripted::plain(&[TAKES_ONE]).await, address("bob@interior.test"));
        let mut message = held(Some("interior"), &["bob@interior.test"]);
        message.kind = kind;
        message.verdict.reasons =
            vec![Reason { rule: rule.to_owned(), score: Score::default(), text: "caught".to_owned() }];
        let clamds = vec![clamd(Some(answer)).await];
        let attempted = parts(redeliver_scanned(message, vec![sink.hop.clone()], clamds).await);
        let is_delivered = expected.is_empty();
        let only_if = |is: bool| if is { vec![bob.clone()] } else { Vec::new() };
        assert_eq!(attempted, (only_if(is_delivered), only_if(is_refused), expected.to_owned()), "{rule}");
        if is_delivered {
            sink.heard().await;
        }
    }
}

#[tokio::test]
async fn a_slow_next_hop_keeps_nobody_waiting_who_goes_another_way() {
    let slow = Scripted::plain(&["S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nSILENCE"]).await;
    let quick = Scripted::plain(&[TAKES_ONE]).await;
    let mut change = change(vec![quick.hop.clone()], Vec::new());
    change.departments.insert(0, department("health", vec![slow.hop.clone()]));
    let message = Held { attempts: 0, ..held(None, &["eva@health.test", "bob@interior.test"]) };
    let relay_timeout = Duration::from_secs(3600);
    let limits = Limits { relay_time_max: Duration::from_millis(50), relay_timeout, ..Limits::default() };
    let mut running = Running::start(message, &change, Vec::new(), &limits, ATTEMPT, |_| None).await;
    timeout(Duration::from_secs(30), quick.heard()).await.expect("it does not wait for the slow one");
    // A stop does not wait for the slow one either, and what was delivered is put down.
    running.stop.send(true).expect("a worker");
    let (delivered, refused, problem) = parts(running.proposed().await);
    assert_eq!((delivered, refused), (vec![address("bob@interior.test")], Vec::new()));
    assert!(problem.contains("the node was stopped"), "{problem}");
    slow.heard().await;
    running.worker.await.expect("the worker ends");
}

#[tokio::test]
async fn what_came_of_an_attempt_is_proposed_until_the_cluster_has_it() {
    let away = AtomicBool::new(true);
    let answers = move |change: &Change| {
        let is_away = matches!(change, Change::Attempted { .. }) && away.swap(false, Ordering::Relaxed);
        is_away.then(|| Status::data_loss("an answer that is lost"))
    };
    let message = held(Some("interior"), &["bob@interior.test"]);
    let change = change(Vec::new(), Vec::new());
    let mut running = Running::start(message, &change, Vec::new(), &Limits::default(), Duration::ZERO, answers).await;
    running.proposed().await;
    let (.., problem) = parts(running.proposed().await);
    assert_eq!(problem, "the time of the attempt was up before this recipient's turn");
    running.end().await;
}

#[tokio::test]
async fn a_lease_that_may_have_been_granted_is_given_back() {
    let answers = |change: &Change| matches!(change, Change::Lease { .. }).then(|| Status::data_loss("lost"));
    let message = held(Some("interior"), &["bob@interior.test"]);
    let change = change(Vec::new(), Vec::new());
    let mut running = Running::start(message, &change, Vec::new(), &Limits::default(), ATTEMPT, answers).await;
    let (delivered, refused, _) = parts(running.proposed().await);
    assert!(delivered.is_empty() && refused.is_empty());
    running.end().await;
}

#[test]
fn a_department_is_reached_by_its_next_hops_and_never_over_the_internet() {
    let hop = |host: &str| NextHop { host: host.to_owned(), port: 25, tls: TlsRule::None };
    let with_relays = View::empty().after(change(vec![hop("interior")], vec![hop("relay")]));
    let by_mx = View::empty().after(change(vec![hop("interior")], Vec::new()));
    let message = held(None, &["a@example.test", "b@other.test", "c@interior.test"]);
    let of = |message: &Held, view: &View| -> Vec<(String, usize)> {
        let name = |route: &Option<Route>| match route {
            Some(Route::Department { next_hops, .. }) => next_hops[0].host.clone(),
            Some(Route::Internet { relays, .. }) if !relays.is_empty() => relays[0].host.clone(),
            Some(Route::Internet { domain, .. }) => format!("mx of {domain}"),
            None => "nowhere".to_owned(),
        };
        routes(message, view).iter().map(|(route, recipients)| (name(route), recipients.len())).collect()
    };
    let hosts = |view: &View| of(&message, view);
    let expected = |ways: &[(&str, usize)]| -> Vec<(String, usize)> {
        ways.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    assert_eq!(hosts(&with_relays), expected(&[("interior", 1), ("relay", 2)]));
    assert_eq!(hosts(&by_mx), expected(&[("interior", 1), ("mx of example.test", 1), ("mx of other.test", 1)]));
    // As RCPT would refuse them now: below a department's domain, and a department's mail whose domain is nobody's.
    let below = held(None, &["a@x.interior.test", "b@example.test"]);
    assert_eq!(of(&below, &with_relays), expected(&[("relay", 1), ("nowhere", 1)]));
    let moved = held(Some("health"), &["a@interior.test", "b@health.test"]);
    assert_eq!(of(&moved, &by_mx), expected(&[("interior", 1), ("nowhere", 1)]));
}

#[test]
fn the_time_between_attempts_doubles_up_to_an_hour() {
    let delays = [0, 1, 2, 6, 7, 31, 32, u32::MAX].map(|attempts| delay_ms(Duration::from_secs(30), attempts) / 1000);
    assert_eq!(delays, [30, 60, 120, 1920, 3600, 3600, 3600, 3600]);
}
