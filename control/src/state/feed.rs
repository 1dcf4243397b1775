//! What nodes are told: a journal of what changed for them at which log index, and the view in parts of bounded size.
//!
//! A node that stands within the journal's reach gets what changed since, any other one everything. Either is read in
//! slices between which the state moves on, and ends with what the journal says of the time since it began: so after its
//! last part it is the view at that part's index, whatever came in between, and no server keeps a copy of a view.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    codec,
    department::{Department, DepartmentId},
    reputation::{Levels, Manual, SubjectKey},
    time::UnixMs,
    view::ViewChange,
};
use serde::{Deserialize, Serialize};

use super::{
    Step, greylist,
    keys::{Keys, Kind, behind, key, read, read_parts},
    lessons, nodes,
    policy::department_key,
    query, reputation,
};

/// Items of one part, at most: what one read holds the applies up for.
const ITEMS_MAX: usize = 4_000;
/// A part is closed when it has this many bytes. One department may be larger, and is a part of its own then.
const PART_BYTES: usize = 512 * 1024;
/// What a subject or an id is reckoned as, in bytes.
const ITEM_BYTES: usize = 40;

/// What changed for nodes at one log index. Subjects with their new values, because a change of many of them is sent to
/// many nodes; departments, which are large, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Moved {
    pub(super) settings: bool,
    pub(super) drained: bool,
    pub(super) departments: BTreeSet<DepartmentId>,
    pub(super) subjects: BTreeMap<SubjectKey, Option<Levels>>,
    pub(super) manual: BTreeMap<SubjectKey, Option<Manual>>,
    #[serde(default)]
    pub(super) tries: BTreeMap<SubjectKey, Option<UnixMs>>,
    /// Left out where it says nothing: servers of the version before write the same bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) learnt: bool,
}

impl Moved {
    fn items(&self) -> usize {
        usize::from(self.settings)
            + usize::from(self.drained)
            + usize::from(self.learnt)
            + self.departments.len()
            + self.subjects.len()
            + self.manual.len()
            + self.tries.len()
    }

    fn add(&mut self, later: Self) {
        self.settings |= later.settings;
        self.drained |= later.drained;
        self.learnt |= later.learnt;
        self.departments.extend(later.departments);
        self.subjects.extend(later.subjects);
        self.manual.extend(later.manual);
        self.tries.extend(later.tries);
    }
}

/// Numbers of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    /// What changed at this index or before it may be missing.
    reach: u64,
    /// Index of the last change.
    last: u64,
    /// Items of all records.
    items: u64,
}

impl Journal {
    fn of(keys: &impl Keys) -> Option<Self> {
        read(keys, "the journal's numbers", &key(Kind::Feed, &[]))
    }
}

fn record_key(index: u64) -> Vec<u8> {
    key(Kind::Journal, &[&index.to_be_bytes()])
}

fn record(keys: &impl Keys, index: u64) -> Option<Moved> {
    read_parts(keys, "a record of the journal", &record_key(index))
}

/// The index in a record's key.
fn index_of(key: &[u8]) -> Option<u64> {
    key.get(1..9)?.try_into().ok().map(u64::from_be_bytes)
}

/// Index of the first record from one on.
fn next_record(keys: &impl Keys, from: u64) -> Option<u64> {
    let (from, to) = (record_key(from), behind(&key(Kind::Journal, &[])));
    let found = keys.range(&from, &to).next();
    found.and_then(|(key, _)| index_of(&key))
}

/// Log index of the last change that nodes must hear of; zero before the first.
pub fn last(keys: &impl Keys) -> u64 {
    Journal::of(keys).map_or(0, |journal| journal.last)
}

impl<K: Keys> Step<'_, K> {
    /// Ends a batch: writes what it changed for nodes into the journal, and forgets the oldest records beyond the cap.
    pub(super) fn write_journal(&mut self) {
        let moved = std::mem::take(&mut self.moved);
        if moved.items() == 0 {
            return;
        }
        let unknown = Journal { reach: self.index.saturating_sub(1), ..Journal::default() };
        let mut journal = Journal::of(&self.keys).unwrap_or(unknown);
        journal.last = self.index;
        if self.index > journal.reach {
            let mut all = record(&self.keys, self.index).unwrap_or_default();
            let before = count(&all);
            all.add(moved);
            journal.items = journal.items + count(&all) - before;
            self.keys.put_parts(&record_key(self.index), &all);
        }
        let mut gone = Vec::new();
        let (from, to) = (record_key(0), behind(&key(Kind::Journal, &[])));
        for (part, _) in self.keys.range(&from, &to) {
            if journal.items <= self.caps.journal {
                break;
            }
            let index = index_of(&part).filter(|index| gone.last() != Some(index));
            if let Some((index, moved)) = index.and_then(|index| Some((index, record(&self.keys, index)?))) {
                journal.items = journal.items.saturating_sub(count(&moved));
                journal.reach = index;
                gone.push(index);
            }
        }
        for index in gone {
            self.keys.remove_parts(&record_key(index));
        }
        self.keys.put(key(Kind::Feed, &[]), &journal);
    }
}

