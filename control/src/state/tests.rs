//! What applying does, told in mutations and outcomes.

mod determinism;
mod feed;
mod greylist;
mod held;
mod lessons;
mod reputation;
mod snapshot;

use std::sync::Arc;

use proto::{
    held::MutationId,
    identity::Role,
    mutation::{Change, Mutation, Outcome, Refused},
    policy::{MESSAGE_BYTES_MAX, PolicyLayer},
    rules::{Condition, Rule, RuleSet},
    score::Score,
    time::UnixMs,
};
use ulid::Ulid;

use super::{
    Caps,
    query::{self, HeldFilter},
    testing::{World, department, held_id, hold, lease, node, operator, policy, quarantined, release},
};

#[test]
fn a_policy_comes_into_force_only_over_the_version_it_was_planned_against() {
    let mut world = World::new();
    let first =
        policy(0, vec![department("interior", &["interior.gov.test"]), department("health", &["health.gov.test"])]);
    assert_eq!(world.apply(operator("anna"), first.clone()), Outcome::PolicyApplied { version: 1 });
    let moved = Outcome::Refused(Refused::VersionMoved { planned: 0, current: 1 });
    assert_eq!(world.apply(operator("ben"), first), moved);
    let second = policy(1, vec![department("health", &["health.gov.test", "clinic.test"])]);
    assert_eq!(world.apply(operator("ben"), second), Outcome::PolicyApplied { version: 2 });
    let view = query::view(&world.keys, 9);
    let ids: Vec<&str> = view.departments.iter().map(|department| department.id.as_str()).collect();
    assert_eq!((view.index, view.policy_version, ids), (9, 2, vec!["health"]));
    let history: Vec<(u64, String)> =
        query::history(&world.keys, 10).into_iter().map(|record| (record.version, record.by)).collect();
    assert_eq!(history, [(2, "operator/ben".to_owned()), (1, "operator/anna".to_owned())]);
}

#[test]
fn a_policy_that_contradicts_itself_is_refused_and_leaves_no_trace() {
    let mut world = World::new();
    let shared = vec![department("a", &["x.test"]), department("b", &["x.test"])];
    let twice = vec![department("a", &["x.test"]), department("a", &["y.test"])];
    let mut large = department("a", &["x.test"]);
    large.policy = PolicyLayer { message_bytes_max: Some(MESSAGE_BYTES_MAX + 1), ..PolicyLayer::default() };
    for departments in [shared, twice, vec![large]] {
        let outcome = world.apply(operator("anna"), policy(0, departments));
        assert!(matches!(outcome, Outcome::Refused(Refused::Invalid(_))), "{outcome:?}");
    }
    assert_eq!(query::policy_version(&world.keys), 0);
    assert!(query::audit(&world.keys, 0, 10).records.is_empty() && query::view(&world.keys, 0).departments.is_empty());
}

#[test]
fn rules_are_kept_whole_and_bounded_and_never_compiled_here() {
    let mut world = World::new();
    let rule = |name: &str, pattern: &str| Rule {
        name: name.into(),
        group: "own".into(),
        score: Score::points(1, 0),
        text: "a test".into(),
        all: vec![Condition { field: "body".into(), value: pattern.into() }],
        any: Vec::new(),
        none: Vec::new(),
    };
    let with = |base_version, rules: Vec<Rule>| {
        let mut change = policy(base_version, Vec::new());
        if let Change::ApplyPolicy { settings, .. } = &mut change {
            settings.rules = Some(Arc::new(RuleSet { rules, ..RuleSet::default() }));
        }
        change
    };
    let many: Vec<Rule> = (0..2_000).map(|n| rule(&format!("OWN_{n}"), &"long ".repeat(60))).collect();
    // A pattern that this version cannot compile is one that another may.
    let strange = vec![rule("OWN_STRANGE", "(a{1000}){1000}")];
    assert_eq!(with(0, many.clone()).version(), 8);
    assert_eq!(world.apply(operator("anna"), with(0, many.clone())), Outcome::PolicyApplied { version: 1 });
    let settings = query::view(&world.keys, 1).settings.expect("settings");
    assert_eq!(settings.rules.map(|set| set.rules.clone()), Some(many.clone()));
    assert!(world.keys.values().all(|value| value.len() <= super::keys::PART_BYTES));
    assert_eq!(world.apply(operator("anna"), with(1, strange)), Outcome::PolicyApplied { version: 2 });
    let more: Vec<Rule> = many.iter().cloned().chain([rule("OWN_X", "x")]).collect();
    let longer = (0..2_000).map(|n| rule(&format!("OWN_{n}"), &"long ".repeat(120))).collect();
    for (rules, what) in [(more, "rules"), (longer, "bytes of rules")] {
        let outcome = world.apply(operator("anna"), with(2, rules));
        assert!(matches!(&outcome, Outcome::Refused(Refused::Full { what: full, .. }) if full == what), "{outcome:?}");
    }
    let outcome = world.apply(operator("anna"), with(2, vec![rule("SPF_FAIL", "x")]));
    assert!(matches!(outcome, Outcome::Refused(Refused::Invalid(_))), "{outcome:?}");
}

