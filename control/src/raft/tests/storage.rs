//! openraft's own suite over our log and state machine, and what it does not know: files that are opened again.

use std::{path::Path, sync::Arc};

use openraft::{
    RaftLogReader, RaftSnapshotBuilder, Snapshot, StorageError,
    entry::FromAppData,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
    testing::{StoreBuilder, Suite, blank_ent, log_id},
};
use proto::mutation::Batch;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::rig::mutation;
use crate::raft::{
    comparison::Comparison,
    gate::Refusal,
    high_water::HighWaterFile,
    log_file::{LogFacts, Piece},
    log_store::LogStore,
    opening::Files,
    stamp::Stamp,
    state_machine::{Checks, StateMachine},
    types::{Contents, Entry, PROPOSAL_VERSION, Proposal, TypeConfig, Vote},
    watched::Step,
};
use crate::state::testing::{department, operator, policy};

pub(super) fn stamp() -> Stamp {
    Stamp::new("c1", 1)
}

/// Opens a folder as a server does.
pub(super) fn opened(folder: &Path, stamp: Stamp) -> anyhow::Result<Files> {
    Files::open(folder, stamp, PROPOSAL_VERSION, &Step::default())
}

pub(super) fn stores(folder: &TempDir) -> (LogStore, StateMachine) {
    stores_in(folder.path())
}

pub(super) fn stores_in(folder: &Path) -> (LogStore, StateMachine) {
    let files = opened(folder, stamp()).expect("a folder that the gate lets pass");
    let (open, _) = mpsc::channel(1);
    let checks = Checks { knows: PROPOSAL_VERSION, comparison: Arc::new(Comparison::new(1, folder, 1_000)) };
    let machine = StateMachine::new(Arc::clone(&files.state), files.snapshots, checks, open.clone());
    let log = LogStore::new((files.log, files.mark, Piece::default()), (files.state, machine.applied()), open);
    (log.expect("a log that can be read"), machine)
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<u64>> {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, machine) = stores(&folder);
        Ok((folder, log, machine))
    }
}

#[test]
fn openrafts_suite_passes() {
    Suite::test_all(Builder).expect("the suite passes");
}

/// A log with a vote and entries up to index 9, of which 3 are purged, and everything closed again.
async fn written() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, mut machine) = stores(&folder);
    log.save_vote(&Vote::new(2, 1)).await.expect("saved");
    let entries: Vec<Entry> = (0..10).map(|index| blank_ent::<TypeConfig>(2, 1, index)).collect();
    log.blocking_append(entries.clone()).await.expect("appended");
    machine.apply(entries).await.expect("applied");
    log.purge(log_id(2, 1, 2)).await.expect("purged");
    folder
}

#[tokio::test]
async fn log_vote_and_mark_are_there_after_opening_again() {
    let folder = written().await;
    let files = opened(folder.path(), stamp()).expect("the gate lets it pass");
    let facts = files.log.facts().expect("readable");
    assert_eq!((facts.vote, facts.last), (Some(Vote::new(2, 1)), Some(log_id(2, 1, 9))));
    assert_eq!((facts.purged, facts.hole, facts.stamp), (Some(log_id(2, 1, 2)), None, Some(stamp())));
}

/// A snapshot of a state that has applied empty entries up to this index.
pub(super) async fn snapshot_at(index: u64) -> (TempDir, Snapshot<TypeConfig>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, mut machine) = stores(&folder);
    let entries: Vec<Entry> = (0..=index).map(|index| blank_ent::<TypeConfig>(2, 1, index)).collect();
    machine.apply(entries).await.expect("applied");
    (folder, machine.build_snapshot().await.expect("built"))
}

