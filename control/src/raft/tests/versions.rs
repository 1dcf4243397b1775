//! A rolling upgrade: what somebody does not know yet waits, and who meets it all the same says so and stops.

use tokio::time::{Duration, Instant};

use super::{
    cluster::{hold_one, leader},
    rig::{Rig, Running, open},
};
use crate::raft::{GroupConfig, ProposeError, Rules, gate::Refusal, leader::Answer, types::Contents};
use proto::mutation::Outcome;

fn knowing(knows: u32) -> Rules {
    Rules { knows, ..Rules::default() }
}

/// Waits until a server has applied an entry of this version.
async fn used(server: &Running, version: u32) {
    let mut applied = server.group.applied();
    applied.wait_for(|_| server.group.inner.leader.used() >= version).await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_kind_waits_until_the_last_server_is_updated() {
    let rig = Rig::new(3).await;
    let mut servers = Vec::new();
    for (id, knows) in [(1, 1), (2, 1), (3, 2)] {
        servers.push(rig.start_with(id, knowing(knows)).await);
    }
    servers[0].group.form(rig.servers.clone()).await.expect("formed");
    for id in [1, 2] {
        // What all know goes through meanwhile.
        for (server, number) in servers.iter().zip(id * 10..) {
            assert_eq!(hold_one(server, number).await, Ok(Outcome::Done));
        }
        let place = usize::try_from(leader(&servers[0]).await - 1).expect("small");
        let old = servers[place].group.inner.leader.unknown_to(2).expect("somebody does not know it");
        assert!(["control-1", "control-2"].contains(&old.as_str()), "{old}");
        assert_eq!(servers[0].group.inner.leader.used(), 1);
        let place = usize::try_from(id - 1).expect("small");
        servers.remove(place).stop().await;
        servers.insert(place, rig.start_with(id, knowing(2)).await);
    }
    for server in &servers {
        used(server, 2).await;
        assert_eq!(server.group.inner.leader.unknown_to(2), None);
    }
    assert_eq!(hold_one(&servers[1], 99).await, Ok(Outcome::Done));

    // From now on there is no way back.
    servers.remove(0).stop().await;
    let back = open(GroupConfig { rules: knowing(1), ..rig.config(1) }).await.expect_err("the state is newer");
    assert_eq!(back.downcast_ref(), Some(&Refusal::Newer { used: 2, knows: 1 }), "{back:#}");
    // Whoever is away now has said what it knows before: nobody waits for it.
    assert_eq!(servers[0].group.inner.leader.unknown_to(2), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_meets_an_entry_it_does_not_know_says_so_and_leaves_and_comes_back_updated() {
    let rig = Rig::new(3).await;
    let mut servers = Vec::new();
    for (id, knows) in [(1, 8), (2, 8), (3, 7)] {
        servers.push(rig.start_with(id, knowing(knows)).await);
    }
    servers[0].group.form(rig.servers.clone()).await.expect("formed");
    assert_eq!(hold_one(&servers[0], 1).await, Ok(Outcome::Done));
    // A leader that did not look: the third server has said that it knows version 7.
    let place = usize::try_from(leader(&servers[0]).await - 1).expect("small");
    let deadline = Instant::now() + Duration::from_secs(5);
    let answer = servers[place].group.inner.leader.write(&Contents::Knows(8), deadline).await;
    assert!(matches!(answer, Answer::Outcomes(_) | Answer::Unknown), "{answer:?}");
    let why = servers[2].group.left().await;
    assert!(why.contains("of version 8") && why.contains("update this server"), "{why}");
    let refused = hold_one(&servers[2], 2).await;
    assert!(matches!(&refused, Err(ProposeError::Stopped(why)) if why.contains("update this server")), "{refused:?}");
    servers.remove(2).stop().await;
    assert_eq!(hold_one(&servers[1], 3).await, Ok(Outcome::Done));
    let updated = rig.start_with(3, knowing(8)).await;
    assert_eq!(hold_one(&updated, 4).await, Ok(Outcome::Done));
    updated.group.linearize().await.expect("a quorum");
    assert_eq!(updated.group.state().held_count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_grows_in_bytes_is_followed_by_a_snapshot() {
    let rig = Rig::new(1).await;
    let server = rig.start_with(1, Rules { log_bytes_max: 64 * 1024, ..Rules::default() }).await;
    server.group.form(rig.servers.clone()).await.expect("formed");
    let raft = &server.group.inner.leader.raft;
    let mut number = 0;
    while raft.metrics().borrow().snapshot.is_none() {
        number += 1;
        assert_eq!(hold_one(&server, number).await, Ok(Outcome::Done));
        assert!(number < 2_000, "no snapshot was made");
    }
    // An entry is about a kilobyte: not after the first few, long before Raft would count to 50,000.
    assert!(number > 20, "{number}");
    server.stop().await;
}
