//! A group of one server.

use proto::mutation::{Outcome, Refused};

use super::rig::{Rig, mutation, open};
use crate::{
    raft::{ProposeError, look, stamp},
    state::testing::{department, hold, node, operator, policy, quarantined, release},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_opened_again_knows_everything_and_goes_on() {
    let rig = Rig::new(1).await;
    let server = rig.start(1).await;
    server.group.form(rig.servers.clone()).await.expect("formed");
    server.group.form(rig.servers.clone()).await.expect_err("a cluster is formed once");
    let plan = mutation(operator("anna"), policy(0, vec![department("interior", &["interior.gov.test"])]));
    assert_eq!(server.group.propose(plan).await, Ok(Outcome::PolicyApplied { version: 1 }));
    let held = mutation(node("n1"), hold(&[quarantined(1)]));
    assert_eq!(server.group.propose(held.clone()).await, Ok(Outcome::Done));
    server.group.linearize().await.expect("a quorum of one");
    assert!(server.group.in_touch());
    let applied = *server.group.applied().borrow();
    assert_eq!((applied.policy_version, applied.index), (1, server.group.status().applied_index));
    let digest = server.group.state().digest();
    server.stop().await;

    let server = rig.start(1).await;
    server.group.linearize().await.expect("it elects itself");
    assert_eq!(server.group.state().digest(), digest);
    assert_eq!(server.group.state().view().departments.len(), 1);
    assert_eq!(server.group.propose(held).await, Ok(Outcome::Done));
    let freed = mutation(operator("anna"), release(1));
    assert_eq!(server.group.propose(freed).await, Ok(Outcome::Done));
    let again = server.group.propose(mutation(operator("ben"), release(1))).await;
    assert!(matches!(again, Ok(Outcome::Refused(Refused::AlreadyReleased { .. }))), "{again:?}");
    let (group, status) = (server.group.clone(), server.group.status());
    assert_eq!((status.leader, status.members.len()), (Some(1), 1));
    server.stop().await;
    let after = group.propose(mutation(operator("ben"), release(1))).await;
    assert!(matches!(after, Err(ProposeError::Stopped(_))), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposals_share_few_entries() {
    let rig = Rig::new(1).await;
    let server = rig.start(1).await;
    server.group.form(rig.servers.clone()).await.expect("formed");
    server.group.linearize().await.expect("a leader");
    let before = server.group.status().last_log_index;
    let proposals = (1..=200).map(|number| {
        let group = server.group.clone();
        tokio::spawn(async move { group.propose(mutation(node("n1"), hold(&[quarantined(number)]))).await })
    });
    for proposal in proposals.collect::<Vec<_>>() {
        assert_eq!(proposal.await.expect("no panic"), Ok(Outcome::Done));
    }
    let entries = server.group.status().last_log_index - before;
    assert!(entries < 100, "{entries} entries for 200 mutations");
    assert_eq!(server.group.state().held_count(), 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_a_purged_log_are_enough_to_start_again() {
    let rig = Rig::new(1).await;
    let server = rig.start(1).await;
    server.group.form(rig.servers.clone()).await.expect("formed");
    for number in 1..=5 {
        server.group.propose(mutation(node("n1"), hold(&[quarantined(number)]))).await.expect("applied");
    }
    let raft = &server.group.inner.leader.raft;
    let index = server.group.status().applied_index;
    raft.trigger().snapshot().await.expect("triggered");
    raft.wait(None).metrics(|m| m.snapshot.is_some_and(|id| id.index >= index), "a snapshot").await.expect("made");
    raft.trigger().purge_log(index).await.expect("triggered");
    raft.wait(None).metrics(|m| m.purged.is_some_and(|id| id.index >= index), "purged").await.expect("purged");
    let digest = server.group.state().digest();
    server.stop().await;

    let server = rig.start(1).await;
    server.group.linearize().await.expect("it elects itself");
    assert_eq!(server.group.state().digest(), digest);
    server.group.propose(mutation(node("n1"), hold(&[quarantined(6)]))).await.expect("applied");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_does_not_begin_anew_where_its_disk_is_missing() {
    let rig = Rig::new(1).await;
    let config = rig.config(1);
    let (data, new) = (config.data_dir.clone(), stamp::new_server(&config.data_dir));
    assert!(new.exists(), "the rig makes new folders");
    open(config.clone()).await.expect("a new server").stop().await;
    assert!(!new.exists(), "it is new once");
    open(config.clone()).await.expect("it goes on").stop().await;

    // The disk is not mounted; what else a server makes there says nothing.
    std::fs::remove_dir_all(&data).expect("gone");
    std::fs::create_dir_all(data.join("bodies")).expect("a mount point");
    let began = format!("{:#}", open(config.clone()).await.expect_err("no folder of a new server"));
    assert!(
        began.contains("is mounted") && began.contains("data.new-server") && began.contains("cluster add"),
        "{began}"
    );
    let looked = format!("{:#}", look(&config).await.expect_err("no folder of a new server"));
    assert!(looked.contains("is mounted"), "{looked}");
    stamp::mark_new(&data).expect("the operator says so");
    open(config).await.expect("a new server").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_was_killed_is_begun_again_and_a_later_one_is_not() {
    let rig = Rig::new(1).await;
    let config = rig.config(1);
    let log = config.data_dir.join("log.redb");
    // The file has its length and nothing in it yet.
    std::fs::write(&log, [0; 8192]).expect("written");
    open(config.clone()).await.expect("a first start").stop().await;
    std::fs::write(&log, [0; 8192]).expect("written");
    for _ in 0..2 {
        let told = format!("{:#}", open(config.clone()).await.expect_err("its log is gone"));
        assert!(told.contains("the log cannot be read"), "{told}");
        // Nor when somebody says that the folder is new.
        stamp::mark_new(&config.data_dir).expect("written");
    }
}
