//! What a disk may do to log and state: it is as it was, or refused with a reason.

use std::path::Path;

use openraft::storage::RaftLogStorageExt;
use proto::{codec, mutation::Batch, time::UnixMs};
use redb::{Database, ReadableTable, TableDefinition};
use tempfile::TempDir;

use super::{
    rig::mutation,
    storage::{opened, stamp, stores},
};
use crate::{
    raft::{
        gate::Refusal,
        log_error::Damage,
        log_file::LogFacts,
        opening::Files,
        types::{Contents, Entry, Proposal, Vote},
    },
    state::{
        digest::StateDigest,
        keys::Keys,
        store::{REPLICATED, StateStore},
        testing::{hold, node, quarantined, tamper},
    },
};
use openraft::{
    entry::FromAppData,
    storage::{RaftLogStorage, RaftStateMachine},
    testing::log_id,
};

/// Stands in each entry and each record.
const MARKER: &[u8] = b"control-2";

/// Ten entries that hold a message each, applied, and everything closed again.
async fn written() -> TempDir {
    written_and_purged(false).await.0
}

/// The same with the digest of the state after each entry; purged, the log can give none of it back.
async fn written_and_purged(purged: bool) -> (TempDir, Vec<StateDigest>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, mut machine) = stores(&folder);
    log.save_vote(&Vote::new(2, 1)).await.expect("saved");
    let entry = |index| {
        let mutations = vec![mutation(node("n1"), hold(&[quarantined(index + 1)]))];
        let batch = Batch { at: UnixMs(1_000_000_000), mutations };
        let mut entry = Entry::from_app_data(Proposal::new(&Contents::Batch(batch)));
        entry.log_id = log_id(2, 1, index);
        entry
    };
    let entries: Vec<Entry> = (0..10).map(entry).collect();
    log.blocking_append(entries.clone()).await.expect("appended");
    let mut digests = Vec::new();
    for entry in entries {
        machine.apply([entry]).await.expect("applied");
        digests.push(machine.digest());
    }
    if purged {
        log.purge(log_id(2, 1, 9)).await.expect("purged");
    }
    (folder, digests)
}

fn refusal(folder: &Path) -> Refusal {
    let error = opened(folder, stamp()).err().expect("the gate refuses");
    error.downcast_ref::<Refusal>().unwrap_or_else(|| panic!("{error:#}")).clone()
}

fn change_log<'k, K: redb::Key + 'static>(folder: &Path, table: &str, key: K::SelfType<'k>)
where
    K::SelfType<'k>: Clone,
{
    let db = Database::open(folder.join("log.redb")).expect("a log");
    let change = db.begin_write().expect("a transaction");
    {
        let mut table = change.open_table(TableDefinition::<K, &[u8]>::new(table)).expect("a table");
        let mut value = table.get(key.clone()).expect("readable").expect("a value").value().to_vec();
        let middle = value.len() / 2;
        value[middle] ^= 4;
        table.insert(key, value.as_slice()).expect("inserted");
    }
    change.commit().expect("written");
}

#[tokio::test]
async fn what_redb_takes_for_right_is_checked_by_our_own_sum() {
    let folder = written().await;
    change_log::<u64>(folder.path(), "log", 5);
    assert_eq!(refusal(folder.path()), Refusal::LogDamaged(Damage::Entry(5)));
    for name in ["vote", "stamp"] {
        let folder = written().await;
        change_log::<&str>(folder.path(), "facts", name);
        assert_eq!(refusal(folder.path()), Refusal::LogDamaged(Damage::Fact(name)));
    }
}

#[tokio::test]
async fn a_pair_that_sled_lost_changed_or_made_up_is_found_at_the_start() {
    type Harm = fn(&StateStore, &[u8]);
    let table: [Harm; 3] = [
        |store, key| tamper(store, key, None),
        |store, key| tamper(store, key, Some(b"something else")),
        |store, key| tamper(store, &[key, b"x"].concat(), Some(b"")),
    ];
    for harm in table {
        let folder = written().await;
        let store = StateStore::open(&folder.path().join("state")).expect("a store");
        let (key, _) = store.range(REPLICATED.start, REPLICATED.end).nth(20).expect("a pair");
        harm(&store, &key);
        drop(store);
        let found = refusal(folder.path());
        assert!(matches!(found, Refusal::StateDamaged { kept, found } if kept != found), "{found}");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// What is done to the bytes of a file.
type Harm = dyn Fn(&mut Vec<u8>);

/// Each harm to a copy of the folder leaves it as it was or has it refused; how many were refused.
async fn refused(file: &str, harms: &[&Harm]) -> usize {
    let ((whole, digests), mut refused) = (written_and_purged(file.starts_with("state")).await, 0);
    let facts = |files: &Files| files.log.facts().expect("readable");
    let expected: LogFacts = {
        let copied = tempfile::tempdir().expect("a folder");
        copy(whole.path(), copied.path());
        facts(&opened(copied.path(), stamp()).expect("the gate lets it pass"))
    };
    for harm in harms {
        let harmed = tempfile::tempdir().expect("a folder");
        copy(whole.path(), harmed.path());
        let mut bytes = std::fs::read(harmed.path().join(file)).expect("a file");
        harm(&mut bytes);
        std::fs::write(harmed.path().join(file), bytes).expect("written");
        match opened(harmed.path(), stamp()) {
            Ok(files) => {
                assert_eq!(facts(&files), expected);
                // What sled has lost at its end is applied again from the log.
                if let Some(position) = files.state.position().expect("readable") {
                    assert_eq!(position.digest, digests[usize::try_from(position.index).expect("small")]);
                }
            }
            Err(error) => {
                assert!(error.downcast_ref::<Refusal>().is_some(), "no way out is named: {error:#}");
                refused += 1;
            }
        }
    }
    refused
}

/// Where the marker stands, at most some of these places.
fn places(bytes: &[u8]) -> Vec<usize> {
    let all: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(MARKER)).collect();
    all.iter().step_by((all.len() / 12).max(1)).copied().collect()
}

#[tokio::test]
async fn a_bit_that_flips_or_an_end_that_is_missing_is_never_taken_for_what_was_written() {
    for file in ["log.redb", "state/db"] {
        let bytes = std::fs::read(written().await.path().join(file)).expect("a file");
        assert!(!places(&bytes).is_empty(), "{file} holds the marker");
        let flip = |number: usize| {
            move |bytes: &mut Vec<u8>| {
                let places = places(bytes);
                bytes[places[number % places.len()]] ^= 1;
            }
        };
        let cut = |parts: usize| move |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 4 * parts);
        let flips: Vec<_> = (0..8).map(flip).collect();
        let cuts: Vec<_> = (0..4).map(cut).collect();
        let mut harms: Vec<&Harm> = Vec::new();
        harms.extend(flips.iter().map(|harm| harm as &Harm));
        harms.extend(cuts.iter().map(|harm| harm as &Harm));
        let refused = refused(file, &harms).await;
        assert!(refused >= 4, "{file}: {refused} of {} were refused", harms.len());
    }
}

#[tokio::test]
async fn what_a_later_version_has_stored_in_the_position_is_skipped() {
    #[derive(serde::Serialize)]
    struct Later {
        index: u64,
        raft: Vec<u8>,
        installed: bool,
        digest: StateDigest,
        more: String,
    }
    let later = Later { index: 7, raft: vec![1], installed: true, digest: StateDigest::default(), more: "more".into() };
    let read: crate::state::store::Position = codec::decode("a position", &codec::encode(&later)).expect("readable");
    assert_eq!((read.index, read.installed), (7, true));
}
