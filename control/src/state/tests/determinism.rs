//! Same log, same state: however entries are cut into batches, and whatever keeps the keys.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::{
    held::MutationId,
    mutation::{Batch, Change, Grounds, Mutation, Outcome},
    reputation::{Heard, Stance, Subject},
    time::UnixMs,
};
use ulid::Ulid;

use crate::state::{
    Caps, State, keys,
    store::{Position, StateStore},
    testing::{attempted, deferred, delete, department, hold, lease, node, operator, policy, quarantined, release},
};

/// Small, so that the random mutations reach them.
const CAPS: Caps = Caps { held: 4, remembered: 12, versions: 2, subjects: 6, said: 2, journal: 9 };

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

fn subject(number: u8) -> Subject {
    format!("dkim:d{number}.test").parse().expect("a subject")
}

/// Groups of mutations; all of a group are stamped with the same time, so that cutting a group changes nothing.
fn log() -> impl Strategy<Value = Vec<(u64, Vec<Mutation>)>> {
    // Few ids, so that some come twice.
    let mutation = (0_u128..60, 1_u8..3, change()).prop_map(|(id, who, (by_operator, change))| {
        let name = format!("n{who}");
        let by = if by_operator { operator(&name) } else { node(&name) };
        Mutation { id: MutationId(Ulid(id)), by, change }
    });
    let at = 1_000_000_000_u64..1_000_300_000;
    prop::collection::vec((at, prop::collection::vec(mutation, 1..8)), 1..10)
}

fn in_memory(batches: &[Batch]) -> (String, Vec<Outcome>) {
    let mut map = BTreeMap::new();
    let mut all = Vec::new();
    for batch in batches {
        let (writes, outcomes) = State::apply_within(CAPS, &map, 7, batch);
        writes.store_into(&mut map);
        all.extend(outcomes);
    }
    (keys::digest(&map), all)
}

fn in_sled(batches: &[Batch]) -> (String, Vec<Outcome>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = StateStore::open(&folder.path().join("state")).expect("a store");
    let mut all = Vec::new();
    for batch in batches {
        let (writes, outcomes) = State::apply_within(CAPS, &store, 7, batch);
        store.commit(&writes, &Position { index: 7, ..Position::default() }).expect("written");
        all.extend(outcomes);
    }
    (store.digest(), all)
}

/// The same mutations, cut into batches of `size`.
fn cut(log: &[(u64, Vec<Mutation>)], size: usize) -> Vec<Batch> {
    let batch = |(at, mutations): &(u64, Vec<Mutation>)| -> Vec<Batch> {
        mutations.chunks(size).map(|chunk| Batch { at: UnixMs(*at), mutations: chunk.to_vec() }).collect()
    };
    log.iter().flat_map(batch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_batching_gives_the_same_state_and_outcomes(log in log(), size in 1_usize..8) {
        prop_assert_eq!(in_memory(&cut(&log, 8)), in_memory(&cut(&log, size)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sled_and_memory_give_the_same_state_and_outcomes(log in log(), size in 1_usize..8) {
        let batches = cut(&log, size);
        prop_assert_eq!(in_memory(&batches), in_sled(&batches));
    }
}
