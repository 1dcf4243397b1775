//! Moves held messages: a lease, what came of an attempt, an operator's release or deletion.

use std::collections::BTreeSet;

use proto::{
    address::Address,
    held::{Held, HeldId, HeldStatus, Lease},
    mutation::{Grounds, Mutation, Outcome, Refused},
    time::UnixMs,
};

use super::{
    Step,
    audit::{check_grounds, clipped},
    held::{PROBLEM_CHARS_MAX, RETRY_MS_MAX, Record, record},
    keys::Keys,
};

/// Longest lease, in milliseconds.
const LEASE_MS_MAX: u64 = 10 * 60 * 1000;
/// How long delivery is tried after a message was accepted or released: five days (RFC 5321 section 4.5.4.1 asks for
/// at least four to five).
const TRIED_MS_MAX: u64 = 5 * 24 * 60 * 60 * 1000;

/// How far a node's clock may be behind log time before its time of the next attempt says nothing; then also the time to that
/// attempt, so that a log time far ahead does not make nodes try without a pause.
const BEHIND_MS: u64 = 60 * 1000;

/// What a node says about an attempt.
pub(super) struct Attempt<'m> {
    pub(super) delivered: &'m [Address],
    pub(super) refused: &'m [Address],
    pub(super) next_attempt: UnixMs,
    pub(super) problem: &'m str,
}

/// Who released a record, if anybody.
fn released(status: &HeldStatus) -> Option<&(String, UnixMs)> {
    match status {
        HeldStatus::Due { released }
        | HeldStatus::Delivered { released, .. }
        | HeldStatus::Undeliverable { released, .. } => released.as_ref(),
        HeldStatus::Waiting | HeldStatus::Deleted { .. } => None,
    }
}

fn live_lease(held: &Held, now: UnixMs) -> Option<&Lease> {
    held.lease.as_ref().filter(|lease| lease.until > now)
}

/// Why a record that is neither waiting nor undeliverable cannot be moved by an operator.
fn settled(held: &Held) -> Refused {
    if let HeldStatus::Deleted { by, at } = &held.status {
        return Refused::AlreadyDeleted { by: by.clone(), at: *at };
    }
    match released(&held.status) {
        Some((by, at)) => Refused::AlreadyReleased { by: by.clone(), at: *at },
        None => Refused::NotWaiting { status: held.status.to_string() },
    }
}

