//! Held messages as the `operator` service shows them.

use proto::{
    address::Address,
    department::DepartmentId,
    held::{Held, HeldId, HeldKind, HeldStatus},
    wire::operator::{HeldDetail, HeldSummary, ListRequest, Reason},
};
use tonic::Status;

use crate::state::query::HeldFilter;

/// The id in a request.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is none.
pub fn held_id(text: &str) -> Result<HeldId, Status> {
    HeldId::parse(text).ok_or_else(|| Status::invalid_argument("id: the 26 characters that quarantine list shows"))
}

/// Which held messages a request asks for.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is not a department's id or an address.
pub fn filter(request: &ListRequest, max: usize) -> Result<HeldFilter, Status> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let department = given(&request.department)
        .map(|text| DepartmentId::parse(&text))
        .transpose()
        .map_err(|error| Status::invalid_argument(format!("department: {error}")))?;
    let recipient = given(&request.recipient)
        .map(|text| Address::parse(&text))
        .transpose()
        .map_err(|error| Status::invalid_argument(format!("recipient: {error}")))?;
    Ok(HeldFilter { department, recipient: recipient.map(|address| address.key()), ended: request.ended, max })
}

/// A line of the list.
#[must_use]
pub fn summary(held: &Held) -> HeldSummary {
    HeldSummary {
        id: held.id.to_string(),
        transaction: held.transaction.to_string(),
        kind: match held.kind {
            HeldKind::Quarantined => "quarantined",
            HeldKind::Deferred => "deferred",
        }
        .to_owned(),
        status: held.status.to_string(),
        received_at_ms: held.received_at.0,
        department: held.department.as_ref().map(ToString::to_string).unwrap_or_default(),
        reverse_path: held.reverse_path.to_string(),
        recipients: held.recipients.iter().map(ToString::to_string).collect(),
        subject: held.subject.clone(),
        score: held.verdict.score.to_string(),
        reasons: held.verdict.reasons.iter().map(|reason| reason.rule.clone()).collect(),
        size_bytes: held.body.size_bytes,
        policy_version: held.verdict.policy_version,
    }
}

/// All that is known of one.
#[must_use]
pub fn detail(held: &Held) -> HeldDetail {
    let reasons = held.verdict.reasons.iter();
    HeldDetail {
        summary: Some(summary(held)),
        reasons: reasons
            .map(|reason| Reason {
                rule: reason.rule.clone(),
                score: reason.score.to_string(),
                text: reason.text.clone(),
            })
            .collect(),
        client: held.client.to_string(),
        digest: held.body.digest.clone(),
        copies: held.body.servers.clone(),
        attempts: held.attempts,
        next_attempt_ms: matches!(held.status, HeldStatus::Due { .. }).then_some(held.next_attempt.0),
        last_problem: held.last_problem.clone(),
        lease: held.lease.as_ref().map(|lease| format!("{} until {}", lease.node, lease.until)).unwrap_or_default(),
    }
}