#[tokio::test]
async fn a_server_that_is_killed_between_purge_and_installation_starts_again_with_what_it_had() {
    let folder = written().await;
    {
        let (mut log, _) = stores(&folder);
        // Raft purges while the state machine is still busy with the snapshot.
        log.purge(log_id(2, 1, 20)).await.expect("purged");
        let seen = log.get_log_state().await.expect("readable");
        assert_eq!((seen.last_purged_log_id, seen.last_log_id), (Some(log_id(2, 1, 20)), Some(log_id(2, 1, 20))));
        assert!(log.try_get_log_entries(0..30).await.expect("readable").is_empty());
    }
    let files = opened(folder.path(), stamp()).expect("the gate lets it pass");
    let facts = files.log.facts().expect("readable");
    assert_eq!((facts.purged, facts.last), (Some(log_id(2, 1, 2)), Some(log_id(2, 1, 9))));
}

#[tokio::test]
async fn entries_behind_a_snapshot_wait_until_it_is_installed_and_leave_no_hole() {
    let folder = written().await;
    {
        let (mut log, mut machine) = stores(&folder);
        let mut writing = log.clone();
        let (_from, snapshot) = snapshot_at(20).await;
        log.purge(log_id(2, 1, 20)).await.expect("purged");
        let append = writing.blocking_append([blank_ent::<TypeConfig>(2, 1, 21)]);
        let install = async {
            assert!(log.try_get_log_entries(0..30).await.expect("readable").is_empty());
            machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.expect("installed");
        };
        let (appended, ()) = tokio::join!(append, install);
        appended.expect("appended");
    }
    let files = opened(folder.path(), stamp()).expect("the gate lets it pass");
    let facts = files.log.facts().expect("readable");
    assert_eq!((facts.purged, facts.last, facts.hole), (Some(log_id(2, 1, 20)), Some(log_id(2, 1, 21)), None));
}

/// What a folder's log says when it is opened again.
fn facts_of(folder: &TempDir) -> LogFacts {
    opened(folder.path(), stamp()).expect("the gate lets it pass").log.facts().expect("readable")
}

fn blank(index: u64) -> Entry {
    blank_ent::<TypeConfig>(2, 1, index)
}

#[tokio::test]
async fn a_long_purge_goes_on_with_each_append_and_survives_the_end_of_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let upto = log_id(2, 1, 1_499);
    {
        let (mut log, mut machine) = stores(&folder);
        log.blocking_append((0..2_000).map(blank)).await.expect("appended");
        machine.apply((0..2_000).map(blank)).await.expect("applied");
        log.purge(upto).await.expect("begun");
        // Raft sees it done.
        assert_eq!(log.get_log_state().await.expect("readable").last_purged_log_id, Some(upto));
        assert_eq!(log.try_get_log_entries(0..2_000).await.expect("readable").len(), 500);
    }
    let facts = facts_of(&folder);
    assert_eq!((facts.purged, facts.last, facts.hole), (Some(log_id(2, 1, 499)), Some(log_id(2, 1, 1_999)), None));
    {
        let (mut log, _) = stores(&folder);
        let seen = log.get_log_state().await.expect("readable");
        assert_eq!(seen.last_purged_log_id, Some(upto), "what has begun goes on");
        log.blocking_append([blank(2_000)]).await.expect("appended");
        log.blocking_append([blank(2_001)]).await.expect("appended");
    }
    let facts = facts_of(&folder);
    assert_eq!((facts.purged, facts.last, facts.hole), (Some(upto), Some(log_id(2, 1, 2_001)), None));
}

#[tokio::test]
async fn a_long_log_that_a_snapshot_replaces_leaves_no_hole() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let (mut log, mut machine) = stores(&folder);
        log.blocking_append((0..1_200).map(blank)).await.expect("appended");
        let (_from, snapshot) = snapshot_at(2_000).await;
        machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.expect("installed");
        log.purge(log_id(2, 1, 2_000)).await.expect("begun");
        log.blocking_append([blank(2_001)]).await.expect("appended");
    }
    let facts = facts_of(&folder);
    assert_eq!((facts.purged, facts.last, facts.hole), (Some(log_id(2, 1, 2_000)), Some(log_id(2, 1, 2_001)), None));
}

