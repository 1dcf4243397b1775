//! Changes lead where the whole view leads, and a watch never shows a node an older view or a false beat.

use std::{
    collections::BTreeSet,
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{Stream, StreamExt as _};
use proptest::prelude::*;
use proto::{
    address::Domain,
    codec,
    department::{Department, DepartmentId},
    policy::{PolicyLayer, VirusScan},
    view::{StateSettings, View, ViewChange},
    wire::edge::ViewUpdate,
};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::{Feed, between, updates};
use crate::raft::Applied;

fn department(id: u8, domains: &BTreeSet<u8>, scan: bool) -> Department {
    let domain = |name: &u8| Domain::parse(&format!("d{name}.gov.test")).expect("a domain");
    Department {
        id: DepartmentId::parse(&format!("department-{id}")).expect("an id"),
        name: format!("Department {id}"),
        domains: domains.iter().map(domain).collect(),
        next_hops: Vec::new(),
        sources: vec![format!("10.{id}.0.0/16").parse().expect("a net")],
        services: Vec::new(),
        recipients: None,
        policy: PolicyLayer { virus_scan: (!scan).then_some(VirusScan::Off), ..PolicyLayer::default() },
    }
}

fn whole(index: u64, name: u8, departments: Vec<Department>) -> ViewChange {
    let settings = Some(StateSettings { name: format!("State {name}"), ..StateSettings::default() });
    ViewChange { index, policy_version: index, whole: true, settings, departments, ..ViewChange::default() }
}

/// Departments with disjoint domains, as the policy demands.
fn departments() -> impl Strategy<Value = Vec<Department>> {
    let owners = prop::collection::btree_map(0_u8..12, 0_u8..5, 0..12);
    (owners, prop::collection::btree_map(0_u8..5, any::<bool>(), 0..5)).prop_map(|(owners, scans)| {
        let domains = |id| owners.iter().filter(|(_, owner)| **owner == id).map(|(domain, _)| *domain).collect();
        scans.into_iter().map(|(id, scan)| department(id, &domains(id), scan)).collect()
    })
}

/// All that a view answers with.
#[derive(Debug, PartialEq)]
struct Shown {
    at: (u64, u64),
    settings: StateSettings,
    tenants: Vec<(Department, String)>,
    owners: Vec<Option<String>>,
}

fn shown(view: &View) -> Shown {
    let tenants = view.tenants().map(|one| (one.department.clone(), format!("{:?}", one.policy))).collect();
    let domains = (0..12).map(|name| Domain::parse(&format!("d{name}.gov.test")).expect("a domain"));
    let owners = domains.map(|domain| view.tenant_of(&domain).map(|one| one.department.id.to_string())).collect();
    Shown { at: (view.index, view.policy_version), settings: view.settings.clone(), tenants, owners }
}

proptest! {
    #[test]
    fn a_change_leads_where_the_whole_view_leads(
        old in departments(), new in departments(), names in (0_u8..3, 0_u8..3), steps in 1_u64..9,
    ) {
        let (old, new) = (whole(7, names.0, old), whole(7 + steps, names.1, new));
        let change = between(&old, &new);
        prop_assert!(!change.whole);
        let before = View::empty().after(old);
        prop_assert_eq!(shown(&before.after(change)), shown(&before.after(new)));
    }

    #[test]
    fn nothing_is_sent_for_what_stayed_as_it_was(same in departments()) {
        let change = between(&whole(3, 1, same.clone()), &whole(4, 1, same));
        prop_assert!(change.settings.is_none() && change.departments.is_empty() && change.removed.is_empty());
    }
}

/// A server's side of a watch.
struct Server {
    applied: watch::Sender<Applied>,
    stop: watch::Sender<bool>,
    view: Arc<Mutex<ViewChange>>,
    in_touch: Arc<AtomicBool>,
}

impl Server {
    fn at(index: u64) -> Self {
        Self {
            applied: watch::Sender::new(Applied { index, policy_version: index, ..Applied::default() }),
            stop: watch::Sender::new(false),
            view: Arc::new(Mutex::new(whole(index, 0, Vec::new()))),
            in_touch: Arc::new(AtomicBool::new(false)),
        }
    }

    fn apply(&self, view: ViewChange) {
        let applied = Applied { index: view.index, policy_version: view.policy_version, drains: view.drains };
        *self.view.lock().expect("not poisoned") = view;
        self.applied.send_replace(applied);
    }

    fn feed(&self) -> Feed {
        let (view, in_touch) = (Arc::clone(&self.view), Arc::clone(&self.in_touch));
        Feed {
            applied: self.applied.subscribe(),
            stopping: self.stop.subscribe(),
            view: Arc::new(move || Box::pin(ready(Ok(view.lock().expect("not poisoned").clone())))),
            in_touch: Arc::new(move || Box::pin(ready(in_touch.load(Ordering::SeqCst)))),
        }
    }

    fn watch(&self, from_index: u64) -> impl Stream<Item = Result<ViewUpdate, Status>> + Unpin + use<> {
        Box::pin(updates(self.feed(), from_index))
    }
}

async fn change(stream: &mut (impl Stream<Item = Result<ViewUpdate, Status>> + Unpin)) -> ViewChange {
    let update = stream.next().await.expect("an update").expect("no error");
    codec::decode("change", &update.change).expect("a change")
}

#[tokio::test]
async fn a_watch_begins_with_the_whole_view_and_goes_on_with_changes() {
    let server = Server::at(5);
    let mut watch = server.watch(0);
    let first = change(&mut watch).await;
    assert!(first.whole && first.index == 5);
    server.apply(whole(6, 1, vec![department(1, &BTreeSet::from([1]), true)]));
    let second = change(&mut watch).await;
    assert!(!second.whole && second.index == 6 && second.departments.len() == 1 && second.settings.is_some());
}

#[tokio::test]
async fn a_reader_that_was_slow_gets_one_change_over_all_that_it_missed() {
    let server = Server::at(5);
    let mut watch = server.watch(0);
    change(&mut watch).await;
    server.apply(whole(6, 1, vec![department(1, &BTreeSet::from([1]), true)]));
    server.apply(whole(7, 1, vec![department(2, &BTreeSet::from([1]), true)]));
    let next = change(&mut watch).await;
    assert_eq!((next.index, next.departments.len(), next.removed.len()), (7, 1, 0));
}

#[tokio::test]
async fn a_node_that_has_seen_more_waits_until_the_server_has_caught_up() {
    let server = Server::at(5);
    server.in_touch.store(true, Ordering::SeqCst);
    let mut watch = server.watch(8);
    let catching_up = async {
        server.apply(whole(7, 1, Vec::new()));
        tokio::task::yield_now().await;
        server.apply(whole(8, 2, Vec::new()));
    };
    let (first, ()) = tokio::join!(change(&mut watch), catching_up);
    assert_eq!((first.index, first.whole), (8, true));
}

#[tokio::test]
async fn beats_come_only_while_the_server_is_in_touch_and_held_messages_send_nothing_else() {
    let server = Server::at(5);
    let mut watch = server.watch(0);
    change(&mut watch).await;
    server.applied.send_replace(Applied { index: 9, policy_version: 5, ..Applied::default() });
    let silent = tokio::time::timeout(super::BEAT * 2, watch.next()).await;
    assert!(silent.is_err(), "out of touch, but: {silent:?}");
    server.in_touch.store(true, Ordering::SeqCst);
    let beat = watch.next().await.expect("an update").expect("no error");
    assert_eq!((beat.index, beat.change.len(), beat.confirmed), (9, 0, true));
}

#[tokio::test]
async fn a_view_is_confirmed_only_by_a_server_in_touch_with_its_quorum() {
    let server = Server::at(5);
    let lost = server.watch(0).next().await.expect("an update").expect("no error");
    assert!(!lost.change.is_empty() && !lost.confirmed, "sent, but not confirmed");
    server.in_touch.store(true, Ordering::SeqCst);
    assert!(server.watch(0).next().await.expect("an update").expect("no error").confirmed);
}

#[tokio::test]
async fn a_change_that_comes_with_the_quorums_answer_is_sent_before_the_beat() {
    let server = Arc::new(Server::at(5));
    let (behind, mut feed) = (Arc::clone(&server), server.feed());
    // Cut off at the first question; the answer to the second brings what was missed.
    let asked = AtomicBool::new(false);
    feed.in_touch = Arc::new(move || {
        let again = asked.swap(true, Ordering::SeqCst);
        if again && behind.applied.borrow().index == 5 {
            behind.apply(whole(6, 1, Vec::new()));
        }
        Box::pin(ready(again))
    });
    let mut watch = Box::pin(updates(feed, 0));
    let mut next = async || watch.next().await.expect("an update").expect("no error");
    assert_eq!((next().await.index, next().await.index), (5, 6));
    let beat = next().await;
    assert_eq!((beat.index, beat.change.len(), beat.confirmed), (6, 0, true));
}

#[tokio::test]
async fn a_watch_ends_with_the_server_and_leaves_nothing_behind_when_its_reader_goes() {
    let server = Server::at(5);
    let (mut stays, goes) = (server.watch(0), server.watch(0));
    change(&mut stays).await;
    assert_eq!(server.applied.receiver_count(), 2);
    drop(goes);
    assert_eq!(server.applied.receiver_count(), 1);
    server.stop.send_replace(true);
    let last = stays.next().await.expect("an error").expect_err("the server ends");
    assert_eq!(last.code(), Code::Unavailable);
    assert!(stays.next().await.is_none());
}
