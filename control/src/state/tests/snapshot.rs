//! Snapshots of the state, whole and damaged.

use std::{
    io::{Cursor, Write},
    sync::{Arc, mpsc},
    time::Duration,
};

use proto::{
    mutation::{Batch, Change, Mutation, Outcome, Principal},
    time::UnixMs,
};
use ulid::Ulid;

use crate::state::{
    State,
    store::{INSTALLING, Position, StateStore, StoreError},
    testing::{World, attempted, deferred, delete, held_id, hold, lease, node, operator, quarantined, release},
};

struct Open {
    store: Arc<StateStore>,
    _folder: tempfile::TempDir,
}

fn with_records(count: u64) -> Open {
    let folder = tempfile::tempdir().expect("a folder");
    let store = StateStore::open(&folder.path().join("state")).expect("a store");
    for number in 1..=count {
        apply(&store, number, World::new().now, node("n1"), hold(&[quarantined(number)]));
    }
    Open { store: Arc::new(store), _folder: folder }
}

fn apply(store: &StateStore, index: u64, at: UnixMs, by: Principal, change: Change) -> Outcome {
    let id = proto::held::MutationId(Ulid(u128::from(index) + 1000));
    let batch = Batch { at, mutations: vec![Mutation { id, by, change }] };
    let (writes, mut outcomes) = State::apply(store, index, &batch);
    store.reading().commit(&writes, &Position { index, raft: vec![7], ..Position::default() }).expect("written");
    outcomes.remove(0)
}

#[test]
fn a_snapshot_replaces_all_that_was_there() {
    let (from, to) = (with_records(40), with_records(3));
    let mut bytes = Vec::new();
    let position = from.store.export(&mut bytes).expect("exported");
    assert_eq!(position.index, 40);
    to.store.set_stamp(b"mine").expect("stamped");
    let imported = to.store.import(Cursor::new(bytes)).expect("imported");
    let digest = from.store.digest();
    assert_eq!(imported, Position { index: 40, raft: vec![7], installed: true, digest });
    assert_eq!(to.store.position().expect("a position"), Some(imported));
    assert_eq!((to.store.digest(), to.store.measure().expect("readable")), (digest, digest));
    assert_eq!(
        (to.store.stamp().expect("readable"), to.store.is_torn().expect("readable")),
        (Some(b"mine".to_vec()), false)
    );
}

/// Takes the bytes of an export, and has changes applied by another thread while the first of them come.
struct Busy {
    bytes: Vec<u8>,
    store: Arc<StateStore>,
}