#[tokio::test]
async fn a_read_for_replication_is_small_enough_for_a_slow_line_and_never_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, _) = stores(&folder);
    let entry = |(index, bytes): (u64, usize)| {
        let mut large = department("interior", &["interior.gov.test"]);
        large.name = "x".repeat(bytes);
        let mutations = vec![mutation(operator("anna"), policy(0, vec![large]))];
        let batch = Batch { at: proto::time::UnixMs(1), mutations };
        let mut entry = Entry::from_app_data(Proposal::new(&Contents::Batch(batch)));
        entry.log_id = log_id(1, 1, index);
        entry
    };
    let sizes = (0..).zip([100_000, 100_000, 100_000, 1_000_000, 100_000]);
    log.blocking_append(sizes.map(entry).collect::<Vec<_>>()).await.expect("appended");
    let mut read = Vec::new();
    for start in 0..5 {
        read.push(log.limited_get_log_entries(start, 5).await.expect("readable").len());
    }
    assert_eq!(read, [2, 2, 1, 1, 1]);
}

#[tokio::test]
async fn a_truncated_log_is_let_pass_and_grows_again() {
    let folder = written().await;
    {
        let (mut log, _) = stores(&folder);
        log.truncate(log_id(2, 1, 10)).await.expect("nothing to truncate");
        log.blocking_append([blank_ent::<TypeConfig>(2, 1, 10)]).await.expect("appended");
        log.truncate(log_id(2, 1, 10)).await.expect("truncated");
    }
    let files = opened(folder.path(), stamp()).expect("the gate lets it pass");
    assert_eq!(files.log.facts().expect("readable").last, Some(log_id(2, 1, 9)));
}

#[tokio::test]
async fn what_was_lost_from_the_folder_keeps_the_server_out() {
    type Loss = fn(&TempDir);
    let table: [(Loss, Refusal); 4] = [
        (|folder| std::fs::remove_file(folder.path().join("log.redb")).expect("removed"), Refusal::LogNotOurs),
        (|folder| std::fs::remove_dir_all(folder.path().join("state")).expect("removed"), Refusal::StateNotOurs),
        (|folder| std::fs::remove_file(folder.path().join("high-water")).expect("removed"), Refusal::MarkNotOurs),
        (|folder| std::fs::remove_file(folder.path().join("identity.json")).expect("removed"), Refusal::IdentityLost),
    ];
    for (lose, expected) in table {
        let folder = written().await;
        lose(&folder);
        let error = opened(folder.path(), stamp()).err().expect("the gate refuses");
        assert_eq!(error.downcast_ref::<Refusal>(), Some(&expected));
    }
}

#[tokio::test]
async fn a_transaction_that_redb_lost_is_missed() {
    let folder = written().await;
    {
        let (_, file) = HighWaterFile::open(folder.path()).expect("readable");
        file.expect("a file").advance(|mark| mark.last = Some(log_id(2, 1, 10))).expect("written");
    }
    let error = opened(folder.path(), stamp()).err().expect("the gate refuses");
    assert_eq!(error.downcast_ref::<Refusal>(), Some(&Refusal::LogBehind));
}

#[tokio::test]
async fn another_nodes_folder_is_refused() {
    let folder = written().await;
    let error = opened(folder.path(), Stamp::new("c1", 2)).err().expect("the gate refuses");
    assert!(matches!(error.downcast_ref(), Some(Refusal::OtherIdentity { .. })), "{error:#}");
}

#[tokio::test]
async fn an_entry_of_a_later_version_is_not_applied() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, mut machine) = stores(&folder);
    let mut entry = Entry::from_app_data(Proposal::unknown(PROPOSAL_VERSION + 1));
    entry.log_id = log_id(1, 1, 0);
    let told = machine.apply([entry]).await.expect_err("refused").to_string();
    assert!(
        told.contains("entry at 0")
            && told.contains(&format!("version {}", PROPOSAL_VERSION + 1))
            && told.contains("update this server"),
        "{told}"
    );
}
