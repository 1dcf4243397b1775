//! Neighbouring pairs packed into pages, one sled entry each.
//!
//! sled 0.34 keeps at most 16 entries in a node and pays for each of them in time, disk and memory: a million held records
//! are six million pairs, most of them index keys of fifty bytes. Packed, they are a tenth of the entries: filling a new
//! server and reading everything take a tenth of the time.
//!
//! A page lies under its lower bound and holds all pairs from there to the next page's bound. The first page's bound is
//! the first key that the state may have. Bounds stay when pairs come and go; a page without pairs goes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use super::{StoreError, disk};
use crate::state::keys::FIRST;

/// A page is split when it is larger than this, in bytes; a pair that is larger alone has a page of its own.
pub(crate) const PAGE_BYTES: usize = 1024;
/// Bytes of a pair that are neither key nor value.
const HEAD_BYTES: usize = 6;
/// Pages that are remembered during an apply.
const REMEMBERED_MAX: usize = 16_384;

pub(crate) type Pair = (Vec<u8>, Vec<u8>);
/// A key with its new value, or its removal.
pub(crate) type Change<'w> = (&'w [u8], Option<&'w [u8]>);

/// A page's bytes are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page of the state is damaged; join this server again under a new node id")]
pub(crate) struct Damaged;

fn put(page: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Keys are below 4 KiB and values below 64 KiB.
    page.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    page.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    page.extend_from_slice(key);
    page.extend_from_slice(value);
}

/// The pairs of a page, in order.
struct Read<'p>(&'p [u8]);

impl<'p> Read<'p> {
    fn take(&mut self, length: usize) -> Result<&'p [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn pair(&mut self) -> Result<(&'p [u8], &'p [u8]), Damaged> {
        let (key, value) = (self.take(2)?, self.take(4)?);
        let key = u16::from_be_bytes(key.try_into().map_err(|_| Damaged)?);
        let value = u32::from_be_bytes(value.try_into().map_err(|_| Damaged)?);
        Ok((self.take(usize::from(key))?, self.take(usize::try_from(value).map_err(|_| Damaged)?)?))
    }
}

impl<'p> Iterator for Read<'p> {
    type Item = Result<(&'p [u8], &'p [u8]), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.pair())
    }
}

fn find<'p>(page: &'p [u8], key: &[u8]) -> Result<Option<&'p [u8]>, Damaged> {
    for pair in Read(page) {
        let (found, value) = pair?;
        if found >= key {
            return Ok((found == key).then_some(value));
        }
    }
    Ok(None)
}

/// A page with changes in it, as the pages that take its place; none when no pair is left. The changes are in order.
fn rewrite(bound: &[u8], page: &[u8], changes: &[Change<'_>]) -> Result<Vec<Pair>, Damaged> {
    let mut old = Read(page).collect::<Result<Vec<_>, _>>()?.into_iter().peekable();
    let mut pairs = Vec::new();
    let mut grows_at_end = false;
    for (key, value) in changes {
        while let Some(pair) = old.next_if(|(before, _)| before < key) {
            pairs.push(pair);
        }
        old.next_if(|(same, _)| same == key);
        pairs.extend(value.map(|value| (*key, value)));
        grows_at_end = value.is_some() && old.peek().is_none();
    }
    pairs.extend(old);
    let bytes: usize = pairs.iter().map(|(key, value)| HEAD_BYTES + key.len() + value.len()).sum();
    // Keys that begin with a time only ever come at the end: pages behind which nothing is added are left full. The others
    // are cut into equal parts, so that each has room.
    let parts = if grows_at_end { 1 } else { bytes.div_ceil(PAGE_BYTES).max(1) };
    let full = if grows_at_end { PAGE_BYTES } else { bytes.div_ceil(parts) };
    let mut packer = Packer::new(bound, full);
    let mut pages: Vec<Pair> = pairs.into_iter().filter_map(|(key, value)| packer.add(key, value)).collect();
    pages.extend(packer.finish());
    Ok(pages)
}

/// Packs pairs that come in order into pages.
pub(crate) struct Packer {
    bound: Vec<u8>,
    page: Vec<u8>,
    full: usize,
}

impl Packer {
    fn new(bound: &[u8], full: usize) -> Self {
        Self { bound: bound.to_vec(), page: Vec::with_capacity(full), full }
    }

    /// From the first page on.
    pub(crate) fn from_first() -> Self {
        Self::new(FIRST, PAGE_BYTES)
    }

    /// Adds a pair, and gives the page before it when that is full.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> Option<Pair> {
        let full = !self.page.is_empty() && self.page.len() + HEAD_BYTES + key.len() + value.len() > self.full;
        let before = full.then(|| {
            let page = std::mem::replace(&mut self.page, Vec::with_capacity(self.full));
            (std::mem::replace(&mut self.bound, key.to_vec()), page)
        });
        put(&mut self.page, key, value);
        before
    }

    /// The last page, if it has a pair.
    pub(crate) fn finish(self) -> Option<Pair> {
        (!self.page.is_empty()).then_some((self.bound, self.page))
    }
}

fn read_page<E: std::fmt::Display>(error: E) -> StoreError {
    disk("read a page of the state")(error)
}

