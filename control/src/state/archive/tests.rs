//! A restore step by step: all or nothing, twice is harmless, and nothing in between.

use std::collections::BTreeMap;

use proto::{
    archive::{ArchiveAct, Origin, pack},
    member::{Member, MemberAct},
    mutation::{Change, Grounds, Outcome, Refused},
    time::UnixMs,
};

use super::{Contents, is_numbers, is_restored, restoring};
use crate::state::{
    query,
    testing::{World, delete, department, held_id, hold, node, operator, policy, quarantined, release},
};

fn act(act: ArchiveAct) -> Change {
    Change::Archive { act, grounds: Grounds { why: "the data centre burnt down".into(), ticket: "T-9".into() } }
}

fn form() -> Change {
    let member = Member { id: 1, name: "new-1".into(), site: "north".into(), address: "new-1.test:7001".into() };
    Change::Member {
        act: MemberAct::Form { members: vec![member] },
        grounds: Grounds { why: "new".into(), ticket: String::new() },
    }
}

/// A cluster with a policy, held messages and an audit log.
fn old() -> World {
    let mut world = World::new();
    world.now = UnixMs(5_000_000_000);
    let departments = vec![department("interior", &["interior.gov.test"])];
    assert!(matches!(world.apply(operator("anna"), policy(0, departments)), Outcome::PolicyApplied { .. }));
    for number in 1..=5 {
        assert_eq!(world.apply(node("mx1"), hold(&[quarantined(number)])), Outcome::Done);
    }
    assert_eq!(world.apply(operator("anna"), release(2)), Outcome::Done);
    assert_eq!(world.apply(operator("anna"), delete(3)), Outcome::Done);
    assert_eq!(world.apply(operator("anna"), act(ArchiveAct::Backup)), Outcome::Done);
    world
}

fn origin(pieces: u64) -> Origin {
    let at = UnixMs(5_000_000_000);
    Origin { archive: "a".repeat(64), cluster: "old".into(), index: 12, at, pieces }
}

type Pair<'k> = (&'k Vec<u8>, &'k Vec<u8>);

