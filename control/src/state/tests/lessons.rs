//! Lessons are bounded by who taught them, and the model that is named is one that the figures speak for.

use proto::{
    department::DepartmentId,
    held::{BodyRef, Held},
    identity::Role,
    learning::{
        LearningRules, MODEL_BYTES_MAX, REPORT_LESSONS_MAX,
        lesson::Lesson,
        trial::{Count, Errors, Figures},
    },
    mutation::{Change, Grounds, Outcome, Principal, Refused},
    score::Score,
    time::UnixMs,
};

use crate::state::{
    archive::Contents,
    feed::{Cursor, part},
    lessons::{Quotas, curriculum, learning, sources},
    query,
    testing::{World, address, attempted, held_id, hold, lease, node, operator, policy, quarantined, release},
};

fn world() -> World {
    let mut world = World::new();
    world.caps.lessons = Quotas { mailbox: 3, source: 5, all: 8 };
    world
}

fn lesson(number: u32, bad: bool) -> Lesson {
    Lesson::new([number, number + 1, number + 100], bad, Score(if bad { -100 } else { 100 }))
}

fn grounds() -> Grounds {
    Grounds { why: "a test".into(), ticket: String::new() }
}

fn report(numbers: std::ops::Range<u32>, bad: bool) -> Change {
    Change::ReportMail { lessons: numbers.map(|number| lesson(number, bad)).collect(), grounds: grounds() }
}

/// Holds a message for a mailbox of a department, and delivers it after somebody has released it, if so.
fn delivered(world: &mut World, number: u64, department: &str, mailbox: &str, is_released: bool) {
    let department = Some(DepartmentId::parse(department).expect("an id"));
    let held = Held { department, recipients: vec![address(mailbox)], ..quarantined(number) };
    assert_eq!(world.apply(node("mx1"), hold(&[held])), Outcome::Done);
    if is_released {
        assert_eq!(world.apply(operator("anna"), release(number)), Outcome::Done);
        assert!(matches!(world.apply(node("mx1"), lease(number)), Outcome::Leased(_)));
        assert_eq!(world.apply(node("mx1"), attempted(number, &[mailbox], &[], UnixMs(0))), Outcome::Done);
    }
}

fn learn(world: &mut World, number: u64) -> Outcome {
    let lesson = lesson(u32::try_from(number).expect("small"), false);
    world.apply(node("mx1"), Change::Learn { held: held_id(number), lesson })
}

fn kept(world: &World) -> (u32, u32) {
    let Count { wanted, bad } = learning(&world.keys).kept;
    (wanted, bad)
}

fn control() -> Principal {
    Principal { role: Role::Control, name: "alpha".into() }
}

fn figures() -> Figures {
    Figures {
        learnt: Count { wanted: 20, bad: 20 },
        held_back: Count { wanted: 5, bad: 5 },
        before: Errors { wanted_over: 3, bad_missed: 3, loss: 700 },
        after: Errors { wanted_over: 1, bad_missed: 1, loss: 300 },
        newly_over: 0,
    }
}

fn body(number: u64) -> BodyRef {
    let servers = vec!["alpha".to_owned(), "beta".to_owned()];
    BodyRef { digest: format!("{number:064x}"), size_bytes: MODEL_BYTES_MAX, servers }
}

fn learnt(lessons: u64, version: u64, figures: Figures, model: Option<BodyRef>) -> Change {
    Change::Learnt { lessons, version, figures, model }
}

fn is_refused(outcome: &Outcome, why: &str) -> bool {
    matches!(outcome, Outcome::Refused(refused) if refused.to_string().contains(why))
}

