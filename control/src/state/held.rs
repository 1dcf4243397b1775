//! Keeps messages: all records of one transaction or none, with the indexes by which they are found again.

use std::collections::BTreeSet;

use proto::{
    address::Address,
    held::{BodyRef, Held, HeldId, HeldKind, HeldStatus, is_digest},
    mutation::{Outcome, Refused},
    policy::MESSAGE_BYTES_MAX,
    time::UnixMs,
    verdict::{REASON_BYTES_MAX, REASONS_MAX},
};
use serde::{Deserialize, Serialize};

use super::{
    Step,
    keys::{Keys, Kind, behind, key, read_parts},
    policy::full,
};

/// Most records of one transaction.
const RECORDS_MAX: usize = 1_000;
/// Most recipients of one record.
const RECIPIENTS_MAX: usize = 1_000;
/// Longest subject, in characters.
const SUBJECT_CHARS_MAX: usize = 200;
/// Longest text of the next hop, in characters.
pub(super) const PROBLEM_CHARS_MAX: usize = 500;
/// Fewest servers that must have made a body durable: a message on one disk is no promise.
const BODY_SERVERS_MIN: usize = 2;
/// Most servers that a body may name.
const BODY_SERVERS_MAX: usize = 16;
/// What the header fields that we add may lengthen a body by, in bytes.
const BODY_SLACK_BYTES: u64 = 1024 * 1024;
/// How far back a node's clock may put the receipt of a message, in milliseconds.
const RECEIVED_AGO_MS_MAX: u64 = 60 * 60 * 1000;
/// Longest time to the next attempt, in milliseconds.
pub(super) const RETRY_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Key of a record's value.
pub(super) fn held_key(id: HeldId) -> Vec<u8> {
    key(Kind::Held, &[&id.0.to_bytes()])
}

/// A record with what became of the recipients whose fate is settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its recipients are those still to be tried.
    pub(super) held: Held,
    /// Whose next hop said 250.
    pub(super) delivered: Vec<Address>,
    /// Whose next hop refused it for good; a release tries them again.
    pub(super) refused: Vec<Address>,
}

impl Record {
    /// The record for people: who has not got it yet, refused or not; of a delivered one, who has got it.
    pub(super) fn shown(mut self) -> Held {
        self.held.recipients.extend(self.refused);
        if matches!(self.held.status, HeldStatus::Delivered { .. }) {
            self.held.recipients = self.delivered;
        }
        self.held
    }
}

/// Reads a record.
pub(super) fn record(keys: &impl Keys, id: HeldId) -> Option<Record> {
    read_parts(keys, "a held record", &held_key(id))
}

/// Whether nobody needs the body any more.
pub(super) fn has_ended(status: &HeldStatus) -> Option<UnixMs> {
    match status {
        HeldStatus::Delivered { at, .. } | HeldStatus::Deleted { at, .. } => Some(*at),
        HeldStatus::Waiting | HeldStatus::Due { .. } | HeldStatus::Undeliverable { .. } => None,
    }
}

/// Whether it is waiting for somebody or for its delivery.
fn is_open(status: &HeldStatus) -> bool {
    match status {
        HeldStatus::Waiting | HeldStatus::Due { .. } => true,
        HeldStatus::Delivered { .. } | HeldStatus::Undeliverable { .. } | HeldStatus::Deleted { .. } => false,
    }
}

/// When a record that is due can be leased.
fn due_at(held: &Held) -> Option<UnixMs> {
    let free = held.lease.as_ref().map_or(UnixMs(0), |lease| lease.until);
    matches!(held.status, HeldStatus::Due { .. }).then(|| held.next_attempt.max(free))
}

/// All index keys of a record: the one place that says how a record is found.
fn index_keys(record: &Record) -> BTreeSet<Vec<u8>> {
    let held = &record.held;
    let id = held.id.0.to_bytes();
    let ended = has_ended(&held.status);
    let flag = [u8::from(ended.is_some())];
    let received = held.received_at.0.to_be_bytes();
    let mut keys = BTreeSet::from([key(Kind::ByTime, &[&flag, &received, &id])]);
    if let Some(department) = &held.department {
        keys.insert(key(Kind::ByDepartment, &[&flag, department.as_str().as_bytes(), &[0], &received, &id]));
    }
    for recipient in held.recipients.iter().chain(&record.refused).chain(&record.delivered) {
        keys.insert(key(Kind::ByRecipient, &[&flag, recipient.key().as_bytes(), &[0], &received, &id]));
    }
    if let Some(at) = due_at(held) {
        keys.insert(key(Kind::ByDue, &[&at.0.to_be_bytes(), &id]));
    }
    match ended {
        Some(at) => keys.insert(key(Kind::ByEnd, &[&at.0.to_be_bytes(), &id])),
        None => keys.insert(key(Kind::ByBody, &[held.body.digest.as_bytes(), &id])),
    };
    keys
}

/// The id at the end of an index key.
pub(super) fn id_of_index(index: &[u8]) -> Option<HeldId> {
    index.last_chunk::<16>().map(|id| HeldId(ulid::Ulid::from_bytes(*id)))
}

/// Whether a body is named as one that is durable.
pub(super) fn check_body(body: &BodyRef, bytes_max: u64) -> Result<(), Refused> {
    let invalid = |what: &str| Err(Refused::Invalid(what.to_owned()));
    full("servers of a body", body.servers.len(), BODY_SERVERS_MAX)?;
    if body.servers.iter().collect::<BTreeSet<_>>().len() < BODY_SERVERS_MIN {
        return invalid("a body is durable on at least two servers before its record is kept");
    }
    if !is_digest(&body.digest) {
        return invalid("the body's digest is 64 lower-case hex digits");
    }
    if body.size_bytes > bytes_max {
        return invalid("the body is too large");
    }
    Ok(())
}

