//! A server that ends between any two steps on its disk comes back by itself with everything that it has acknowledged.
//!
//! This program runs itself as the server; `POSTERN_FAILPOINT_ROUNDS` asks for more rounds than the one of each build.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use openraft::{
    RaftSnapshotBuilder,
    storage::{RaftLogStorage, RaftStateMachine},
    testing::{blank_ent, log_id},
};
use proto::{identity::Credentials, mutation::Outcome};

use super::{
    rig::{Rig, mutation},
    storage::{opened, snapshot_at, stamp, stores_in},
};
use crate::{
    raft::{Group, GroupConfig, Piece, Rules, types::TypeConfig},
    state::testing::{held_id, hold, node, quarantined},
};

/// Where a server that runs alone, with snapshots and purges, may end.
const SERVING: &[&str] = &[
    // Only a server that has never led votes for itself again.
    "vote.before_mark",
    "log.before_commit",
    "log.after_commit",
    "mark.before_write",
    "mark.after_write",
    "mark.after_sync",
    "state.before_batch",
    "state.after_batch",
    "state.before_flush",
    "state.before_sync",
    "state.after_sync",
    "purge.before_state",
    "purge.before_log",
    "purge.before_mark",
    "snapshot.exported",
];
/// Where one that is filled by a snapshot may end.
const INSTALLING: &[&str] = &[
    "install.synced",
    "install.named",
    "import.marked",
    "import.cleared",
    "import.loaded",
    "import.synced",
    "import.done",
    "install.finished",
];

const FOLDER: &str = "POSTERN_TEST_FAILPOINT_FOLDER";
const POINT: &str = "POSTERN_TEST_FAILPOINT";
const HIT: &str = "POSTERN_TEST_FAILPOINT_HIT";
const FIRST: &str = "POSTERN_TEST_FAILPOINT_FIRST";
const ROUNDS: &str = "POSTERN_FAILPOINT_ROUNDS";
const ACKNOWLEDGED: &str = "acknowledged ";
const UNREACHED: &str = "never got there";

#[expect(clippy::disallowed_methods, reason = "this process is either the test or the server that ends")]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    told(name).map(|text| text.parse().expect("a number"))
}

/// Where this process is to end, if it is the server: the folder; the point is armed.
fn armed() -> Option<PathBuf> {
    let folder = PathBuf::from(told(FOLDER)?);
    let left = AtomicU64::new(number(HIT).expect("a hit"));
    let end = move || {
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    };
    fail::cfg_callback(told(POINT).expect("a point"), end).expect("armed");
    Some(folder)
}

/// Runs this test as the server that ends; what it printed, and whether it got to the point.
fn end_at(test: &str, folder: &Path, (point, hit): (&str, u64), first: u64) -> (String, bool) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", &format!("raft::tests::failpoints::{test}"), "--nocapture", "--test-threads=1"])
        .envs([(FOLDER, folder.display().to_string()), (POINT, point.to_owned())])
        .envs([(HIT, hit.to_string()), (FIRST, first.to_string())])
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let reached = output.status.signal() == Some(6);
    let unreached = output.status.success() && text.contains(UNREACHED);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(reached || unreached, "{point} at {hit}: {}\n{text}\n{errors}", output.status);
    (text, reached)
}