#[test]
fn a_department_with_many_recipients_is_read_back_whole_and_leaves_nothing_behind_when_it_shrinks() {
    let mut world = World::new();
    let mut large = department("interior", &["interior.gov.test"]);
    large.recipients = Some((0..20_000).map(|number| format!("person.{number:06}")).collect());
    world.apply(operator("anna"), policy(0, vec![large.clone()]));
    assert_eq!(query::view(&world.keys, 1).departments, [large.clone()]);
    assert!(world.keys.values().all(|value| value.len() <= super::keys::PART_BYTES));
    large.recipients = None;
    world.apply(operator("anna"), policy(1, vec![large.clone()]));
    assert_eq!(query::view(&world.keys, 1).departments, [large]);
    let parts = world.keys.keys().filter(|key| key.first() == Some(&b'D')).count();
    assert_eq!(parts, 1);
}

#[test]
fn a_history_keeps_only_the_newest_versions() {
    let mut world = World::new();
    world.caps = Caps { versions: 3, ..world.caps };
    for base in 0..5 {
        world.apply(operator("anna"), policy(base, Vec::new()));
    }
    let versions: Vec<u64> = query::history(&world.keys, 10).iter().map(|record| record.version).collect();
    assert_eq!(versions, [5, 4, 3]);
}

#[test]
fn a_role_may_propose_only_what_is_its_own() {
    let mut world = World::new();
    let refused = |role| Outcome::Refused(Refused::Role { role });
    assert_eq!(world.apply(node("n1"), policy(0, Vec::new())), refused(Role::Node));
    assert_eq!(world.apply(operator("anna"), hold(&[quarantined(1)])), refused(Role::Operator));
    world.apply(node("n1"), hold(&[quarantined(1)]));
    assert_eq!(world.apply(node("n1"), release(1)), refused(Role::Node));
    assert!(query::audit(&world.keys, 0, 10).records.is_empty());
}

#[test]
fn a_mutation_proposed_twice_has_the_first_ones_outcome_and_no_second_effect() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[quarantined(1)]));
    let id = MutationId(Ulid(500));
    let first = Mutation { id, by: operator("anna"), change: release(1) };
    // In one batch as well as in a later one.
    assert_eq!(world.apply_all(&[first.clone(), first.clone()]), [Outcome::Done, Outcome::Done]);
    assert_eq!(world.apply_all(&[first]), [Outcome::Done]);
    assert_eq!(query::audit(&world.keys, 0, 10).records.len(), 1);
    let stolen = Mutation { id, by: operator("ben"), change: release(1) };
    let outcome = world.apply_all(&[stolen]).remove(0);
    assert!(matches!(outcome, Outcome::Refused(Refused::Invalid(_))), "{outcome:?}");
}

#[test]
fn a_lease_proposed_twice_is_the_same_lease_and_lost_when_it_has_run_out() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[quarantined(1)]));
    world.apply(operator("anna"), release(1));
    let mutation = Mutation { id: MutationId(Ulid(500)), by: node("n1"), change: lease(1) };
    let first = world.apply_all(std::slice::from_ref(&mutation));
    assert!(matches!(first.as_slice(), [Outcome::Leased(_)]), "{first:?}");
    assert_eq!(world.apply_all(std::slice::from_ref(&mutation)), first);
    world.now = world.now.plus_ms(60_000);
    assert_eq!(world.apply_all(&[mutation]), [Outcome::Refused(Refused::LeaseLost)]);
}

