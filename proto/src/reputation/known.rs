//! What a node knows of senders: a million subjects in some 25 MB, read by many and replaced in small pieces.
//!
//! Sorted arrays behind `Arc`s, told apart by the head of the key. A change copies the arrays that it touches and shares
//! the others with the views before it, so that a transaction keeps the view that it began with at little cost.

use std::{cmp::Ordering, collections::HashMap, fmt, sync::Arc};

use super::{Levels, Manual, Repute, SubjectKey};
use crate::time::UnixMs;

/// Number of arrays: some 250 subjects in each when there are a million.
const SHARDS: usize = 4096;

type Entry = (SubjectKey, Levels);
type Shard = Arc<Box<[Entry]>>;

/// Reputation as a node holds it. Cheap to clone.
#[derive(Clone)]
pub struct Known {
    shards: Arc<[Shard]>,
    subjects: usize,
    manual: Arc<HashMap<SubjectKey, Manual>>,
}

impl Default for Known {
    fn default() -> Self {
        let empty: Shard = Arc::default();
        let shards = std::iter::repeat_n(empty, SHARDS).collect();
        Self { shards, subjects: 0, manual: Arc::default() }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subjects, manual) = (self.subjects, self.manual.len());
        f.debug_struct("Known").field("subjects", &subjects).field("manual", &manual).finish_non_exhaustive()
    }
}

/// The same subjects with the same levels and the same manual entries.
impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.shards == other.shards && self.manual == other.manual
    }
}

fn shard_of(key: SubjectKey) -> usize {
    usize::from(u16::from_be_bytes([key.0[0], key.0[1]])) * SHARDS / (usize::from(u16::MAX) + 1)
}

impl Known {
    /// Subjects that are counted.
    #[must_use]
    pub fn subjects(&self) -> usize {
        self.subjects
    }

    /// What is known of a subject now.
    #[must_use]
    pub fn repute(&self, key: SubjectKey, now: UnixMs) -> Repute {
        let manual = self.manual.get(&key).filter(|manual| now < manual.until);
        let score = self.levels(key).map_or(0, |levels| levels.score(now));
        Repute { stance: manual.map(|manual| manual.stance), score }
    }

    /// The counts of a subject.
    #[must_use]
    pub fn levels(&self, key: SubjectKey) -> Option<Levels> {
        let shard = &self.shards[shard_of(key)];
        let place = shard.binary_search_by_key(&key, |entry| entry.0).ok()?;
        shard.get(place).map(|entry| entry.1)
    }

    /// Takes changes in; `None` takes a subject out. Of several for one subject the last one counts.
    pub(crate) fn change(&mut self, mut subjects: Vec<(SubjectKey, Option<Levels>)>) {
        if subjects.is_empty() {
            return;
        }
        // Stable: what came later stays later.
        subjects.sort_by_key(|change| change.0);
        let shards = Arc::make_mut(&mut self.shards);
        for changes in subjects.chunk_by(|one, next| shard_of(one.0) == shard_of(next.0)) {
            let Some(shard) = changes.first().and_then(|change| shards.get_mut(shard_of(change.0))) else { continue };
            let merged = merged(shard, changes);
            self.subjects = self.subjects + merged.len() - shard.len();
            *shard = Arc::new(merged);
        }
    }

    /// Takes changes of what operators say in.
    pub(crate) fn change_manual(&mut self, entries: Vec<(SubjectKey, Option<Manual>)>) {
        if entries.is_empty() {
            return;
        }
        let manual = Arc::make_mut(&mut self.manual);
        for (key, entry) in entries {
            match entry {
                Some(entry) => manual.insert(key, entry),
                None => manual.remove(&key),
            };
        }
    }
}

/// A sorted array with sorted changes.
fn merged(old: &[Entry], changes: &[(SubjectKey, Option<Levels>)]) -> Box<[Entry]> {
    let mut new = Vec::with_capacity(old.len() + changes.len());
    let mut old = old.iter().copied().peekable();
    for same in changes.chunk_by(|one, next| one.0 == next.0) {
        let Some((key, levels)) = same.last().copied() else { continue };
        while let Some(entry) = old.next_if(|entry| entry.0 < key) {
            new.push(entry);
        }
        old.next_if(|entry| entry.0.cmp(&key) == Ordering::Equal);
        new.extend(levels.map(|levels| (key, levels)));
    }
    new.extend(old);
    new.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;

    use super::{Known, SHARDS, shard_of};
    use crate::{
        reputation::{Levels, Manual, Repute, Stance, SubjectKey},
        time::UnixMs,
    };

    /// Keys that share arrays, and some at the ends.
    fn key() -> impl Strategy<Value = SubjectKey> {
        (prop::sample::select(vec![0_u8, 1, 127, 255]), 0_u8..20, 0_u8..4).prop_map(|(first, second, last)| {
            let mut key = [0; 16];
            (key[0], key[1], key[15]) = (first, second, last);
            SubjectKey(key)
        })
    }

    proptest! {
        #[test]
        fn whatever_the_changes_the_arrays_say_what_a_map_says(
            steps in prop::collection::vec(
                prop::collection::vec((key(), prop::option::of((1_u32..9, 0_u32..9))), 0..40), 0..8),
            asked in prop::collection::vec(key(), 20),
        ) {
            let (mut known, mut map) = (Known::default(), BTreeMap::new());
            for changes in steps {
                let before = known.clone();
                let then: Vec<_> = asked.iter().map(|key| before.levels(*key)).collect();
                let changes: Vec<_> = changes.into_iter().map(|(key, levels)| (key, levels.map(Levels::from))).collect();
                for (key, levels) in &changes {
                    match levels {
                        Some(levels) => map.insert(*key, *levels),
                        None => map.remove(key),
                    };
                }
                known.change(changes);
                let now: Vec<_> = asked.iter().map(|key| before.levels(*key)).collect();
                prop_assert_eq!(now, then, "an older view has changed");
            }
            prop_assert_eq!(known.subjects(), map.len());
            for key in asked {
                prop_assert_eq!(known.levels(key), map.get(&key).copied());
            }
        }
    }

    #[test]
    fn a_change_copies_only_what_it_touches() {
        let key = |number: u16| {
            let mut key = [7; 16];
            key[..2].copy_from_slice(&number.to_be_bytes());
            SubjectKey(key)
        };
        let mut known = Known::default();
        known.change((0..u16::MAX).map(|number| (key(number), Some(Levels { good: 1, bad: 1 }))).collect());
        let mut next = known.clone();
        next.change(vec![(key(9), None)]);
        let shared = known.shards.iter().zip(next.shards.iter()).filter(|(one, other)| Arc::ptr_eq(one, other));
        assert_eq!(shared.count(), SHARDS - 1);
        assert_eq!((shard_of(key(0)), shard_of(key(u16::MAX))), (0, SHARDS - 1));
    }

    #[test]
    fn what_an_operator_says_holds_until_its_end() {
        let mut known = Known::default();
        let key = SubjectKey([9; 16]);
        known.change_manual(vec![(key, Some(Manual { stance: Stance::Block, until: UnixMs(10) }))]);
        assert_eq!(known.repute(key, UnixMs(9)), Repute { stance: Some(Stance::Block), score: 0 });
        assert_eq!(known.repute(key, UnixMs(10)), Repute::default());
        known.change_manual(vec![(key, None)]);
        assert_eq!(known.repute(key, UnixMs(9)), Repute::default());
    }
}
