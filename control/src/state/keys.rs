//! Where the state reads and what it wants written: ordered keys, the writes of one apply on top of them, and the names
//! of all keys.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    ops::Bound,
};

use proto::codec;
use serde::{Serialize, de::DeserializeOwned};

/// Longest value stored under one key, in bytes. Larger ones are split: sled keeps values up to 64 KiB inline with a
/// segment size of 8 MiB, and what it puts beside its file it never fsyncs.
pub const PART_BYTES: usize = 48 * 1024;

/// Ordered keys that can be read. A `BTreeMap` in tests, sled in production.
pub trait Keys {
    /// The value under a key.
    fn value(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// All pairs with `from <= key < to`, in order of the keys.
    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (Vec<u8>, Vec<u8>)>;
}

impl Keys for BTreeMap<Vec<u8>, Vec<u8>> {
    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get(key).cloned()
    }

    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (Vec<u8>, Vec<u8>)> {
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(from), Bound::Excluded(to.max(from)));
        Self::range::<[u8], _>(self, bounds).map(|(key, value)| (key.clone(), value.clone()))
    }
}

/// What one apply wants written: a value, or the key's removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Writes {
    /// Each key with its new value; `None` removes it.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// Writes into a map.
    pub fn store_into(self, map: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        for (key, value) in self.0 {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
    }
}

impl From<BTreeMap<Vec<u8>, Option<Vec<u8>>>> for Writes {
    fn from(writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Self {
        Self(writes)
    }
}

/// Writes over a reader, so that mutations of one batch see each other.
pub(super) struct Overlay<'k, K> {
    under: &'k K,
    writes: Writes,
}

impl<'k, K: Keys> Overlay<'k, K> {
    pub(super) fn over(under: &'k K) -> Self {
        Self { under, writes: Writes::default() }
    }

    pub(super) fn into_writes(self) -> Writes {
        self.writes
    }

    pub(super) fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        self.put_bytes(key, codec::encode(value));
    }

    /// An equal value is not written again: the digest is the same and the disk has less to do.
    pub(super) fn put_bytes(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if self.value(&key).as_ref() != Some(&value) {
            self.writes.0.insert(key, Some(value));
        }
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.writes.0.insert(key, None);
    }

    /// Stores a value of any length in parts.
    pub(super) fn put_parts<T: Serialize>(&mut self, base: &[u8], value: &T) {
        let bytes = codec::encode(value);
        let mut parts = 0;
        for (number, part) in (0..).zip(bytes.chunks(PART_BYTES)) {
            self.put_bytes(part_key(base, number), part.to_vec());
            parts = number + 1;
        }
        self.remove_parts_from(base, parts);
    }

    pub(super) fn remove_parts(&mut self, base: &[u8]) {
        self.remove_parts_from(base, 0);
    }

    fn remove_parts_from(&mut self, base: &[u8], first: u16) {
        for number in first.. {
            let key = part_key(base, number);
            if self.value(&key).is_none() {
                break;
            }
            self.remove(key);
        }
    }
}

impl<K: Keys> Keys for Overlay<'_, K> {
    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.writes.0.get(key).map_or_else(|| self.under.value(key), Clone::clone)
    }

    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (Vec<u8>, Vec<u8>)> {
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(from), Bound::Excluded(to.max(from)));
        let over = self.writes.0.range::<[u8], _>(bounds);
        Merged { under: Ends::of(self.under.range(from, to)), over: Ends::of(over) }
    }
}

/// An iterator whose next item can be seen at both ends.
struct Ends<I: Iterator> {
    between: I,
    front: Option<I::Item>,
    back: Option<I::Item>,
}

impl<I: DoubleEndedIterator> Ends<I> {
    fn of(between: I) -> Self {
        Self { between, front: None, back: None }
    }

    /// The slot with the first item that is left.
    fn first(&mut self) -> &mut Option<I::Item> {
        if self.front.is_none() {
            self.front = self.between.next().or_else(|| self.back.take());
        }
        &mut self.front
    }

    /// The slot with the last item that is left.
    fn last(&mut self) -> &mut Option<I::Item> {
        if self.back.is_none() {
            self.back = self.between.next_back().or_else(|| self.front.take());
        }
        &mut self.back
    }
}