#[test]
fn the_oldest_remembered_outcomes_are_forgotten_first() {
    let mut world = World::new();
    world.caps = Caps { remembered: 2, ..world.caps };
    world.apply(node("n1"), hold(&[quarantined(1)]));
    let again = |world: &mut World, id: u128| {
        let change = Change::Lease { held: held_id(u64::try_from(id).expect("small")), for_ms: 1 };
        world.apply_all(&[Mutation { id: MutationId(Ulid(id)), by: node("n1"), change }])
    };
    for id in [101, 102, 103] {
        again(&mut world, id);
    }
    let remembered = world.keys.keys().filter(|key| matches!(key.first(), Some(b'R' | b'Q'))).count();
    assert_eq!(remembered, 4);
    let known = |id: u128| world.keys.contains_key([b"R".as_slice(), &Ulid(id).to_bytes()].concat().as_slice());
    assert!(!known(101) && known(102) && known(103));
}

#[test]
fn log_time_never_goes_back() {
    let mut world = World::new();
    world.apply(node("n1"), hold(&[quarantined(1)]));
    world.now = UnixMs(5);
    world.apply(operator("anna"), release(1));
    assert_eq!(query::log_time(&world.keys), UnixMs(1_000_000_000));
    assert_eq!(query::audit(&world.keys, 0, 1).records.first().map(|record| record.at), Some(UnixMs(1_000_000_000)));
}

#[test]
fn the_audit_log_is_a_chain() {
    let mut world = World::new();
    world.apply(operator("anna"), policy(0, Vec::new()));
    world.apply(node("n1"), hold(&[quarantined(1)]));
    world.apply(operator("ben"), release(1));
    let verdict = super::testing::verdict();
    let transaction = quarantined(2).transaction;
    world.apply(node("n1"), Change::Discard { transaction, recipients: 3, verdict });
    let page = query::audit(&world.keys, 0, 10);
    let mut records = page.records;
    records.reverse();
    let by: Vec<&str> = records.iter().map(|record| record.by.as_str()).collect();
    assert_eq!(by, ["operator/anna", "operator/ben", "node/n1"]);
    let mut previous = String::new();
    for (record, seq) in records.iter().zip(1..) {
        assert_eq!((record.seq, &record.previous), (seq, &previous));
        previous = record.hash();
    }
    assert_eq!((page.head_seq, page.head_hash), (3, previous));
    assert!(records.iter().any(|record| record.what.contains("discarded") && record.why.contains("TEST")));
}

#[test]
fn the_audit_log_is_read_page_by_page_to_its_first_record() {
    let mut world = World::new();
    for version in 0..7 {
        world.apply(operator("anna"), policy(version, Vec::new()));
    }
    let (mut before, mut pages) = (0, Vec::new());
    loop {
        let page = query::audit(&world.keys, before, 3);
        assert_eq!(page.head_seq, 7, "the same head on each page");
        let Some(last) = page.records.last() else { break };
        before = last.seq;
        pages.push(page.records.iter().map(|record| record.seq).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
}

#[test]
fn a_list_is_newest_first_and_filtered() {
    let mut world = World::new();
    for number in 1..=4 {
        world.now = world.now.plus_ms(10);
        let mut held = quarantined(number);
        held.received_at = world.now;
        if number == 2 {
            held.department = None;
            held.recipients = vec![super::testing::address("Carl@other.test")];
        }
        world.apply(node("n1"), hold(&[held]));
    }
    world.apply(operator("anna"), super::testing::delete(3));
    let list = |filter: HeldFilter| -> Vec<u128> {
        query::held_list(&world.keys, &HeldFilter { max: 3, ..filter }).iter().map(|held| held.id.0.0).collect()
    };
    assert_eq!(list(HeldFilter::default()), [4, 2, 1]);
    assert_eq!(list(HeldFilter { ended: true, ..HeldFilter::default() }), [4, 3, 2]);
    let department = quarantined(1).department;
    assert_eq!(list(HeldFilter { department: department.clone(), ..HeldFilter::default() }), [4, 1]);
    let recipient = Some("carl@other.test".to_owned());
    assert_eq!(list(HeldFilter { recipient: recipient.clone(), ..HeldFilter::default() }), [2]);
    assert_eq!(list(HeldFilter { recipient, department, ..HeldFilter::default() }), [0_u128; 0]);
    assert_eq!(query::held_count(&world.keys), 3);
}
