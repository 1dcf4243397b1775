//! The state for one apply: what it reads is read once, and then it is stored in one batch.

use proto::codec;

use super::{POSITION, Position, StateStore, StoreError, disk, end_process, pages, pages::Pages};
use crate::state::{
    digest::StateDigest,
    keys::{Keys, Writes},
};

/// The state as it is. Good for one apply, while nothing else is stored: applies and installations come one after the other.
pub struct Reading<'s> {
    store: &'s StateStore,
    pages: Pages<'s>,
}

impl<'s> Reading<'s> {
    pub(super) fn of(store: &'s StateStore) -> Self {
        Self { store, pages: Pages::of(&store.tree) }
    }

    /// Stores what the apply wants written, together with the position, atomically; the digest in `position` is not looked
    /// at but follows from the writes, and comes back.
    ///
    /// # Errors
    /// When the disk fails; the caller must end the process.
    pub fn commit(self, writes: &Writes, position: &Position) -> Result<StateDigest, StoreError> {
        let before = self.store.position()?.unwrap_or_default().digest;
        let digest = before.after(&self, writes);
        let position = Position { digest, ..position.clone() };
        let mut batch = sled::Batch::default();
        self.pages.stage(writes.iter(), &mut batch)?;
        batch.insert(POSITION, codec::encode(&position));
        let _alone = self.store.alone();
        self.store.save_for_export(&self, writes);
        fail::fail_point!("state.before_batch");
        self.store.tree.apply_batch(batch).map_err(disk("write the state"))?;
        fail::fail_point!("state.after_batch");
        Ok(digest)
    }
}

impl Keys for Reading<'_> {
    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.pages.value(key).unwrap_or_else(|error| end_process("read the state", &error))
    }

    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (Vec<u8>, Vec<u8>)> {
        let pairs = pages::range(&self.store.tree, from, to);
        let pairs = pairs.unwrap_or_else(|error| end_process("read the state", &error));
        pairs.map(|pair| pair.unwrap_or_else(|error| end_process("read the state", &error)))
    }
}