/// Pairs with writes over them, read no further than they are asked for.
struct Merged<'w, I: Iterator> {
    under: Ends<I>,
    over: Ends<btree_map::Range<'w, Vec<u8>, Option<Vec<u8>>>>,
}

type Pair = (Vec<u8>, Vec<u8>);

/// Takes the pair that comes next: of two with equal keys the one that was written over the other. The inner `None` is
/// a removed key.
fn take_next(
    under: &mut Option<Pair>,
    over: &mut Option<(&Vec<u8>, &Option<Vec<u8>>)>,
    nearer: Ordering,
) -> Option<Option<Pair>> {
    let order = match (under.as_ref(), over.as_ref()) {
        (None, None) => return None,
        (Some(_), None) => nearer,
        (None, Some(_)) => nearer.reverse(),
        (Some((under, _)), Some((over, _))) => under.cmp(over),
    };
    if order == nearer {
        return under.take().map(Some);
    }
    if order == Ordering::Equal {
        *under = None;
    }
    over.take().map(|(key, value)| value.clone().map(|value| (key.clone(), value)))
}

impl<I: DoubleEndedIterator<Item = Pair>> Iterator for Merged<'_, I> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            if let Some(pair) = take_next(self.under.first(), self.over.first(), Ordering::Less)? {
                return Some(pair);
            }
        }
    }
}

impl<I: DoubleEndedIterator<Item = Pair>> DoubleEndedIterator for Merged<'_, I> {
    fn next_back(&mut self) -> Option<Pair> {
        loop {
            if let Some(pair) = take_next(self.under.last(), self.over.last(), Ordering::Greater)? {
                return Some(pair);
            }
        }
    }
}

/// Reads a value stored under one key.
///
/// # Panics
/// When the stored bytes are not what was written: the state is damaged and the server must not go on with it.
pub(super) fn read<T: DeserializeOwned>(keys: &impl Keys, what: &'static str, key: &[u8]) -> Option<T> {
    keys.value(key).map(|bytes| stored(what, &bytes))
}

/// Reads a value stored in parts.
pub(super) fn read_parts<T: DeserializeOwned>(keys: &impl Keys, what: &'static str, base: &[u8]) -> Option<T> {
    let mut bytes = keys.value(&part_key(base, 0))?;
    let mut number = 0;
    // A part of full length may be followed by another.
    while bytes.len() == (usize::from(number) + 1) * PART_BYTES {
        number += 1;
        let Some(part) = keys.value(&part_key(base, number)) else { break };
        bytes.extend(part);
    }
    Some(stored(what, &bytes))
}

/// Reads what this state has written.
pub(super) fn stored<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> T {
    codec::decode(what, bytes).expect("the state on disk is as it was written; otherwise the server must stop")
}

fn part_key(base: &[u8], number: u16) -> Vec<u8> {
    [base, &number.to_be_bytes()].concat()
}

/// Lower bound of the state's own keys; a server's private keys begin with a zero byte.
pub const FIRST: &[u8] = &[1];
/// Upper bound of the state's own keys.
pub const LAST: &[u8] = &[0xff];

/// The first byte of each key says what it holds.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Kind {
    /// `Meta`.
    Meta = b'M',
    /// `StateSettings`, in parts.
    Settings = b'S',
    /// Department id, zero byte: `Department`, in parts.
    Department = b'D',
    /// Version: `PolicyRecord`, in parts.
    Policy = b'P',
    /// Held id: `Held`, in parts.
    Held = b'H',
    /// Sequence number: `AuditRecord`.
    Audit = b'A',
    /// Mutation id: `Remembered`.
    Remembered = b'R',
    /// Sequence number: the mutation id remembered then.
    RememberedAt = b'Q',
    /// Ended or not, received, held id: nothing.
    ByTime = b't',
    /// Ended or not, department, zero byte, received, held id: nothing.
    ByDepartment = b'd',
    /// Ended or not, recipient, zero byte, received, held id: nothing.
    ByRecipient = b'r',
    /// When it can be leased, held id: nothing. Only for what is due.
    ByDue = b'q',
    /// When it ended, held id: nothing.
    ByEnd = b'e',
    /// Body digest, held id: nothing. Only for what has not ended.
    ByBody = b'b',
    /// Member id: `MemberRecord`, also of members that were.
    Member = b'm',
    /// Name of a drained node: nothing.
    Drained = b'n',
    /// `Journal`, the numbers of what nodes are told.
    Feed = b'F',
    /// Log index: `Moved`, in parts.
    Journal = b'J',
    /// `Numbers` of reputation.
    Reputed = b'N',
    /// Subject key: `Counted`.
    Subject = b'u',
    /// Tick of the last report, subject key: nothing.
    ByHeard = b'h',
    /// Subject key: `Said`.
    Manual = b'o',
    /// How many first tries there are.
    Tried = b'T',
    /// Try key: when it was put off first.
    Try = b'v',
    /// When it was put off first, try key: nothing.
    ByTry = b'w',
    /// `Learning`: numbers of all lessons, the model in use, and the last attempt.
    Learning = b'L',
    /// Lesson key: `Kept`.
    Lesson = b'l',
    /// Hash of what it is counted with, lesson number: the lesson key.
    LessonOf = b'g',
}