impl<K: Keys> Step<'_, K> {
    /// Everything may have changed: whoever stands before this index gets everything.
    pub(super) fn forget_journal(&mut self) {
        let (from, to) = (record_key(0), behind(&key(Kind::Journal, &[])));
        let records: Vec<Vec<u8>> = self.keys.range(&from, &to).map(|(part, _)| part).collect();
        for part in records {
            self.keys.remove(part);
        }
        self.keys.put(key(Kind::Feed, &[]), &Journal { reach: self.index, last: self.index, items: 0 });
    }
}

fn count(moved: &Moved) -> u64 {
    u64::try_from(moved.items()).unwrap_or(u64::MAX)
}

/// How far a reader has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Nothing is known.
    Start,
    /// In the middle of everything.
    Whole {
        /// The first key that has not been read.
        next: Vec<u8>,
        /// Index at which it began: what changed since is read once more.
        since: u64,
    },
    /// Has all that changed up to an index, and of the record behind it some items.
    After {
        /// The index.
        index: u64,
        /// How many items.
        items: usize,
    },
}

impl Cursor {
    /// Of a reader that holds the view of this index; zero: none.
    #[must_use]
    pub fn from_index(index: u64) -> Self {
        if index == 0 { Self::Start } else { Self::After { index, items: 0 } }
    }
}

/// Room left in a part.
struct Room {
    items: usize,
    bytes: usize,
}

