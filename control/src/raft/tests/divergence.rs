//! A server whose state is not that of the others leaves, and only that one.

use proto::{codec, mutation::Outcome};

use super::{
    cluster::hold_one,
    rig::{Rig, open},
};
use crate::{
    raft::{ProposeError, Rules, gate::Refusal},
    state::store::{POSITION, Position, StateStore, StoreError},
};

/// Adds a pair to a state behind its server's back, so that the state still agrees with its own digest.
async fn tamper(folder: &std::path::Path) {
    let mut tries = tokio::time::interval(std::time::Duration::from_millis(20));
    let store = loop {
        tries.tick().await;
        match StateStore::open(&folder.join("state")) {
            Err(StoreError::Disk { problem, .. }) if problem.contains("could not acquire lock") => {}
            opened => break opened.expect("a store"),
        }
    };
    store.tree.insert(b"bnobody has written this", b"").expect("written");
    let digest = store.measure().expect("readable");
    let position = store.position().expect("readable").expect("a position");
    store.tree.insert(POSITION, codec::encode(&Position { digest, ..position })).expect("written");
    store.sync().expect("on disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_server_with_another_state_leaves() {
    let rig = Rig::new(3).await;
    let rules = Rules { compare_every: 5, ..Rules::default() };
    let mut servers = Vec::new();
    for id in 1..=3 {
        servers.push(rig.start_with(id, rules).await);
    }
    servers[0].group.form(rig.servers.clone()).await.expect("formed");
    for number in 1..=20 {
        assert_eq!(hold_one(&servers[0], number).await, Ok(Outcome::Done));
    }
    // Equal states are compared and nobody leaves.
    servers[1].group.linearize().await.expect("all run");
    servers.remove(1).stop().await;
    tamper(&rig.config(2).data_dir).await;
    let tampered = rig.start_with(2, rules).await;
    tampered.group.linearize().await.expect("its state agrees with itself");

    let mut number = 20;
    let group = tampered.group.clone();
    let left = tokio::spawn(async move { group.left().await });
    while !left.is_finished() {
        number += 1;
        assert_eq!(hold_one(&servers[0], number).await, Ok(Outcome::Done));
        assert!(number < 500, "nobody has noticed");
    }
    let why = left.await.expect("no panic");
    assert!(why.contains("not that of the others") && why.contains("cluster add"), "{why}");
    let refused = hold_one(&tampered, 999).await;
    assert!(matches!(refused, Err(ProposeError::Stopped(_))), "{refused:?}");
    tampered.stop().await;
    for server in &servers {
        assert_eq!(hold_one(server, number + server.group.me().0).await, Ok(Outcome::Done));
        server.group.linearize().await.expect("the others go on");
        assert_eq!(server.group.state().digest(), server.group.state().measure().expect("readable"));
    }
    let again = open(rig.config(2)).await.expect_err("it does not come back");
    assert!(matches!(again.downcast_ref(), Some(Refusal::Diverged(_))), "{again:#}");
}
