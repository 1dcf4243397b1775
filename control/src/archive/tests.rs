//! Archives against damage: no bit may change unnoticed.

use std::path::Path;

use proto::{
    archive::unpack,
    held::MutationId,
    mutation::{Batch, Mutation, Outcome},
    time::UnixMs,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{ArchiveError, Manifest, read::Archive, write::Writer};
use crate::state::{
    State,
    archive::is_restored,
    keys::{Keys as _, Writes},
    store::{Position, REPLICATED, StateStore},
    testing::{hold, node, quarantined},
};

const BODY: &[u8] = b"Subject: hello\r\n\r\nhello";

fn digest() -> String {
    hex::encode(Sha256::digest(BODY))
}

/// A state with one held message.
fn state(folder: &Path) -> StateStore {
    let store = StateStore::open(&folder.join("state")).expect("a store");
    let mut held = quarantined(1);
    (held.body.digest, held.body.size_bytes) = (digest(), BODY.len() as u64);
    let mutation = Mutation { id: MutationId(ulid::Ulid(1)), by: node("mx1"), change: hold(&[held]) };
    let batch = Batch { at: UnixMs(2_000_000_000), mutations: vec![mutation] };
    let (writes, outcomes): (Writes, Vec<Outcome>) = State::apply(&store, 1, &batch);
    assert_eq!(outcomes, [Outcome::Done]);
    store.commit(&writes, &Position { index: 1, ..Position::default() }).expect("stored");
    store
}

fn archive(folder: &Path, store: &StateStore, with_body: bool, missing: Vec<String>) -> Result<String, ArchiveError> {
    let mut state = Vec::new();
    store.export(&mut state).expect("exported");
    let mut writer = Writer::create(&folder.join("archive.tar"))?;
    writer.state(state.len() as u64)?;
    writer.bytes(&state)?;
    let state_sha256 = writer.end()?;
    if with_body {
        writer.body(&digest(), BODY.len() as u64)?;
        writer.bytes(BODY)?;
        assert_eq!(writer.end()?, digest());
    }
    let (bodies, body_bytes) = if with_body { (1, BODY.len() as u64) } else { (0, 0) };
    let (at_ms, held, state_bytes) = (store.log_time().0, store.held_count(), state.len() as u64);
    writer.finish(&Manifest {
        at_ms,
        held,
        state_bytes,
        state_sha256,
        bodies,
        body_bytes,
        missing,
        ..Manifest::default()
    })
}

fn made() -> (TempDir, StateStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = state(folder.path());
    archive(folder.path(), &store, true, Vec::new()).expect("an archive");
    (folder, store)
}

fn open(folder: &Path) -> Result<Archive, ArchiveError> {
    Archive::open(&folder.join("archive.tar"), |_| ())
}

#[test]
fn what_was_written_is_read_and_only_its_owner_may() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, store) = made();
    let archive = open(folder.path()).expect("whole");
    assert_eq!(archive.bodies().collect::<Vec<_>>(), [digest()]);
    assert_eq!(archive.body(0).expect("a body"), BODY);
    let mut pairs = Vec::new();
    let each = |piece: Vec<u8>| -> Result<(), ArchiveError> {
        pairs.extend(unpack(&piece).expect("pairs").iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        Ok(())
    };
    archive.pieces(each).expect("pieces");
    let expected: Vec<_> = store.range(REPLICATED.start, REPLICATED.end).filter(|(key, _)| is_restored(key)).collect();
    assert_eq!(pairs, expected);
    let mode = std::fs::metadata(folder.path().join("archive.tar")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Writer::create(&folder.path().join("archive.tar"));
    assert!(again.is_err(), "no archive is written over");
}

#[test]
fn no_bit_can_change_and_no_byte_can_be_missing() {
    let (folder, _store) = made();
    let path = folder.path().join("archive.tar");
    let whole = std::fs::read(&path).expect("a file");
    // Each byte, with a bit that moves.
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).expect("written");
        assert!(open(folder.path()).is_err(), "a bit of byte {at} of {} has changed", whole.len());
    }
    for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        std::fs::write(&path, &whole[..length]).expect("written");
        assert!(open(folder.path()).is_err(), "cut to {length}");
    }
    std::fs::write(&path, [whole.as_slice(), &[0; 512]].concat()).expect("written");
    assert!(open(folder.path()).is_err(), "longer");
    std::fs::write(&path, &whole).expect("written");
    open(folder.path()).expect("whole again");
}

#[test]
fn a_body_that_a_held_message_needs_is_there_or_named_as_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = state(folder.path());
    archive(folder.path(), &store, false, Vec::new()).expect("an archive");
    let error = open(folder.path()).expect_err("refused").to_string();
    assert!(error.contains("a held message needs it"), "{error}");
    std::fs::remove_file(folder.path().join("archive.tar")).expect("removed");
    archive(folder.path(), &store, false, vec![digest()]).expect("an archive");
    assert_eq!(open(folder.path()).expect("whole").manifest.missing, [digest()]);
}

#[test]
fn another_file_and_a_later_version_are_told() {
    let (folder, _store) = made();
    let path = folder.path().join("archive.tar");
    let mut bytes = std::fs::read(&path).expect("a file");
    bytes[512] = b'2';
    std::fs::write(&path, &bytes).expect("written");
    assert!(matches!(open(folder.path()), Err(ArchiveError::Version)));
    std::fs::write(&path, b"hello").expect("written");
    assert!(matches!(open(folder.path()), Err(ArchiveError::Foreign)));
}