/// A key of this kind.
pub(super) fn key(kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind as u8];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The first key behind all that begin with `prefix`, which begins with a kind and so is not all 0xff.
pub(super) fn behind(prefix: &[u8]) -> Vec<u8> {
    let counted = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |at| at + 1);
    let mut key = prefix[..counted].to_vec();
    if let Some(last) = key.last_mut() {
        *last += 1;
    }
    key
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap};

    use proptest::prelude::*;

    use super::{Keys, Overlay, behind};

    #[test]
    fn what_begins_with_a_prefix_lies_before_what_is_behind_it() {
        for (prefix, expected) in [(&b"a"[..], &b"b"[..]), (b"a\xff", b"b"), (b"a\x01\xff\xff", b"a\x02")] {
            assert_eq!(behind(prefix), expected);
            assert!([prefix, &[0xff; 9]].concat() < behind(prefix));
        }
    }

    type Map = BTreeMap<Vec<u8>, Vec<u8>>;

    proptest! {
        #[test]
        fn a_range_over_writes_is_that_of_a_map_with_the_writes_in_it_from_both_ends(
            under in proptest::collection::btree_map(0_u8..20, any::<u8>(), 0..12),
            writes in proptest::collection::vec((0_u8..20, proptest::option::of(any::<u8>())), 0..12),
            (from, to) in (0_u8..20, 0_u8..21),
            ends in proptest::collection::vec(any::<bool>(), 25),
        ) {
            let under: Map = under.into_iter().map(|(key, value)| (vec![key], vec![value])).collect();
            let (mut merged, mut overlay) = (under.clone(), Overlay::over(&under));
            for (key, value) in writes {
                match value {
                    Some(value) => {
                        merged.insert(vec![key], vec![value]);
                        overlay.put_bytes(vec![key], vec![value]);
                    }
                    None => {
                        merged.remove([key].as_slice());
                        overlay.remove(vec![key]);
                    }
                }
            }
            let (from, to) = ([from], [to]);
            let mut expected = Keys::range(&merged, &from, &to);
            let mut found = overlay.range(&from, &to);
            for front in ends {
                if front {
                    prop_assert_eq!(found.next(), expected.next());
                } else {
                    prop_assert_eq!(found.next_back(), expected.next_back());
                }
            }
        }
    }

    /// Counts what is read.
    struct Counted(Map, Cell<usize>);

    impl Keys for Counted {
        fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
            self.0.value(key)
        }

        fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (Vec<u8>, Vec<u8>)> {
            Keys::range(&self.0, from, to).inspect(|_| self.1.set(self.1.get() + 1))
        }
    }

    #[test]
    fn the_first_of_a_long_range_is_found_without_reading_the_rest() {
        let map = (0..1000_u16).map(|number| (number.to_be_bytes().to_vec(), Vec::new())).collect();
        let counted = Counted(map, Cell::new(0));
        let mut overlay = Overlay::over(&counted);
        overlay.remove(vec![0, 0]);
        assert_eq!(overlay.range(&[0], &[0xff]).next(), Some((vec![0, 1], Vec::new())));
        assert_eq!(counted.1.get(), 2);
    }
}
