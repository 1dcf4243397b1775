//! Builders of mutations and records for the tests of state and Raft.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    address::{Address, Domain, ReversePath},
    department::{Department, DepartmentId, Verification},
    held::{BodyRef, Held, HeldId, HeldKind, HeldStatus, MutationId, TransactionId},
    identity::Role,
    mutation::{Batch, Change, Grounds, Mutation, Outcome, Principal},
    policy::PolicyLayer,
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Reason, Verdict},
};
use ulid::Ulid;

use super::{
    CAPS, Caps, State,
    store::{StateStore, pages::Pages},
};

/// A state in memory with a clock of its own.
pub(crate) struct World {
    pub(crate) keys: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) now: UnixMs,
    pub(crate) caps: Caps,
    next: u128,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { keys: BTreeMap::new(), now: UnixMs(1_000_000_000), caps: CAPS, next: 1 }
    }

    /// Applies one change as its own batch under a fresh mutation id.
    pub(crate) fn apply(&mut self, by: Principal, change: Change) -> Outcome {
        self.next += 1;
        let id = MutationId(Ulid(self.next));
        self.apply_all(&[Mutation { id, by, change }]).remove(0)
    }

    pub(crate) fn apply_all(&mut self, mutations: &[Mutation]) -> Vec<Outcome> {
        let batch = Batch { at: self.now, mutations: mutations.to_vec() };
        let (writes, outcomes) = State::apply_within(self.caps, &self.keys, 1, &batch);
        writes.store_into(&mut self.keys);
        outcomes
    }
}

pub(crate) fn operator(name: &str) -> Principal {
    Principal { role: Role::Operator, name: name.to_owned() }
}

pub(crate) fn node(name: &str) -> Principal {
    Principal { role: Role::Node, name: name.to_owned() }
}

pub(crate) fn held_id(number: u64) -> HeldId {
    HeldId(Ulid(u128::from(number)))
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

pub(crate) fn verdict() -> Verdict {
    let reason = Reason { rule: "TEST".into(), score: Score::points(7, 0), text: "a test".into() };
    Verdict {
        disposition: Disposition::Quarantine,
        score: Score::points(7, 0),
        tagged: false,
        reasons: vec![reason],
        policy_version: 1,
    }
}

/// A quarantined record for two recipients of department `interior`.
pub(crate) fn quarantined(number: u64) -> Held {
    Held {
        id: held_id(number),
        transaction: TransactionId(Ulid(u128::from(number))),
        kind: HeldKind::Quarantined,
        status: HeldStatus::Waiting,
        department: Some(DepartmentId::parse("interior").expect("an id")),
        from_department: None,
        reverse_path: ReversePath::Null,
        recipients: vec![address("anna@interior.gov.test"), address("ben@interior.gov.test")],
        body: BodyRef {
            digest: format!("{number:064x}"),
            size_bytes: 1000,
            servers: vec!["control-1".into(), "control-2".into()],
        },
        verdict: verdict(),
        client: std::net::IpAddr::from([192, 0, 2, 1]),
        subject: "hello".into(),
        received_at: UnixMs(1_000_000_000),
        lease: None,
        attempts: 0,
        next_attempt: UnixMs(0),
        last_problem: String::new(),
        handling: Default::default(),
        notifications: Default::default(),
    }
}

/// The same, to be delivered by itself.
pub(crate) fn deferred(number: u64) -> Held {
    Held { kind: HeldKind::Deferred, status: HeldStatus::Due { released: None }, ..quarantined(number) }
}

pub(crate) fn department(id: &str, domains: &[&str]) -> Department {
    Department {
        id: DepartmentId::parse(id).expect("an id"),
        name: id.to_owned(),
        domains: domains.iter().map(|domain| Domain::parse(domain).expect("a domain")).collect::<BTreeSet<_>>(),
        next_hops: Vec::new(),
        sources: Vec::new(),
        services: Vec::new(),
        recipients: None,
        verification: Verification::None,
        policy: PolicyLayer::default(),
    }
}

pub(crate) fn policy(base_version: u64, departments: Vec<Department>) -> Change {
    let grounds = Grounds { why: "a test".into(), ticket: "T-1".into() };
    let changes = vec!["everything".to_owned()];
    Change::ApplyPolicy { base_version, settings: Box::default(), departments, changes, grounds }
}

pub(crate) fn hold(records: &[Held]) -> Change {
    Change::Hold { records: records.to_vec() }
}

pub(crate) fn lease(number: u64) -> Change {
    Change::Lease { held: held_id(number), for_ms: 60_000 }
}

pub(crate) fn release(number: u64) -> Change {
    Change::Release { held: held_id(number), grounds: Grounds { why: "a test".into(), ticket: String::new() } }
}

pub(crate) fn delete(number: u64) -> Change {
    Change::Delete { held: held_id(number), grounds: Grounds { why: "a test".into(), ticket: String::new() } }
}

pub(crate) fn attempted(number: u64, delivered: &[&str], refused: &[&str], next_attempt: UnixMs) -> Change {
    let all = |list: &[&str]| list.iter().map(|text| address(text)).collect();
    let problem = "451 4.2.2 full".to_owned();
    Change::Attempted { held: held_id(number), delivered: all(delivered), refused: all(refused), next_attempt, problem }
}

/// Writes a value under a key, or removes it, behind the back of the digest.
pub(crate) fn tamper(store: &StateStore, key: &[u8], value: Option<&[u8]>) {
    let mut batch = sled::Batch::default();
    Pages::of(&store.tree).stage(std::iter::once((key, value)), &mut batch).expect("readable");
    store.tree.apply_batch(batch).expect("written");
}
