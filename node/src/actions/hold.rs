//! Builds the records of what is kept of a transaction: one for each kind, department and verdict.

use std::collections::BTreeMap;

use proto::{
    address::Address,
    department::DepartmentId,
    envelope::Notification,
    held::{BodyRef, Held, HeldId, HeldKind, HeldStatus},
    time::UnixMs,
    verdict::{Disposition, Verdict},
};

use crate::{
    message::Message,
    policy::{
        blocked::{STRIPPED, STRIPPED_ORIGINAL},
        decide::is_scanned_again,
        resolve::{Edit, End, Fate, is_same_edit},
    },
    smtp::transaction::{Transaction, TrustClass},
};

/// Longest problem of a record, in characters. The state refuses a record with a longer one.
pub const PROBLEM_CHARS_MAX: usize = 500;

/// Recipients that are kept in one record.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Why they are kept.
    pub kind: HeldKind,
    /// Whose recipients they are; nobody's on the Internet.
    pub department: Option<DepartmentId>,
    /// How they are trusted: it is part of the header fields of the body.
    pub class: TrustClass,
    /// What was decided for them.
    pub verdict: Verdict,
    /// What is kept in the place of the message.
    pub edit: Edit,
    /// Who.
    pub recipients: Vec<Address>,
    /// What the sender wants to hear of them, where it said so.
    pub notifications: BTreeMap<Address, Notification>,
    /// What their next hop said last; empty when none was asked.
    pub problem: String,
    /// When it is to be scanned again and delivered, in milliseconds from now; `None` when it is held for another reason.
    pub rescan_after_ms: Option<u64>,
}

/// Sorts fates into records: every one of them is in exactly one.
#[must_use]
pub fn keeps<'a>(fates: impl Iterator<Item = (&'a Fate, HeldKind)>) -> Vec<Keep> {
    let mut keeps: Vec<Keep> = Vec::new();
    for (fate, kind) in fates {
        let recipient = &fate.recipient;
        let department = recipient.department();
        let rescan_after_ms = (kind == HeldKind::Deferred && is_scanned_again(&fate.verdict))
            .then(|| recipient.policy.rescan_after_minutes.value * 60_000);
        let same = |keep: &&mut Keep| {
            keep.kind == kind
                && keep.rescan_after_ms == rescan_after_ms
                && keep.department.as_ref() == department
                && keep.class == recipient.class
                && keep.verdict == fate.verdict
                && is_same_edit(&keep.edit, &fate.edit)
        };
        let asked = Some((recipient.address.clone(), recipient.notification.clone()));
        let asked = asked.filter(|(_, notification)| !notification.is_plain());
        match keeps.iter_mut().find(same) {
            Some(keep) => {
                keep.recipients.push(recipient.address.clone());
                keep.notifications.extend(asked);
            }
            None => keeps.push(Keep {
                kind,
                department: department.cloned(),
                class: recipient.class,
                verdict: fate.verdict.clone(),
                edit: fate.edit.clone(),
                recipients: vec![recipient.address.clone()],
                notifications: asked.into_iter().collect(),
                problem: problem(fate),
                rescan_after_ms,
            }),
        }
    }
    keeps
}

/// The message as it came, kept for those who get it without what was taken out.
#[must_use]
pub fn original(fate: &Fate) -> Fate {
    let mut verdict = fate.verdict.clone();
    verdict.disposition = Disposition::Quarantine;
    for reason in verdict.reasons.iter_mut().filter(|reason| reason.rule == STRIPPED) {
        reason.rule = STRIPPED_ORIGINAL.to_owned();
        reason.text = "what was taken out for its recipients is still in it".to_owned();
    }
    Fate { verdict, edit: None, ..fate.clone() }
}

/// What the next hop said. A message that was never handed to one has no problem but its verdict.
fn problem(fate: &Fate) -> String {
    if fate.verdict.disposition != Disposition::Accept || is_scanned_again(&fate.verdict) {
        return String::new();
    }
    match &fate.end {
        End::Refused(reply) | End::Deferred(reply) | End::Unknown(reply) => {
            reply.for_operators().chars().take(PROBLEM_CHARS_MAX).collect()
        }
        End::Delivered { .. } | End::Held(_) | End::Discarded => String::new(),
    }
}

