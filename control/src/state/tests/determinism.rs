//! Same log, same state: however entries are cut into batches, and whatever keeps the keys.

use std::{collections::BTreeMap, io::Cursor};

use proptest::prelude::*;
use proto::{
    held::MutationId,
    learning::lesson::Lesson,
    mutation::{Batch, Change, Grounds, Mutation, Outcome},
    reputation::{Heard, Stance, Subject},
    score::Score,
    time::UnixMs,
};
use ulid::Ulid;

use crate::state::{
    Caps, State,
    digest::StateDigest,
    keys::Keys,
    lessons::Quotas,
    store::{Position, REPLICATED, StateStore},
    testing::{
        attempted, deferred, delete, department, held_id, hold, lease, node, operator, policy, quarantined, release,
    },
};

/// Small, so that the random mutations reach them.
const CAPS: Caps = Caps {
    held: 4,
    remembered: 12,
    versions: 2,
    subjects: 6,
    said: 2,
    tries: 5,
    lessons: Quotas { mailbox: 1, source: 2, all: 3 },
    journal: 9,
};

fn change() -> impl Strategy<Value = (bool, Change)> {
    let record = 1_u64..7;
    prop_oneof![
        (record.clone(), any::<bool>())
            .prop_map(|(n, now)| { (false, hold(&[if now { deferred(n) } else { quarantined(n) }])) }),
        record.clone().prop_map(|n| (false, lease(n))),
        (record.clone(), 0_usize..4).prop_map(|(n, which)| {
            let both = ["anna@interior.gov.test", "ben@interior.gov.test"];
            let change = match which {
                0 => attempted(n, &both, &[], UnixMs(0)),
                1 => attempted(n, &[], &both, UnixMs(0)),
                2 => attempted(n, &both[..1], &[], UnixMs(0)),
                _ => attempted(n, &[], &[], UnixMs(0)),
            };
            (false, change)
        }),
        record.clone().prop_map(|n| (true, release(n))),
        record.prop_map(|n| (true, delete(n))),
        (0_u64..4, 1_usize..4).prop_map(|(base, count)| {
            let all = [("a", "a.test"), ("b", "b.test"), ("c", "a.test")];
            let departments = all[..count].iter().map(|(id, domain)| department(id, &[domain])).collect();
            (true, policy(base, departments))
        }),
        prop::collection::vec((0_u8..12, 0_u32..40, 0_u32..40), 0..9).prop_map(|all| {
            let heard = |(n, good, bad)| Heard { subject: subject(n).key(), good, bad };
            (false, Change::Report { outcomes: all.into_iter().map(heard).collect() })
        }),
        prop::collection::vec(0_u8..12, 0..5)
            .prop_map(|all| { (false, Change::PutOff { tries: all.into_iter().map(|n| subject(n).key()).collect() }) }),
        (1_u64..7, 0_u32..9)
            .prop_map(|(n, word)| (false, Change::Learn { held: held_id(n), lesson: lesson((word, false)) })),
        prop::option::of(prop::collection::vec((0_u32..9, any::<bool>()), 0..4)).prop_map(|all| {
            let grounds = Grounds { why: "a test".into(), ticket: String::new() };
            let change = match all {
                Some(all) => Change::ReportMail { lessons: all.into_iter().map(lesson).collect(), grounds },
                None => Change::ForgetLearning { grounds },
            };
            (true, change)
        }),
        (0_u8..12, prop::option::of(0_u64..400_000)).prop_map(|(n, until)| {
            let (subject, grounds) = (subject(n), Grounds { why: "a test".into(), ticket: String::new() });
            let change = match until.map(|ms| UnixMs(1_000_000_000 + ms)) {
                Some(until) => Change::SetReputation { subject, stance: Stance::Block, until, grounds },
                None => Change::ForgetReputation { subject, grounds },
            };
            (true, change)
        }),
    ]
}

fn lesson((word, bad): (u32, bool)) -> Lesson {
    Lesson::new([word, word + 10], bad, Score::ZERO)
}

fn subject(number: u8) -> Subject {
    format!("dkim:d{number}.test").parse().expect("a subject")
}