fn check(held: &Held) -> Result<(), Refused> {
    let invalid = |what: &str| Err(Refused::Invalid(what.to_owned()));
    let expected = match held.kind {
        HeldKind::Quarantined => HeldStatus::Waiting,
        HeldKind::Deferred => HeldStatus::Due { released: None },
    };
    if held.status != expected {
        return invalid("a quarantined record begins as waiting, a deferred one as due");
    }
    if held.recipients.is_empty() {
        return invalid("a record needs a recipient");
    }
    full("recipients of a record", held.recipients.len(), RECIPIENTS_MAX)?;
    full("reasons of a verdict", held.verdict.reasons.len(), REASONS_MAX)?;
    check_body(&held.body, MESSAGE_BYTES_MAX + BODY_SLACK_BYTES)?;
    let recipients: BTreeSet<&Address> = held.recipients.iter().collect();
    if recipients.len() != held.recipients.len() {
        return invalid("a recipient is there twice");
    }
    if held.subject.chars().count() > SUBJECT_CHARS_MAX || held.subject.chars().any(char::is_control) {
        return invalid("the subject is at most 200 characters without control characters");
    }
    if held.verdict.reasons.iter().any(|reason| reason.rule.len() + reason.text.len() > REASON_BYTES_MAX) {
        return invalid("a reason is at most 2000 bytes");
    }
    if held.last_problem.chars().count() > PROBLEM_CHARS_MAX || held.last_problem.chars().any(char::is_control) {
        return invalid("the problem is at most 500 characters without control characters");
    }
    if !held.notifications.keys().all(|address| recipients.contains(address)) {
        return invalid("a notification is of one of the recipients");
    }
    if held.lease.is_some() {
        return invalid("a new record has no lease");
    }
    Ok(())
}

impl<K: Keys> Step<'_, K> {
    /// Keeps all records or none. Records that are there already, from the same transaction, stay as they are.
    pub(super) fn hold(&mut self, records: &[Held]) -> Result<Outcome, Refused> {
        let Some(first) = records.first() else { return Err(Refused::Invalid("no record".into())) };
        full("records of a transaction", records.len(), RECORDS_MAX)?;
        let mut fresh = Vec::new();
        let mut ids = BTreeSet::new();
        for held in records {
            check(held)?;
            if held.transaction != first.transaction {
                return Err(Refused::Invalid("the records are of different transactions".into()));
            }
            if !ids.insert(held.id) {
                return Err(Refused::Invalid("a held id is there twice".into()));
            }
            match record(&self.keys, held.id) {
                None => fresh.push(held),
                Some(Record { held: old, .. })
                    if old.transaction == held.transaction && old.body.digest == held.body.digest => {}
                Some(_) => return Err(Refused::Invalid(format!("the id {} is taken", held.id))),
            }
        }
        let wanted = u64::try_from(fresh.len()).unwrap_or(u64::MAX);
        self.make_room(wanted)?;
        for held in fresh {
            let held = self.admitted(held);
            self.store(None, Record { held, delivered: Vec::new(), refused: Vec::new() });
        }
        self.meta.held += wanted;
        Ok(Outcome::Done)
    }

    /// A node's clock may be wrong: the times that decide about delivery stay near log time.
    fn admitted(&self, held: &Held) -> Held {
        let now = self.meta.now;
        let earliest = UnixMs(now.0.saturating_sub(RECEIVED_AGO_MS_MAX));
        Held {
            received_at: held.received_at.clamp(earliest, now),
            next_attempt: held.next_attempt.min(now.plus_ms(RETRY_MS_MAX)),
            ..held.clone()
        }
    }

    /// Evicts what ended first until `wanted` records fit.
    fn make_room(&mut self, wanted: u64) -> Result<(), Refused> {
        let over = (self.meta.held + wanted).saturating_sub(self.caps.held);
        if over == 0 {
            return Ok(());
        }
        let over = usize::try_from(over).unwrap_or(usize::MAX);
        let ended = self.first_ended(over);
        if ended.len() < over {
            return Err(Refused::Full { what: "held messages".into(), cap: self.caps.held });
        }
        for id in ended {
            self.forget(id);
        }
        Ok(())
    }

    fn first_ended(&self, count: usize) -> Vec<HeldId> {
        let from = key(Kind::ByEnd, &[]);
        let to = behind(&from);
        self.keys.range(&from, &to).filter_map(|(index, _)| id_of_index(&index)).take(count).collect()
    }

    fn forget(&mut self, id: HeldId) {
        if let Some(record) = record(&self.keys, id) {
            for index in index_keys(&record) {
                self.keys.remove(index);
            }
            self.keys.remove_parts(&held_key(id));
            self.meta.held = self.meta.held.saturating_sub(1);
        }
    }

    /// Stores a record in the place of `old`, and moves its index keys.
    pub(super) fn store(&mut self, old: Option<&Record>, new: Record) {
        let before = old.map(index_keys).unwrap_or_default();
        let after = index_keys(&new);
        for gone in before.difference(&after) {
            self.keys.remove(gone.clone());
        }
        for index in after {
            self.keys.put_bytes(index, Vec::new());
        }
        let was_open = old.is_some_and(|old| is_open(&old.held.status));
        match (was_open, is_open(&new.held.status)) {
            (false, true) => self.meta.open += 1,
            (true, false) => self.meta.open = self.meta.open.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
        self.keys.put_parts(&held_key(new.held.id), &new);
    }
}
