//! The life of held messages.

use proto::{
    envelope::{Notification, Notify},
    held::{Held, HeldStatus},
    mutation::{Change, Grounds, Outcome, Refused},
    time::UnixMs,
};

use crate::state::{
    Caps, query,
    testing::{World, attempted, deferred, delete, held_id, hold, lease, node, operator, quarantined, release},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const ANNA: &str = "anna@interior.gov.test";
const BEN: &str = "ben@interior.gov.test";

fn held(world: &World, number: u64) -> Held {
    query::held(&world.keys, held_id(number)).expect("a record")
}

fn never() -> Notification {
    Notification { notify: Some(Notify::Never), original: None }
}

fn due(world: &World) -> usize {
    query::due(&world.keys, world.now, 10).len()
}

#[test]
fn a_hold_keeps_all_records_of_a_transaction_or_none() {
    let mut world = World::new();
    let mut bad = quarantined(2);
    bad.transaction = quarantined(1).transaction;
    bad.subject = "x".repeat(201);
    assert!(matches!(world.apply(node("n1"), hold(&[quarantined(1), bad])), Outcome::Refused(Refused::Invalid(_))));
    assert_eq!((query::held(&world.keys, held_id(1)), query::held_count(&world.keys)), (None, 0));
    let mut second = deferred(2);
    second.transaction = quarantined(1).transaction;
    let both = [quarantined(1), second];
    assert_eq!(world.apply(node("n1"), hold(&both)), Outcome::Done);
    // Once more under another mutation id: nothing is doubled, nothing is reset.
    world.apply(operator("anna"), release(1));
    assert_eq!(world.apply(node("n1"), hold(&both)), Outcome::Done);
    assert_eq!((query::held_count(&world.keys), due(&world)), (2, 2));
}

#[test]
fn what_the_sender_asked_is_there_for_whoever_delivers() {
    let mut world = World::new();
    let mut record = deferred(1);
    record.handling.require_tls = true;
    record.notifications.insert(record.recipients[0].clone(), never());
    assert_eq!(world.apply(node("n1"), hold(&[record.clone()])), Outcome::Done);
    let Outcome::Leased(leased) = world.apply(node("n2"), lease(1)) else { panic!("no lease") };
    assert_eq!((leased.handling, leased.notifications), (record.handling, record.notifications));
}

#[test]
fn a_record_that_breaks_a_bound_or_claims_what_only_the_state_says_is_refused() {
    let mut world = World::new();
    let harms: Vec<fn(&mut Held)> = vec![
        |held| held.recipients.clear(),
        |held| held.recipients = vec![held.recipients[0].clone(); 2],
        |held| held.body.digest = "A".repeat(64),
        |held| held.body.size_bytes = u64::MAX,
        |held| held.body.servers.clear(),
        |held| held.body.servers = vec!["control-1".into(); 2],
        |held| held.subject = "a\nb".into(),
        |held| held.status = HeldStatus::Due { released: Some(("operator/anna".into(), UnixMs(1))) },
        |held| drop(held.notifications.insert("stranger@b.test".to_owned().try_into().expect("an address"), never())),
        |held| held.lease = Some(proto::held::Lease { node: "n1".into(), until: UnixMs(u64::MAX) }),
    ];
    for (number, harm) in (1..).zip(harms) {
        let mut record = quarantined(number);
        harm(&mut record);
        let outcome = world.apply(node("n1"), hold(&[record]));
        assert!(matches!(outcome, Outcome::Refused(Refused::Invalid(_))), "{number}: {outcome:?}");
    }
    let mut many = quarantined(1);
    many.recipients = (0..=1000).map(|n| crate::state::testing::address(&format!("p{n}@x.test"))).collect();
    assert!(matches!(world.apply(node("n1"), hold(&[many])), Outcome::Refused(Refused::Full { cap: 1000, .. })));
    assert_eq!(query::held_count(&world.keys), 0);
}

#[test]
fn a_full_store_makes_room_only_by_forgetting_what_has_ended() {
    let mut world = World::new();
    world.caps = Caps { held: 2, ..world.caps };
    world.apply(node("n1"), hold(&[quarantined(1)]));
    world.apply(node("n1"), hold(&[quarantined(2)]));
    let full = Outcome::Refused(Refused::Full { what: "held messages".into(), cap: 2 });
    assert_eq!(world.apply(node("n1"), hold(&[quarantined(3)])), full);
    world.apply(operator("anna"), delete(1));
    assert_eq!(world.apply(node("n1"), hold(&[quarantined(3)])), Outcome::Done);
    assert_eq!(query::held(&world.keys, held_id(1)), None);
    let left = world.keys.keys().filter(|key| key.ends_with(&held_id(1).0.to_bytes())).count();
    assert_eq!(left, 0, "no index key of a forgotten record stays");
    assert_eq!(world.apply(node("n1"), hold(&[quarantined(4)])), full);
}

#[test]
fn a_release_is_compare_and_set() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[quarantined(1)]));
    assert_eq!(due(&world), 0);
    assert_eq!(world.apply(operator("anna"), release(1)), Outcome::Done);
    let (by, at) = ("operator/anna".to_owned(), world.now);
    world.now = world.now.plus_ms(500);
    let already = Outcome::Refused(Refused::AlreadyReleased { by, at });
    assert_eq!(world.apply(operator("ben"), release(1)), already);
    assert_eq!(world.apply(operator("ben"), delete(1)), already);
    assert_eq!(world.apply(operator("ben"), release(9)), Outcome::Refused(Refused::NoSuch));
    assert_eq!((due(&world), query::audit(&world.keys, 0, 10).records.len()), (1, 1));
    // Also after it was delivered.
    world.apply(node("n1"), lease(1));
    world.apply(node("n1"), attempted(1, &[ANNA, BEN], &[], UnixMs(0)));
    assert_eq!(world.apply(operator("ben"), release(1)), already);
}

