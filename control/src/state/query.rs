//! Typed reads of the state.

use proto::{
    audit::AuditRecord,
    department::{Department, DepartmentId},
    held::{BodyRef, Held, HeldId},
    mutation::Grounds,
    time::UnixMs,
    view::{StateSettings, ViewChange},
};
use serde::{Deserialize, Serialize};

use super::{
    Meta,
    held::{self, Record},
    keys::{Keys, Kind, behind, key, read_parts, stored},
    lessons, nodes,
    policy::{department_key, version_key},
};

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

impl HeldFilter {
    /// What the index by recipient does not tell.
    fn takes(&self, held: &Held) -> bool {
        self.department.as_ref().is_none_or(|wanted| held.department.as_ref() == Some(wanted))
    }

    /// The narrowest index for it, without the flag for ended ones.
    fn prefix(&self, ended: bool) -> Vec<u8> {
        let flag = [u8::from(ended)];
        match (&self.recipient, &self.department) {
            (Some(recipient), _) => key(Kind::ByRecipient, &[&flag, recipient.as_bytes(), &[0]]),
            (None, Some(department)) => key(Kind::ByDepartment, &[&flag, department.as_str().as_bytes(), &[0]]),
            (None, None) => key(Kind::ByTime, &[&flag]),
        }
    }
}

/// Ids of all departments, in order.
pub(super) fn department_ids(keys: &impl Keys) -> Vec<DepartmentId> {
    let prefix = key(Kind::Department, &[]);
    let mut ids = Vec::new();
    for (key, _) in keys.range(&prefix, &behind(&prefix)) {
        if let Some(id) = department_id_of(&key)
            && ids.last() != Some(&id)
        {
            ids.push(id);
        }
    }
    ids
}

/// The id in the key of a department's part.
pub(super) fn department_id_of(key: &[u8]) -> Option<DepartmentId> {
    // The kind, the id, a zero byte and the number of the part.
    let id = std::str::from_utf8(key.get(1..key.len().saturating_sub(3))?).ok()?;
    DepartmentId::parse(id).ok()
}

/// The settings in force.
pub(super) fn settings(keys: &impl Keys) -> StateSettings {
    read_parts(keys, "the settings", &key(Kind::Settings, &[])).unwrap_or_default()
}

/// The whole policy as nodes see it, without reputation; `index` is that of the last applied entry.
pub fn view(keys: &impl Keys, index: u64) -> ViewChange {
    let department = |id: &DepartmentId| read_parts::<Department>(keys, "a department", &department_key(id));
    ViewChange {
        index,
        policy_version: policy_version(keys),
        whole: true,
        settings: Some(settings(keys)),
        departments: department_ids(keys).iter().filter_map(department).collect(),
        drained: Some(nodes::drained(keys)),
        ..ViewChange::default()
    }
}

/// The policy version in force; zero before the first.
pub fn policy_version(keys: &impl Keys) -> u64 {
    Meta::of(keys).policy_version
}

/// Log time: the largest that any batch was stamped with.
pub fn log_time(keys: &impl Keys) -> UnixMs {
    Meta::of(keys).now
}

/// Policy versions, newest first.
pub fn history(keys: &impl Keys, max: usize) -> Vec<PolicyRecord> {
    let newest = policy_version(keys);
    let record = |version: u64| read_parts(keys, "a policy version", &version_key(version));
    (1..=newest).rev().map_while(record).take(max).collect()
}

/// A held record.
pub fn held(keys: &impl Keys, id: HeldId) -> Option<Held> {
    held::record(keys, id).map(Record::shown)
}

/// Held records, newest first.
pub fn held_list(keys: &impl Keys, filter: &HeldFilter) -> Vec<Held> {
    let mut found = Vec::new();
    for ended in [false, true] {
        if ended && !filter.ended {
            break;
        }
        let prefix = filter.prefix(ended);
        let to = behind(&prefix);
        let listed = keys.range(&prefix, &to).rev();
        let records = listed.filter_map(|(index, _)| held(keys, held::id_of_index(&index)?));
        found.extend(records.filter(|held| filter.takes(held)).take(filter.max));
    }
    found.sort_by_key(|held| std::cmp::Reverse((held.received_at, held.id)));
    found.truncate(filter.max);
    found
}

