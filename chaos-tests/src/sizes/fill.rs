//! Many held records in a server's state, put there beside the group: what a snapshot costs does not depend on how they came.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, ensure};
use control::state::{
    State,
    digest::StateDigest,
    keys::{FIRST, Keys as _, LAST, Writes},
    store::StateStore,
};
use indicatif::ProgressBar;
use proto::{
    mutation::{Batch, Outcome},
    time::UnixMs,
};

use crate::commits::work::Work;

/// As a leader batches them.
const MUTATIONS_A_BATCH: u64 = 256;
/// Pairs that are stored at once.
const PAIRS_A_COMMIT: usize = 20_000;

/// Adds as many records to the state in a folder; nobody else has it open.
///
/// # Errors
/// When a record is refused, or the disk fails.
pub fn fill(folder: &Path, records: u64, progress: &ProgressBar) -> anyhow::Result<()> {
    let store = StateStore::open(folder)?;
    let position = store.position()?.context("the state belongs to a group")?;
    // The pure part over a map, and then everything to the disk in the order of the keys: a tenth of the time that it
    // takes to store each batch.
    let before: BTreeMap<Vec<u8>, Vec<u8>> = store.range(FIRST, LAST).collect();
    let mut after = before.clone();
    progress.set_length(records);
    let mut left = records;
    while left > 0 {
        let count = left.min(MUTATIONS_A_BATCH);
        let mutations = (0..count).map(|_| Work::Hold.mutation()).collect();
        let batch = Batch { at: UnixMs::now(), mutations };
        let (writes, outcomes) = State::apply(&after, position.index, &batch);
        ensure!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "a record was refused: {outcomes:?}");
        writes.store_into(&mut after);
        left -= count;
        progress.set_position(records - left);
    }
    let gone = before.into_keys().filter(|key| !after.contains_key(key)).map(|key| (key, None));
    store.commit(&Writes::from(gone.collect::<BTreeMap<_, _>>()), &position)?;
    progress.set_length(after.len() as u64);
    progress.set_position(0);
    let mut pairs = after.into_iter();
    loop {
        let chunk: BTreeMap<_, _> =
            pairs.by_ref().take(PAIRS_A_COMMIT).map(|(key, value)| (key, Some(value))).collect();
        if chunk.is_empty() {
            break;
        }
        progress.inc(chunk.len() as u64);
        store.commit(&Writes::from(chunk), &position)?;
        store.sync()?;
    }
    Ok(())
}

/// Puts a copy of one server's state in the place of another's, who stays who it was and where it was in the log.
///
/// # Errors
/// When the disk fails.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (stamp, position) = {
        let store = StateStore::open(to)?;
        (store.stamp()?.context("the state has an owner")?, store.position()?.context("the state belongs to a group")?)
    };
    std::fs::remove_dir_all(to).context("remove a state")?;
    copy_folder(from, to).context("copy a state")?;
    let store = StateStore::open(to)?;
    store.commit(&Writes::default(), &position)?;
    store.set_stamp(&stamp)?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// The digest of the state in a folder, which has to be that of its pairs.
///
/// # Errors
/// When it is not, or cannot be read.
pub fn digest(folder: &Path) -> anyhow::Result<StateDigest> {
    let store = StateStore::open(folder)?;
    let (kept, found) = (store.digest(), store.measure()?);
    ensure!(kept == found, "the state is not as it was written: {kept}, {found}");
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use control::state::{
        keys::Writes,
        store::{Position, StateStore},
    };
    use indicatif::ProgressBar;

    use super::{copy, digest, fill};

    #[test]
    fn a_filled_state_and_its_copy_have_the_records_and_the_digest() {
        let home = tempfile::tempdir().expect("a folder");
        let (one, other) = (home.path().join("one"), home.path().join("other"));
        for (folder, index) in [(&one, 7), (&other, 6)] {
            let store = StateStore::open(folder).expect("opened");
            store.commit(&Writes::default(), &Position { index, ..Position::default() }).expect("committed");
            store.set_stamp(folder.to_string_lossy().as_bytes()).expect("stamped");
        }
        fill(&one, 600, &ProgressBar::hidden()).expect("filled");
        copy(&one, &other).expect("copied");
        assert_eq!(digest(&one).expect("whole"), digest(&other).expect("whole"));
        let store = StateStore::open(&other).expect("opened");
        assert_eq!(store.held_count(), 600);
        assert_eq!(store.stamp().expect("readable"), Some(other.to_string_lossy().as_bytes().to_vec()));
        assert_eq!(store.position().expect("read").expect("a position").index, 6);
    }
}
