//! The decision: from what was found out to a verdict for each distinct policy, route and class among the recipients.
//!
//! Hard rules come first, each a line in `hard_reasons`. Among those that hold the strongest disposition wins, and all of
//! them are named in the verdict. The order of strength is reject, discard, defer, quarantine, accept: to refuse harms
//! nobody, for the sender knows; and a message that could not be scanned is deferred rather than kept, for what is kept
//! may be released. Only mail from the Internet is scored.

use std::sync::Arc;

use proto::{
    policy::{AuthUnavailable, BlockedAction, DmarcAction, Policy, Refusal, Unavailable, VirusScan},
    reputation::Stance,
    score::Score,
    verdict::{Disposition, Reason, Verdict},
};

use super::{
    blocked::{self, STRIPPED},
    evidence::{Analysed, Asked, AuthResult, Evidence, Virus},
    score,
};
use crate::{
    message::{Defect, Mailbox, Message},
    smtp::transaction::{Recipient, Route, Transaction, TrustClass},
};

/// A hard rule that holds: what it demands and why.
type Hard<'e> = (Disposition, &'e str, String);

/// Decides for every recipient: each is in exactly one of the groups.
#[must_use]
pub fn decide(message: &Message, evidence: &Evidence, transaction: &Transaction) -> Vec<(Vec<Recipient>, Verdict)> {
    let mut groups: Vec<Vec<Recipient>> = Vec::new();
    for recipient in &transaction.recipients {
        match groups.iter_mut().find(|group| group.first().is_some_and(|first| same(first, recipient))) {
            Some(group) => group.push(recipient.clone()),
            None => groups.push(vec![recipient.clone()]),
        }
    }
    groups
        .into_iter()
        .filter_map(|group| {
            let first = group.first()?;
            let verdict = verdict(message, evidence, transaction, &first.policy, first.class);
            Some((group, verdict))
        })
        .collect()
}

/// Whether the outcome is settled before any check has run: every recipient is refused by what the message and its
/// envelope are. No later finding can weaken that, for nothing is stronger than to reject.
#[must_use]
pub fn settled(message: &Message, transaction: &Transaction) -> bool {
    transaction.recipients.iter().all(|recipient| {
        structural(message, transaction, &recipient.policy, recipient.class)
            .iter()
            .any(|(disposition, _, _)| *disposition == Disposition::Reject)
    })
}

fn same(one: &Recipient, other: &Recipient) -> bool {
    one.class == other.class
        && (Arc::ptr_eq(&one.policy, &other.policy) || one.policy == other.policy)
        && same_way(&one.route, &other.route)
}

/// With relays the domain does not matter: they take one copy for all of the Internet.
fn same_way(one: &Route, other: &Route) -> bool {
    match (one, other) {
        (Route::Internet { relays, .. }, Route::Internet { relays: others, .. }) if !relays.is_empty() => {
            relays == others
        }
        (Route::Internet { .. } | Route::Department { .. }, Route::Internet { .. } | Route::Department { .. }) => {
            one == other
        }
    }
}

fn verdict(
    message: &Message,
    evidence: &Evidence,
    transaction: &Transaction,
    policy: &Policy,
    class: TrustClass,
) -> Verdict {
    let mut hard = structural(message, transaction, policy, class);
    hard.extend(found(message, evidence, policy, class));
    let blocked = blocked::reasons(message, evidence, policy);
    let is_blocked = !blocked.is_empty();
    hard.extend(blocked.into_iter().map(|(rule, text)| (blocking(policy.blocked_type.value), rule, text)));
    // Stable: rules of one strength stay in the order of their lists.
    hard.sort_by_key(|(disposition, _, _)| strength(*disposition));
    let scored = if class == TrustClass::Internet { score::scored(evidence) } else { Vec::new() };
    let total = score::total(&scored);
    let by_score = by_score(total, policy, class);
    let by_rule = hard.first().map_or(Disposition::Accept, |(disposition, _, _)| *disposition);
    let disposition = if strength(by_rule) <= strength(by_score) { by_rule } else { by_score };
    let action = is_blocked.then_some(policy.blocked_type.value);
    if disposition == Disposition::Accept {
        hard.extend(
            (action == Some(BlockedAction::Strip))
                .then(|| (Disposition::Accept, STRIPPED, "what is not let in is to be taken out".to_owned())),
        );
        hard.extend(scanned_again(message, evidence, policy, class, total));
    }
    let mut reasons: Vec<Reason> =
        hard.into_iter().map(|(_, rule, text)| score::reason(rule, Score::ZERO, text)).collect();
    reasons.extend(scored);
    Verdict {
        disposition,
        score: total,
        tagged: action == Some(BlockedAction::Tag) || class == TrustClass::Internet && total >= policy.tag_at.value,
        reasons,
        policy_version: transaction.view.policy_version,
    }
}

