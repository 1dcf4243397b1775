//! What is done to the state as a whole: a backup leaves its trace, and a restore brings an archive's keys into a new cluster
//! through the log, piece by piece, so that each server has them in the same way as every other change.

use serde::{Deserialize, Serialize};

use crate::time::UnixMs;

/// What an operator does to the state as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveAct {
    /// Everything is copied into an archive: only the trace.
    Backup,
    /// A restore begins, or begins again with the same archive. From now on nothing else may change until its end.
    Begin(Origin),
    /// The next keys.
    Keys {
        /// SHA-256 of the archive, in hex.
        archive: String,
        /// Counts from 0; a piece that is there already changes nothing, one that comes too early is refused.
        piece: u64,
        /// Pairs as `pack` writes them.
        #[serde(with = "serde_bytes")]
        pairs: Vec<u8>,
    },
    /// All pieces and all bodies are there: the state comes into force.
    End {
        /// SHA-256 of the archive, in hex.
        archive: String,
        /// The state's own numbers, as the archive has them.
        #[serde(with = "serde_bytes")]
        numbers: Vec<u8>,
    },
}

/// Which archive is restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// SHA-256 of the archive, in hex.
    pub archive: String,
    /// The cluster that it is of.
    pub cluster: String,
    /// Log index there.
    pub index: u64,
    /// When it was made, by log time.
    pub at: UnixMs,
    /// Into how many pieces its keys are cut.
    pub pieces: u64,
}

/// Appends a pair: length of the key, length of the value (`u32`, big-endian), both.
///
/// # Errors
/// When one is longer than 4 GiB.
pub fn pack(pairs: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Result<(), std::num::TryFromIntError> {
    let (key_bytes, value_bytes) = (u32::try_from(key.len())?, u32::try_from(value.len())?);
    pairs.extend_from_slice(&key_bytes.to_be_bytes());
    pairs.extend_from_slice(&value_bytes.to_be_bytes());
    pairs.extend_from_slice(key);
    pairs.extend_from_slice(value);
    Ok(())
}

/// The pairs that `pack` has written; `None` when the bytes are none.
#[must_use]
pub fn unpack(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        let (key_bytes, rest) = bytes.split_first_chunk::<4>()?;
        let (value_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*key_bytes)).ok()?)?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*value_bytes)).ok()?)?;
        pairs.push((key, value));
        bytes = rest;
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::{pack, unpack};

    #[test]
    fn pairs_come_back_as_they_were_packed_and_cut_ones_do_not() {
        let pairs: [(&[u8], &[u8]); 3] = [(b"a", b""), (b"bc", b"value"), (b"d", &[0; 300])];
        let mut packed = Vec::new();
        for (key, value) in pairs {
            pack(&mut packed, key, value).expect("short");
        }
        assert_eq!(unpack(&packed).expect("pairs"), pairs);
        let whole = [0, 9, 9 + 15, packed.len()];
        for cut in 0..packed.len() {
            assert_eq!(unpack(&packed[..cut]).is_some(), whole.contains(&cut), "{cut}");
        }
    }
}
