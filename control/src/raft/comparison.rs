//! Digests of the state at the same log index, compared: a server whose state is not that of the majority of the voters
//! writes that down where the start-up gate finds it, and leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::stamp::sync_folder;
use crate::state::{digest::StateDigest, store::StoreError, store::disk};

/// Name of the file in the data folder that says that this server has left.
const FILE: &str = "diverged";
/// Indices whose digests are remembered.
const REMEMBERED: usize = 8;

/// What comparing has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// This server's state is that of the majority, or nobody knows its digest at that index any more.
    Same,
    /// A majority agrees, and this server is not part of it.
    Differs { mine: StateDigest, majority: StateDigest },
    /// No digest has a majority of the voters.
    NoMajority,
}

/// Compares `mine` with the digest that more than half of all voters have; who did not answer counts as one that differs.
pub(super) fn compare(
    mine: Option<StateDigest>,
    found: &BTreeMap<u64, StateDigest>,
    voters: &BTreeSet<u64>,
) -> Finding {
    let mut counts: BTreeMap<StateDigest, usize> = BTreeMap::new();
    for digest in found.iter().filter(|(id, _)| voters.contains(id)).map(|(_, digest)| digest) {
        *counts.entry(*digest).or_default() += 1;
    }
    let Some((majority, _)) = counts.into_iter().find(|(_, count)| count * 2 > voters.len()) else {
        return Finding::NoMajority;
    };
    match mine {
        Some(mine) if mine != majority => Finding::Differs { mine, majority },
        Some(_) | None => Finding::Same,
    }
}

/// This server's digests at the indices that are compared, and where it writes down that it has left.
#[derive(Debug)]
pub struct Comparison {
    me: u64,
    every: u64,
    folder: PathBuf,
    /// Of the last few multiples of `every`.
    digests: Mutex<BTreeMap<u64, StateDigest>>,
    /// The last index at which no digest had a majority, unless one has had it since.
    undecided: Mutex<Option<u64>>,
}

impl Comparison {
    /// For server `me` with its data folder; `every` so many entries, at least two, because a comparison is an entry itself.
    #[must_use]
    pub fn new(me: u64, folder: &Path, every: u64) -> Self {
        Self {
            me,
            every: every.max(2),
            folder: folder.to_path_buf(),
            digests: Mutex::default(),
            undecided: Mutex::default(),
        }
    }

    /// The last index up to `applied` that is compared; none before the first.
    pub(super) fn due(&self, applied: u64) -> Option<u64> {
        Some(applied / self.every * self.every).filter(|index| *index > 0)
    }

    /// The state has this digest after the entry at `index`.
    pub(super) fn remember(&self, index: u64, digest: StateDigest) {
        if !index.is_multiple_of(self.every) {
            return;
        }
        let mut digests = self.digests();
        digests.insert(index, digest);
        while digests.len() > REMEMBERED {
            digests.pop_first();
        }
    }

    /// This server's digest at an index; `None` when it has not come so far, or is much further, or has started since.
    pub(super) fn at(&self, index: u64) -> Option<StateDigest> {
        self.digests().get(&index).copied()
    }

