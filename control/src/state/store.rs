//! The applied state on disk, in sled: one tree, one atomic batch an apply.
//!
//! sled's `flush` is no fsync on Linux, so `sync` adds one on a descriptor that is opened at start and kept; in between, what
//! sled holds may be lost with the power, and the Raft log rebuilds it. So `sync` comes before the log is purged.

pub(crate) mod pages;
mod queries;
mod reading;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use proto::codec;
use serde::{Deserialize, Serialize};

pub use self::reading::Reading;
use super::{
    digest::StateDigest,
    keys::{FIRST, Keys, LAST, Writes},
};

/// Where the state stands in the log. Not part of the replicated state, but of the same atomic batch.
pub(crate) const POSITION: &[u8] = b"\0position";
/// Whose store this is.
const STAMP: &[u8] = b"\0stamp";
/// There while a snapshot replaces the keys.
pub(crate) const INSTALLING: &[u8] = b"\0installing";
/// Version of the way in which the pairs lie in sled.
const FORMAT: &[u8] = b"\0format";
const FORMAT_NOW: &[u8] = b"pages-1";

const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// The disk failed or holds what it should not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// sled or the file system says no.
    #[error("{what}: {problem}")]
    Disk {
        /// What was being done: verb and object.
        what: &'static str,
        /// What it said.
        problem: String,
    },
    /// A snapshot's bytes are not what was written.
    #[error("read a snapshot: {0}")]
    Snapshot(&'static str),
}

/// Names what was being done when the disk failed.
pub(crate) fn disk<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Disk { what, problem: error.to_string() }
}

/// Ends the process. After a failed write or fsync nobody knows what is on the disk, so that a retry could acknowledge
/// what is not there; the start-up gate looks again.
pub fn end_process(what: &str, error: &dyn fmt::Display) -> ! {
    tracing::error!("{what}: {error}; this server ends here, and the start-up gate will say what is left");
    std::process::exit(70)
}

/// How far the state has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Log index of the last applied entry.
    pub index: u64,
    /// What Raft wants kept with it: its log id and the membership.
    pub raft: Vec<u8>,
    /// Whether the last thing that happened was the installation of a snapshot.
    pub installed: bool,
    /// Of the state as it is here: equal on all servers at the same index.
    #[serde(default)]
    pub digest: StateDigest,
}

/// What an export that is under way still needs of the state as it was.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// From this key on nothing has been exported yet.
    pub(crate) next: Vec<u8>,
    /// Keys from `next` on that have changed since the export began, with their values of then.
    pub(crate) values: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Of all of them.
    pub(crate) bytes: usize,
    /// How many may stay in memory.
    pub(crate) bytes_max: usize,
}

/// What a saved pair counts for.
pub(crate) fn size(key: &[u8], value: Option<&[u8]>) -> usize {
    key.len() + value.map_or(0, <[u8]>::len)
}