impl Room {
    fn take(&mut self, bytes: usize) {
        self.items = self.items.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn is_full(&self) -> bool {
        self.items == 0 || self.bytes == 0
    }
}

/// The next part for a reader, as of the state at `index`, and where the reader stands then. A reader beyond the journal's
/// reach starts over with everything.
pub fn part(keys: &impl Keys, index: u64, cursor: &Cursor) -> (ViewChange, Cursor) {
    part_within(ITEMS_MAX, keys, index, cursor)
}

/// The same with at most so many items.
pub(super) fn part_within(items: usize, keys: &impl Keys, index: u64, cursor: &Cursor) -> (ViewChange, Cursor) {
    let mut room = Room { items, bytes: PART_BYTES };
    let policy_version = query::policy_version(keys);
    let mut change = ViewChange { index, policy_version, ..ViewChange::default() };
    let journal = Journal::of(keys);
    // Without a journal nothing has changed since it would have begun, but nobody knows what was before.
    let reaches = |from: u64| journal.is_none_or(|journal| from >= journal.reach);
    let (next, since) = match cursor {
        Cursor::Whole { next, since } if reaches(*since) => (next.clone(), *since),
        Cursor::After { index: after, items } if journal.is_some() && reaches(*after) || *after == index => {
            return changed(keys, change, (*after, *items), &mut room);
        }
        Cursor::Start | Cursor::Whole { .. } | Cursor::After { .. } => {
            change.whole = true;
            change.settings = Some(query::settings(keys));
            change.drained = Some(nodes::drained(keys));
            change.learnt = Some(lessons::learnt(keys));
            (Vec::new(), index)
        }
    };
    match scan(keys, next, &mut change, &mut room) {
        Some(next) => {
            change.more = true;
            (change, Cursor::Whole { next, since })
        }
        None => changed(keys, change, (since, 0), &mut room),
    }
}

/// Reads everything from a key on, and says where it stopped for want of room.
fn scan(keys: &impl Keys, mut next: Vec<u8>, change: &mut ViewChange, room: &mut Room) -> Option<Vec<u8>> {
    // In the order of their keys.
    let (departments, manual) = (key(Kind::Department, &[]), key(Kind::Manual, &[]));
    let (subjects, tries) = (key(Kind::Subject, &[]), key(Kind::Try, &[]));
    next = next.max(departments.clone());
    let first = |next: &[u8]| keys.range(next, &behind(&departments)).next().map(|(key, _)| key);
    while let Some(found) = first(&next) {
        if room.is_full() {
            return Some(next);
        }
        let id = query::department_id_of(&found);
        if let Some(department) = id.as_ref().and_then(|id| read_department(keys, id)) {
            room.take(codec::encode(&department).len());
            change.departments.push(department);
        }
        next = id.map_or_else(|| [found.as_slice(), &[0]].concat(), |id| behind(&department_key(&id)));
    }
    for (found, value) in keys.range(&next.clone().max(manual.clone()), &behind(&manual)) {
        if room.is_full() {
            return Some(found);
        }
        room.take(ITEM_BYTES);
        change.manual.extend(reputation::manual_of(&found, &value).map(|(key, manual)| (key, Some(manual))));
    }
    for (found, value) in keys.range(&next.clone().max(subjects.clone()), &behind(&subjects)) {
        if room.is_full() {
            return Some(found);
        }
        room.take(ITEM_BYTES);
        change.subjects.extend(reputation::told_of(&found, &value).map(|(key, levels)| (key, Some(levels))));
    }
    for (found, value) in keys.range(&next.max(tries.clone()), &behind(&tries)) {
        if room.is_full() {
            return Some(found);
        }
        room.take(ITEM_BYTES);
        change.tries.extend(greylist::first_of(&found, &value).map(|(key, first)| (key, Some(first))));
    }
    None
}

fn read_department(keys: &impl Keys, id: &DepartmentId) -> Option<Department> {
    read_parts(keys, "a department", &department_key(id))
}

/// Reads what changed behind an index, without the first items of the first record.
fn changed(
    keys: &impl Keys,
    mut change: ViewChange,
    (mut after, mut skip): (u64, usize),
    room: &mut Room,
) -> (ViewChange, Cursor) {
    // A department that several records name is read once: it is as it is now.
    let mut seen = BTreeSet::new();
    while let Some(index) = next_record(keys, after.saturating_add(1)) {
        let moved = record(keys, index).unwrap_or_default();
        let items = moved.items();
        if room.is_full() && items > skip {
            change.more = true;
            return (change, Cursor::After { index: after, items: skip });
        }
        let read = take_items(keys, moved, (&mut change, &mut seen), skip, room);
        if skip + read < items {
            change.more = true;
            return (change, Cursor::After { index: after, items: skip + read });
        }
        (after, skip) = (index, 0);
    }
    let cursor = Cursor::After { index: change.index.max(after), items: 0 };
    (change, cursor)
}

/// Moves items behind the first `skip` of a record into a part, as long as there is room; how many.
fn take_items(
    keys: &impl Keys,
    moved: Moved,
    (change, seen): (&mut ViewChange, &mut BTreeSet<DepartmentId>),
    skip: usize,
    room: &mut Room,
) -> usize {
    /// One of them, in the order in which they are counted.
    enum Item {
        Settings,
        Drained,
        Learnt,
        Department(DepartmentId),
        Subject((SubjectKey, Option<Levels>)),
        Manual((SubjectKey, Option<Manual>)),
        Try((SubjectKey, Option<UnixMs>)),
    }
    let settings = moved.settings.then_some(Item::Settings).into_iter();
    let drained = moved.drained.then_some(Item::Drained);
    let learnt = moved.learnt.then_some(Item::Learnt);
    let departments = moved.departments.into_iter().map(Item::Department);
    let subjects = moved.subjects.into_iter().map(Item::Subject);
    let manual = moved.manual.into_iter().map(Item::Manual);
    let tries = moved.tries.into_iter().map(Item::Try);
    let all = settings.chain(drained).chain(learnt).chain(departments).chain(subjects).chain(manual).chain(tries);
    let mut read = 0;
    for item in all.skip(skip) {
        if room.is_full() {
            break;
        }
        read += 1;
        let mut bytes = ITEM_BYTES;
        match item {
            Item::Settings => change.settings = Some(query::settings(keys)),
            Item::Drained => change.drained = Some(nodes::drained(keys)),
            Item::Learnt => change.learnt = Some(lessons::learnt(keys)),
            Item::Department(id) if !seen.insert(id.clone()) => {}
            Item::Department(id) => match read_department(keys, &id) {
                Some(department) => {
                    bytes = codec::encode(&department).len();
                    change.departments.push(department);
                }
                None => change.removed.push(id),
            },
            Item::Subject(subject) => change.subjects.push(subject),
            Item::Manual(manual) => change.manual.push(manual),
            Item::Try(tried) => change.tries.push(tried),
        }
        room.take(bytes);
    }
    read
}