/// Groups of mutations, each with the proposer's clock, which may be behind that of the group before.
fn log() -> impl Strategy<Value = Vec<(u64, Vec<Mutation>)>> {
    // Few ids, so that some come twice.
    let mutation = (0_u128..60, 1_u8..3, change()).prop_map(|(id, who, (by_operator, change))| {
        let name = format!("n{who}");
        let by = if by_operator { operator(&name) } else { node(&name) };
        Mutation { id: MutationId(Ulid(id)), by, change }
    });
    let at = (0_u64..8).prop_map(|step| 1_000_000_000 + step * 40_000);
    prop::collection::vec((at, prop::collection::vec(mutation, 1..8)), 1..10)
}

/// All that one can see of a state that has come somehow.
#[derive(Debug, PartialEq)]
struct Seen {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    digest: StateDigest,
    outcomes: Vec<Outcome>,
}

fn in_memory(batches: &[Batch]) -> Seen {
    let (mut pairs, mut digest, mut outcomes) = (BTreeMap::new(), StateDigest::default(), Vec::new());
    for batch in batches {
        let (writes, some) = State::apply_within(CAPS, &pairs, 7, batch);
        digest = digest.after(&pairs, &writes);
        writes.store_into(&mut pairs);
        outcomes.extend(some);
    }
    assert_eq!(digest, StateDigest::of(&pairs), "the digest that follows the writes is that of what is there");
    Seen { pairs, digest, outcomes }
}

fn store(folder: &tempfile::TempDir, name: &str) -> StateStore {
    StateStore::open(&folder.path().join(name)).expect("a store")
}

fn commit(store: &StateStore, batch: &Batch) -> Vec<Outcome> {
    let reading = store.reading();
    let (writes, outcomes) = State::apply_within(CAPS, &reading, 7, batch);
    reading.commit(&writes, &Position { index: 7, ..Position::default() }).expect("written");
    outcomes
}

/// On disk; after `moved` batches a snapshot goes to another server, which has been somewhere else, and the rest is applied
/// there.
fn in_sled(batches: &[Batch], moved: Option<usize>) -> Seen {
    let folder = tempfile::tempdir().expect("a folder");
    let mut here = store(&folder, "here");
    let mut outcomes = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        if moved == Some(number) {
            let there = store(&folder, "there");
            commit(&there, batch);
            let mut bytes = Vec::new();
            here.export(&mut bytes).expect("exported");
            there.import(Cursor::new(bytes)).expect("imported");
            here = there;
        }
        outcomes.extend(commit(&here, batch));
    }
    assert_eq!(here.measure().expect("readable"), here.digest(), "the digest kept is that of what is there");
    let pairs = here.range(REPLICATED.start, REPLICATED.end).collect();
    Seen { pairs, digest: here.digest(), outcomes }
}

/// The same mutations in the same order, in batches of these sizes, over and over. A batch has one stamp, so that it ends
/// where log time moves on; a clock that is behind does not move it.
fn cut(log: &[(u64, Vec<Mutation>)], sizes: &[usize]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let (mut now, mut left, mut sizes) = (0, 0, sizes.iter().cycle());
    for (at, mutations) in log {
        for mutation in mutations {
            match batches.last_mut() {
                Some(batch) if left > 0 && *at <= now => batch.mutations.push(mutation.clone()),
                Some(_) | None => {
                    now = now.max(*at);
                    left = *sizes.next().expect("it never ends");
                    batches.push(Batch { at: UnixMs(*at), mutations: vec![mutation.clone()] });
                }
            }
            left -= 1;
        }
    }
    batches
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..9, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_batching_gives_the_same_state_and_outcomes(log in log(), one in sizes(), other in sizes()) {
        prop_assert_eq!(in_memory(&cut(&log, &one)), in_memory(&cut(&log, &other)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sled_and_memory_give_the_same_state_and_outcomes_with_or_without_a_snapshot_in_between(
        log in log(), one in sizes(), other in sizes(), moved in 0_usize..20,
    ) {
        let batches = cut(&log, &other);
        let expected = in_memory(&cut(&log, &one));
        prop_assert_eq!(&in_sled(&batches, None), &expected);
        prop_assert_eq!(&in_sled(&batches, Some(moved % batches.len())), &expected);
    }
}