/// Holds messages, makes snapshots and purges, until it ends.
async fn serve(config: GroupConfig, first: u64) {
    let members = BTreeMap::from([(config.id, config.server.clone())]);
    let group = Group::open(config).await.expect("the gate lets it pass");
    // Not the first time: then there is a membership already.
    drop(group.form(members).await);
    group.linearize().await.expect("it elects itself");
    let raft = &group.inner.leader.raft;
    for round in 0..6 {
        let numbers = first + round * 8..first + (round + 1) * 8;
        let proposals = numbers.clone().map(|number| {
            let group = group.clone();
            tokio::spawn(async move { group.propose(mutation(node("n1"), hold(&[quarantined(number)]))).await })
        });
        for (number, proposal) in numbers.zip(proposals.collect::<Vec<_>>()) {
            assert_eq!(proposal.await.expect("no panic"), Ok(Outcome::Done));
            println!("{ACKNOWLEDGED}{number}.");
        }
        let index = group.status().applied_index;
        raft.trigger().snapshot().await.expect("triggered");
        raft.wait(None).metrics(|m| m.snapshot.is_some_and(|id| id.index >= index), "a snapshot").await.expect("made");
        raft.trigger().purge_log(index).await.expect("triggered");
        raft.wait(None).metrics(|m| m.purged.is_some_and(|id| id.index >= index), "purged").await.expect("purged");
    }
    println!("{UNREACHED}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_at_any_step_has_what_it_acknowledged() {
    let rig = Rig::new(1).await;
    let config = rig.config(1);
    if let Some(folder) = armed() {
        let credentials = Credentials::load(&folder.join("tls")).expect("credentials");
        // Each purge is several pieces, most of them in appends.
        let rules = Rules { purge_piece: Piece { entries: 2, ..Piece::default() }, ..Rules::default() };
        let config = GroupConfig { credentials, data_dir: folder.join("data"), rules, ..config };
        return serve(config, number(FIRST).expect("a number")).await;
    }
    let home = config.data_dir.parent().expect("a folder").to_path_buf();
    let (mut acknowledged, mut run) = (Vec::new(), 0);
    for round in 0..number(ROUNDS).unwrap_or(1) {
        for (place, point) in (0..).zip(SERVING).skip(usize::from(round > 0)) {
            // The first to the fifth time that it comes there.
            let hit = 1 + (place * 3 + round * 7) % 5;
            run += 1;
            let test = "a_server_that_ends_at_any_step_has_what_it_acknowledged";
            let (text, there) = end_at(test, &home, (point, hit), run * 1_000);
            assert!(there, "a server comes to {point} {hit} times");
            // Without the full stop the line is cut off.
            let numbers = text.lines().filter_map(|line| line.rsplit_once(ACKNOWLEDGED)?.1.strip_suffix('.'));
            acknowledged.extend(numbers.map(|number| number.parse::<u64>().expect(number)));
        }
    }
    let group = Group::open(config).await.expect("the gate lets it pass");
    group.linearize().await.expect("it elects itself");
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    for number in acknowledged {
        assert!(group.state().held(held_id(number)).is_some(), "{number} is missing");
    }
    group.stop().await;
}

/// Ten entries, and a snapshot up to the twentieth being installed over them.
async fn install(folder: &Path) {
    let (mut log, mut machine) = stores_in(folder);
    if log.get_log_state().await.expect("readable").last_log_id.is_none() {
        let entries: Vec<_> = (0..10).map(|index| blank_ent::<TypeConfig>(2, 1, index)).collect();
        openraft::storage::RaftLogStorageExt::blocking_append(&mut log, entries.clone()).await.expect("appended");
        machine.apply(entries).await.expect("applied");
    }
    let (_folder, snapshot) = snapshot_at(20).await;
    log.purge(log_id(2, 1, 20)).await.expect("purged");
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.expect("installed");
    machine.build_snapshot().await.expect("built");
    println!("{UNREACHED}");
}

#[tokio::test]
async fn a_server_that_ends_while_a_snapshot_is_installed_has_the_old_state_or_the_new() {
    if let Some(folder) = armed() {
        return install(&folder).await;
    }
    for point in INSTALLING {
        let folder = tempfile::tempdir().expect("a folder");
        let test = "a_server_that_ends_while_a_snapshot_is_installed_has_the_old_state_or_the_new";
        let (_, reached) = end_at(test, folder.path(), (point, 1), 0);
        assert!(reached, "{point}");
        let files = opened(folder.path(), stamp()).expect("the gate lets it pass");
        let index = files.state.position().expect("readable").expect("a position").index;
        // What sled had not flushed yet is in the log.
        assert!(index <= 9 || index == 20, "{point}: {index}");
        // What was named is finished, so that nothing after that goes back.
        let named = *point != "install.synced";
        assert_eq!(index == 20, named, "{point}: {index}");
    }
}