/// The bound and bytes of the page that a key belongs into.
fn page_of(tree: &sled::Tree, key: &[u8]) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
    tree.range(FIRST..=key).next_back().transpose().map_err(read_page)
}

/// The pages as they are, each read from sled once: an apply looks at the same few over and over, because most keys begin
/// with a time or a number. Only for as long as nothing is stored.
pub(crate) struct Pages<'t> {
    tree: &'t sled::Tree,
    /// By lower bound.
    read: RefCell<BTreeMap<sled::IVec, Page>>,
}

#[derive(Clone)]
struct Page {
    bytes: sled::IVec,
    /// Where the next page begins, if there is one.
    next: Option<sled::IVec>,
}

impl<'t> Pages<'t> {
    pub(crate) fn of(tree: &'t sled::Tree) -> Self {
        Self { tree, read: RefCell::default() }
    }

    /// The page that a key belongs into, with its bound.
    fn page_of(&self, key: &[u8]) -> Result<(sled::IVec, Page), StoreError> {
        let mut read = self.read.borrow_mut();
        let upto: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Included(key));
        let before = read.range::<[u8], _>(upto).next_back();
        if let Some((bound, page)) = before.filter(|(_, page)| page.next.as_ref().is_none_or(|next| key < &**next)) {
            return Ok((bound.clone(), page.clone()));
        }
        let (bound, bytes) = page_of(self.tree, key)?.unwrap_or_else(|| (FIRST.into(), sled::IVec::default()));
        let behind: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(key), Bound::Unbounded);
        let next = self.tree.range::<&[u8], _>(behind).next().transpose().map_err(read_page)?;
        let page = Page { bytes, next: next.map(|(next, _)| next) };
        if read.len() >= REMEMBERED_MAX {
            read.clear();
        }
        read.insert(bound.clone(), page.clone());
        Ok((bound, page))
    }

    /// The value under a key.
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let (_, page) = self.page_of(key)?;
        Ok(find(&page.bytes, key).map_err(read_page)?.map(<[u8]>::to_vec))
    }

    /// Adds what these changes do to the pages. They are in order, and no other batch may be stored meanwhile.
    pub(crate) fn stage<'w>(
        &self,
        changes: impl Iterator<Item = Change<'w>>,
        batch: &mut sled::Batch,
    ) -> Result<(), StoreError> {
        let mut changes = changes.peekable();
        while let Some(first) = changes.next() {
            let (bound, Page { bytes: page, next }) = self.page_of(first.0)?;
            let mut here = vec![first];
            while let Some(change) = changes.next_if(|(key, _)| next.as_ref().is_none_or(|next| *key < &**next)) {
                here.push(change);
            }
            let pages = rewrite(&bound, &page, &here).map_err(read_page)?;
            if pages.is_empty() && !page.is_empty() {
                batch.remove(bound);
            }
            for (bound, page) in pages {
                batch.insert(bound, page);
            }
        }
        Ok(())
    }
}

/// The value under a key.
pub(super) fn value(tree: &sled::Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let Some((_, page)) = page_of(tree, key)? else { return Ok(None) };
    Ok(find(&page, key).map_err(read_page)?.map(<[u8]>::to_vec))
}

/// The pairs between two keys, from both ends.
pub(super) struct Range {
    pages: sled::Iter,
    from: Vec<u8>,
    to: Vec<u8>,
    front: VecDeque<Pair>,
    back: VecDeque<Pair>,
}

/// All pairs with `from <= key < to`; a page is read when it is needed.
pub(super) fn range(tree: &sled::Tree, from: &[u8], to: &[u8]) -> Result<Range, StoreError> {
    let to = to.max(from);
    let start = page_of(tree, from)?.map_or_else(|| from.to_vec(), |(bound, _)| bound.to_vec());
    let pages = tree.range(start.as_slice()..to.max(&start));
    Ok(Range { pages, from: from.to_vec(), to: to.to_vec(), front: VecDeque::new(), back: VecDeque::new() })
}

impl Range {
    fn within(&self, page: Result<(sled::IVec, sled::IVec), sled::Error>) -> Result<VecDeque<Pair>, StoreError> {
        let (_, page) = page.map_err(read_page)?;
        let mut pairs = VecDeque::new();
        for pair in Read(&page) {
            let (key, value) = pair.map_err(read_page)?;
            if key >= self.from.as_slice() && key < self.to.as_slice() {
                pairs.push_back((key.to_vec(), value.to_vec()));
            }
        }
        Ok(pairs)
    }
}

impl Iterator for Range {
    type Item = Result<Pair, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.front.is_empty() {
            let Some(page) = self.pages.next() else { return self.back.pop_front().map(Ok) };
            match self.within(page) {
                Ok(pairs) => self.front = pairs,
                Err(error) => return Some(Err(error)),
            }
        }
        self.front.pop_front().map(Ok)
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        while self.back.is_empty() {
            let Some(page) = self.pages.next_back() else { return self.front.pop_back().map(Ok) };
            match self.within(page) {
                Ok(pairs) => self.back = pairs,
                Err(error) => return Some(Err(error)),
            }
        }
        self.back.pop_back().map(Ok)
    }
}

#[cfg(test)]
mod tests;
