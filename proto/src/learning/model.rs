//! What was learnt: a weight for each feature, and how it is written to a file.
//!
//! The file is a line with the version, a line that says where the model is from, unit and bias as little-endian `f32`, a signed byte
//! for each feature, and the SHA-256 of all before it.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::features::{FEATURES, share};

/// First line of a file.
const VERSION: &[u8] = b"postern classifier 1\n";
/// Longest line about the origin, in bytes.
const ORIGIN_BYTES_MAX: usize = 1000;
const DIGEST_BYTES: usize = 32;
/// A message says less, the fewer of its features are known, from this part on: it may be in a language that was not learnt.
const KNOWN_ENOUGH: f32 = 0.4;

/// Why a file is no model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// It is something else, or of another version.
    #[error("not a model of this version")]
    Version,
    /// It is too short or too long.
    #[error("a model of another size")]
    Size,
    /// It was changed.
    #[error("the model's checksum is wrong")]
    Checksum,
}

/// A trained classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Of what it was learnt, in words.
    pub origin: String,
    /// Of each feature, in units of `unit`.
    pub weights: Vec<i8>,
    /// What one unit of weight is worth.
    pub unit: f32,
    /// Of a message without features.
    pub bias: f32,
    /// The part of the weights that is not zero.
    taken: f32,
}

impl Model {
    /// Of what was learnt.
    #[must_use]
    pub fn new(origin: String, weights: Vec<i8>, unit: f32, bias: f32) -> Self {
        let taken = weights.iter().filter(|weight| **weight != 0).count() as f32 / weights.len().max(1) as f32;
        Self { origin, weights, unit, bias, taken }
    }

    /// Hundredths of the natural logarithm of the odds that a message with these features is bad.
    #[must_use]
    pub fn odds(&self, features: &[u32]) -> i32 {
        self.odds_known(0.0..KNOWN_ENOUGH, features)
    }

    /// The same where it says nothing of a message of which no more than the first part is known, and all that it has to say from the
    /// other part on.
    #[must_use]
    pub fn odds_known(&self, parts: Range<f32>, features: &[u32]) -> i32 {
        let weight = |at: &u32| self.weights.get(*at as usize).copied().map_or(0, i64::from);
        let sum: i64 = features.iter().map(weight).sum();
        let odds = self.bias + self.unit * sum as f32 * share(features.len());
        let hits = features.iter().filter(|at| weight(at) != 0).count() as f32 / features.len().max(1) as f32;
        // Of unknown features as many have the place of a known one as there are places taken.
        let known = (hits - self.taken) / (1.0 - self.taken).max(0.1);
        (odds * 100.0 * ((known - parts.start) / (parts.end - parts.start)).clamp(0.0, 1.0)) as i32
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is none, or was changed.
    pub fn read(bytes: &[u8]) -> Result<Self, ModelError> {
        let (content, digest) =
            bytes.split_at_checked(bytes.len().saturating_sub(DIGEST_BYTES)).ok_or(ModelError::Size)?;
        let rest = content.strip_prefix(VERSION).ok_or(ModelError::Version)?;
        if Sha256::digest(content).as_slice() != digest {
            return Err(ModelError::Checksum);
        }
        let end = rest.iter().take(ORIGIN_BYTES_MAX).position(|byte| *byte == b'\n').ok_or(ModelError::Size)?;
        let (origin, rest) = (String::from_utf8_lossy(&rest[..end]).into_owned(), &rest[end + 1..]);
        let (unit, rest) = rest.split_first_chunk().ok_or(ModelError::Size)?;
        let (bias, rest) = rest.split_first_chunk().ok_or(ModelError::Size)?;
        if rest.len() != FEATURES {
            return Err(ModelError::Size);
        }
        let weights = rest.iter().map(|byte| byte.cast_signed()).collect();
        Ok(Self::new(origin, weights, f32::from_le_bytes(*unit), f32::from_le_bytes(*bias)))
    }

    /// The file of it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        bytes.extend(self.origin.bytes().filter(|byte| *byte != b'\n').take(ORIGIN_BYTES_MAX - 1));
        bytes.push(b'\n');
        bytes.extend(self.unit.to_le_bytes());
        bytes.extend(self.bias.to_le_bytes());
        bytes.extend(self.weights.iter().map(|weight| weight.cast_unsigned()));
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{FEATURES, Model, ModelError};

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut weights = vec![0; FEATURES];
        (weights[7], weights[9]) = (-128, 127);
        let model = Model::new("two messages".to_owned(), weights, 0.5, -1.25);
        let bytes = model.bytes();
        assert_eq!(Model::read(&bytes), Ok(model));
        for at in [0, 25, 40, 100, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Model::read(&changed).is_err(), "byte {at}");
        }
        assert_eq!(Model::read(&bytes[..bytes.len() - 1]), Err(ModelError::Checksum));
        assert_eq!(Model::read(b""), Err(ModelError::Version));
    }

    #[test]
    fn the_less_of_a_message_is_known_the_less_is_said_of_it() {
        let mut weights = vec![0; FEATURES];
        weights[..100].fill(100);
        let model = Model::new(String::new(), weights, 0.1, 0.0);
        let known: Vec<u32> = (0..50).collect();
        let unknown: Vec<u32> = (0..150).map(|feature| feature * 1000 + 1000).collect();
        assert!(model.odds(&known) > 1000, "{}", model.odds(&known));
        let few_known = model.odds(&[&known[..20], &unknown].concat());
        assert!((1..model.odds(&known) / 10).contains(&few_known), "{few_known}");
        assert_eq!(model.odds(&unknown), 0);
        assert_eq!(model.odds(&[]), 0);
    }
}