/// Of a message that is to be held, and scanned once more before it is delivered. Redelivery scans what has a reason that
/// begins with `VIRUS_`.
pub const RESCAN: &str = "VIRUS_RESCAN";

/// What is clean by today's signatures, and yet has an attachment and some points, may be too new for them.
fn scanned_again(
    message: &Message,
    evidence: &Evidence,
    policy: &Policy,
    class: TrustClass,
    total: Score,
) -> Option<Hard<'static>> {
    let has_attachment = message.parts.iter().any(|part| part.attached || !part.names.is_empty());
    let minutes = policy.rescan_after_minutes.value;
    let again = class == TrustClass::Internet
        && minutes > 0
        && policy.virus_scan.value == VirusScan::Required
        && evidence.virus == Virus::Clean
        && has_attachment
        && total >= policy.rescan_at.value;
    again.then(|| (Disposition::Accept, RESCAN, format!("it is scanned again after {minutes} minutes")))
}

/// Whether an accepted message is held and scanned again before it goes on.
#[must_use]
pub fn is_scanned_again(verdict: &Verdict) -> bool {
    verdict.disposition == Disposition::Accept && verdict.reasons.iter().any(|reason| reason.rule == RESCAN)
}

/// Whether an accepted message goes on without what its policy does not let in.
#[must_use]
pub fn is_stripped(verdict: &Verdict) -> bool {
    verdict.disposition == Disposition::Accept && verdict.reasons.iter().any(|reason| reason.rule == STRIPPED)
}

/// Smaller is stronger.
const fn strength(disposition: Disposition) -> u8 {
    match disposition {
        Disposition::Reject => 0,
        Disposition::Discard => 1,
        Disposition::Defer => 2,
        Disposition::Quarantine => 3,
        Disposition::Accept => 4,
    }
}

fn by_score(total: Score, policy: &Policy, class: TrustClass) -> Disposition {
    if class != TrustClass::Internet {
        Disposition::Accept
    } else if total >= policy.reject_at.value {
        Disposition::Reject
    } else if total >= policy.quarantine_at.value {
        Disposition::Quarantine
    } else {
        Disposition::Accept
    }
}

const fn refusal(refusal: Refusal) -> Disposition {
    match refusal {
        Refusal::Reject => Disposition::Reject,
        Refusal::Quarantine => Disposition::Quarantine,
        Refusal::Discard => Disposition::Discard,
    }
}

/// What a blocked attachment demands of the whole message.
const fn blocking(action: BlockedAction) -> Disposition {
    match action {
        BlockedAction::Reject => Disposition::Reject,
        BlockedAction::Quarantine => Disposition::Quarantine,
        BlockedAction::Discard => Disposition::Discard,
        BlockedAction::Strip | BlockedAction::Tag => Disposition::Accept,
    }
}

/// Hard rules that need nothing but the message and its envelope.
fn structural(message: &Message, transaction: &Transaction, policy: &Policy, class: TrustClass) -> Vec<Hard<'static>> {
    let mut hard: Vec<Hard<'static>> = Vec::new();
    if message.defects.contains(&Defect::TooManyHops) {
        let text = format!("it went through {} servers: it is in a loop", message.received);
        hard.push((Disposition::Reject, "MAIL_LOOP", text));
    }
    if message.size_bytes() > policy.message_bytes_max.value {
        let text = format!("it is larger than the recipient takes: {} bytes at most", policy.message_bytes_max.value);
        hard.push((Disposition::Reject, "TOO_LARGE", text));
    }
    if let Some(text) = forged_department(message, transaction, class) {
        hard.push((Disposition::Reject, "FORGED_DEPARTMENT", text));
    }
    if message.defects.contains(&Defect::Unread) {
        hard.push((Disposition::Defer, "UNREAD", Defect::Unread.as_str().to_owned()));
        return hard;
    }
    let broken: Vec<_> =
        message.defects.iter().filter(|defect| defect.breaks()).map(|defect| defect.as_str()).collect();
    if !broken.is_empty() {
        hard.push((refusal(policy.unparsable.value), "UNPARSABLE", broken.join("; ")));
    }
    hard
}

/// Promise 5: the Internet cannot speak for a department; nor can one department for another.
fn forged_department(message: &Message, transaction: &Transaction, class: TrustClass) -> Option<String> {
    let view = &transaction.view;
    let client = &transaction.client;
    let envelope = transaction.reverse_path.address().map(|address| address.domain().clone());
    let of = |mailboxes: &[Mailbox]| mailboxes.iter().filter_map(|mailbox| mailbox.domain.clone()).collect::<Vec<_>>();
    let mut claims = of(&message.from);
    claims.extend(of(&message.sender));
    claims.extend(envelope);
    claims.into_iter().find_map(|domain| {
        let tenant = view.claimed_by(&domain)?;
        let owner = &tenant.department;
        let may = match class {
            TrustClass::Internet => owner.lists_service(client.address),
            TrustClass::Outbound | TrustClass::Interdepartmental => client.department.as_ref() == Some(&owner.id),
        };
        (!may).then(|| format!("it claims to come from {domain}, but its client may not send for {}", owner.id))
    })
}

