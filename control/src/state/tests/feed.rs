//! Whole and then changes, read in slices while the state moves on: always the state's view at the last part's index.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proto::{
    held::MutationId,
    mutation::{Batch, Change, Grounds, Mutation},
    reputation::{Heard, Stance, SubjectKey},
    time::UnixMs,
    view::{View, ViewChange},
};
use ulid::Ulid;

use crate::state::{
    Caps, State,
    feed::{Cursor, last, part, part_within},
    lessons::QUOTAS,
    testing::{department, hold, node, operator, policy, quarantined},
};

/// So small that subjects are evicted, and readers lose the journal.
const CAPS: Caps =
    Caps { held: 9, remembered: 9, versions: 3, subjects: 12, said: 3, tries: 6, lessons: QUOTAS, journal: 30 };

type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

/// A server whose log grows by a batch at a time.
#[derive(Default)]
struct Server {
    keys: Keys,
    index: u64,
    version: u64,
}

impl Server {
    fn apply(&mut self, (at, steps): &(u64, Vec<Step>)) {
        self.index += 1;
        let mut mutations = Vec::new();
        for (number, step) in (0_u128..).zip(steps) {
            let id = MutationId(Ulid(u128::from(self.index) << 32 | number));
            let change = step.change(&mut self.version, *at);
            let by = if matches!(step, Step::Report(_) | Step::Hold(_)) { node("n1") } else { operator("anna") };
            mutations.push(Mutation { id, by, change });
        }
        let batch = Batch { at: UnixMs(*at), mutations };
        State::apply_within(CAPS, &self.keys, self.index, &batch).0.store_into(&mut self.keys);
    }

