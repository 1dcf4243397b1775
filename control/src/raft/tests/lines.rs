//! Lines that break, damage and delay: a server is filled in the end, and large entries arrive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use proto::mutation::{Change, Outcome};

use super::{
    proxy::{self, Line},
    rig::{Damage, Rig, Running, mutation},
};
use crate::{
    raft::{ProposeError, Rules},
    state::testing::{department, hold, node, operator, policy, quarantined},
};

/// Two of three servers, with records in a log that is purged: the third can only be filled by a snapshot.
async fn two_with_records(rig: &Rig, count: u64) -> [Running; 2] {
    let two = [rig.start(1).await, rig.start(2).await];
    two[0].group.form(rig.servers.clone()).await.expect("formed");
    for first in (1..=count).step_by(50) {
        let numbers = first..first + 50;
        let held = numbers.map(|number| two[0].group.propose(mutation(node("n1"), hold(&[quarantined(number)]))));
        assert!(join_all(held).await.into_iter().all(|outcome| outcome == Ok(Outcome::Done)));
    }
    for server in &two {
        server.group.linearize().await.expect("a quorum");
        let raft = &server.group.inner.leader.raft;
        let index = server.group.status().applied_index;
        raft.trigger().snapshot().await.expect("triggered");
        raft.wait(None).metrics(|m| m.snapshot.is_some_and(|id| id.index >= index), "a snapshot").await.expect("made");
        raft.trigger().purge_log(index).await.expect("triggered");
        raft.wait(None).metrics(|m| m.purged.is_some_and(|id| id.index >= index), "purged").await.expect("purged");
    }
    two
}

async fn is_filled(rig: &Rig, third: &Running, other: &Running) {
    third.group.applied().wait_for(|applied| applied.index > 0).await.expect("filled");
    third.group.linearize().await.expect("a quorum");
    other.group.linearize().await.expect("a quorum");
    // What is there, not only what is said of it.
    assert_eq!(third.group.state().measure().expect("readable"), other.group.state().digest());
    // What was begun and given up has left nothing behind: this is the snapshot that was installed.
    assert_eq!(third.snapshot_files(rig), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_is_cut_begins_anew_by_itself() {
    let mut rig = Rig::new(3).await;
    let listen = rig.servers[&3].address.clone();
    let line = Arc::new(Line { cut_after: Some(400_000), cuts: AtomicU32::new(3), ..Line::default() });
    rig.servers.get_mut(&3).expect("there").address = proxy::open(listen.clone(), Arc::clone(&line)).await;
    let two = two_with_records(&rig, 1_500).await;
    let third = rig.start_at(3, &listen, Damage::default(), Rules::default()).await;
    is_filled(&rig, &third, &two[0]).await;
    assert_eq!(line.cuts.load(Ordering::Acquire), 0, "the line was cut three times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_with_a_wrong_byte_is_refused_and_sent_again() {
    let rig = Rig::new(3).await;
    let two = two_with_records(&rig, 100).await;
    let damage = Damage::new(true.into());
    let third = rig.start_at(3, &rig.servers[&3].address, Arc::clone(&damage), Rules::default()).await;
    is_filled(&rig, &third, &two[0]).await;
    assert!(!damage.load(Ordering::Acquire), "a byte was wrong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_of_4_mib_is_committed_over_lines_of_2_mb_a_second() {
    let mut rig = Rig::new(3).await;
    let listens: Vec<(u64, String)> = rig.servers.iter().map(|(id, server)| (*id, server.address.clone())).collect();
    for (id, listen) in &listens {
        let line = Line { bytes_per_s: Some(2_000_000), delay: Duration::from_millis(20), ..Line::default() };
        rig.servers.get_mut(id).expect("there").address = proxy::open(listen.clone(), Arc::new(line)).await;
    }
    let mut servers = Vec::new();
    for (id, listen) in &listens {
        servers.push(rig.start_at(*id, listen, Damage::default(), Rules::default()).await);
    }
    servers[0].group.form(rig.servers.clone()).await.expect("formed");
    let mut change = policy(0, vec![department("interior", &["interior.gov.test"])]);
    if let Change::ApplyPolicy { changes, .. } = &mut change {
        changes.push("x".repeat(4 * 1024 * 1024));
    }
    let plan = mutation(operator("anna"), change);
    let outcome = loop {
        let waiting = servers[0].group.inner.leader.raft.wait(None);
        let metrics = waiting.metrics(|m| m.current_leader.is_some(), "a leader").await.expect("a leader");
        let leader = metrics.current_leader.expect("a leader");
        let leader = servers.iter().find(|server| server.group.me().0 == leader).expect("one of them");
        match leader.group.propose(plan.clone()).await {
            // A machine that is busy may take longer than a caller waits; asking again is harmless.
            Err(ProposeError::Unknown | ProposeError::NoLeader) => {}
            other => break other,
        }
    };
    // It went through the log: what the state says to such a text is another question.
    outcome.expect("committed");
}