#[test]
fn nothing_is_released_or_deleted_without_a_reason() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[quarantined(1)]));
    let silent = || Grounds { why: " ".into(), ticket: "T-1".into() };
    for change in [
        Change::Release { held: held_id(1), grounds: silent() },
        Change::Delete { held: held_id(1), grounds: silent() },
    ] {
        let outcome = world.apply(operator("anna"), change);
        assert!(matches!(&outcome, Outcome::Refused(Refused::Invalid(what)) if what.contains("why")), "{outcome:?}");
    }
    assert_eq!(held(&world, 1).status, HeldStatus::Waiting);
}

#[test]
fn a_release_begins_the_attempts_anew() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[quarantined(1)]));
    world.apply(operator("anna"), release(1));
    world.apply(node("n1"), lease(1));
    world.apply(node("n1"), attempted(1, &[], &[ANNA, BEN], world.now));
    assert_eq!(held(&world, 1).attempts, 1);
    assert_eq!(world.apply(operator("anna"), release(1)), Outcome::Done);
    assert_eq!((held(&world, 1).attempts, due(&world)), (0, 1));
}

#[test]
fn a_deferred_message_is_neither_released_nor_deleted() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[deferred(1)]));
    for change in [release(1), delete(1)] {
        let outcome = world.apply(operator("anna"), change);
        assert!(matches!(outcome, Outcome::Refused(Refused::NotWaiting { .. })), "{outcome:?}");
    }
}

#[test]
fn a_deleted_message_is_gone_for_good() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[quarantined(1)]));
    let digest = held(&world, 1).body.digest;
    assert!(query::needs_body(&world.keys, &digest));
    world.apply(operator("anna"), delete(1));
    let already = Outcome::Refused(Refused::AlreadyDeleted { by: "operator/anna".into(), at: world.now });
    for change in [release(1), delete(1)] {
        assert_eq!(world.apply(operator("ben"), change), already);
    }
    assert_eq!(world.apply(node("n1"), lease(1)), already);
    assert!(!query::needs_body(&world.keys, &digest) && due(&world) == 0);
}

