//! The client of the edge service against control servers on loopback.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::{
    held::{BodyRef, TransactionId},
    identity::Role,
    mutation::{Change, Outcome, Refused},
    reputation::{Levels, SubjectKey},
    score::Score,
    verdict::{Disposition, Verdict},
    view::{StateSettings, View, ViewChange},
    wire::edge::ViewUpdate,
};
use tonic::Status;

use super::{
    Cluster, ClusterError,
    fake::{Authority, Fake, update, whole},
};
use crate::limits::Limits;

/// For calls that nobody will answer.
fn short() -> Limits {
    Limits { control_timeout: Duration::from_millis(300), ..Limits::default() }
}

fn connect(authority: &Authority, servers: &[&Fake], limits: &Limits) -> Cluster {
    let servers = servers.iter().map(|server| server.address.clone()).collect();
    Cluster::connect(authority.credentials(Role::Node, "n1"), servers, "north", limits).expect("a cluster")
}

/// An empty update of a server in touch with its quorum.
fn beat(index: u64) -> ViewUpdate {
    ViewUpdate { index, change: Vec::new(), confirmed: true }
}

async fn server(authority: &Authority, name: &str, outcome: Result<Outcome, Status>) -> Fake {
    Fake::start(authority.credentials(Role::Control, name), move |_| outcome.clone()).await
}

fn discard() -> Change {
    let verdict = Verdict {
        disposition: Disposition::Discard,
        score: Score::default(),
        tagged: false,
        reasons: Vec::new(),
        policy_version: 1,
    };
    Change::Discard { transaction: TransactionId::fresh(), recipients: 1, verdict }
}

#[tokio::test]
async fn the_view_is_followed_from_the_next_server_when_one_dies_and_never_goes_back() {
    let authority = Authority::new();
    let mut first = server(&authority, "a", Ok(Outcome::Done)).await;
    let mut second = server(&authority, "b", Ok(Outcome::Done)).await;
    first.first.lock().expect("a lock").push(whole(5));
    // Behind at first: it must not be believed.
    second.first.lock().expect("a lock").push(whole(3));
    let cluster = connect(&authority, &[&first, &second], &Limits::default());
    assert_eq!(cluster.view_age(), Duration::MAX);
    assert_eq!(cluster.first_view().await.index, 5);
    assert!(cluster.view_age() < Duration::MAX);
    let mut view = cluster.view();
    first.updates.send(whole(7)).expect("a watch");
    assert_eq!(view.wait_for(|view| view.index == 7).await.expect("a view").policy_version, 7);
    assert_eq!(first.watches.recv().await, Some(0));

    first.kill();
    drop(first);
    assert_eq!(second.watches.recv().await, Some(7));
    // It is left and asked again until it has caught up.
    assert_eq!(second.watches.recv().await, Some(7));
    assert_eq!(cluster.view().borrow().index, 7);
    *second.first.lock().expect("a lock") = vec![whole(9)];
    assert_eq!(view.wait_for(|view| view.index == 9).await.expect("a view").index, 9);
}

#[tokio::test]
async fn an_empty_update_confirms_the_view() {
    let authority = Authority::new();
    let server = server(&authority, "a", Ok(Outcome::Done)).await;
    server.first.lock().expect("a lock").push(whole(5));
    let cluster = connect(&authority, &[&server], &Limits::default());
    cluster.first_view().await;
    let mut confirmed = cluster.confirmed.clone();
    let before = *confirmed.borrow_and_update();
    server.updates.send(beat(6)).expect("a watch");
    confirmed.changed().await.expect("a confirmation");
    assert!(*confirmed.borrow() > before);
    assert_eq!(cluster.view().borrow().index, 5);
}