    /// The whole view in one piece.
    fn view(&self) -> View {
        let (change, cursor) = part(&self.keys, self.index, &Cursor::Start);
        assert_eq!(cursor, Cursor::After { index: self.index, items: 0 });
        View::empty().after(change)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Report(Vec<(u8, u32, u32)>),
    PutOff(Vec<u8>),
    Say(u8, bool),
    Forget(u8),
    Policy(BTreeMap<u8, BTreeSet<u8>>),
    Hold(u64),
}

fn heard(number: u8, good: u32, bad: u32) -> Heard {
    Heard { subject: subject(number).key(), good, bad }
}

fn subject(number: u8) -> proto::reputation::Subject {
    format!("ip:192.0.2.{number}").parse().expect("a subject")
}

impl Step {
    fn change(&self, version: &mut u64, at: u64) -> Change {
        let grounds = Grounds { why: "a test".into(), ticket: String::new() };
        match self {
            Self::Report(all) => {
                Change::Report { outcomes: all.iter().map(|(n, good, bad)| heard(*n, *good, *bad)).collect() }
            }
            Self::PutOff(all) => Change::PutOff { tries: all.iter().map(|n| subject(*n).key()).collect() },
            Self::Say(n, allow) => {
                let stance = if *allow { Stance::Allow } else { Stance::Block };
                Change::SetReputation { subject: subject(*n), stance, until: UnixMs(at + 50_000_000), grounds }
            }
            Self::Forget(n) => Change::ForgetReputation { subject: subject(*n), grounds },
            Self::Hold(n) => hold(&[quarantined(*n)]),
            Self::Policy(departments) => {
                *version += 1;
                let one = |(id, names): (&u8, &BTreeSet<u8>)| {
                    // Each name is with one department only, as the policy demands.
                    let mine = |name: &&u8| {
                        departments.iter().find(|(_, names)| names.contains(name)).map(|it| it.0) == Some(id)
                    };
                    let domains: Vec<String> = names.iter().filter(mine).map(|name| format!("d{name}.test")).collect();
                    department(&format!("d{id}"), &domains.iter().map(String::as_str).collect::<Vec<_>>())
                };
                policy(*version - 1, departments.iter().map(one).collect())
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let counts = (0_u8..30, 0_u32..9, 0_u32..9);
    prop_oneof![
        3 => prop::collection::vec(counts, 0..12).prop_map(Step::Report),
        1 => prop::collection::vec(0_u8..30, 0..9).prop_map(Step::PutOff),
        1 => (0_u8..6, any::<bool>()).prop_map(|(n, allow)| Step::Say(n, allow)),
        1 => (0_u8..30).prop_map(Step::Forget),
        1 => prop::collection::btree_map(0_u8..8, prop::collection::btree_set(0_u8..9, 0..4), 0..8).prop_map(Step::Policy),
        1 => (1_u64..99).prop_map(Step::Hold),
    ]
}

fn log() -> impl Strategy<Value = Vec<(u64, Vec<Step>)>> {
    let at = 1_000_000_000_u64..1_200_000_000;
    prop::collection::vec((at, prop::collection::vec(step(), 1..3)), 1..40)
}

/// All that a view answers with.
fn shown(view: &View) -> impl PartialEq + std::fmt::Debug + use<> {
    let tenants: Vec<_> = view.tenants().map(|one| (one.department.clone(), format!("{:?}", one.policy))).collect();
    let domain = |name| proto::address::Domain::parse(&format!("d{name}.test")).expect("a domain");
    let owners: Vec<_> =
        (0..9).map(|name| view.tenant_of(&domain(name)).map(|one| one.department.id.clone())).collect();
    let repute =
        |n| (view.reputation.levels(subject(n).key()), view.reputation.repute(subject(n).key(), UnixMs(1_100_000_000)));
    let subjects: Vec<_> = (0..30).map(repute).collect();
    let tries: Vec<_> = (0..30).map(|n| view.tries.value(subject(n).key())).collect();
    (
        view.index,
        view.policy_version,
        view.settings.clone(),
        tenants,
        owners,
        subjects,
        view.reputation.subjects(),
        tries,
    )
}

/// A node: the view in use, and what has come of the next one.
struct Node {
    view: View,
    pending: Option<View>,
    cursor: Cursor,
}

impl Node {
    fn at(view: View) -> Self {
        let cursor = Cursor::from_index(view.index);
        Self { view, pending: None, cursor }
    }

    /// Takes one part; whether the view is whole again.
    fn read(&mut self, server: &Server, items: usize) -> bool {
        let (change, cursor) = part_within(items, &server.keys, server.index, &self.cursor);
        self.cursor = cursor;
        let mut next = self.pending.take().unwrap_or_else(|| self.view.clone());
        let more = change.more;
        next.change(change);
        if more {
            self.pending = Some(next)
        } else {
            self.view = next
        };
        !more
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// `pauses` says how many batches are applied between two reads, `lost` after which reads the connection breaks: then
    /// the parts that came are thrown away and the node resumes from the view that it uses.
    #[test]
    fn whatever_moves_between_the_parts_a_reader_ends_with_the_states_view(
        log in log(), items in 1_usize..20, pauses in prop::collection::vec(0_usize..4, 60),
        lost in prop::collection::vec(prop::bool::weighted(0.2), 60),
    ) {
        let mut server = Server::default();
        let mut log = log.iter();
        server.apply(log.next().expect("a batch"));
        let mut node = Node::at(View::empty());
        for (pause, lost) in pauses.into_iter().zip(lost) {
            if node.read(&server, items) {
                prop_assert_eq!(shown(&node.view), shown(&server.view()));
            }
            if lost {
                node = Node::at(node.view);
            }
            log.by_ref().take(pause).for_each(|batch| server.apply(batch));
        }
        log.for_each(|batch| server.apply(batch));
        let whole = (0..10_000).any(|_| node.read(&server, items));
        prop_assert!(whole, "a reader that is left alone comes to an end");
        prop_assert_eq!(shown(&node.view), shown(&server.view()));
    }
}

fn moved(change: &ViewChange) -> Vec<SubjectKey> {
    change.subjects.iter().map(|(key, _)| *key).collect()
}

fn reported(number: u8) -> (u64, Vec<Step>) {
    (1_000_000_000, vec![Step::Report(vec![(number, 1, 1)])])
}

#[test]
fn within_the_journals_reach_only_what_changed_is_read_and_beyond_it_everything() {
    let mut server = Server::default();
    (1..=5).for_each(|number| server.apply(&reported(number)));
    let (change, cursor) = part(&server.keys, 5, &Cursor::from_index(3));
    assert!(!change.whole && !change.more);
    assert_eq!(moved(&change), [4, 5].map(|n| subject(n).key()));
    assert_eq!(cursor, Cursor::After { index: 5, items: 0 });
    let (change, _) = part(&server.keys, 5, &cursor);
    assert!(change.is_empty(), "{change:?}");
    for _ in 0..4 {
        let all = (6..=14).map(|number| (number, 100, 100)).collect();
        server.apply(&(1_000_000_000, vec![Step::Report(all)]));
    }
    let (change, _) = part(&server.keys, server.index, &Cursor::from_index(3));
    assert!(change.whole && change.settings.is_some(), "the journal has forgotten what came after 3: {change:?}");
}

#[test]
fn what_does_not_concern_nodes_moves_nothing() {
    let mut server = Server::default();
    server.apply(&reported(1));
    server.apply(&(1_000_000_000, vec![Step::Hold(1)]));
    assert_eq!(last(&server.keys), 1);
    assert!(part(&server.keys, 2, &Cursor::from_index(1)).0.is_empty());
}

#[test]
fn a_policy_names_only_the_departments_that_it_changes() {
    let mut server = Server::default();
    let of = |all: &[(u8, u8)]| Step::Policy(all.iter().map(|(id, name)| (*id, BTreeSet::from([*name]))).collect());
    server.apply(&(1_000_000_000, vec![of(&[(1, 1), (2, 2), (3, 3)])]));
    server.apply(&(1_000_000_000, vec![of(&[(1, 1), (2, 4)])]));
    let (change, _) = part(&server.keys, 2, &Cursor::from_index(1));
    let ids: Vec<String> = change.departments.iter().map(|one| one.id.to_string()).collect();
    assert_eq!((ids, change.removed.len(), change.policy_version), (vec!["d2".to_owned()], 1, 2));
}
