//! A first try is kept once, for its time, and the oldest go first.

use proto::{
    greylist::{REPORT_TRIES_MAX, TRY_LIFE_MS},
    mutation::{Change, Outcome, Refused},
    reputation::SubjectKey,
    time::UnixMs,
};

use crate::state::{
    Caps,
    feed::{Cursor, part},
    testing::{World, node, operator},
};

fn tried(number: u8) -> SubjectKey {
    SubjectKey([number; 16])
}

fn put_off(numbers: &[u8]) -> Change {
    Change::PutOff { tries: numbers.iter().map(|number| tried(*number)).collect() }
}

/// What a new node is told.
fn told(world: &World) -> Vec<(SubjectKey, Option<UnixMs>)> {
    part(&world.keys, 1, &Cursor::Start).0.tries
}

#[test]
fn the_first_of_several_reports_counts() {
    let mut world = World::new();
    let first = world.now;
    assert_eq!(world.apply(node("n1"), put_off(&[1, 2])), Outcome::Done);
    world.now = first.plus_ms(60_000);
    assert_eq!(world.apply(node("n2"), put_off(&[2, 3])), Outcome::Done);
    let later = first.plus_ms(60_000);
    assert_eq!(told(&world), [(tried(1), Some(first)), (tried(2), Some(first)), (tried(3), Some(later))]);
}

#[test]
fn what_is_over_is_forgotten_and_begins_anew() {
    let mut world = World::new();
    let first = world.now;
    world.apply(node("n1"), put_off(&[1, 2]));
    world.now = first.plus_ms(TRY_LIFE_MS + 1);
    world.apply(node("n1"), put_off(&[2]));
    assert_eq!(told(&world), [(tried(2), Some(world.now))]);
}

#[test]
fn beyond_the_cap_the_oldest_go() {
    let mut world = World::new();
    world.caps = Caps { tries: 3, ..world.caps };
    for number in 1..=5 {
        world.now = world.now.plus_ms(1_000);
        world.apply(node("n1"), put_off(&[number]));
    }
    let kept: Vec<SubjectKey> = told(&world).into_iter().map(|(key, _)| key).collect();
    assert_eq!(kept, [tried(3), tried(4), tried(5)]);
}

#[test]
fn a_report_has_a_bound_and_only_nodes_make_it() {
    let mut world = World::new();
    let many = Change::PutOff { tries: vec![tried(1); REPORT_TRIES_MAX + 1] };
    assert!(matches!(world.apply(node("n1"), many), Outcome::Refused(Refused::Full { .. })));
    assert!(matches!(world.apply(operator("anna"), put_off(&[1])), Outcome::Refused(Refused::Role { .. })));
    assert!(told(&world).is_empty());
}
