//! What a node knows by keys, read by many and replaced in small pieces: a million values of eight bytes in some 25 MB.
//!
//! Sorted arrays behind `Arc`s, told apart by the head of the key. A change copies the arrays that it touches and shares
//! the others with the views before it, so that a transaction keeps the view that it began with at little cost.

use std::{fmt, sync::Arc};

use crate::reputation::SubjectKey;

/// Number of arrays: some 250 keys in each when there are a million.
const SHARDS: usize = 4096;

type Entry<V> = (SubjectKey, V);
type Shard<V> = Arc<Box<[Entry<V>]>>;

/// Values by key. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Shards<V> {
    shards: Arc<[Shard<V>]>,
    len: usize,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        let empty: Shard<V> = Arc::new(Box::default());
        Self { shards: std::iter::repeat_n(empty, SHARDS).collect(), len: 0 }
    }
}

impl<V> fmt::Debug for Shards<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("len", &self.len).finish_non_exhaustive()
    }
}

fn shard_of(key: SubjectKey) -> usize {
    usize::from(u16::from_be_bytes([key.0[0], key.0[1]])) * SHARDS / (usize::from(u16::MAX) + 1)
}

impl<V: Copy> Shards<V> {
    /// How many keys have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: SubjectKey) -> Option<V> {
        let shard = &self.shards[shard_of(key)];
        let place = shard.binary_search_by_key(&key, |entry| entry.0).ok()?;
        shard.get(place).map(|entry| entry.1)
    }

    /// Takes changes in; `None` takes a key out. Of several for one key the last one counts.
    pub(crate) fn change(&mut self, mut changes: Vec<(SubjectKey, Option<V>)>) {
        if changes.is_empty() {
            return;
        }
        // Stable: what came later stays later.
        changes.sort_by_key(|change| change.0);
        let shards = Arc::make_mut(&mut self.shards);
        for changes in changes.chunk_by(|one, next| shard_of(one.0) == shard_of(next.0)) {
            let Some(shard) = changes.first().and_then(|change| shards.get_mut(shard_of(change.0))) else { continue };
            let merged = merged(shard, changes);
            self.len = self.len + merged.len() - shard.len();
            *shard = Arc::new(merged);
        }
    }
}

/// A sorted array with sorted changes.
fn merged<V: Copy>(old: &[Entry<V>], changes: &[(SubjectKey, Option<V>)]) -> Box<[Entry<V>]> {
    let mut new = Vec::with_capacity(old.len() + changes.len());
    let mut old = old.iter().copied().peekable();
    for same in changes.chunk_by(|one, next| one.0 == next.0) {
        let Some((key, value)) = same.last().copied() else { continue };
        while let Some(entry) = old.next_if(|entry| entry.0 < key) {
            new.push(entry);
        }
        old.next_if(|entry| entry.0 == key);
        new.extend(value.map(|value| (key, value)));
    }
    new.extend(old);
    new.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;

    use super::{SHARDS, Shards, shard_of};
    use crate::reputation::SubjectKey;

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
            steps in prop::collection::vec(prop::collection::vec((key(), prop::option::of(1_u32..9)), 0..40), 0..8),
            asked in prop::collection::vec(key(), 20),
        ) {
            let (mut known, mut map) = (Shards::default(), BTreeMap::new());
            for changes in steps {
                let before = known.clone();
                let then: Vec<_> = asked.iter().map(|key| before.value(*key)).collect();
                for (key, value) in &changes {
                    match value {
                        Some(value) => map.insert(*key, *value),
                        None => map.remove(key),
                    };
                }
                known.change(changes);
                let now: Vec<_> = asked.iter().map(|key| before.value(*key)).collect();
                prop_assert_eq!(now, then, "an older view has changed");
            }
            prop_assert_eq!(known.len(), map.len());
            for key in asked {
                prop_assert_eq!(known.value(key), map.get(&key).copied());
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
        let mut known = Shards::default();
        known.change((0..u16::MAX).map(|number| (key(number), Some(1_u32))).collect());
        let mut next = known.clone();
        next.change(vec![(key(9), None)]);
        let shared = known.shards.iter().zip(next.shards.iter()).filter(|(one, other)| Arc::ptr_eq(one, other));
        assert_eq!(shared.count(), SHARDS - 1);
        assert_eq!((shard_of(key(0)), shard_of(key(u16::MAX))), (0, SHARDS - 1));
    }
}
