//! Writes the audit log: one record for each change of an operator and each discarded message, chained by hashes.

use proto::{
    audit::AuditRecord,
    held::TransactionId,
    mutation::{Grounds, Mutation, Refused},
    verdict::Verdict,
};

use super::{
    Step,
    keys::{Keys, Kind, key},
};

/// Longest `why`, in characters.
const WHY_CHARS_MAX: usize = 500;
/// Longest `ticket`, in characters.
const TICKET_CHARS_MAX: usize = 100;

/// Whether what an operator gave with a change says why, keeps its bounds and cannot write to a terminal.
///
/// # Errors
/// `Refused::Invalid`, with what is wrong.
pub fn check_grounds(grounds: &Grounds) -> Result<(), Refused> {
    if grounds.why.trim().is_empty() {
        return Err(Refused::Invalid("why: a reason is needed, for the audit log".into()));
    }
    for (what, text, max) in [("why", &grounds.why, WHY_CHARS_MAX), ("ticket", &grounds.ticket, TICKET_CHARS_MAX)] {
        if text.chars().count() > max {
            return Err(Refused::Invalid(format!("{what}: at most {max} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err(Refused::Invalid(format!("{what}: no line breaks or control characters")));
        }
    }
    Ok(())
}

/// Text from outside without control characters and cut to a length.
pub(super) fn clipped(text: &str, chars_max: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(chars_max).collect()
}

impl<K: Keys> Step<'_, K> {
    /// Appends a record. There is no cap: what happened is never forgotten.
    pub(super) fn audit(&mut self, mutation: &Mutation, what: String, grounds: &Grounds) {
        let record = AuditRecord {
            seq: self.meta.audit_seq + 1,
            mutation: mutation.id,
            at: self.meta.now,
            by: mutation.by.to_string(),
            what,
            why: grounds.why.clone(),
            ticket: grounds.ticket.clone(),
            previous: std::mem::take(&mut self.meta.audit_hash),
        };
        self.meta.audit_seq = record.seq;
        self.meta.audit_hash = record.hash();
        self.keys.put(key(Kind::Audit, &[&record.seq.to_be_bytes()]), &record);
    }

    pub(super) fn audit_discard(
        &mut self,
        mutation: &Mutation,
        transaction: TransactionId,
        recipients: u32,
        verdict: &Verdict,
    ) {
        let rules: Vec<&str> = verdict.reasons.iter().map(|reason| reason.rule.as_str()).collect();
        let why = clipped(
            &format!("{} points under policy version {}: {}", verdict.score, verdict.policy_version, rules.join(", ")),
            WHY_CHARS_MAX,
        );
        let what = format!("discarded message {transaction} for {recipients} recipients");
        self.audit(mutation, what, &Grounds { why, ticket: String::new() });
    }
}
