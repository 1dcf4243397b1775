//! Members come and go under load, leadership moves, and nothing that was acknowledged is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    held::MutationId,
    member::Member,
    mutation::{Grounds, Outcome},
};
use tokio::{task::JoinHandle, time::Instant};

use super::rig::{Rig, Running, mutation};
use crate::{
    raft::{
        Group,
        about::ask,
        leader::{Answer, Ask},
        members::{Changed, MemberAsk, MemberStep},
    },
    state::testing::{held_id, hold, node, operator, quarantined},
};

async fn formed(rig: &Rig, members: u64) -> Vec<Running> {
    let mut servers = Vec::new();
    for id in 1..=members {
        servers.push(rig.start(id).await);
    }
    let first = rig.servers.iter().filter(|(id, _)| **id <= members);
    servers[0].group.form(first.map(|(id, server)| (*id, server.clone())).collect()).await.expect("formed");
    servers[0].group.linearize().await.expect("a leader");
    servers
}

fn member(rig: &Rig, id: u64) -> Member {
    let server = rig.servers[&id].clone();
    Member { id, name: server.name, site: server.site, address: server.address }
}

async fn change(group: &Group, step: MemberStep) -> Changed {
    let grounds = Grounds { why: "a test".into(), ticket: String::new() };
    let ask = MemberAsk { step, id: MutationId::fresh(), by: operator("anna"), grounds };
    group.change_members(ask).await.expect("a quorum")
}

async fn done(group: &Group, step: MemberStep) -> Vec<String> {
    match change(group, step.clone()).await {
        Changed::Done { notes } => notes,
        Changed::Refused { why, .. } => panic!("{step:?}: {why}"),
    }
}

async fn refused(group: &Group, step: MemberStep) -> String {
    match change(group, step.clone()).await {
        Changed::Done { notes } => panic!("{step:?}: {notes:?}"),
        Changed::Refused { why, .. } => why,
    }
}

fn promote(name: &str) -> MemberStep {
    MemberStep::Promote { name: name.into() }
}

fn remove(name: &str) -> MemberStep {
    MemberStep::Remove { name: name.into(), force: false }
}

/// Promotes as soon as it has caught up.
async fn promoted(group: &Group, name: &str) {
    let mut applied = group.applied();
    loop {
        match change(group, promote(name)).await {
            Changed::Done { .. } => return,
            Changed::Refused { lag: Some(_), .. } => {
                tokio::time::timeout(Duration::from_millis(100), applied.changed()).await.ok();
            }
            Changed::Refused { why, lag: None } => panic!("{why}"),
        }
    }
}

/// Holds messages one after the other at a server until told to end.
struct Load {
    end: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: JoinHandle<u64>,
}

impl Load {
    fn start(group: Group) -> Self {
        let (end, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ending, counting) = (Arc::clone(&end), Arc::clone(&acknowledged));
        let task = tokio::spawn(async move {
            let mut number = 0;
            while !ending.load(Ordering::SeqCst) {
                number += 1;
                let outcome = group.propose(mutation(node("n1"), hold(&[quarantined(number)]))).await;
                assert_eq!(outcome, Ok(Outcome::Done), "of message {number}: nobody is told that it failed");
                counting.store(number, Ordering::SeqCst);
            }
            number
        });
        Self { end, acknowledged, task }
    }

    /// Waits until some more are acknowledged.
    async fn goes_on(&self) {
        let before = self.acknowledged.load(Ordering::SeqCst);
        let mut tries = tokio::time::interval(Duration::from_millis(5));
        while self.acknowledged.load(Ordering::SeqCst) < before + 20 {
            assert!(!self.task.is_finished(), "the load has failed");
            tries.tick().await;
        }
    }

    async fn end(self) -> u64 {
        self.end.store(true, Ordering::SeqCst);
        self.task.await.expect("no failure")
    }
}