/// The keys of a world in pieces of three, and its numbers.
fn pieces(keys: &BTreeMap<Vec<u8>, Vec<u8>>) -> (Vec<Change>, Vec<u8>) {
    let restored: Vec<_> = keys.iter().filter(|(key, _)| is_restored(key)).collect();
    let piece = |(piece, pairs): (u64, &[Pair<'_>])| {
        let mut packed = Vec::new();
        pairs.iter().for_each(|(key, value)| pack(&mut packed, key, value).expect("short"));
        act(ArchiveAct::Keys { archive: "a".repeat(64), piece, pairs: packed })
    };
    let pieces = (0..).zip(restored.chunks(3)).map(piece).collect();
    let numbers = keys.iter().find(|(key, _)| is_numbers(key)).expect("numbers").1.clone();
    (pieces, numbers)
}

fn refused(outcome: Outcome) -> String {
    let Outcome::Refused(Refused::Invalid(text)) = outcome else { panic!("{outcome:?}") };
    text
}

#[test]
fn all_that_was_there_is_there_again_and_the_chain_of_the_audit_log_goes_on() {
    let old = old();
    let (pieces, numbers) = pieces(&old.keys);
    let mut new = World::new();
    let anna = || operator("anna");
    assert_eq!(new.apply(anna(), form()), Outcome::Done);
    let begin = || act(ArchiveAct::Begin(origin(pieces.len() as u64)));
    assert_eq!(new.apply(anna(), begin()), Outcome::Done);
    for piece in &pieces {
        assert_eq!(new.apply(anna(), piece.clone()), Outcome::Done);
        // A step that is asked for twice, and one that is begun again.
        assert_eq!(new.apply(anna(), piece.clone()), Outcome::Done);
        assert_eq!(new.apply(anna(), begin()), Outcome::Done);
    }
    let end = act(ArchiveAct::End { archive: "a".repeat(64), numbers });
    assert_eq!(new.apply(anna(), end), Outcome::Done);
    assert_eq!(restoring(&new.keys), None);

    let same = |keys: &BTreeMap<Vec<u8>, Vec<u8>>| -> BTreeMap<Vec<u8>, Vec<u8>> {
        keys.iter().filter(|(key, _)| is_restored(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let (was, mut is) = (same(&old.keys), same(&new.keys));
    is.retain(|key, _| was.contains_key(key));
    assert_eq!(is, was);
    assert_eq!(same(&new.keys).len(), was.len() + 1, "the record of the restore");
    assert_eq!(query::view(&new.keys, 1), query::view(&old.keys, 1));
    assert_eq!((query::held_count(&new.keys), query::log_time(&new.keys)), (4, UnixMs(5_000_000_000)));
    let (page, before) = (query::audit(&new.keys, 0, 100), query::audit(&old.keys, 0, 100));
    assert_eq!(page.head_seq, before.head_seq + 1);
    assert_eq!(page.records[0].previous, before.head_hash);
    assert!(page.records[0].what.contains("restored cluster old as of index 12"), "{}", page.records[0].what);
    assert!(page.records[0].what.contains("new-1"), "the new members are named");
    assert!(
        !new.keys.keys().any(|key| key.starts_with(b"J")),
        "nodes are told everything, not what the old cluster told its own"
    );
    assert_eq!(new.apply(anna(), release(1)), Outcome::Done);
}

#[test]
fn while_it_is_under_way_nothing_else_changes_and_no_piece_may_be_left_out() {
    let old = old();
    let (pieces, numbers) = pieces(&old.keys);
    let mut new = World::new();
    let anna = || operator("anna");
    let end = || act(ArchiveAct::End { archive: "a".repeat(64), numbers: numbers.clone() });
    assert!(refused(new.apply(anna(), pieces[0].clone())).contains("no restore"));
    assert!(refused(new.apply(anna(), end())).contains("no restore"));
    assert_eq!(new.apply(anna(), act(ArchiveAct::Begin(origin(pieces.len() as u64)))), Outcome::Done);
    assert!(refused(new.apply(anna(), pieces[1].clone())).contains("piece 0"));
    assert_eq!(new.apply(anna(), pieces[0].clone()), Outcome::Done);
    assert!(refused(new.apply(anna(), end())).contains("1 of"));
    let other = Origin { archive: "b".repeat(64), ..origin(1) };
    assert!(refused(new.apply(anna(), act(ArchiveAct::Begin(other)))).contains("another archive"));
    for change in [form(), release(1), policy(0, Vec::new()), act(ArchiveAct::Backup)] {
        assert!(refused(new.apply(anna(), change)).contains("being restored"));
    }
    assert!(refused(new.apply(node("mx1"), hold(&[quarantined(9)]))).contains("being restored"));
}

#[test]
fn a_cluster_in_use_a_foreign_key_and_a_node_are_refused() {
    let mut used = old();
    assert!(refused(used.apply(operator("anna"), act(ArchiveAct::Begin(origin(1))))).contains("new cluster"));
    let mut new = World::new();
    let by_node = new.apply(node("mx1"), act(ArchiveAct::Begin(origin(1))));
    assert!(matches!(by_node, Outcome::Refused(Refused::Role { .. })), "{by_node:?}");
    assert_eq!(new.apply(operator("anna"), act(ArchiveAct::Begin(origin(1)))), Outcome::Done);
    for bad in [b"M".as_slice(), b"Rx", b"Qx", b"mx", b"F", b"Jx", b"\0position", &[0xff], b""] {
        let mut pairs = Vec::new();
        pack(&mut pairs, bad, b"x").expect("short");
        let piece = act(ArchiveAct::Keys { archive: "a".repeat(64), piece: 0, pairs });
        assert!(refused(new.apply(operator("anna"), piece)).contains("not to be restored"), "{bad:?}");
    }
}

#[test]
fn the_bodies_that_are_needed_are_those_of_records_that_have_not_ended() {
    let old = old();
    let mut needed = Contents::default();
    for (key, value) in &old.keys {
        needed.add(key, value).expect("readable");
    }
    needed.end_of_record().expect("readable");
    let expected: BTreeMap<String, u64> = [1, 2, 4, 5].map(|number| (format!("{number:064x}"), 1000)).into();
    assert_eq!(needed.bodies, expected);
    assert_eq!((needed.held, needed.policy_version, needed.at), (4, 1, UnixMs(5_000_000_000)));
    assert!(query::held(&old.keys, held_id(3)).is_some());
    needed.add(b"Hx\0\0", b"no record").expect("kept");
    assert!(needed.end_of_record().is_err());
}
