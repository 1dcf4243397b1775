//! A digest of the whole state that follows each write at the cost of that write: the sum of the hashes of all pairs.
//!
//! A sum does not depend on the order, so that it is the same whatever the batching; what replaces or removes a pair takes
//! its old hash out again. It is there to find what a disk or a bug has changed, not to stand up to somebody who chooses
//! pairs so that the sums meet.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keys::{FIRST, Keys, LAST, Writes};

/// The sum of the SHA-256 of all pairs, as four 64-bit numbers that each wrap around. The default is that of no pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateDigest([u64; 4]);

impl StateDigest {
    /// Reads all keys of the state. What a server keeps for itself lies below the first key.
    #[must_use]
    pub fn of(keys: &impl Keys) -> Self {
        let mut digest = Self::default();
        for (key, value) in keys.range(FIRST, LAST) {
            digest.add(&key, &value);
        }
        digest
    }

    /// A pair is there now.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        for (sum, part) in self.0.iter_mut().zip(hash(key, value)) {
            *sum = sum.wrapping_add(part);
        }
    }

    /// A pair that was there is gone.
    pub fn take(&mut self, key: &[u8], value: &[u8]) {
        for (sum, part) in self.0.iter_mut().zip(hash(key, value)) {
            *sum = sum.wrapping_sub(part);
        }
    }

    /// The digest after `writes` over the keys as they are before.
    #[must_use]
    pub fn after(mut self, before: &impl Keys, writes: &Writes) -> Self {
        for (key, value) in writes.iter().filter(|(key, _)| (FIRST..LAST).contains(key)) {
            if let Some(old) = before.value(key) {
                self.take(key, &old);
            }
            if let Some(new) = value {
                self.add(key, new);
            }
        }
        self
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "{part:016x}"))
    }
}

/// The key's length stands before it, so that no two pairs are the same bytes.
fn hash(key: &[u8], value: &[u8]) -> [u64; 4] {
    let mut hasher = Sha256::new();
    for part in [key, value] {
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    }
    let bytes = hasher.finalize();
    let mut parts = [0; 4];
    for (part, bytes) in parts.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *part = u64::from_be_bytes(*bytes);
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{StateDigest, Writes};

    fn pairs() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
        // Few and short keys, so that writes meet what is there; the first byte is one of the state's.
        let key = (1_u8..4, proptest::collection::vec(0_u8..2, 0..2));
        let key = key.prop_map(|(first, rest)| [vec![first], rest].concat());
        proptest::collection::btree_map(key, proptest::collection::vec(0_u8..2, 0..3), 0..8)
    }

    proptest! {
        #[test]
        fn following_the_writes_gives_what_reading_everything_gives(
            before in pairs(), changes in pairs(), removed in pairs(),
        ) {
            let mut writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
                removed.into_keys().map(|key| (key, None)).collect();
            writes.extend(changes.into_iter().map(|(key, value)| (key, Some(value))));
            let writes = Writes::from(writes);
            let followed = StateDigest::of(&before).after(&before, &writes);
            let mut after = before;
            writes.store_into(&mut after);
            prop_assert_eq!(followed, StateDigest::of(&after));
        }

        #[test]
        fn different_states_have_different_digests(one in pairs(), other in pairs()) {
            prop_assert_eq!(one == other, StateDigest::of(&one) == StateDigest::of(&other));
        }
    }

    #[test]
    fn what_a_server_keeps_for_itself_is_not_counted() {
        let private = BTreeMap::from([(b"\0position".to_vec(), vec![1])]);
        assert_eq!(StateDigest::of(&private), StateDigest::default());
        let writes = Writes::from(BTreeMap::from([(b"\0position".to_vec(), Some(vec![2]))]));
        assert_eq!(StateDigest::default().after(&private, &writes), StateDigest::default());
        assert_eq!(StateDigest::default().to_string(), "0".repeat(64));
    }
}
