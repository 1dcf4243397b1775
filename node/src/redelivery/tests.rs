//! Held messages from a fake control server to a scripted next hop.

use std::{collections::BTreeSet, time::Duration};

use proto::{
    address::{Address, Domain, ReversePath},
    department::{Department, DepartmentId, NextHop, TlsRule},
    held::{BodyRef, Held, HeldId, HeldKind, HeldStatus, TransactionId},
    identity::Role,
    mutation::{Change, Outcome, Refused},
    policy::PolicyLayer,
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Verdict},
    view::{StateSettings, View, ViewChange},
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{Redelivery, delay_ms, routes};
use crate::{
    actions::relay::{
        Relay, no_dns,
        scripted::{Scripted, TAKES_ONE},
    },
    cluster::{
        Cluster,
        fake::{Authority, Fake, update},
    },
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
    }
}

/// A view with the department `interior` behind these hops, and relays for the Internet.
fn change(next_hops: Vec<NextHop>, internet_relays: Vec<NextHop>) -> ViewChange {
    let department = Department {
        id: DepartmentId::parse("interior").expect("an id"),
        name: "Interior".to_owned(),
        domains: BTreeSet::from([Domain::parse("interior.test").expect("a domain")]),
        next_hops,
        sources: Vec::new(),
        services: Vec::new(),
        recipients: None,
        policy: PolicyLayer::default(),
    };
    let settings = StateSettings { internet_relays, ..StateSettings::default() };
    ViewChange {
        index: 1,
        policy_version: 1,
        whole: true,
        settings: Some(settings),
        departments: vec![department],
        removed: Vec::new(),
    }
}

/// Runs the worker over one held message until it has put down what came of it.
async fn redeliver(message: Held, next_hops: Vec<NextHop>) -> Change {
    let authority = Authority::new();
    let leased = message.clone();
    let mut server = Fake::start(authority.credentials(Role::Control, "a"), move |change| {
        Ok(if matches!(change, Change::Lease { held, .. } if *held == leased.id) {
            Outcome::Leased(Box::new(leased.clone()))
        } else if matches!(change, Change::Attempted { .. }) {
            Outcome::Done
        } else {
            Outcome::Refused(Refused::NoSuch)
        })
    })
    .await;
    server.first.lock().expect("a lock").push(update(&change(next_hops, Vec::new())));
    server.bodies.lock().expect("a lock").insert(message.body.digest.clone(), BODY.to_vec());
    server.due.lock().expect("a lock").push(message);
    let limits = Limits::default();
    let cluster = Cluster::connect(authority.credentials(Role::Node, "n1"), vec![server.address.clone()], &limits)
        .expect("a cluster");
    cluster.first_view().await;
    let relay = Relay::new("node.test", &limits, no_dns(), None);
    let (stop, stopped) = watch::channel(false);
    let worker = tokio::spawn(Redelivery::new("n1", cluster, relay, &limits).run(stopped));
    let (_, lease) = server.proposals.recv().await.expect("a lease");
    assert!(matches!(lease, Change::Lease { for_ms: 120_000, .. }), "{lease:?}");
    let (_, attempted) = server.proposals.recv().await.expect("an end");
    stop.send(true).expect("a worker");
    worker.await.expect("the worker ends");
    attempted
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
    let before = UnixMs::now();
    let message = held(Some("interior"), &["a@interior.test", "b@interior.test"]);
    let attempted = redeliver(message, vec![sink.hop.clone()]).await;
    let Change::Attempted { delivered, refused, next_attempt, problem, .. } = attempted else {
        panic!("{attempted:?}")
    };
    assert_eq!((delivered, refused), (Vec::new(), vec![address("a@interior.test")]));
    assert!(problem.starts_with("451 4.2.1 the next hop said: 451 later (next hop "), "{problem}");
    assert!(next_attempt.since_ms(before) >= 120_000, "two attempts failed before: two minutes");
    sink.heard().await;
}

#[tokio::test]
async fn a_message_of_a_department_that_is_gone_waits_and_says_so() {
    let attempted = redeliver(held(Some("health"), &["bob@health.test"]), Vec::new()).await;
    let Change::Attempted { delivered, refused, problem, .. } = attempted else { panic!("{attempted:?}") };
    assert!(delivered.is_empty() && refused.is_empty());
    assert!(problem.contains("gone from the policy"), "{problem}");
}

#[test]
fn a_department_is_reached_by_its_next_hops_and_never_over_the_internet() {
    let hop = |host: &str| NextHop { host: host.to_owned(), port: 25, tls: TlsRule::None };
    let with_relays = View::empty().after(change(vec![hop("interior")], vec![hop("relay")]));
    let by_mx = View::empty().after(change(vec![hop("interior")], Vec::new()));
    let message = held(None, &["a@example.test", "b@other.test", "c@interior.test"]);
    let hosts = |view: &View| -> Vec<(String, usize)> {
        let name = |route: &Option<Route>| match route {
            Some(Route::Department { next_hops, .. }) => next_hops[0].host.clone(),
            Some(Route::Internet { relays, .. }) if !relays.is_empty() => relays[0].host.clone(),
            Some(Route::Internet { domain, .. }) => format!("mx of {domain}"),
            None => "nowhere".to_owned(),
        };
        routes(&message, view).iter().map(|(route, recipients)| (name(route), recipients.len())).collect()
    };
    let expected = |ways: &[(&str, usize)]| -> Vec<(String, usize)> {
        ways.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    assert_eq!(hosts(&with_relays), expected(&[("interior", 1), ("relay", 2)]));
    assert_eq!(hosts(&by_mx), expected(&[("interior", 1), ("mx of example.test", 1), ("mx of other.test", 1)]));
}

#[test]
fn the_time_between_attempts_doubles_up_to_an_hour() {
    let delays = [0, 1, 2, 6, 7, 31, 32, u32::MAX].map(|attempts| delay_ms(Duration::from_secs(30), attempts) / 1000);
    assert_eq!(delays, [30, 60, 120, 1920, 3600, 3600, 3600, 3600]);
}
