//! What stands in the log's file: our bytes behind a checksum of our own. redb looks at the checksums of its pages only
//! after an unclean end, and a bit that flips later would otherwise be read as if somebody had written it.

/// Checksum and length.
const HEADER_BYTES: usize = 8;

/// `body` as it is stored under `key`: CRC-32 of key, length and body; length; body.
pub(super) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let length = length(body);
    let mut sealed = Vec::with_capacity(HEADER_BYTES + body.len());
    sealed.extend_from_slice(&checksum(key, length, body).to_be_bytes());
    sealed.extend_from_slice(&length.to_be_bytes());
    sealed.extend_from_slice(body);
    sealed
}

/// The body, if it is what was sealed under this key.
pub(super) fn unseal<'s>(key: &[u8], sealed: &'s [u8]) -> Option<&'s [u8]> {
    let (sum, rest) = sealed.split_first_chunk::<4>()?;
    let (told, body) = rest.split_first_chunk::<4>()?;
    let told = u32::from_be_bytes(*told);
    let whole = told == length(body) && u32::from_be_bytes(*sum) == checksum(key, told, body);
    whole.then_some(body)
}

/// Entries are far below 4 GiB; one that is not would be cut to this and then not be read back.
fn length(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX)
}

/// The key counts, so that two values that have changed places are seen.
fn checksum(key: &[u8], length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&length.to_be_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{seal, unseal};

    proptest! {
        #[test]
        fn what_was_sealed_comes_back_and_a_changed_bit_or_length_does_not(
            body in proptest::collection::vec(any::<u8>(), 0..64), bit in any::<prop::sample::Index>(),
            cut in any::<prop::sample::Index>(), key in any::<u64>(),
        ) {
            let sealed = seal(&key.to_be_bytes(), &body);
            prop_assert_eq!(unseal(&key.to_be_bytes(), &sealed), Some(body.as_slice()));
            prop_assert_eq!(unseal(&(key ^ 1).to_be_bytes(), &sealed), None);
            prop_assert_eq!(unseal(&key.to_be_bytes(), &sealed[..cut.index(sealed.len())]), None);
            let mut flipped = sealed;
            let bit = bit.index(flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(unseal(&key.to_be_bytes(), &flipped), None);
        }
    }
}