#[test]
fn only_what_somebody_has_released_and_a_node_has_delivered_teaches_that_it_was_wanted() {
    let mut world = world();
    delivered(&mut world, 1, "interior", "anna@interior.gov.test", true);
    delivered(&mut world, 2, "interior", "anna@interior.gov.test", false);
    assert_eq!(learn(&mut world, 1), Outcome::Done);
    assert!(is_refused(&learn(&mut world, 2), "released"));
    assert_eq!(learn(&mut world, 3), Outcome::Refused(Refused::NoSuch));
    let bad = Change::Learn { held: held_id(1), lesson: lesson(9, true) };
    assert!(is_refused(&world.apply(node("mx1"), bad), "wanted"));
    delivered(&mut world, 4, "interior", "anna@interior.gov.test", true);
    let none = Change::Learn { held: held_id(4), lesson: Lesson::new([], false, Score::ZERO) };
    assert!(is_refused(&world.apply(node("mx1"), none), "features"));
    for (by, change) in [
        (node("mx1"), report(0..1, true)),
        (operator("anna"), Change::Learn { held: held_id(1), lesson: lesson(1, false) }),
        (node("mx1"), learnt(1, 0, figures(), None)),
        (operator("anna"), learnt(1, 0, figures(), None)),
        (node("mx1"), Change::ForgetLearning { grounds: grounds() }),
    ] {
        assert!(matches!(world.apply(by, change), Outcome::Refused(Refused::Role { .. })));
    }
    let other = Change::Learn { held: held_id(1), lesson: lesson(7, false) };
    assert_eq!(world.apply(node("mx1"), other), Outcome::Done);
    assert_eq!(kept(&world), (1, 0), "of one message there is one lesson");
    assert_eq!(learning(&world.keys).lessons, 1, "and the first one stays");
}

#[test]
fn no_mailbox_no_department_and_no_operator_fills_the_lessons() {
    let mut world = world();
    for number in 0..10 {
        delivered(&mut world, number, "interior", "anna@interior.gov.test", true);
        assert_eq!(learn(&mut world, number), Outcome::Done);
    }
    assert_eq!(kept(&world), (3, 0), "of one mailbox");
    for number in 10..20 {
        delivered(&mut world, number, "interior", &format!("m{number}@interior.gov.test"), true);
        assert_eq!(learn(&mut world, number), Outcome::Done);
    }
    assert_eq!(kept(&world), (5, 0), "of one department");
    assert_eq!(world.apply(operator("anna"), report(100..120, false)), Outcome::Done);
    assert_eq!(kept(&world), (8, 0), "of all");
    let count = |wanted, bad| Count { wanted, bad };
    let of = sources(&world.keys);
    assert_eq!(of.get("operator/anna"), Some(&count(5, 0)));
    assert_eq!(of.get("department/interior"), Some(&count(3, 0)));
    assert_eq!(world.apply(operator("anna"), report(200..220, true)), Outcome::Done);
    assert_eq!(world.apply(operator("ben"), report(300..320, true)), Outcome::Done);
    assert_eq!(kept(&world), (8, 8), "the other kind has its own quotas");
    let newest = sources(&world.keys);
    assert_eq!((newest.get("operator/anna"), newest.get("operator/ben")), (Some(&count(5, 3)), Some(&count(0, 5))));
    let entries = world.keys.keys().filter(|key| key.first() == Some(&b'g')).count();
    // Of each kind and each source; those of a mailbox and of a held message, too.
    assert_eq!(entries, 2 * 16 + 3 + 3, "nothing is left of those that went");
}

#[test]
fn quotas_hold_whatever_the_hash_of_a_source_ends_with() {
    let mut world = world();
    // The hash of this one's bad lessons ends with 0xff.
    for first in [100, 200] {
        assert_eq!(world.apply(operator("op308"), report(first..first + 20, true)), Outcome::Done);
    }
    assert_eq!(kept(&world), (0, 5), "of one operator");
}

#[test]
fn the_same_message_counts_once_and_an_operator_corrects_a_release_but_not_the_other_way_round() {
    let mut world = world();
    delivered(&mut world, 1, "interior", "anna@interior.gov.test", true);
    for _ in 0..2 {
        assert_eq!(learn(&mut world, 1), Outcome::Done);
    }
    assert_eq!(kept(&world), (1, 0));
    assert_eq!(world.apply(operator("anna"), report(1..2, true)), Outcome::Done);
    assert_eq!(kept(&world), (0, 1));
    assert_eq!(learn(&mut world, 1), Outcome::Done);
    assert_eq!(kept(&world), (0, 1));
    assert_eq!(world.apply(operator("ben"), report(1..2, false)), Outcome::Done);
    assert_eq!(kept(&world), (1, 0));
}

