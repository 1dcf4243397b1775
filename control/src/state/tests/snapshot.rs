//! Snapshots of the state, whole and damaged.

use std::io::Cursor;

use proto::mutation::{Batch, Mutation};
use ulid::Ulid;

use crate::state::{
    State,
    store::{INSTALLING, Position, StateStore, StoreError},
    testing::{World, hold, node, quarantined},
};

struct Open {
    store: StateStore,
    _folder: tempfile::TempDir,
}

fn with_records(count: u64) -> Open {
    let folder = tempfile::tempdir().expect("a folder");
    let store = StateStore::open(&folder.path().join("state")).expect("a store");
    for number in 1..=count {
        let id = proto::held::MutationId(Ulid(u128::from(number) + 1000));
        let mutation = Mutation { id, by: node("n1"), change: hold(&[quarantined(number)]) };
        let batch = Batch { at: World::new().now, mutations: vec![mutation] };
        let (writes, _) = State::apply(&store, number, &batch);
        store.commit(&writes, &Position { index: number, raft: vec![7], installed: false }).expect("written");
    }
    Open { store, _folder: folder }
}

#[test]
fn a_snapshot_replaces_all_that_was_there() {
    let (from, to) = (with_records(40), with_records(3));
    let mut bytes = Vec::new();
    let position = from.store.export(&mut bytes).expect("exported");
    assert_eq!(position.index, 40);
    to.store.set_stamp(b"mine").expect("stamped");
    let imported = to.store.import(Cursor::new(bytes)).expect("imported");
    assert_eq!(imported, Position { index: 40, raft: vec![7], installed: true });
    assert_eq!(to.store.position().expect("a position"), Some(imported));
    assert_eq!(to.store.digest(), from.store.digest());
    assert_eq!((to.store.stamp(), to.store.is_torn()), (Some(b"mine".to_vec()), false));
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
        assert_eq!((to.store.digest(), to.store.is_torn()), (before.clone(), false));
    }
}

#[test]
fn a_process_that_ends_while_installing_is_found_out() {
    let to = with_records(3);
    to.store.tree.insert(INSTALLING, &[1]).expect("marked");
    assert!(to.store.is_torn());
    // Installing once more mends it.
    let mut bytes = Vec::new();
    with_records(5).store.export(&mut bytes).expect("exported");
    to.store.import(Cursor::new(bytes)).expect("imported");
    assert!(!to.store.is_torn());
}

#[test]
fn another_server_cannot_open_the_same_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let _store = StateStore::open(folder.path()).expect("a store");
    assert!(matches!(StateStore::open(folder.path()), Err(StoreError::Disk { .. })));
}