    /// Judges what the voters had at an index. `Some` tells why this server must leave; that is on disk then.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn judge(
        &self,
        at: u64,
        found: &BTreeMap<u64, StateDigest>,
        voters: &BTreeSet<u64>,
    ) -> Result<Option<String>, StoreError> {
        let mine = self.at(at).or_else(|| found.get(&self.me).copied());
        let finding = compare(mine, found, voters);
        *self.undecided.lock().unwrap_or_else(PoisonError::into_inner) = (finding == Finding::NoMajority).then_some(at);
        match finding {
            Finding::Same => Ok(None),
            Finding::Differs { mine, majority } => {
                let why = format!("at log index {at} its digest was {mine}, and that of the majority {majority}");
                write(&self.folder, &why).map_err(disk("write down that this server has diverged"))?;
                Ok(Some(why))
            }
            Finding::NoMajority => {
                tracing::error!(
                    at,
                    ?found,
                    "the control servers do not have the same state, and no state has a majority; nobody leaves. Make no \
                     changes, compare the servers' disks and logs, and restore the cluster from a backup if policy or \
                     held mail is wrong"
                );
                Ok(None)
            }
        }
    }

    /// The index at which the servers' states differed and none had a majority, as far as the last comparison goes.
    pub(super) fn undecided(&self) -> Option<u64> {
        *self.undecided.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digests(&self) -> MutexGuard<'_, BTreeMap<u64, StateDigest>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the mark durably, whole or not at all.
fn write(folder: &Path, why: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(why.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(folder.join(FILE))?;
    sync_folder(folder)
}

/// Why this server has left, if it has.
///
/// # Errors
/// When the mark is there and cannot be read.
pub(super) fn left(folder: &Path) -> io::Result<Option<String>> {
    match std::fs::read(folder.join(FILE)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Comparison, Finding, StateDigest, compare, left};

    fn digest(value: u8) -> StateDigest {
        let mut digest = StateDigest::default();
        digest.add(b"key", &[value]);
        digest
    }

    #[test]
    fn only_a_majority_of_all_voters_can_send_a_server_away() {
        let voters: BTreeSet<u64> = (1..=5).collect();
        let (a, b) = (digest(1), digest(2));
        let differs = Finding::Differs { mine: b, majority: a };
        // What each server has, what this one has, the finding.
        type Found = &'static [(u64, u8)];
        let table: [(Found, Option<StateDigest>, Finding); 8] = [
            (&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], Some(a), Finding::Same),
            (&[(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)], Some(b), differs.clone()),
            (&[(1, 1), (2, 1), (3, 1)], Some(b), differs),
            (&[(1, 1), (2, 1), (3, 1)], None, Finding::Same),
            // Two of two is no majority of five.
            (&[(1, 1), (2, 1)], Some(b), Finding::NoMajority),
            (&[(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)], Some(b), Finding::NoMajority),
            // Learners have no voice.
            (&[(1, 1), (2, 1), (6, 1), (7, 1)], Some(b), Finding::NoMajority),
            (&[], Some(a), Finding::NoMajority),
        ];
        for (found, mine, expected) in table {
            let found = found.iter().map(|(id, value)| (*id, digest(*value))).collect();
            assert_eq!(compare(mine, &found, &voters), expected, "{found:?}");
        }
    }

    #[test]
    fn who_differs_writes_it_down_and_what_it_has_at_an_index_is_remembered_for_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let comparison = Comparison::new(3, folder.path(), 10);
        for index in 1..=200 {
            comparison.remember(index, digest(1));
        }
        assert_eq!((comparison.due(9), comparison.due(25)), (None, Some(20)));
        assert_eq!((comparison.at(120), comparison.at(130), comparison.at(135)), (None, Some(digest(1)), None));
        let voters = BTreeSet::from([1, 2, 3]);
        let found = |value| (1..=2).map(|id| (id, digest(value))).collect();
        assert_eq!(comparison.judge(130, &found(1), &voters).expect("written"), None);
        assert_eq!(left(folder.path()).expect("readable"), None);
        let why = comparison.judge(130, &found(2), &voters).expect("written").expect("it differs");
        assert_eq!(left(folder.path()).expect("readable"), Some(why));
    }

    #[test]
    fn states_that_differ_without_a_majority_are_told_until_a_comparison_goes_well() {
        let folder = tempfile::tempdir().expect("a folder");
        let comparison = Comparison::new(1, folder.path(), 10);
        let voters = BTreeSet::from([1, 2, 3]);
        let judge = |at, values: [u8; 2]| {
            let found = [1, 2].into_iter().zip(values.map(digest)).collect();
            assert_eq!(comparison.judge(at, &found, &voters).expect("judged"), None, "nobody leaves");
            comparison.undecided()
        };
        assert_eq!(comparison.undecided(), None);
        assert_eq!(judge(10, [1, 2]), Some(10));
        assert_eq!(judge(20, [3, 3]), None);
    }
}