#[test]
fn a_report_leaves_its_trace_and_is_bounded() {
    let mut world = World::new();
    assert_eq!(world.apply(operator("anna"), report(1..4, true)), Outcome::Done);
    let record = query::audit(&world.keys, 0, 1).records.remove(0);
    assert_eq!((record.by.as_str(), record.why.as_str()), ("operator/anna", "a test"));
    assert_eq!(record.what, "reported 3 messages as spam and 0 as wanted: 3 new");
    let many = u32::try_from(REPORT_LESSONS_MAX).expect("few") + 1;
    assert!(matches!(world.apply(operator("anna"), report(0..many, true)), Outcome::Refused(Refused::Full { .. })));
    let silent = Change::ReportMail { lessons: vec![lesson(1, true)], grounds: Grounds::default() };
    assert!(is_refused(&world.apply(operator("anna"), silent), "why"));
    assert_eq!(kept(&world), (0, 3));
}

#[test]
fn there_is_something_to_learn_when_both_kinds_are_there_the_time_has_come_and_policy_lets_it() {
    let mut world = World::new();
    let mut change = policy(0, Vec::new());
    let rules = |enabled| LearningRules { enabled, lessons_min: 5, every_ms: 10_000 };
    let set = |change: &mut Change, enabled| {
        let Change::ApplyPolicy { settings, .. } = change else { panic!("a policy") };
        settings.content.get_or_insert_default().learning = Some(rules(enabled));
        assert_eq!(change.version(), 9);
    };
    set(&mut change, true);
    assert_eq!(world.apply(operator("anna"), change), Outcome::PolicyApplied { version: 1 });
    let due = |world: &World| curriculum(&world.keys, world.now).map(|(_, lessons)| lessons.len());
    assert_eq!(world.apply(operator("anna"), report(0..9, true)), Outcome::Done);
    assert_eq!(due(&world), None, "nothing is wanted");
    assert_eq!(world.apply(operator("anna"), report(100..105, false)), Outcome::Done);
    assert_eq!(due(&world), Some(14));
    assert_eq!(world.apply(control(), learnt(14, 0, figures(), None)), Outcome::Done);
    world.now = world.now.plus_ms(20_000);
    assert_eq!(due(&world), None, "nothing is new");
    assert_eq!(world.apply(operator("anna"), report(200..201, false)), Outcome::Done);
    assert_eq!(due(&world), Some(15));
    assert_eq!(world.apply(control(), learnt(15, 0, figures(), None)), Outcome::Done);
    assert_eq!(world.apply(operator("anna"), report(201..202, false)), Outcome::Done);
    assert_eq!(due(&world), None, "it was tried just now");
    world.now = world.now.plus_ms(10_000);
    assert_eq!(due(&world), Some(16));
    let mut off = policy(1, Vec::new());
    set(&mut off, false);
    assert_eq!(world.apply(operator("anna"), off), Outcome::PolicyApplied { version: 2 });
    assert_eq!(due(&world), None);
    assert!(is_refused(&world.apply(operator("anna"), report(300..301, true)), "content.learning"));
    assert!(is_refused(&world.apply(control(), learnt(16, 0, figures(), Some(body(1)))), "content.learning"));
}