impl<K: Keys> Step<'_, K> {
    pub(super) fn lease(&mut self, id: HeldId, node: &str, for_ms: u64) -> Result<Outcome, Refused> {
        let now = self.meta.now;
        let old = record(&self.keys, id).ok_or(Refused::NoSuch)?;
        let held = &old.held;
        match live_lease(held, now) {
            // The node that has it goes on: leases are short, so that a dead node's mail does not wait, and are renewed.
            Some(lease) if lease.node == node => {}
            Some(lease) => return Err(Refused::Leased { node: lease.node.clone(), until: lease.until }),
            None if held.is_due(now) => {}
            None if matches!(held.status, HeldStatus::Due { .. }) => return Err(Refused::NotDue),
            None => return Err(settled(held)),
        }
        let until = now.plus_ms(for_ms.clamp(1, LEASE_MS_MAX));
        let mut leased = old.clone();
        leased.held.lease = Some(Lease { node: node.to_owned(), until });
        self.store(Some(&old), leased.clone());
        Ok(Outcome::Leased(Box::new(leased.held)))
    }

    /// The answer to a lease that was asked for before under the same mutation id.
    pub(super) fn lease_again(&self, id: HeldId, node: &str) -> Outcome {
        let held = record(&self.keys, id).map(|record| record.held);
        let mine = |held: &Held| live_lease(held, self.meta.now).is_some_and(|lease| lease.node == node);
        held.filter(mine).map_or(Outcome::Refused(Refused::LeaseLost), |held| Outcome::Leased(Box::new(held)))
    }

    pub(super) fn attempted(&mut self, id: HeldId, node: &str, attempt: &Attempt<'_>) -> Result<Outcome, Refused> {
        let old = record(&self.keys, id).ok_or(Refused::NoSuch)?;
        // A lease that has run out but that nobody has taken over still counts: what was delivered was delivered.
        if old.held.lease.as_ref().is_none_or(|lease| lease.node != node) {
            return Err(Refused::LeaseLost);
        }
        let after = self.after_attempt(&old, attempt);
        self.store(Some(&old), after);
        Ok(Outcome::Done)
    }

    fn after_attempt(&self, old: &Record, attempt: &Attempt<'_>) -> Record {
        let (now, held) = (self.meta.now, &old.held);
        let delivered: BTreeSet<&Address> = attempt.delivered.iter().collect();
        let refused: BTreeSet<&Address> = attempt.refused.iter().collect();
        let mut record = old.clone();
        let after = &mut record.held;
        after.lease = None;
        after.recipients.clear();
        for recipient in &held.recipients {
            // A recipient in both lists has the message: delivered wins, so that it gets no second copy.
            let list = if delivered.contains(recipient) {
                &mut record.delivered
            } else if refused.contains(recipient) {
                &mut record.refused
            } else {
                &mut after.recipients
            };
            list.push(recipient.clone());
        }
        let released = released(&held.status).cloned();
        let since = released.as_ref().map_or(held.received_at, |(_, at)| *at);
        after.status = match (after.recipients.is_empty(), record.refused.is_empty()) {
            (true, true) => HeldStatus::Delivered { at: now, released },
            (true, false) => HeldStatus::Undeliverable { at: now, released },
            (false, _) if now.since_ms(since) >= TRIED_MS_MAX => HeldStatus::Undeliverable { at: now, released },
            (false, _) => HeldStatus::Due { released },
        };
        if !matches!(after.status, HeldStatus::Delivered { .. }) {
            after.attempts = held.attempts.saturating_add(1);
        }
        let is_behind = now.since_ms(attempt.next_attempt) > BEHIND_MS;
        let earliest = if is_behind { now.plus_ms(BEHIND_MS) } else { now };
        after.next_attempt = attempt.next_attempt.clamp(earliest, now.plus_ms(RETRY_MS_MAX));
        after.last_problem = clipped(attempt.problem, PROBLEM_CHARS_MAX);
        record
    }

    pub(super) fn release(&mut self, mutation: &Mutation, id: HeldId, grounds: &Grounds) -> Result<Outcome, Refused> {
        check_grounds(grounds)?;
        let old = record(&self.keys, id).ok_or(Refused::NoSuch)?;
        let held = &old.held;
        match held.status {
            HeldStatus::Waiting | HeldStatus::Undeliverable { .. } => {}
            HeldStatus::Due { .. } | HeldStatus::Delivered { .. } | HeldStatus::Deleted { .. } => {
                return Err(settled(held));
            }
        }
        let mut due = old.clone();
        due.held.recipients.append(&mut due.refused);
        due.held.status = HeldStatus::Due { released: Some((mutation.by.to_string(), self.meta.now)) };
        due.held.next_attempt = self.meta.now;
        // The pause after a failure grows with the attempts: this is a new beginning.
        due.held.attempts = 0;
        self.store(Some(&old), due);
        self.audit(mutation, format!("released held message {id} of transaction {}", held.transaction), grounds);
        Ok(Outcome::Done)
    }

    pub(super) fn delete(&mut self, mutation: &Mutation, id: HeldId, grounds: &Grounds) -> Result<Outcome, Refused> {
        check_grounds(grounds)?;
        let old = record(&self.keys, id).ok_or(Refused::NoSuch)?;
        let held = &old.held;
        if let Some(lease) = live_lease(held, self.meta.now) {
            return Err(Refused::Leased { node: lease.node.clone(), until: lease.until });
        }
        match held.status {
            HeldStatus::Waiting | HeldStatus::Undeliverable { .. } => {}
            HeldStatus::Due { .. } | HeldStatus::Delivered { .. } | HeldStatus::Deleted { .. } => {
                return Err(settled(held));
            }
        }
        let mut deleted = old.clone();
        deleted.held.status = HeldStatus::Deleted { by: mutation.by.to_string(), at: self.meta.now };
        deleted.held.lease = None;
        self.store(Some(&old), deleted);
        self.audit(mutation, format!("deleted held message {id} of transaction {}", held.transaction), grounds);
        Ok(Outcome::Done)
    }
}
