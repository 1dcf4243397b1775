//! A watch sends what a node lacks, in parts, and never shows it an older view or a false beat.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{FutureExt as _, Stream, StreamExt as _};
use proto::{
    codec,
    held::MutationId,
    mutation::{Batch, Change, Mutation},
    reputation::{Heard, SubjectKey},
    time::UnixMs,
    view::ViewChange,
    wire::edge::ViewUpdate,
};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::{Feed, updates};
use crate::{
    raft::Applied,
    state::{
        State, feed, query,
        testing::{department, node, operator, policy},
    },
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A server's side of a watch, over a state in memory.
struct Server {
    applied: watch::Sender<Applied>,
    stop: watch::Sender<bool>,
    state: Arc<Mutex<(Map, u64)>>,
    in_touch: Arc<AtomicBool>,
}

impl Server {
    /// With a first policy that was applied at an index.
    fn at(index: u64) -> Self {
        let server = Self {
            applied: watch::Sender::new(Applied::default()),
            stop: watch::Sender::new(false),
            state: Arc::default(),
            in_touch: Arc::new(AtomicBool::new(false)),
        };
        server.apply(index, policy(0, Vec::new()));
        server
    }

    fn apply(&self, index: u64, change: Change) {
        let mut state = self.state.lock().expect("not poisoned");
        let by = if matches!(change, Change::Report { .. }) { node("n1") } else { operator("anna") };
        let mutation = Mutation { id: MutationId::fresh(), by, change };
        let batch = Batch { at: UnixMs(1_000_000_000), mutations: vec![mutation] };
        State::apply(&state.0, index, &batch).0.store_into(&mut state.0);
        state.1 = index;
        let (policy_version, view_index) = (query::policy_version(&state.0), feed::last(&state.0));
        self.applied.send_replace(Applied { index, policy_version, view_index });
    }

    fn feed(&self) -> Feed {
        let (state, in_touch) = (Arc::clone(&self.state), Arc::clone(&self.in_touch));
        let part = move |cursor| {
            let state = state.lock().expect("not poisoned");
            feed::part(&state.0, state.1, &cursor)
        };
        Feed {
            applied: self.applied.subscribe(),
            stopping: self.stop.subscribe(),
            part: Arc::new(move |cursor| Box::pin(ready(Ok(part(cursor))))),
            in_touch: Arc::new(move || Box::pin(ready(in_touch.load(Ordering::SeqCst)))),
        }
    }

    fn watch(&self, from_index: u64) -> impl Stream<Item = Result<ViewUpdate, Status>> + Unpin + use<> {
        Box::pin(updates(self.feed(), from_index))
    }
}

fn with(base: u64, id: &str) -> Change {
    policy(base, vec![department(id, &["a.test"])])
}

fn report(numbers: std::ops::Range<u32>) -> Change {
    let subject = |number: u32| SubjectKey((u128::from(number) << 96).to_be_bytes());
    Change::Report { outcomes: numbers.map(|n| Heard { subject: subject(n), good: 1, bad: 1 }).collect() }
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
    server.apply(6, with(1, "interior"));
    let second = change(&mut watch).await;
    assert!(!second.whole && second.index == 6 && second.departments.len() == 1 && second.settings.is_some());
}

#[tokio::test]
async fn a_node_that_comes_back_gets_what_it_missed_and_no_more() {
    let server = Server::at(5);
    server.apply(6, with(1, "interior"));
    server.apply(7, report(0..3));
    let missed = change(&mut server.watch(6)).await;
    assert_eq!((missed.index, missed.whole, missed.departments.len(), missed.subjects.len()), (7, false, 0, 3));
    let nothing = server.watch(7).next().await.expect("an update").expect("no error");
    assert_eq!((nothing.index, nothing.change.len()), (7, 0));
}

#[tokio::test]
async fn a_large_view_comes_in_parts_and_the_last_one_is_of_now() {
    let server = Server::at(5);
    (0..3).for_each(|n| server.apply(6 + u64::from(n), report(n * 4_000..(n + 1) * 4_000)));
    let mut watch = server.watch(0);
    let (mut subjects, mut parts) = (0, 0);
    let last = loop {
        let update = watch.next().await.expect("an update").expect("no error");
        assert!(update.change.len() < 1024 * 1024 && !update.confirmed);
        let part: ViewChange = codec::decode("change", &update.change).expect("a change");
        assert_eq!(part.whole, parts == 0);
        (subjects, parts) = (subjects + part.subjects.len(), parts + 1);
        if parts == 1 {
            server.apply(20, with(1, "interior"));
        }
        if !part.more {
            break part;
        }
    };
    assert!(parts > 3 && subjects == 12_000, "{parts} parts, {subjects} subjects");
    assert_eq!((last.index, last.policy_version, last.departments.len()), (20, 2, 1));
}

#[tokio::test]
async fn a_reader_that_was_slow_gets_one_change_over_all_that_it_missed() {
    let server = Server::at(5);
    let mut watch = server.watch(0);
    change(&mut watch).await;
    server.apply(6, with(1, "interior"));
    server.apply(7, with(2, "health"));
    let next = change(&mut watch).await;
    assert_eq!((next.index, next.departments.len(), next.removed.len()), (7, 1, 1));
}

#[tokio::test]
async fn reports_go_out_together_and_a_policy_does_not_wait_for_them() {
    let server = Server::at(5);
    let mut watch = server.watch(0);
    change(&mut watch).await;
    server.apply(6, report(0..1));
    server.apply(7, report(1..2));
    assert!(watch.next().now_or_never().is_none(), "paced");
    server.apply(8, report(2..3));
    let next = change(&mut watch).await;
    assert_eq!((next.index, next.subjects.len()), (8, 3));
    server.apply(9, report(3..4));
    server.apply(10, with(1, "interior"));
    let now = change(&mut watch).now_or_never().expect("a policy waits for nothing");
    assert_eq!((now.index, now.subjects.len(), now.departments.len()), (10, 1, 1));
}

#[tokio::test]
async fn a_node_that_has_seen_more_waits_until_the_server_has_caught_up() {
    let server = Server::at(5);
    server.in_touch.store(true, Ordering::SeqCst);
    let mut watch = server.watch(8);
    let catching_up = async {
        server.apply(7, with(1, "interior"));
        tokio::task::yield_now().await;
        server.apply(9, with(2, "health"));
    };
    let (first, ()) = tokio::join!(change(&mut watch), catching_up);
    assert_eq!((first.index, first.whole), (9, false));
}

#[tokio::test]
async fn beats_come_only_while_the_server_is_in_touch_and_held_messages_send_nothing_else() {
    let server = Server::at(5);
    let mut watch = server.watch(0);
    change(&mut watch).await;
    server.applied.send_modify(|applied| applied.index = 9);
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
            behind.apply(6, with(1, "interior"));
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