impl Write for Busy {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.is_empty() {
            let (store, (done, applied)) = (Arc::clone(&self.store), mpsc::sync_channel(1));
            std::thread::spawn(move || {
                let now = World::new().now;
                for number in 1..=150 {
                    apply(&store, 1000 + number, now, operator("anna"), delete(number * 2));
                    apply(&store, 2000 + number, now, node("n1"), hold(&[quarantined(1000 + number)]));
                }
                done.send(store.held_count()).expect("somebody waits");
            });
            let count = applied.recv_timeout(Duration::from_secs(60)).expect("applies do not wait for the export");
            assert_eq!(count, 300);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Exports while there are changes, of which so many bytes may stay in memory.
fn one_moment(bytes_max: usize) {
    let (from, to) = (with_records(300), with_records(3));
    let digest = from.store.digest();
    let mut busy = Busy { bytes: Vec::new(), store: Arc::clone(&from.store) };
    assert_eq!(from.store.export_within(bytes_max, &mut busy).expect("exported").index, 300);
    assert_ne!(from.store.digest(), digest);
    to.store.import(Cursor::new(busy.bytes)).expect("imported");
    assert_eq!(to.store.digest(), digest);
    // The next one has forgotten what the last one kept.
    let mut bytes = Vec::new();
    from.store.export(&mut bytes).expect("exported");
    to.store.import(Cursor::new(bytes)).expect("imported");
    assert_eq!(to.store.digest(), from.store.digest());
}

#[test]
fn an_export_shows_one_moment_and_holds_nobody_up() {
    one_moment(usize::MAX);
}

#[test]
fn what_changes_beyond_the_memory_of_an_export_is_not_forgotten() {
    one_moment(0);
}

#[test]
fn a_snapshot_that_ends_too_early_is_a_bad_snapshot_and_not_a_bad_disk() {
    let (from, to) = (with_records(5), with_records(3));
    let mut bytes = Vec::new();
    from.store.export(&mut bytes).expect("exported");
    for length in [0, 10, 16, 30, bytes.len() / 2, bytes.len() - 33, bytes.len() - 1] {
        let refused = to.store.import(Cursor::new(bytes[..length].to_vec()));
        assert!(matches!(refused, Err(StoreError::Snapshot(_))), "{length}: {refused:?}");
    }
}

#[test]
fn mail_is_due_by_log_time_too_so_that_one_clock_ahead_hides_nothing() {
    let open = with_records(2);
    let wall = World::new().now;
    let ahead = wall.plus_ms(60 * 60 * 1000);
    apply(&open.store, 10, ahead, operator("anna"), release(1));
    let due = |now| open.store.due(now, 10).into_iter().map(|held| held.id).collect::<Vec<_>>();
    assert_eq!((due(wall), open.store.log_time()), (vec![held_id(1)], ahead));
    // A lease ends by log time as well.
    apply(&open.store, 11, wall, node("n1"), lease(1));
    assert_eq!((due(wall), open.store.next_due(wall)), (Vec::new(), Some(ahead.plus_ms(60_000))));
    apply(&open.store, 12, ahead.plus_ms(60_000), node("n1"), hold(&[deferred(3)]));
    assert_eq!(due(wall), [held_id(3), held_id(1)]);
    // A node whose clock is far behind pauses all the same.
    apply(&open.store, 13, wall, node("n1"), lease(1));
    apply(&open.store, 14, wall, node("n1"), attempted(1, &[], &[], wall.plus_ms(5_000)));
    assert_eq!((due(wall), open.store.next_due(wall)), (vec![held_id(3)], Some(ahead.plus_ms(120_000))));
}

#[test]
fn a_damaged_snapshot_changes_nothing() {
    let (from, to) = (with_records(5), with_records(3));
    let before = to.store.digest();
    let mut bytes = Vec::new();
    from.store.export(&mut bytes).expect("exported");
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    bytes.truncate(bytes.len() - 1);
    for damaged in [flipped, bytes, b"something else altogether".to_vec(), Vec::new()] {
        to.store.import(Cursor::new(damaged)).expect_err("refused");
        assert_eq!((to.store.digest(), to.store.is_torn().expect("readable")), (before, false));
    }
}

#[test]
fn a_process_that_ends_while_installing_is_found_out() {
    let to = with_records(3);
    to.store.tree.insert(INSTALLING, &[1]).expect("marked");
    assert!(to.store.is_torn().expect("readable"));
    // Installing once more mends it.
    let mut bytes = Vec::new();
    with_records(5).store.export(&mut bytes).expect("exported");
    to.store.import(Cursor::new(bytes)).expect("imported");
    assert!(!to.store.is_torn().expect("readable"));
}

#[test]
fn another_server_cannot_open_the_same_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let _store = StateStore::open(folder.path()).expect("a store");
    assert!(matches!(StateStore::open(folder.path()), Err(StoreError::Disk { .. })));
}

#[test]
fn what_sled_had_not_finished_when_the_process_ended_is_no_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    drop(StateStore::open(&state).expect("a store"));
    let unfinished = state.join("snap.00000000FFFFFFFF.generating");
    std::fs::write(&unfinished, "the first bytes of").expect("written");
    let copied = folder.path().join("copied");
    // A folder of its own: within one process sled may keep its lock for a moment.
    std::fs::create_dir(&copied).expect("a folder");
    for entry in std::fs::read_dir(&state).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::copy(&path, copied.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
    assert!(!StateStore::open(&copied).expect("it opens").is_torn().expect("readable"));
    assert!(!copied.join("snap.00000000FFFFFFFF.generating").exists());
}
