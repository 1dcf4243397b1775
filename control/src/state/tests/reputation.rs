//! Counts add up and fade, the oldest go first, and what an operator says stays.

use std::collections::BTreeMap;

use proto::{
    mutation::{Change, Grounds, Outcome, Refused},
    reputation::{Heard, Levels, Manual, REPORT_SUBJECTS_MAX, Stance, Subject, SubjectKey},
    time::UnixMs,
};

use crate::state::{
    Caps,
    feed::{Cursor, part},
    query, reputation,
    testing::{World, node, operator},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn subject(number: u8) -> Subject {
    format!("ip:192.0.2.{number}").parse().expect("a subject")
}

fn heard(number: u8, good: u32, bad: u32) -> Heard {
    Heard { subject: subject(number).key(), good, bad }
}

fn report(outcomes: &[Heard]) -> Change {
    Change::Report { outcomes: outcomes.to_vec() }
}

fn block(number: u8, until: UnixMs) -> Change {
    let grounds = Grounds { why: "a test".into(), ticket: "T-1".into() };
    Change::SetReputation { subject: subject(number), stance: Stance::Block, until, grounds }
}

fn forget(number: u8) -> Change {
    let grounds = Grounds { why: "a test".into(), ticket: String::new() };
    Change::ForgetReputation { subject: subject(number), grounds }
}

/// Hundredths of what is counted of a subject now.
fn counted(world: &World, number: u8) -> Option<(u64, u64)> {
    let tally = reputation::shown(&world.keys, subject(number).key()).tally?;
    Some(tally.at(proto::reputation::tick(world.now)).hundredths())
}

/// What nodes are told of all subjects.
fn told(world: &World) -> BTreeMap<SubjectKey, Option<Levels>> {
    part(&world.keys, 1, &Cursor::Start).0.subjects.into_iter().collect()
}

fn is_invalid(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refused::Invalid(_)))
}

#[test]
fn reports_of_nodes_add_up_and_halve_each_day() {
    let mut world = World::new();
    assert_eq!(world.apply(node("n1"), report(&[heard(1, 0, 6), heard(2, 1, 0)])), Outcome::Done);
    assert_eq!(world.apply(node("n2"), report(&[heard(1, 2, 2), heard(3, 0, 0)])), Outcome::Done);
    assert_eq!([1, 2, 3].map(|n| counted(&world, n)), [Some((200, 800)), Some((100, 0)), None]);
    world.now = world.now.plus_ms(DAY_MS);
    assert_eq!(counted(&world, 1), Some((100, 400)));
    world.apply(node("n2"), report(&[heard(1, 0, 1)]));
    assert_eq!((counted(&world, 1), reputation::subjects(&world.keys)), (Some((100, 500)), 2));
}

#[test]
fn nodes_hear_of_a_step_that_matters_and_of_no_other() {
    let mut world = World::new();
    world.apply(node("n1"), report(&[heard(1, 0, 100)]));
    let first = told(&world);
    world.apply(node("n1"), report(&[heard(1, 0, 5)]));
    assert_eq!((told(&world), counted(&world, 1)), (first.clone(), Some((0, 10_500))));
    for _ in 0..5 {
        world.apply(node("n1"), report(&[heard(1, 0, 5)]));
    }
    assert_ne!(told(&world), first, "small steps add up to one that matters");
}

#[test]
fn a_full_state_forgets_whom_it_heard_of_longest_ago_but_nothing_that_was_said() {
    let mut world = World::new();
    world.caps = Caps { subjects: 3, ..world.caps };
    world.apply(operator("anna"), block(1, world.now.plus_ms(90 * DAY_MS)));
    for number in 1..=3 {
        world.apply(node("n1"), report(&[heard(number, 1, 0)]));
        world.now = world.now.plus_ms(DAY_MS);
    }
    world.apply(node("n1"), report(&[heard(1, 1, 0)]));
    world.apply(node("n1"), report(&[heard(4, 1, 0), heard(5, 1, 0)]));
    let known: Vec<bool> = (1..=5).map(|n| counted(&world, n).is_some()).collect();
    assert_eq!(known, [true, false, false, true, true]);
    assert_eq!((told(&world).len(), reputation::subjects(&world.keys)), (3, 3));
    assert!(reputation::shown(&world.keys, subject(1).key()).said.is_some());
}

