//! The one encoding of log entries, views and proposals: MessagePack with field names, so that a later version may add
//! fields that an earlier one skips.

use serde::{Serialize, de::DeserializeOwned};

/// Version of this encoding, carried by each RPC and stored with each file; a reader refuses one that it does not know.
pub const VERSION: u32 = 1;

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
#[error("decode {what}: {problem}")]
pub struct DecodeError {
    what: &'static str,
    problem: String,
}

/// Encodes a value. The types of this crate always encode; a failure would be a bug in a `Serialize`, not bad input.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("the types of this crate encode")
}

/// Decodes a value; `what` names it in the error.
///
/// # Errors
/// When the bytes are not an encoded `T`.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    rmp_serde::from_slice(bytes).map_err(|error| DecodeError { what, problem: error.to_string() })
}
