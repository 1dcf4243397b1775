//! Typed reads of the state as applied here.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    held::{Held, HeldId},
    learning::{lesson::Lesson, trial::Count},
    reputation::SubjectKey,
    time::UnixMs,
    view::{StateSettings, ViewChange},
};

use super::{REPLICATED, StateStore, StoreError, disk, end_process, pages};
use crate::state::{
    digest::StateDigest,
    feed::{self, Cursor},
    lessons::{self, Learning},
    members::{self, MemberRecord},
    nodes,
    query::{self, AuditPage, HeldFilter, PolicyRecord},
    reputation::{self, Shown},
};

/// Typed reads; each sees the state between two applies.
impl StateStore {
    /// The whole policy as of the last applied entry, without reputation; `policy_version` 0 before the first policy.
    #[must_use]
    pub fn view(&self) -> ViewChange {
        let _shared = self.shared();
        let position = self.position().unwrap_or_else(|error| end_process("read the state", &error));
        query::view(self, position.map_or(0, |position| position.index))
    }

    /// The next part of the view for a node, and where the node stands then.
    #[must_use]
    pub fn view_part(&self, cursor: &Cursor) -> (ViewChange, Cursor) {
        let _shared = self.shared();
        let position = self.position().unwrap_or_else(|error| end_process("read the state", &error));
        feed::part(self, position.map_or(0, |position| position.index), cursor)
    }

    /// The state's settings in force.
    #[must_use]
    pub fn settings(&self) -> StateSettings {
        let _shared = self.shared();
        query::settings(self)
    }

    /// Log index of the last change that nodes must hear of.
    #[must_use]
    pub fn view_index(&self) -> u64 {
        feed::last(self)
    }

    /// All that is known of a subject.
    #[must_use]
    pub fn reputation(&self, subject: SubjectKey) -> Shown {
        let _shared = self.shared();
        reputation::shown(self, subject)
    }

    /// Policy versions, newest first.
    #[must_use]
    pub fn history(&self, max: usize) -> Vec<PolicyRecord> {
        let _shared = self.shared();
        query::history(self, max)
    }

    /// A held record.
    #[must_use]
    pub fn held(&self, id: HeldId) -> Option<Held> {
        let _shared = self.shared();
        query::held(self, id)
    }

    /// Held records, newest first.
    #[must_use]
    pub fn held_list(&self, filter: &HeldFilter) -> Vec<Held> {
        let _shared = self.shared();
        query::held_list(self, filter)
    }

    /// How many records are waiting or due.
    #[must_use]
    pub fn held_count(&self) -> u64 {
        let _shared = self.shared();
        query::held_count(self)
    }

    /// Records whose delivery is due and that nobody has leased, oldest first. Due is what is due by the caller's clock or
    /// by log time, whichever is later: the state stamps with log time, and a clock behind it must not hide mail.
    #[must_use]
    pub fn due(&self, now: UnixMs, max: usize) -> Vec<Held> {
        let _shared = self.shared();
        query::due(self, now.max(query::log_time(self)), max)
    }

    /// When the next record that is not due yet will be, by the same clock as `due`; `None` when there is none.
    #[must_use]
    pub fn next_due(&self, now: UnixMs) -> Option<UnixMs> {
        let _shared = self.shared();
        query::next_due(self, now.max(query::log_time(self)))
    }

    /// Log time: the latest that any batch was stamped with.
    #[must_use]
    pub fn log_time(&self) -> UnixMs {
        query::log_time(self)
    }

    /// Audit records before number `before`, newest first; zero: from the newest on.
    #[must_use]
    pub fn audit(&self, before: u64, max: usize) -> AuditPage {
        let _shared = self.shared();
        query::audit(self, before, max)
    }

    /// What there is to learn from, if anything is to be learnt now.
    #[must_use]
    pub fn curriculum(&self, now: UnixMs) -> Option<(Learning, Vec<Lesson>)> {
        let _shared = self.shared();
        lessons::curriculum(self, now.max(query::log_time(self)))
    }

    /// The numbers of all lessons, and how many each source has taught.
    #[must_use]
    pub fn learning(&self) -> (Learning, BTreeMap<String, Count>) {
        let _shared = self.shared();
        (lessons::learning(self), lessons::sources(self))
    }

    /// Whether any record that has not ended needs this body, or it is the model's.
    #[must_use]
    pub fn needs_body(&self, digest: &str) -> bool {
        let _shared = self.shared();
        query::needs_body(self, digest)
    }

    /// The policy version in force; zero before the first.
    #[must_use]
    pub fn policy_version(&self) -> u64 {
        query::policy_version(self)
    }

    /// Names of the drained nodes.
    #[must_use]
    pub fn drained(&self) -> BTreeSet<String> {
        let _shared = self.shared();
        nodes::drained(self)
    }

    /// Whoever ever was a member, in the order of the ids.
    #[must_use]
    pub fn members(&self) -> Vec<MemberRecord> {
        let _shared = self.shared();
        members::all(self)
    }

    /// Whether the removal of the member with this id, if one is given, or with this name has begun. Waits for no
    /// installation of a snapshot: its sender is who asks.
    #[must_use]
    pub fn is_removed(&self, id: Option<u64>, name: &str) -> bool {
        members::is_removed(self, id, name)
    }

    /// The restore that is under way.
    #[must_use]
    pub fn restoring(&self) -> Option<crate::state::archive::Restoring> {
        crate::state::archive::restoring(self)
    }

    /// Bodies that records which have not ended need, in the order of their digests, from behind `after` on, each with the
    /// servers that its records name.
    #[must_use]
    pub fn bodies_after(&self, after: &str, max: usize) -> Vec<proto::held::BodyRef> {
        let _shared = self.shared();
        query::bodies_after(self, after, max)
    }

    /// The digest that is kept with the position: equal on all servers at the same log index.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        let position = self.position().unwrap_or_else(|error| end_process("read the state", &error));
        position.unwrap_or_default().digest
    }

    /// Reads everything, the server's own keys too, and says what the digest has to be. A million records take seconds.
    ///
    /// # Errors
    /// When sled cannot read what it has written.
    pub fn measure(&self) -> Result<StateDigest, StoreError> {
        let _shared = self.shared();
        let mut digest = StateDigest::default();
        for own in self.tree.range(..REPLICATED.start).chain(self.tree.range(REPLICATED.end..)) {
            own.map_err(disk("read the state"))?;
        }
        for pair in pages::range(&self.tree, REPLICATED.start, REPLICATED.end)? {
            let (key, value) = pair?;
            digest.add(&key, &value);
        }
        Ok(digest)
    }
}
