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

#[cfg(test)]
mod tests {
    use proto::{
        held::{HeldStatus, Lease},
        time::UnixMs,
        wire::operator::ListRequest,
    };

    use super::{detail, filter, held_id, summary};
    use crate::rpc::due::tests::record;

    #[test]
    fn a_record_is_shown_in_words_and_its_next_attempt_only_while_it_is_due() {
        let mut held = record();
        held.lease = Some(Lease { node: "node-1".into(), until: UnixMs(1_795_000_000_000) });
        held.next_attempt = UnixMs(7);
        let shown = detail(&held);
        assert_eq!((shown.next_attempt_ms, shown.lease.as_str()), (Some(7), "node-1 until 2026-11-18T11:06:40Z"));
        assert_eq!(shown.summary, Some(summary(&held)));
        held.status = HeldStatus::Deleted { by: "operator/anna".into(), at: UnixMs(1_795_000_000_000) };
        assert_eq!(detail(&held).next_attempt_ms, None);
        assert_eq!(summary(&held).status, "deleted by operator/anna at 2026-11-18T11:06:40Z");
        assert_eq!(held_id(&summary(&held).id).expect("its id"), held.id);
    }

    #[test]
    fn a_list_takes_a_department_and_a_recipient_and_nothing_that_is_neither() {
        let ask = |department: &str, recipient: &str| {
            let request =
                ListRequest { department: department.into(), recipient: recipient.into(), ended: false, max: 0 };
            filter(&request, 7)
        };
        let wanted = ask("interior", "Anna@Interior.gov.test").expect("a filter");
        assert_eq!(wanted.recipient.as_deref(), Some("anna@interior.gov.test"));
        assert!(wanted.department.is_some() && wanted.max == 7);
        assert!(ask("", "").expect("all").department.is_none());
        assert!(ask("In terior", "").is_err() && ask("", "anna").is_err());
        assert!(held_id("../../x").is_err());
    }
}