#[test]
fn a_model_is_named_once_only_with_figures_that_speak_for_it_and_its_file_is_needed() {
    let mut world = World::new();
    assert_eq!(world.apply(operator("anna"), report(0..20, true)), Outcome::Done);
    let worse = Figures { newly_over: 1, ..figures() };
    let one_server = BodyRef { servers: vec!["alpha".into()], ..body(1) };
    let large = BodyRef { size_bytes: MODEL_BYTES_MAX + 1, ..body(1) };
    for (change, why) in [
        (learnt(20, 0, worse, Some(body(1))), "kept away"),
        (learnt(20, 0, figures(), Some(one_server)), "two servers"),
        (learnt(20, 0, figures(), Some(large)), "too large"),
        (learnt(20, 1, figures(), Some(body(1))), "changed"),
        (learnt(21, 0, figures(), Some(body(1))), "changed"),
    ] {
        let outcome = world.apply(control(), change);
        assert!(is_refused(&outcome, why), "{outcome:?}");
    }
    assert_eq!(learning(&world.keys).last, None);
    assert_eq!(world.apply(control(), learnt(20, 0, worse, None)), Outcome::Done);
    assert!(learning(&world.keys).learnt.body.is_none());
    assert_eq!(world.apply(operator("anna"), report(20..40, true)), Outcome::Done);
    assert_eq!(world.apply(control(), learnt(40, 0, figures(), Some(body(1)))), Outcome::Done);
    let again = world.apply(control(), learnt(40, 0, figures(), Some(body(2))));
    assert!(is_refused(&again, "changed"), "another server was first");

    let seen = part(&world.keys, 1, &Cursor::Start).0.learnt.expect("told");
    assert_eq!((seen.version, seen.body.as_ref()), (1, Some(&body(1))));
    assert!(query::needs_body(&world.keys, &body(1).digest) && !query::needs_body(&world.keys, &body(2).digest));
    assert!(query::audit(&world.keys, 0, 1).records[0].what.contains("version 1 of the learnt model"));
    let mut contents = Contents::default();
    for (key, value) in &world.keys {
        contents.add(key, value).expect("readable");
    }
    assert_eq!(contents.bodies.get(&body(1).digest), Some(&MODEL_BYTES_MAX), "it is in a backup");
}

#[test]
fn the_models_file_is_among_those_that_servers_look_after_on_whichever_page() {
    let mut world = World::new();
    assert_eq!(world.apply(node("mx1"), hold(&[quarantined(2)])), Outcome::Done);
    assert_eq!(world.apply(node("mx1"), hold(&[quarantined(6)])), Outcome::Done);
    assert_eq!(world.apply(operator("anna"), report(0..20, true)), Outcome::Done);
    for (version, number) in [(0, 4), (1, 1), (2, 9)] {
        assert_eq!(world.apply(operator("anna"), report(100 + 10 * number..101 + 10 * number, true)), Outcome::Done);
        let lessons = learning(&world.keys).lessons;
        let change = learnt(lessons, version, figures(), Some(body(u64::from(number))));
        assert_eq!(world.apply(control(), change), Outcome::Done);
        let mut wanted = [2, 6, u64::from(number)].map(|number| format!("{number:064x}"));
        wanted.sort();
        for page in 1..4 {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let bodies = query::bodies_after(&world.keys, &after, page);
                let Some(last) = bodies.last() else { break };
                after.clone_from(&last.digest);
                found.extend(bodies.into_iter().map(|body| body.digest));
            }
            assert_eq!(found, wanted, "pages of {page}");
        }
    }
}

#[test]
fn forgetting_takes_all_lessons_and_the_model_and_what_was_learnt_of_them_comes_too_late() {
    let mut world = World::new();
    let forget = || Change::ForgetLearning { grounds: grounds() };
    assert!(is_refused(&world.apply(operator("anna"), forget()), "nothing is learnt"));
    assert_eq!(world.apply(operator("anna"), report(0..20, true)), Outcome::Done);
    assert_eq!(world.apply(control(), learnt(20, 0, figures(), Some(body(1)))), Outcome::Done);
    assert_eq!(world.apply(operator("anna"), report(20..30, true)), Outcome::Done);
    assert_eq!(world.apply(operator("anna"), forget()), Outcome::Done);
    assert_eq!((kept(&world), sources(&world.keys).len()), ((0, 0), 0));
    assert!(world.keys.keys().all(|key| !matches!(key.first(), Some(b'l' | b'g'))));
    let now = learning(&world.keys);
    assert_eq!((now.learnt.version, now.learnt.body, now.lessons, now.seen), (2, None, 30, 30));
    assert!(is_refused(&world.apply(control(), learnt(30, 1, figures(), Some(body(2)))), "changed"));
    assert!(!query::needs_body(&world.keys, &body(1).digest));
    assert!(query::audit(&world.keys, 0, 1).records[0].what.contains("forgot 0 wanted and 30 bad lessons"));
}