/// The state as applied here.
pub struct StateStore {
    pub(crate) tree: sled::Tree,
    db: sled::Db,
    file: File,
    /// A read of several keys must not see half a batch. Never held for long: readers that come while an apply waits
    /// for it wait too.
    order: RwLock<()>,
    /// Held by an export or an import as a whole; before `order`.
    pub(crate) copying: Mutex<()>,
    /// There while an export is under way; behind `order`.
    saved: Mutex<Option<Saved>>,
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore").finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens or creates the store in a folder of its own.
    ///
    /// # Errors
    /// When sled cannot open it: locked by another process, unreadable, damaged.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        remove_unfinished(folder).map_err(disk("remove what sled has not finished"))?;
        let config = sled::Config::new()
            .path(folder)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .use_compression(false);
        let db = config.open().map_err(disk("open the state"))?;
        let file = File::open(folder.join("db")).map_err(disk("open the state's file"))?;
        let (order, copying, saved) = (RwLock::new(()), Mutex::new(()), Mutex::new(None));
        let store = Self { tree: (*db).clone(), db, file, order, copying, saved };
        store.check_format()?;
        store.sync()?;
        sync_names(folder)?;
        Ok(store)
    }

    /// Marks a new store, and refuses one whose pairs lie there in another way.
    fn check_format(&self) -> Result<(), StoreError> {
        let format = self.private(FORMAT)?;
        if format.is_none() && self.tree.is_empty() {
            return self.tree.insert(FORMAT, FORMAT_NOW).map(drop).map_err(disk("mark a new state"));
        }
        if format.is_some_and(|format| format == FORMAT_NOW) {
            return Ok(());
        }
        Err(disk("open the state")("it is of another version of Postern; join this server again under a new node id"))
    }

    /// What this server keeps for itself, beside the pages.
    fn private(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.tree.get(key).map_err(disk("read the state"))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Makes everything applied so far safe from a loss of power.
    ///
    /// # Errors
    /// When it cannot; the caller must end the process, because a second try may succeed without having written anything.
    pub fn sync(&self) -> Result<(), StoreError> {
        fail::fail_point!("state.before_flush");
        self.flush()?;
        fail::fail_point!("state.before_sync");
        self.file.sync_all().map_err(disk("fsync the state"))?;
        fail::fail_point!("state.after_sync");
        Ok(())
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map(drop).map_err(disk("flush the state"))
    }

    /// The state as it is, for one apply.
    #[must_use]
    pub fn reading(&self) -> Reading<'_> {
        Reading::of(self)
    }

    /// Stores writes, as `Reading::commit` does for who has no reading at hand. Only one thread may do this at a time.
    ///
    /// # Errors
    /// When the disk fails; the caller must end the process.
    pub fn commit(&self, writes: &Writes, position: &Position) -> Result<StateDigest, StoreError> {
        self.reading().commit(writes, position)
    }

    /// How far it has come; `None` when nothing was ever applied.
    ///
    /// # Errors
    /// When what is stored is no position.
    pub fn position(&self) -> Result<Option<Position>, StoreError> {
        let bytes = self.private(POSITION)?;
        bytes.map(|bytes| codec::decode("the position", &bytes)).transpose().map_err(disk("read the state's position"))
    }

    /// Whose store this is, as stamped at its creation.
    ///
    /// # Errors
    /// When sled cannot read it.
    pub fn stamp(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.private(STAMP)
    }

    /// Stamps a new store, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn set_stamp(&self, stamp: &[u8]) -> Result<(), StoreError> {
        self.tree.insert(STAMP, stamp).map_err(disk("stamp the state"))?;
        self.sync()
    }

    /// Whether the process ended while a snapshot was replacing the keys.
    ///
    /// # Errors
    /// When sled cannot read that.
    pub fn is_torn(&self) -> Result<bool, StoreError> {
        Ok(self.private(INSTALLING)?.is_some())
    }

    pub(crate) fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.order.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn saved(&self) -> MutexGuard<'_, Option<Saved>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps for an export that is under way what these writes are about to change.
    fn save_for_export(&self, before: &impl Keys, writes: &Writes) {
        let mut saved = self.saved();
        let Some(saved) = saved.as_mut() else { return };
        for (key, _) in writes.iter().filter(|(key, _)| *key >= saved.next.as_slice()) {
            if !saved.values.contains_key(key) {
                let value = before.value(key);
                saved.bytes += size(key, value.as_deref());
                saved.values.insert(key.to_vec(), value);
            }
        }
    }

    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.order.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the files that sled writes before it gives them their name. A process that ended meanwhile leaves one half written,
/// and sled 0.34 takes it for a whole one, and cannot open the rest.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Makes the names in a new folder durable, and the small files that sled writes once.
fn sync_names(folder: &Path) -> Result<(), StoreError> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    let conf = folder.join("conf");
    if conf.exists() {
        sync(&conf).map_err(disk("fsync sled's settings"))?;
    }
    sync(folder).map_err(disk("fsync the state's folder"))?;
    folder.parent().map_or(Ok(()), sync).map_err(disk("fsync the data folder"))
}

impl Keys for StateStore {
    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        pages::value(&self.tree, key).unwrap_or_else(|error| end_process("read the state", &error))
    }

    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (Vec<u8>, Vec<u8>)> {
        let pairs = pages::range(&self.tree, from, to).unwrap_or_else(|error| end_process("read the state", &error));
        pairs.map(|pair| pair.unwrap_or_else(|error| end_process("read the state", &error)))
    }
}

/// Bounds of the replicated keys, for export and import.
pub(crate) const REPLICATED: std::ops::Range<&[u8]> = FIRST..LAST;
