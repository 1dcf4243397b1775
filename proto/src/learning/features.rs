//! Features: what a classifier looks at, each as a number by its hash.

/// Bits of a feature.
const FEATURE_BITS: u32 = 18;
/// How many features there can be.
pub const FEATURES: usize = 1 << FEATURE_BITS;
/// Up to about so many features a message says less, the fewer it has.
const FEATURES_FEW: f32 = 30.0;
/// FNV-1a: the same in all versions and on all machines.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Features that are being gathered.
#[derive(Debug, Default)]
pub struct Gathering(Vec<u32>);

impl Gathering {
    /// A word of some kind. What is equal but for case is one feature.
    pub fn word(&mut self, kind: u8, word: &str) {
        self.number(kind, hash(word));
    }

    /// A number of some kind.
    pub fn number(&mut self, kind: u8, number: u64) {
        let mixed = mix(mix(u64::from(kind)) ^ number);
        self.0.push(u32::try_from(mixed >> (64 - FEATURE_BITS)).unwrap_or_default());
    }

    /// All of them, in ascending order, each once.
    #[must_use]
    pub fn ended(mut self) -> Vec<u32> {
        self.0.sort_unstable();
        self.0.dedup();
        self.0
    }
}

/// What one of so many features of a message counts.
#[must_use]
pub fn share(features: usize) -> f32 {
    1.0 / (features as f32 + FEATURES_FEW).sqrt()
}

/// Of a word, whatever its case.
#[must_use]
pub fn hash(word: &str) -> u64 {
    word.bytes().fold(FNV_START, |hash, byte| (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(FNV_PRIME))
}

/// Finalizer of MurmurHash3 (Austin Appleby, public domain).
#[must_use]
pub const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::{FEATURES, Gathering};

    #[test]
    fn a_word_is_one_feature_however_it_is_written_and_another_of_another_kind() {
        let of = |kind, word| {
            let mut gathering = Gathering::default();
            gathering.word(kind, word);
            gathering.word(kind, &word.to_uppercase());
            gathering.ended()
        };
        assert_eq!(of(b's', "viagra").len(), 1);
        assert_ne!(of(b's', "viagra"), of(b'f', "viagra"));
        assert!(of(b's', "viagra").iter().all(|feature| (*feature as usize) < FEATURES));
    }
}