/// How many records are waiting or due.
pub fn held_count(keys: &impl Keys) -> u64 {
    Meta::of(keys).open
}

/// Records whose delivery is due and that nobody has leased, oldest first.
pub fn due(keys: &impl Keys, now: UnixMs, max: usize) -> Vec<Held> {
    let (from, to) = (due_key(UnixMs(0)), due_key(now.plus_ms(1)));
    let records = keys.range(&from, &to).filter_map(|(index, _)| held::record(keys, held::id_of_index(&index)?));
    records.map(|record| record.held).filter(|held| held.is_due(now)).take(max).collect()
}

/// When the next record that is not due yet will be.
pub fn next_due(keys: &impl Keys, now: UnixMs) -> Option<UnixMs> {
    let to = behind(&key(Kind::ByDue, &[]));
    let (index, _) = keys.range(&due_key(now.plus_ms(1)), &to).next()?;
    let at = index.get(1..9)?.try_into().ok()?;
    Some(UnixMs(u64::from_be_bytes(at)))
}

fn due_key(at: UnixMs) -> Vec<u8> {
    key(Kind::ByDue, &[&at.0.to_be_bytes()])
}

/// A part of the audit log, and the head of its chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// Newest first.
    pub records: Vec<AuditRecord>,
    /// Number of the newest record of all; zero before the first.
    pub head_seq: u64,
    /// Hash of the newest record of all, as the state remembers it; empty before the first.
    pub head_hash: String,
}

/// Audit records before number `before`, newest first; zero: from the newest on.
pub fn audit(keys: &impl Keys, before: u64, max: usize) -> AuditPage {
    let prefix = key(Kind::Audit, &[]);
    let to = if before == 0 { behind(&prefix) } else { key(Kind::Audit, &[&before.to_be_bytes()]) };
    let newest_first = keys.range(&prefix, &to).rev();
    let records = newest_first.take(max).map(|(_, value)| stored("an audit record", &value)).collect();
    let meta = Meta::of(keys);
    AuditPage { records, head_seq: meta.audit_seq, head_hash: meta.audit_hash }
}

/// Whether any record that has not ended needs this body, or it is the model's.
pub fn needs_body(keys: &impl Keys, digest: &str) -> bool {
    let prefix = key(Kind::ByBody, &[digest.as_bytes()]);
    let is_held = || digest.len() == 64 && keys.range(&prefix, &behind(&prefix)).next().is_some();
    is_held() || lessons::learnt(keys).body.is_some_and(|body| body.digest == digest)
}

/// Bodies that records which have not ended need, and that of the model, in the order of their digests, from behind `after` on;
/// each once, with all servers that its records name.
pub fn bodies_after(keys: &impl Keys, after: &str, max: usize) -> Vec<BodyRef> {
    let mut found = held_bodies_after(keys, after, max);
    if let Some(model) = lessons::learnt(keys).body.filter(|model| model.digest.as_str() > after) {
        let place = found.partition_point(|body| body.digest < model.digest);
        found.insert(place, model);
        found.truncate(max);
    }
    found
}

fn held_bodies_after(keys: &impl Keys, after: &str, max: usize) -> Vec<BodyRef> {
    let kind = key(Kind::ByBody, &[]);
    // Held ids follow the digest, and none of them begins with 0xff.
    let from = if after.is_empty() { kind.clone() } else { key(Kind::ByBody, &[after.as_bytes(), &[0xff; 16]]) };
    let mut found: Vec<BodyRef> = Vec::new();
    for (index, _) in keys.range(&from, &behind(&kind)) {
        let Some(record) = held::id_of_index(&index).and_then(|id| held::record(keys, id)) else { continue };
        let body = record.held.body;
        if let Some(last) = found.last_mut().filter(|last| last.digest == body.digest) {
            last.servers.extend(body.servers);
        } else if found.len() < max {
            found.push(body);
        } else {
            break;
        }
    }
    found
}