/// The record of a keep whose body is durable.
#[must_use]
pub fn record(
    id: HeldId,
    keep: Keep,
    body: BodyRef,
    message: &Message,
    transaction: &Transaction,
    now: UnixMs,
    retry_at: UnixMs,
) -> Held {
    let is_deferred = keep.kind == HeldKind::Deferred;
    Held {
        id,
        transaction: transaction.id,
        kind: keep.kind,
        status: if is_deferred { HeldStatus::Due { released: None } } else { HeldStatus::Waiting },
        department: keep.department,
        from_department: transaction.client.department.clone(),
        reverse_path: transaction.reverse_path.clone(),
        recipients: keep.recipients,
        body,
        verdict: keep.verdict.bounded(),
        client: transaction.client.address,
        subject: message.subject.clone(),
        received_at: now,
        lease: None,
        attempts: u32::from(is_deferred && keep.rescan_after_ms.is_none()),
        next_attempt: match keep.rescan_after_ms {
            Some(ms) => now.plus_ms(ms),
            None if is_deferred => retry_at,
            None => now,
        },
        last_problem: keep.problem,
        handling: transaction.handling.clone(),
        notifications: keep.notifications,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::{
        envelope::{Notification, Notify},
        held::{BodyRef, HeldId, HeldKind, HeldStatus},
        policy::PolicyLayer,
        score::Score,
        time::UnixMs,
        verdict::{Disposition, Reason, Verdict},
    };

    use super::{keeps, record};
    use crate::{
        policy::{
            decide::RESCAN,
            resolve::{End, Fate},
            samples::{message, transaction, view},
        },
        smtp::reply::Reply,
    };

    #[test]
    fn there_is_a_record_for_each_kind_department_and_verdict() {
        let to = ["a@interior.gov.test", "b@interior.gov.test", "c@health.gov.test", "d@interior.gov.test"];
        let transaction = transaction(view(PolicyLayer::default()), &to);
        let verdict = Verdict {
            disposition: Disposition::Accept,
            score: Score::ZERO,
            tagged: false,
            reasons: Vec::new(),
            policy_version: 7,
        };
        let fates: Vec<Fate> = transaction
            .recipients
            .iter()
            .map(|recipient| Fate {
                recipient: recipient.clone(),
                verdict: verdict.clone(),
                edit: None,
                end: End::Deferred(Reply::temporary(51, (4, 1), "no answer")),
            })
            .collect();
        let kinds = [HeldKind::Deferred, HeldKind::Deferred, HeldKind::Deferred, HeldKind::Quarantined];
        let keeps = keeps(fates.iter().zip(kinds));
        let counts: Vec<_> = keeps.iter().map(|keep| (keep.kind, keep.recipients.len())).collect();
        assert_eq!(counts, [(HeldKind::Deferred, 2), (HeldKind::Deferred, 1), (HeldKind::Quarantined, 1)]);
        assert_eq!(keeps[0].problem, "451 4.4.1 no answer");
        let mut wordy = fates[0].clone();
        wordy.end = End::Unknown(Reply::temporary(51, (4, 7), "x".repeat(600)).noted("y".repeat(600)));
        let problem = &super::keeps(std::iter::once((&wordy, HeldKind::Deferred)))[0].problem;
        assert_eq!(problem.chars().count(), 500, "the state takes no more");
        let mut never_handed_on = fates[0].clone();
        never_handed_on.verdict.disposition = Disposition::Quarantine;
        assert_eq!(super::keeps(std::iter::once((&never_handed_on, HeldKind::Quarantined)))[0].problem, "");

        let id = HeldId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").expect("an id");
        let body = BodyRef { digest: "0".repeat(64), size_bytes: 1, servers: Vec::new() };
        let message = message("From: a@b.test\nSubject: s\n\nx\n");
        let deferred = record(id, keeps[0].clone(), body.clone(), &message, &transaction, UnixMs(1), UnixMs(31));
        assert_eq!(deferred.status, HeldStatus::Due { released: None });
        assert_eq!((deferred.attempts, deferred.next_attempt), (1, UnixMs(31)));
        assert!(deferred.is_plain());
        let mut asked = transaction.clone();
        asked.handling.require_tls = true;
        let notification = Notification { notify: Some(Notify::Never), original: None };
        let mut fate = fates[1].clone();
        fate.recipient.notification = notification.clone();
        let of_both = super::keeps([&fates[0], &fate].into_iter().zip(kinds)).remove(0);
        let held = record(id, of_both, body.clone(), &message, &asked, UnixMs(1), UnixMs(31));
        assert!(held.handling.require_tls);
        assert_eq!(held.notifications, BTreeMap::from([(fate.recipient.address, notification)]));
        let mut again = fates[0].clone();
        again.verdict.reasons = vec![Reason { rule: RESCAN.into(), score: Score::ZERO, text: String::new() }];
        let mut policy = (*again.recipient.policy).clone();
        policy.rescan_after_minutes.value = 30;
        again.recipient.policy = policy.into();
        let of_both = super::keeps([&again, &fates[1]].into_iter().zip(kinds));
        assert_eq!((of_both.len(), of_both[0].problem.as_str()), (2, ""));
        let rescanned = record(id, of_both[0].clone(), body.clone(), &message, &transaction, UnixMs(1), UnixMs(31));
        assert_eq!((rescanned.attempts, rescanned.next_attempt), (0, UnixMs(1_800_001)));
        assert_eq!(rescanned.status, HeldStatus::Due { released: None });
        let kept = record(id, keeps[2].clone(), body, &message, &transaction, UnixMs(1), UnixMs(31));
        assert!(!kept.is_due(UnixMs(u64::MAX)));
        assert_eq!((kept.status, kept.attempts, kept.subject.as_str()), (HeldStatus::Waiting, 0, "s"));
    }
}
