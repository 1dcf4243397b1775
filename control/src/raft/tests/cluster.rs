//! Three servers over mTLS on loopback.

use std::{sync::Arc, time::Duration};

use proto::mutation::Outcome;
use tokio::time::Instant;

use super::rig::{Rig, Running, mutation};
use crate::{
    raft::{ProposeError, leader::Ask},
    state::testing::{department, hold, node, operator, policy, quarantined},
};

pub(super) async fn leader(server: &Running) -> u64 {
    let metrics = server.group.inner.leader.raft.wait(None).metrics(|m| m.current_leader.is_some(), "a leader").await;
    metrics.expect("a leader").current_leader.expect("a leader")
}

pub(super) async fn hold_one(server: &Running, number: u64) -> Result<Outcome, ProposeError> {
    server.group.propose(mutation(node("n1"), hold(&[quarantined(number)]))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_server_takes_a_proposal_and_all_have_the_same_state() {
    let rig = Rig::new(3).await;
    let mut servers = Vec::new();
    for id in 1..=3 {
        servers.push(rig.start(id).await);
    }
    servers[0].group.form(rig.servers.clone()).await.expect("formed");
    let plan = mutation(operator("anna"), policy(0, vec![department("interior", &["interior.gov.test"])]));
    assert_eq!(servers[2].group.propose(plan).await, Ok(Outcome::PolicyApplied { version: 1 }));
    for (server, number) in servers.iter().zip(1..) {
        assert_eq!(hold_one(server, number).await, Ok(Outcome::Done));
    }
    let mut digests = Vec::new();
    for server in &servers {
        server.group.linearize().await.expect("a quorum");
        assert!(server.group.in_touch());
        digests.push(server.group.state().digest());
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");

    // Without its leader the group goes on, and the one that was away catches up.
    let lost = leader(&servers[0]).await;
    let place = usize::try_from(lost - 1).expect("small");
    servers.remove(place).stop().await;
    assert_eq!(hold_one(&servers[0], 4).await, Ok(Outcome::Done));
    let back = rig.start(lost).await;
    back.group.linearize().await.expect("a quorum");
    assert_eq!(back.group.state().held_count(), 4);

    // Without a quorum nothing is promised.
    servers.remove(0).stop().await;
    servers.remove(0).stop().await;
    let outcome = hold_one(&back, 5).await;
    assert!(matches!(outcome, Err(ProposeError::NoLeader | ProposeError::Unknown)), "{outcome:?}");
    assert!(!back.group.in_touch());
    assert_eq!(back.group.linearize().await, Err(ProposeError::NoLeader));
    back.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_lost_its_quorum_refuses_long_before_the_caller_gives_up() {
    let rig = Rig::new(3).await;
    let mut servers = Vec::new();
    for id in 1..=3 {
        servers.push(rig.start(id).await);
    }
    servers[0].group.form(rig.servers.clone()).await.expect("formed");
    servers[0].group.linearize().await.expect("a quorum");
    let place = usize::try_from(leader(&servers[0]).await - 1).expect("small");
    let alone = servers.remove(place);
    for server in servers {
        server.stop().await;
    }
    // Nobody waits for ever here, though the deadline would allow it.
    let deadline = Instant::now() + Duration::from_secs(24 * 3600);
    let way = &alone.group.inner.leader;
    let ask = |number| Ask::Commit(vec![mutation(node("n1"), hold(&[quarantined(number)]))]);
    let (write, read) = (ask(1), Ask::ReadIndex);
    let (written, read) = tokio::join!(way.ask(&write, deadline), way.ask(&read, deadline));
    assert!(matches!(written, Err(ProposeError::NoLeader | ProposeError::Unknown)), "{written:?}");
    assert!(matches!(read, Err(ProposeError::NoLeader)), "{read:?}");
    // From now on nothing is even tried.
    assert!(way.contact.is_lost(&way.raft.metrics().borrow()));
    assert!(matches!(way.ask(&ask(2), deadline).await, Err(ProposeError::NoLeader)));
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_a_silent_leader_stands_without_openraft_s_timer() {
    let rig = Rig::new(3).await;
    let mut servers = Vec::new();
    for id in 1..=3 {
        servers.push(rig.start(id).await);
    }
    servers[0].group.form(rig.servers.clone()).await.expect("formed");
    assert_eq!(hold_one(&servers[0], 1).await, Ok(Outcome::Done));
    for server in &servers {
        server.group.linearize().await.expect("a quorum");
        server.group.inner.leader.raft.runtime_config().elect(false);
    }
    let lost = leader(&servers[0]).await;
    servers.remove(usize::try_from(lost - 1).expect("small")).stop().await;
    // Only one of the two is to stand, or they might take each other's votes.
    let contact = Arc::clone(&servers[1].group.inner.leader.contact);
    let hearing = tokio::spawn(async move {
        let mut turn = tokio::time::interval(Duration::from_millis(50));
        loop {
            turn.tick().await;
            contact.heard();
        }
    });
    let stands = servers[0].group.me().0;
    let waiting = servers[0].group.inner.leader.raft.wait(Some(Duration::from_secs(30)));
    waiting.metrics(|metrics| metrics.current_leader == Some(stands), "it leads").await.expect("elected");
    assert_eq!(hold_one(&servers[1], 2).await, Ok(Outcome::Done));
    hearing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lacks_a_purged_log_is_filled_by_a_snapshot() {
    let rig = Rig::new(3).await;
    let two = [rig.start(1).await, rig.start(2).await];
    two[0].group.form(rig.servers.clone()).await.expect("formed");
    for number in 1..=300 {
        assert_eq!(hold_one(&two[0], number).await, Ok(Outcome::Done));
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
    let third = rig.start(3).await;
    third.group.applied().wait_for(|applied| applied.index > 0).await.expect("filled");
    third.group.linearize().await.expect("a quorum");
    assert_eq!(third.group.state().digest(), two[0].group.state().digest());
    // It starts again from what the snapshot has left.
    third.stop().await;
    let third = rig.start(3).await;
    assert_eq!(hold_one(&third, 301).await, Ok(Outcome::Done));
    third.group.linearize().await.expect("a quorum");
    assert_eq!(third.group.state().held_count(), 301);
}
