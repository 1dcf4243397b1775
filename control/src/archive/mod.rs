//! A backup as a file: a tar archive that says what it is, and in which no bit can change unnoticed.
//!
//! In this order: `postern-backup` (the format's version), `state.snapshot`, a `bodies/DIGEST` for each body that a held message
//! needs, `manifest.json`, and `sha256`: the SHA-256 of all bytes before it, in hex. `tar tf` lists it.

pub mod read;
#[cfg(test)]
mod tests;
pub mod write;

use std::io;

use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

/// First name in the archive.
const MAGIC: &str = "postern-backup";
/// Its text.
const VERSION: &[u8] = b"1\n";
const STATE: &str = "state.snapshot";
const BODIES: &str = "bodies/";
const MANIFEST: &str = "manifest.json";
const SUM: &str = "sha256";
/// What a tar archive consists of.
const BLOCK_BYTES: usize = 512;
/// The entry `sha256`, and the two empty blocks that end a tar archive.
const TRAILER_BYTES: usize = 4 * BLOCK_BYTES;
/// Longest manifest, in bytes; a million missing bodies.
const MANIFEST_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Why an archive cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Some other file.
    #[error("this is no archive of `posternctl backup`")]
    Foreign,
    /// Of a later version.
    #[error("the archive is of another format than version 1: use the posternctl that made it, or a later one")]
    Version,
    /// Not what was written.
    #[error("the archive is damaged or cut short ({0}): use another one; nothing was changed")]
    Damaged(String),
}

fn disk(what: &'static str) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { what, source }
}

fn damaged<T>(what: impl Into<String>) -> Result<T, ArchiveError> {
    Err(ArchiveError::Damaged(what.into()))
}

/// What is in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The cluster that it is of.
    pub cluster: String,
    /// Log index of the state.
    pub index: u64,
    /// Log time of the state, in milliseconds since 1970.
    pub at_ms: u64,
    /// The same for people, RFC 3339.
    pub at: String,
    /// Version of the posternctl that made it.
    pub made_by: String,
    /// Policy version in force.
    pub policy_version: u64,
    /// Held messages that wait or are to be delivered.
    pub held: u64,
    /// Records of the audit log.
    pub audit_records: u64,
    /// Length of the state, in bytes.
    pub state_bytes: u64,
    /// SHA-256 of the state, in hex.
    pub state_sha256: String,
    /// Bodies in the archive.
    pub bodies: u64,
    /// Length of all of them, in bytes.
    pub body_bytes: u64,
    /// Digests of bodies that no control server could give.
    pub missing: Vec<String>,
}

/// The header of an entry. Times are zero: equal contents make equal bytes.
fn header(name: &str, size_bytes: u64) -> Result<Header, ArchiveError> {
    let mut header = Header::new_gnu();
    header.set_path(name).map_err(disk("name an entry of the archive"))?;
    header.set_size(size_bytes);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// How many zero bytes follow an entry.
fn padding(size_bytes: u64) -> usize {
    let over = usize::try_from(size_bytes % BLOCK_BYTES as u64).unwrap_or_default();
    (BLOCK_BYTES - over) % BLOCK_BYTES
}

/// The end of an archive, all of it, for a given SHA-256 of what comes before.
fn trailer(sum: &str) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = header(SUM, sum.len() as u64)?.as_bytes().to_vec();
    bytes.extend_from_slice(sum.as_bytes());
    bytes.resize(TRAILER_BYTES, 0);
    Ok(bytes)
}