#[test]
fn what_an_operator_says_is_a_register_with_a_trace() {
    let mut world = World::new();
    let until = world.now.plus_ms(DAY_MS);
    assert_eq!(world.apply(operator("anna"), block(1, until)), Outcome::Done);
    let said = reputation::shown(&world.keys, subject(1).key()).said.expect("an entry");
    assert_eq!((said.stance, said.until, said.by.as_str()), (Stance::Block, until, "operator/anna"));
    let manual = part(&world.keys, 1, &Cursor::Start).0.manual;
    assert_eq!(manual, [(subject(1).key(), Some(Manual { stance: Stance::Block, until }))]);
    world.apply(node("n1"), report(&[heard(1, 0, 9)]));
    assert_eq!(world.apply(operator("anna"), forget(1)), Outcome::Done);
    assert_eq!(reputation::shown(&world.keys, subject(1).key()), reputation::Shown::default());
    assert_eq!((told(&world).len(), reputation::subjects(&world.keys)), (0, 0));
    assert!(is_invalid(&world.apply(operator("anna"), forget(1))), "nothing is known of it");
    let audit = query::audit(&world.keys, 0, 9).records;
    let whats: Vec<&str> = audit.iter().map(|record| record.what.as_str()).collect();
    assert_eq!(whats[0], "forgot the reputation of ip:192.0.2.1");
    assert!(whats[1].starts_with("set reputation of ip:192.0.2.1 to block until 1970-"), "{whats:?}");
    assert_eq!(audit[1].ticket, "T-1");
}

#[test]
fn bounds_and_roles_are_kept() {
    let mut world = World::new();
    let now = world.now;
    let role = |outcome| matches!(outcome, Outcome::Refused(Refused::Role { .. }));
    assert!(role(world.apply(operator("anna"), report(&[heard(1, 1, 0)]))));
    assert!(role(world.apply(node("n1"), block(1, now.plus_ms(1)))));
    assert!(role(world.apply(node("n1"), forget(1))));
    let many = vec![heard(1, 1, 0); REPORT_SUBJECTS_MAX + 1];
    assert!(matches!(world.apply(node("n1"), report(&many)), Outcome::Refused(Refused::Full { .. })));
    for until in [now, UnixMs(0), now.plus_ms(11 * 366 * DAY_MS), UnixMs(u64::MAX)] {
        assert!(is_invalid(&world.apply(operator("anna"), block(1, until))), "{until:?}");
    }
    let Change::SetReputation { subject, stance, until, .. } = block(1, now.plus_ms(1)) else { unreachable!() };
    let silent = Change::SetReputation { subject, stance, until, grounds: Grounds::default() };
    assert!(is_invalid(&world.apply(operator("anna"), silent)), "no change without a reason");
}

#[test]
fn when_full_what_has_ended_makes_room_and_what_holds_does_not() {
    let mut world = World::new();
    world.caps = Caps { said: 2, ..world.caps };
    let (soon, late) = (world.now.plus_ms(1000), world.now.plus_ms(DAY_MS));
    world.apply(operator("anna"), block(1, soon));
    world.apply(operator("anna"), block(2, late));
    assert!(matches!(world.apply(operator("anna"), block(3, late)), Outcome::Refused(Refused::Full { .. })));
    assert_eq!(world.apply(operator("anna"), block(2, late)), Outcome::Done, "known already");
    world.now = soon;
    assert_eq!(world.apply(operator("anna"), block(3, late)), Outcome::Done);
    let said = |number: u8| reputation::shown(&world.keys, subject(number).key()).said.is_some();
    assert_eq!([1, 2, 3].map(said), [false, true, true]);
}
