//! Typed reads of the state.

use proto::{
    audit::AuditRecord,
    department::DepartmentId,
    held::{Held, HeldId},
    mutation::Grounds,
    time::UnixMs,
    view::ViewChange,
};
use serde::{Deserialize, Serialize};

use super::store::StateStore;

/// A policy version as the history keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Counts from 1.
    pub version: u64,
    /// Log index of its entry.
    pub index: u64,
    /// Log time.
    pub at: UnixMs,
    /// `operator/NAME`.
    pub by: String,
    /// Why and ticket.
    pub grounds: Grounds,
    /// SHA-256 of the encoded settings and departments, in hex.
    pub digest: String,
    /// The plan's lines.
    pub changes: Vec<String>,
}

/// Which held messages to list.
#[derive(Clone, Debug, Default)]
pub struct HeldFilter {
    /// Only this department's.
    pub department: Option<DepartmentId>,
    /// Only with this recipient (`Address::key`).
    pub recipient: Option<String>,
    /// Also those that are delivered or deleted.
    pub ended: bool,
    /// At most this many, newest first.
    pub max: usize,
}

impl StateStore {
    /// The whole view as of the last applied entry; `policy_version` 0 before the first policy.
    #[must_use]
    pub fn view(&self) -> ViewChange {
        todo!()
    }

    /// Policy versions, newest first.
    #[must_use]
    pub fn history(&self, _max: usize) -> Vec<PolicyRecord> {
        todo!()
    }

    /// A held record.
    #[must_use]
    pub fn held(&self, _id: HeldId) -> Option<Held> {
        todo!()
    }

    /// Held records, newest first.
    #[must_use]
    pub fn held_list(&self, _filter: &HeldFilter) -> Vec<Held> {
        todo!()
    }

    /// How many records are waiting or due.
    #[must_use]
    pub fn held_count(&self) -> u64 {
        todo!()
    }

    /// Records whose delivery is due and that nobody has leased, oldest first.
    #[must_use]
    pub fn due(&self, _now: UnixMs, _max: usize) -> Vec<Held> {
        todo!()
    }

    /// When the next record that is not due yet will be; `None` when there is none.
    #[must_use]
    pub fn next_due(&self, _now: UnixMs) -> Option<UnixMs> {
        todo!()
    }

    /// Audit records, newest first.
    #[must_use]
    pub fn audit(&self, _max: usize) -> Vec<AuditRecord> {
        todo!()
    }

    /// Whether any record that has not ended needs this body.
    #[must_use]
    pub fn needs_body(&self, _digest: &str) -> bool {
        todo!()
    }
}
