//! The trace of each change (promise 8): who, when, what, why; each record holds the hash of the one before.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{codec, held::MutationId, time::UnixMs};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Counts from 1.
    pub seq: u64,
    /// The mutation that did it.
    pub mutation: MutationId,
    /// When it was applied, by log time.
    pub at: UnixMs,
    /// Role and name out of the certificate: `operator/anna`.
    pub by: String,
    /// What was done, in words.
    pub what: String,
    /// Why, as given.
    pub why: String,
    /// Ticket, as given; may be empty.
    pub ticket: String,
    /// `hash` of the record before; empty for the first.
    pub previous: String,
}

impl AuditRecord {
    /// SHA-256 over the encoded record, in hex; since `previous` is part of it, over all before as well.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(codec::encode(self)))
    }
}