async fn holds_all(group: &Group, acknowledged: u64) {
    group.linearize().await.expect("a quorum");
    for number in 1..=acknowledged {
        assert!(group.state().held(held_id(number)).is_some(), "{number} of {acknowledged} is missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_is_replaced_under_load_and_never_comes_back() {
    let rig = Rig::new(4).await;
    let mut servers = formed(&rig, 3).await;
    if servers[0].group.status().leader == Some(3) {
        done(&servers[0].group, MemberStep::Transfer { from: 3, to: Some("control-1".into()) }).await;
    }
    let load = Load::start(servers[0].group.clone());
    load.goes_on().await;
    let group = servers[0].group.clone();
    let why = refused(&group, remove("control-3")).await;
    assert!(why.contains("it is up") && why.contains("--force"), "{why}");
    servers.remove(2).stop().await;

    // Nothing that would cost the quorum, and nothing out of order.
    let why = refused(&group, remove("control-2")).await;
    assert!(why.contains("cost the quorum") && why.contains("control-3"), "{why}");
    let new = MemberStep::Add(member(&rig, 4));
    assert!(refused(&group, new.clone()).await.contains("does not answer"));
    assert!(refused(&group, promote("control-4")).await.contains("add it first"));

    let fourth = rig.start(4).await;
    let wrong = Member { name: "control-9".into(), ..member(&rig, 4) };
    assert!(refused(&group, MemberStep::Add(wrong)).await.contains("calls itself"));
    done(&group, new.clone()).await;
    assert!(done(&group, new).await[0].contains("already"), "repeatable");
    promoted(&group, "control-4").await;
    assert_eq!(group.status().voters.len(), 4);
    done(&group, remove("control-3")).await;
    assert!(done(&group, remove("control-3")).await[0].contains("already"), "repeatable");
    let status = group.status();
    assert_eq!(status.voters.into_iter().collect::<Vec<_>>(), [1, 2, 4]);
    assert!(status.joint.is_empty() && !status.members.contains_key(&3));
    load.goes_on().await;

    // The lost one is back, knows nothing of it, and stands for election at once: nobody listens.
    let term = group.status().term;
    let third = rig.start(3).await;
    for _ in 0..3 {
        third.group.inner.leader.raft.trigger().elect().await.expect("it runs");
        load.goes_on().await;
    }
    assert!(third.group.status().term > term, "it tried");
    assert_eq!(group.status().term, term, "nobody was disturbed");
    let why = refused(&group, MemberStep::Add(member(&rig, 3))).await;
    assert!(why.contains("was removed") && why.contains("5 is free"), "{why}");

    let acknowledged = load.end().await;
    for server in [&servers[0], &servers[1], &fourth] {
        holds_all(&server.group, acknowledged).await;
    }
    let what: Vec<String> = group.state().audit(0, 10).records.into_iter().map(|record| record.what).collect();
    let traces = ["remove control server control-3", "give control server control-4", "add control server control-4"];
    for (what, expected) in what.iter().zip(traces) {
        assert!(what.starts_with(expected), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_under_load_to_each_server_and_nobody_is_told_no() {
    let rig = Rig::new(3).await;
    let servers = formed(&rig, 3).await;
    let group = servers[2].group.clone();
    let load = Load::start(group.clone());
    for to in [1_u64, 2, 3, 1] {
        load.goes_on().await;
        let from = group.status().leader.expect("a leader");
        let notes = done(&group, MemberStep::Transfer { from, to: Some(format!("control-{to}")) }).await;
        eprintln!("{notes:?}");
        let raft = &group.inner.leader.raft;
        raft.wait(None).metrics(|metrics| metrics.current_leader == Some(to), "the new leader").await.expect("known");
        // The same once more, as after a connection that broke: it moves no further.
        done(&group, MemberStep::Transfer { from, to: None }).await;
    }
    load.goes_on().await;
    let acknowledged = load.end().await;
    for server in &servers {
        holds_all(&server.group, acknowledged).await;
    }
    let from = group.status().leader.expect("a leader");
    assert!(refused(&group, MemberStep::Transfer { from, to: Some("control-9".into()) }).await.contains("no vote"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_waits_for_writes_under_way_and_lets_nothing_in_while_it_moves() {
    let rig = Rig::new(3).await;
    let servers = formed(&rig, 3).await;
    let leads = servers[0].group.status().leader.expect("a leader");
    let group = &servers.iter().find(|server| server.group.me().0 == leads).expect("it is one of them").group;
    let leader = &group.inner.leader;
    let under_way = leader.turn.gate.read().await;
    let why = refused(group, MemberStep::Transfer { from: leads, to: None }).await;
    assert!(why.contains("writes under way do not end"), "{why}");
    drop(under_way);
    let moving = leader.turn.gate.write().await;
    let write = || mutation(node("n1"), hold(&[quarantined(1)]));
    for ask in [Ask::ReadIndex, Ask::Commit(vec![write()])] {
        let answer = leader.answer(ask, Instant::now() + Duration::from_secs(5)).await;
        assert!(matches!(answer, Answer::NotLeader), "{answer:?}");
    }
    drop(moving);
    assert_eq!(group.propose(write()).await, Ok(Outcome::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_end_hands_over_first_and_nobody_is_told_no() {
    let rig = Rig::new(3).await;
    let servers = formed(&rig, 3).await;
    let before = servers[0].group.status();
    let leads = |id| servers.iter().find(|server| server.group.me().0 == id).expect("one of them");
    let old = leads(before.leader.expect("a leader"));
    let load = Load::start(old.group.clone());
    load.goes_on().await;
    old.group.step_aside().await;
    let after = old.group.status();
    assert_ne!(after.leader, before.leader, "another one leads");
    let new = leads(after.leader.expect("a leader"));
    // Who does not lead has nothing to hand over.
    old.group.step_aside().await;
    assert_eq!(old.group.status().term, after.term);
    load.goes_on().await;
    holds_all(&new.group, load.end().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_first_and_the_last_sites_are_kept() {
    let mut rig = Rig::new(5).await;
    // All in one site but the third.
    for (id, server) in &mut rig.servers {
        server.site = if *id == 3 { "south".into() } else { "north".into() };
    }
    let servers = formed(&rig, 5).await;
    let group = servers[2].group.clone();
    let load = Load::start(group.clone());
    let leader = group.status().leader.expect("a leader");
    if leader == 3 {
        done(&group, MemberStep::Transfer { from: 3, to: Some("control-1".into()) }).await;
    }
    let leader = group.status().leader.expect("a leader");
    done(&group, remove(&format!("control-{leader}"))).await;
    load.goes_on().await;
    let status = group.status();
    assert_eq!(status.voters.len(), 4);
    assert!(!status.voters.contains(&leader) && status.leader != Some(leader));
    let why = refused(&group, remove("control-3")).await;
    assert!(why.contains("one site") && why.contains("--force"), "{why}");
    done(&group, MemberStep::Remove { name: "control-3".into(), force: true }).await;
    let left: Vec<&Running> =
        servers.iter().filter(|server| server.group.me().0 != leader && server.group.me().0 != 3).collect();
    let acknowledged = load.acknowledged.load(Ordering::SeqCst);
    holds_all(&left[0].group, acknowledged).await;
    load.task.abort();

    // What each says of itself, and why one that is down cannot be asked.
    let said = left[0].group.about_all().await;
    assert_eq!(said.len(), 3);
    assert!(said.values().all(|about| about.as_ref().is_ok_and(|about| about.voter && about.disk.is_some())));
    let gone = rig.servers[&leader].clone();
    let peers = &left[0].group.inner.leader.peers;
    let away = ask(peers, 9, &gone).await.expect_err("it is another");
    assert!(away.contains("meant for node 9"), "{away}");
}