#[tokio::test]
async fn a_view_of_a_server_without_its_quorum_is_used_but_does_not_count_as_fresh() {
    let authority = Authority::new();
    let server = server(&authority, "a", Ok(Outcome::Done)).await;
    server.first.lock().expect("a lock").push(ViewUpdate { confirmed: false, ..whole(5) });
    let cluster = connect(&authority, &[&server], &Limits::default());
    let mut view = cluster.view();
    view.wait_for(|view| view.index == 5).await.expect("a view");
    assert_eq!(cluster.view_age(), Duration::MAX);
    server.updates.send(ViewUpdate { confirmed: false, ..whole(6) }).expect("a watch");
    view.wait_for(|view| view.index == 6).await.expect("a view");
    assert_eq!(cluster.view_age(), Duration::MAX, "a change does not make it fresh either");
    server.updates.send(beat(6)).expect("a watch");
    assert_eq!(cluster.first_view().await.index, 6);
    assert!(cluster.view_age() < Duration::MAX);
}

#[tokio::test]
async fn a_server_that_goes_quiet_is_left_for_the_next() {
    let authority = Authority::new();
    let quiet = server(&authority, "a", Ok(Outcome::Done)).await;
    let speaking = server(&authority, "b", Ok(Outcome::Done)).await;
    speaking.first.lock().expect("a lock").push(whole(5));
    let limits = Limits { watch_quiet_max: Duration::from_millis(200), ..Limits::default() };
    let cluster = connect(&authority, &[&quiet, &speaking], &limits);
    assert_eq!(cluster.first_view().await.index, 5);
}

#[tokio::test]
async fn the_watch_ends_with_the_last_handle() {
    let authority = Authority::new();
    let server = server(&authority, "a", Ok(Outcome::Done)).await;
    server.first.lock().expect("a lock").push(whole(5));
    let cluster = connect(&authority, &[&server], &Limits::default());
    cluster.first_view().await;
    assert_eq!(server.updates.receiver_count(), 1);
    let mut confirmed = cluster.confirmed.clone();
    drop(cluster);
    // The sender is dropped by the watch when it ends.
    while confirmed.changed().await.is_ok() {}
}

#[tokio::test]
async fn a_proposal_goes_from_server_to_server_under_one_id_until_one_answers() {
    let authority = Authority::new();
    let mut leaderless = server(&authority, "a", Err(Status::unavailable("no leader"))).await;
    let mut refusing = server(&authority, "b", Ok(Outcome::Refused(Refused::NotDue))).await;
    let cluster = connect(&authority, &[&leaderless, &refusing], &Limits::default());
    let outcome = cluster.propose(discard()).await.expect("an outcome");
    assert_eq!(outcome, Outcome::Refused(Refused::NotDue));
    let (tried, _) = leaderless.proposals.recv().await.expect("a proposal");
    let (answered, _) = refusing.proposals.recv().await.expect("a proposal");
    assert_eq!(tried, answered);

    // The one that answered is asked first now, and each proposal has an id of its own.
    cluster.propose(discard()).await.expect("an outcome");
    assert_ne!(refusing.proposals.recv().await.expect("a proposal").0, answered);
    assert!(leaderless.proposals.try_recv().is_err());
}

#[tokio::test]
async fn without_an_answer_a_proposal_ends_with_an_error_in_time() {
    let authority = Authority::new();
    let leaderless = server(&authority, "a", Err(Status::unavailable("no leader"))).await;
    let cluster = connect(&authority, &[&leaderless], &short());
    let error = cluster.propose(discard()).await.expect_err("nobody leads");
    assert!(matches!(&error, ClusterError::Away(problem) if !problem.is_empty()), "{error}");

    let denying = server(&authority, "b", Err(Status::permission_denied("not you"))).await;
    let cluster = connect(&authority, &[&denying], &Limits { control_timeout: Duration::from_secs(3600), ..short() });
    let error = cluster.propose(discard()).await.expect_err("denied, without another round");
    assert!(error.to_string().contains("not you"), "{error}");
}