#[test]
fn one_node_at_a_time_holds_the_lease() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[deferred(1)]));
    let Outcome::Leased(leased) = world.apply(node("n1"), lease(1)) else { panic!("no lease") };
    let until = leased.lease.expect("a lease").until;
    assert_eq!(until, world.now.plus_ms(60_000));
    assert_eq!((due(&world), query::next_due(&world.keys, world.now)), (0, Some(until)));
    let taken = Outcome::Refused(Refused::Leased { node: "n1".into(), until });
    assert_eq!(world.apply(node("n2"), lease(1)), taken);
    assert_eq!(
        world.apply(node("n2"), attempted(1, &[ANNA, BEN], &[], UnixMs(0))),
        Outcome::Refused(Refused::LeaseLost)
    );
    // The node that has it may renew it, as long as it has it.
    world.now = UnixMs(until.0 - 1);
    let Outcome::Leased(renewed) = world.apply(node("n1"), lease(1)) else { panic!("not renewed") };
    let until = renewed.lease.expect("a lease").until;
    assert_eq!(until, world.now.plus_ms(60_000));
    world.now = until;
    assert_eq!(due(&world), 1);
    assert!(matches!(world.apply(node("n2"), lease(1)), Outcome::Leased(_)));
    // The first node comes back too late.
    assert_eq!(
        world.apply(node("n1"), attempted(1, &[ANNA, BEN], &[], UnixMs(0))),
        Outcome::Refused(Refused::LeaseLost)
    );
}

#[test]
fn a_lease_lasts_ten_minutes_at_most() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[deferred(1)]));
    let forever = proto::mutation::Change::Lease { held: held_id(1), for_ms: u64::MAX };
    world.apply(node("n1"), forever);
    assert_eq!(held(&world, 1).lease.expect("a lease").until, world.now.plus_ms(600_000));
}

#[test]
fn who_has_got_the_message_does_not_get_it_again() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[deferred(1)]));
    world.apply(node("n1"), lease(1));
    let later = world.now.plus_ms(5_000);
    world.apply(node("n1"), attempted(1, &[ANNA], &[], later));
    let after = held(&world, 1);
    assert_eq!((after.recipients.len(), after.attempts, after.lease.is_none()), (1, 1, true));
    assert_eq!(world.apply(node("n1"), lease(1)), Outcome::Refused(Refused::NotDue));
    assert_eq!(query::next_due(&world.keys, world.now), Some(later));
    world.now = later;
    world.apply(node("n1"), lease(1));
    world.apply(node("n1"), attempted(1, &[BEN], &[], later));
    let after = held(&world, 1);
    assert_eq!(after.status, HeldStatus::Delivered { at: later, released: None });
    assert_eq!((after.recipients.len(), query::held_count(&world.keys)), (2, 0));
}

#[test]
fn a_refused_recipient_stays_to_be_seen_while_the_others_go_on() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[deferred(1)]));
    world.apply(node("n1"), lease(1));
    world.apply(node("n1"), attempted(1, &[], &[ANNA], world.now));
    assert_eq!((held(&world, 1).recipients.len(), due(&world)), (2, 1));
    let Outcome::Leased(leased) = world.apply(node("n1"), lease(1)) else { panic!("no lease") };
    assert_eq!(leased.recipients, [crate::state::testing::address(BEN)]);
    world.apply(node("n1"), attempted(1, &[BEN], &[], world.now));
    let after = held(&world, 1);
    assert!(matches!(after.status, HeldStatus::Undeliverable { .. }), "{:?}", after.status);
    assert!(query::needs_body(&world.keys, &after.body.digest));
    // An operator may let it be tried again, for the one who has not got it.
    assert_eq!(world.apply(operator("anna"), release(1)), Outcome::Done);
    let due: Vec<_> = query::due(&world.keys, world.now, 10).into_iter().map(|held| held.recipients).collect();
    assert_eq!(due, [[crate::state::testing::address(ANNA)]]);
}

#[test]
fn delivery_is_given_up_five_days_after_receipt_or_release() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[quarantined(1)]));
    world.now = world.now.plus_ms(30 * DAY_MS);
    world.apply(operator("anna"), release(1));
    for expected in [false, true] {
        world.now = world.now.plus_ms(5 * DAY_MS - 1 + u64::from(expected));
        world.apply(node("n1"), lease(1));
        world.apply(node("n1"), attempted(1, &[], &[], world.now));
        let given_up = matches!(held(&world, 1).status, HeldStatus::Undeliverable { .. });
        assert_eq!(given_up, expected);
    }
}