/// Hard rules on what the checks found.
fn found(message: &Message, evidence: &Evidence, policy: &Policy, class: TrustClass) -> Vec<Hard<'static>> {
    let mut hard = Vec::new();
    hard.extend(malware(evidence, policy));
    let is_told = message.defects.iter().any(|known| matches!(known, Defect::ParserFailed | Defect::Unread));
    let unexamined = |text: &str| format!("its content could not be examined{text}");
    match evidence.analysed {
        Analysed::BrokeOff if !is_told => {
            hard.push((refusal(policy.unparsable.value), "UNPARSABLE", unexamined("")));
        }
        Analysed::NotNow if !is_told => hard.push((Disposition::Defer, "UNREAD", unexamined(" now"))),
        Analysed::Whole | Analysed::BrokeOff | Analysed::NotNow => {}
    }
    if !evidence.opaque.is_empty() {
        hard.push((refusal(policy.unparsable.value), "ARCHIVE_LIMIT", evidence.opaque.join("; ")));
    }
    if class == TrustClass::Internet {
        if evidence.senders.stance == Some(Stance::Block) {
            hard.push((Disposition::Reject, "SENDER_BLOCKED", "an operator has blocked its sender".to_owned()));
        }
        hard.extend(dmarc(evidence, policy));
        let is_open = evidence.authentication.is_unavailable();
        if is_open && policy.authentication_unavailable.value == AuthUnavailable::Defer {
            hard.push((Disposition::Defer, "AUTHENTICATION_UNAVAILABLE", "DNS did not tell who sent it".to_owned()));
        }
    }
    hard
}

/// Promise 2: what is not known to be clean is not accepted, unless policy has switched the scan off.
fn malware(evidence: &Evidence, policy: &Policy) -> Option<Hard<'static>> {
    let unavailable = || match policy.virus_unavailable.value {
        Unavailable::Defer => Disposition::Defer,
        Unavailable::Quarantine => Disposition::Quarantine,
    };
    match (&evidence.virus, policy.virus_scan.value) {
        (Virus::Clean, VirusScan::Required | VirusScan::Off) => None,
        (Virus::Infected { name }, VirusScan::Required | VirusScan::Off) => {
            Some((refusal(policy.malware.value), "MALWARE", format!("malware: {name}")))
        }
        (Virus::Unavailable { .. } | Virus::Unscannable { .. } | Virus::NotScanned, VirusScan::Off) => None,
        // Another attempt would end alike, so it is not put off: it counts as what cannot be read.
        (Virus::Unscannable { why }, VirusScan::Required) => {
            Some((refusal(policy.unparsable.value), "VIRUS_UNSCANNABLE", format!("it could not be scanned: {why}")))
        }
        // Why is for the operator's log; the reply goes to strangers.
        (Virus::Unavailable { .. }, VirusScan::Required) => {
            Some((unavailable(), "VIRUS_UNAVAILABLE", "it could not be scanned".to_owned()))
        }
        (Virus::NotScanned, VirusScan::Required) => {
            Some((unavailable(), "VIRUS_UNAVAILABLE", "it was not scanned".to_owned()))
        }
    }
}

fn dmarc(evidence: &Evidence, policy: &Policy) -> Option<Hard<'static>> {
    let found = &evidence.authentication;
    if found.dmarc != AuthResult::Fail || found.arc_vouches {
        return None;
    }
    let disposition = match (policy.dmarc_failure.value, found.dmarc_asks) {
        (DmarcAction::Score, Asked::Nothing | Asked::Quarantine | Asked::Reject) => return None,
        (DmarcAction::Follow, Asked::Nothing) => return None,
        (DmarcAction::Follow, Asked::Reject) => Disposition::Reject,
        (DmarcAction::Reject, Asked::Nothing | Asked::Quarantine | Asked::Reject) => Disposition::Reject,
        (DmarcAction::Follow, Asked::Quarantine)
        | (DmarcAction::Quarantine, Asked::Nothing | Asked::Quarantine | Asked::Reject) => Disposition::Quarantine,
    };
    let domain = found.from_domain.as_ref().map_or("the author's domain", |domain| domain.as_str());
    Some((disposition, "DMARC_POLICY", format!("{domain} does not vouch for it (DMARC)")))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