#[tokio::test]
async fn a_server_with_a_nodes_certificate_is_not_believed() {
    let authority = Authority::new();
    let mut impostor = Fake::start(authority.credentials(Role::Node, "n2"), |_| Ok(Outcome::Done)).await;
    let mut stranger = Fake::start(Authority::new().credentials(Role::Control, "a"), |_| Ok(Outcome::Done)).await;
    for server in [&mut impostor, &mut stranger] {
        let cluster = connect(&authority, &[server], &Limits { control_timeout: Duration::from_secs(1), ..short() });
        let error = cluster.propose(discard()).await.expect_err("the handshake fails");
        assert!(!error.to_string().contains("no answer in"), "{error}");
        assert!(server.proposals.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_body_comes_back_as_it_was_put_and_a_wrong_copy_is_passed_over() {
    let authority = Authority::new();
    let first = server(&authority, "a", Ok(Outcome::Done)).await;
    let second = server(&authority, "b", Ok(Outcome::Done)).await;
    let cluster = connect(&authority, &[&first, &second], &Limits::default());
    let body = Bytes::from(vec![b'x'; 700_000]);
    let stored = cluster.put_body(body.clone()).await.expect("stored");
    assert_eq!((stored.size_bytes, stored.servers.as_slice()), (700_000, ["a".to_owned(), "b".to_owned()].as_slice()));
    assert_eq!(cluster.body(&stored).await.expect("a body"), body);

    let copies = first.bodies.lock().expect("a lock").clone();
    second.bodies.lock().expect("a lock").extend(copies);
    first.bodies.lock().expect("a lock").get_mut(&stored.digest).expect("a body")[99] = b'y';
    assert_eq!(cluster.body(&stored).await.expect("the good copy"), body);
    second.bodies.lock().expect("a lock").get_mut(&stored.digest).expect("a body").pop();
    let error = cluster.body(&stored).await.expect_err("no good copy");
    assert!(error.to_string().contains("the body"), "{error}");
    let nowhere = BodyRef { digest: "0".repeat(64), size_bytes: 1, servers: Vec::new() };
    assert!(cluster.body(&nowhere).await.is_err());
}

#[tokio::test]
async fn a_server_list_that_cannot_be_used_is_refused() {
    let authority = Authority::new();
    for servers in [vec![], vec!["no host".to_owned()]] {
        let connected = Cluster::connect(authority.credentials(Role::Node, "n1"), servers, "north", &Limits::default());
        assert!(matches!(connected, Err(ClusterError::Server { .. })));
    }
}

#[tokio::test]
async fn a_view_that_breaks_off_in_its_parts_leaves_the_one_before_in_use() {
    let authority = Authority::new();
    let mut first = server(&authority, "a", Ok(Outcome::Done)).await;
    let mut second = server(&authority, "b", Ok(Outcome::Done)).await;
    let part = |index, whole, more, n: u8| {
        let subjects = vec![(SubjectKey([n; 16]), Some(Levels { good: 1, bad: 1 }))];
        let settings = Some(StateSettings::default());
        update(&ViewChange { index, policy_version: 1, whole, more, settings, subjects, ..ViewChange::default() })
    };
    first.first.lock().expect("a lock").extend([
        part(5, true, false, 1),
        part(6, true, true, 2),
        part(6, false, true, 3),
    ]);
    let cluster = connect(&authority, &[&first, &second], &Limits::default());
    cluster.first_view().await;
    assert_eq!(first.watches.recv().await, Some(0));
    let known = |view: &View| [1, 2, 3, 4].map(|n| view.reputation.levels(SubjectKey([n; 16])).is_some());
    first.kill();
    assert_eq!(second.watches.recv().await, Some(5), "resumes from the view that is in use");
    let view = Arc::clone(&cluster.view().borrow());
    assert_eq!((view.index, known(&view)), (5, [true, false, false, false]));
    // The next server knows nothing of the parts: a change over the view in use.
    second.updates.send(part(7, false, false, 4)).expect("a watch");
    let mut views = cluster.view();
    let next = views.wait_for(|view| view.index == 7).await.expect("a view");
    assert_eq!(known(&next), [true, false, false, true]);
    drop(next);
    assert_eq!((view.index, known(&view)), (5, [true, false, false, false]), "a transaction keeps its view");
}
