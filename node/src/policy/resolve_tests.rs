//! The plan's rules as cases, and promise 1 as a property.

use proptest::prelude::*;
use proto::{
    held::HeldKind,
    policy::PolicyLayer,
    score::Score,
    verdict::{Disposition, Reason, Verdict},
};

use super::{End, Fate, reply_of, resolve, unheld};
use crate::{
    policy::samples::{transaction, view},
    smtp::reply::{Class, Reply},
};

fn verdict(disposition: Disposition) -> Verdict {
    Verdict { disposition, score: Score::ZERO, tagged: false, reasons: Vec::new(), policy_version: 7 }
}

fn fate(disposition: Disposition, end: End) -> Fate {
    let transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test"]);
    Fate { recipient: transaction.recipients[0].clone(), verdict: verdict(disposition), edit: None, end }
}

fn delivered() -> End {
    End::Delivered { next_hop: "h:25".into(), reply: "ok".into() }
}

fn refused() -> End {
    End::Refused(Reply::permanent(50, (1, 1), "no such user"))
}

fn deferred() -> End {
    End::Deferred(Reply::temporary(51, (4, 1), "no answer"))
}

fn unknown() -> End {
    End::Unknown(Reply::temporary(51, (4, 7), "no final answer"))
}

fn id() -> proto::held::TransactionId {
    transaction(view(PolicyLayer::default()), &[]).id
}

#[test]
fn all_refused_is_a_5xx_and_nothing_is_held() {
    let resolution = resolve(id(), &[fate(Disposition::Accept, refused()), fate(Disposition::Reject, refused())]);
    assert_eq!(resolution.reply.to_string(), "550 5.1.1 no such user\r\n");
    assert_eq!(resolution.hold, []);
}

#[test]
fn nothing_safe_and_something_temporary_is_a_4xx() {
    let resolution = resolve(id(), &[fate(Disposition::Reject, refused()), fate(Disposition::Accept, deferred())]);
    assert_eq!(resolution.reply.to_string(), "451 4.4.1 no answer\r\n");
    assert_eq!(resolution.hold, []);
}

#[test]
fn a_mixed_outcome_is_a_250_that_names_the_transaction_once_the_rest_is_held() {
    let fates = [
        fate(Disposition::Accept, delivered()),
        fate(Disposition::Accept, deferred()),
        fate(Disposition::Reject, refused()),
        fate(Disposition::Defer, deferred()),
        fate(Disposition::Quarantine, End::Held(HeldKind::Quarantined)),
    ];
    let resolution = resolve(id(), &fates);
    assert_eq!(resolution.reply.to_string(), "250 2.0.0 accepted as 01ARZ3NDEKTSV4RRFFQ69G5FAV\r\n");
    // What a check did not let pass must not be delivered by itself.
    let expected = [(1, HeldKind::Deferred), (2, HeldKind::Quarantined), (3, HeldKind::Quarantined)];
    assert_eq!(resolution.hold, expected);
}

#[test]
fn what_may_have_been_delivered_is_held_even_when_nothing_else_is_safe() {
    let alone = resolve(id(), &[fate(Disposition::Accept, unknown())]);
    assert_eq!((alone.reply.class(), alone.hold), (Class::Done, vec![(0, HeldKind::Deferred)]));
    let others = [
        fate(Disposition::Accept, deferred()),
        fate(Disposition::Accept, unknown()),
        fate(Disposition::Accept, refused()),
    ];
    let expected = [(0, HeldKind::Deferred), (1, HeldKind::Deferred), (2, HeldKind::Quarantined)];
    assert_eq!(resolve(id(), &others).hold, expected);
}

#[test]
fn no_recipient_at_all_is_not_a_250() {
    assert_eq!(resolve(id(), &[]).reply.class(), Class::Temporary);
    assert_eq!(unheld(id()).class(), Class::Temporary);
}

#[test]
fn a_verdict_tells_the_sender_why() {
    let mut verdict = verdict(Disposition::Reject);
    verdict.reasons = vec![Reason { rule: "MAIL_LOOP".into(), score: Score::ZERO, text: "a loop".into() }];
    let told = reply_of(&verdict, id()).expect("a reply").to_string();
    assert_eq!(told, "554 5.4.6 refused: a loop (01ARZ3NDEKTSV4RRFFQ69G5FAV)\r\n");
    verdict.reasons[0].rule = "PHRASES".into();
    verdict.reasons[0].score = Score::points(13, 0);
    let told = reply_of(&verdict, id()).expect("a reply").to_string();
    assert!(told.starts_with("554 5.7.1 refused: it looks like spam"), "{told}");
    verdict.disposition = Disposition::Defer;
    assert_eq!(reply_of(&verdict, id()).expect("a reply").class(), Class::Temporary);
}

fn any_fate() -> impl Strategy<Value = Fate> {
    let end = prop_oneof![
        Just(delivered()),
        Just(End::Held(HeldKind::Quarantined)),
        Just(End::Held(HeldKind::Deferred)),
        Just(End::Discarded),
        Just(refused()),
        Just(deferred()),
        Just(unknown()),
        // A next hop that contradicts itself.
        Just(End::Refused(Reply::done(50, (0, 0), "ok"))),
        Just(End::Deferred(Reply::permanent(50, (0, 0), "no"))),
    ];
    let disposition = prop_oneof![
        Just(Disposition::Accept),
        Just(Disposition::Quarantine),
        Just(Disposition::Reject),
        Just(Disposition::Defer),
        Just(Disposition::Discard),
    ];
    (disposition, end).prop_map(|(disposition, end)| fate(disposition, end))
}

proptest! {
    #[test]
    fn a_250_is_given_only_when_every_recipient_is_safe_after_the_plan(
        fates in proptest::collection::vec(any_fate(), 0..8)
    ) {
        let resolution = resolve(id(), &fates);
        if resolution.reply.class() == Class::Done {
            for (at, fate) in fates.iter().enumerate() {
                prop_assert!(fate.end.is_safe() || resolution.hold.iter().any(|(held, _)| *held == at));
            }
            for (at, kind) in &resolution.hold {
                let fate = &fates[*at];
                prop_assert!(!fate.end.is_safe());
                prop_assert!(*kind == HeldKind::Quarantined || fate.verdict.disposition == Disposition::Accept);
                let moves = matches!(fate.end, End::Unknown(_)) && fate.verdict.disposition == Disposition::Accept;
                prop_assert!(!moves || *kind == HeldKind::Deferred);
            }
        } else {
            prop_assert!(resolution.hold.is_empty());
            prop_assert!(!fates.iter().any(|fate| fate.end.is_safe()), "the sender would send it twice");
            prop_assert!(!fates.iter().any(|fate| matches!(fate.end, End::Unknown(_))), "and perhaps here");
            let all_refused = !fates.is_empty() && fates.iter().all(|fate| matches!(fate.end, End::Refused(_)));
            prop_assert_eq!(resolution.reply.class() == Class::Permanent, all_refused);
        }
    }
}
