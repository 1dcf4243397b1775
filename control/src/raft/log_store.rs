//! The Raft log and vote in redb: one transaction with fsync an append, then the high-water mark, then the acknowledgement.

use std::{
    fmt::Debug,
    ops::RangeBounds,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};
use proto::codec;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, watch};

use super::{
    Applied,
    high_water::HighWaterFile,
    log_error::{Damage, LogError},
    sealed::{seal, unseal},
    stamp::Stamp,
    types::{Entry, LogId, StorageError, StorageIOError, TypeConfig, Vote},
};
use crate::state::store::{StateStore, end_process};

/// Name of the file in the data folder.
pub(super) const FILE: &str = "log.redb";
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// What one read for replication returns at most; one entry always. openraft gives up an AppendEntries after one heartbeat
/// interval and sends the same again, so that what does not fit through the line in that time never arrives.
const READ_BYTES_MAX: usize = 256 * 1024;

/// What the start-up gate wants to know of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFacts {
    /// Whose log; `None` in a new file.
    pub stamp: Option<Stamp>,
    /// The vote saved last.
    pub vote: Option<Vote>,
    /// Last entry, or the last one purged when none is left.
    pub last: Option<LogId>,
    /// Last entry purged.
    pub purged: Option<LogId>,
    /// First index that is missing between the purged and the last entry.
    pub hole: Option<u64>,
    /// First place that is damaged; nothing else is told then.
    pub damaged: Option<Damage>,
    /// Length of all entries as stored, in bytes.
    pub bytes: u64,
    /// CRC-32 of all entries as stored, one after the other.
    pub checksum: u32,
}

/// The open database, before the gate has let it pass.
#[derive(Debug)]
pub struct LogFile(Database);

impl LogFile {
    /// Opens or creates the database.
    ///
    /// # Errors
    /// When redb finds it damaged or locked.
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        let mut db = Database::builder().set_cache_size(CACHE_BYTES).create(folder.join(FILE))?;
        // Else damage to its list of free pages would have it write over entries later on.
        if !db.check_integrity()? {
            tracing::warn!("redb had to repair the log; the start-up gate looks at what is left");
        }
        let this = Self(db);
        this.write(|_, _| Ok(()))?;
        Ok(this)
    }

    /// Stamps a new log, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn set_stamp(&self, stamp: &Stamp) -> Result<(), LogError> {
        self.write(|_, facts| put(facts, "stamp", stamp))
    }

    /// Reads the whole log and checks each entry.
    ///
    /// # Errors
    /// When redb finds damage.
    pub fn facts(&self) -> Result<LogFacts, LogError> {
        match self.read_all() {
            Err(LogError::Damaged(damage)) => Ok(LogFacts { damaged: Some(damage), ..LogFacts::default() }),
            read => read,
        }
    }

    fn read_all(&self) -> Result<LogFacts, LogError> {
        let read = self.0.begin_read()?;
        let table = read.open_table(LOG)?;
        let purged: Option<LogId> = self.fact("purged")?;
        let mut next = purged.map_or(0, |id| id.index + 1);
        let (mut hole, mut bytes, mut hasher) = (None, 0, crc32fast::Hasher::new());
        for pair in table.iter()? {
            let (index, value) = pair?;
            let index = index.value();
            entry(index, value.value())?;
            hasher.update(value.value());
            bytes += u64::try_from(value.value().len()).unwrap_or(u64::MAX);
            if index != next && hole.is_none() {
                hole = Some(next.min(index));
            }
            next = index + 1;
        }
        let last = self.last()?;
        // Not asked for, but it is read later on.
        self.fact::<LogId>("committed")?;
        let (stamp, vote, checksum) = (self.fact("stamp")?, self.fact("vote")?, hasher.finalize());
        Ok(LogFacts { stamp, vote, last, purged, hole, damaged: None, bytes, checksum })
    }

    fn fact<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, LogError> {
        let table = self.0.begin_read()?.open_table(FACTS)?;
        let value = table.get(name)?;
        let Some(value) = value else { return Ok(None) };
        let body = unseal(name.as_bytes(), value.value()).ok_or(LogError::Damaged(Damage::Fact(name)))?;
        Ok(Some(codec::decode(name, body)?))
    }

    fn last(&self) -> Result<Option<LogId>, LogError> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        match table.last()? {
            Some((index, value)) => Ok(Some(entry(index.value(), value.value())?.log_id)),
            None => self.fact("purged"),
        }
    }

    /// The entries of a range from `first` on.
    fn entries(&self, range: impl RangeBounds<u64>, first: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for pair in table.range(range)? {
            let (index, value) = pair?;
            if index.value() < first {
                continue;
            }
            bytes += value.value().len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry(index.value(), value.value())?);
        }
        Ok(entries)
    }

    /// One transaction, on disk when this returns.
    fn write(
        &self,
        change: impl FnOnce(&mut Table<'_, u64, &'static [u8]>, &mut Facts<'_>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut transaction: WriteTransaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut facts = transaction.open_table(FACTS)?;
            change(&mut log, &mut facts)?;
        }
        fail::fail_point!("log.before_commit");
        transaction.commit()?;
        fail::fail_point!("log.after_commit");
        Ok(())
    }
}

type Facts<'t> = Table<'t, &'static str, &'static [u8]>;

fn put<T: Serialize>(facts: &mut Facts<'_>, name: &'static str, value: &T) -> Result<(), LogError> {
    facts.insert(name, seal(name.as_bytes(), &codec::encode(value)).as_slice())?;
    Ok(())
}

/// Checks and decodes what is stored at an index.
fn entry(index: u64, sealed: &[u8]) -> Result<Entry, LogError> {
    let body = unseal(&index.to_be_bytes(), sealed).ok_or(LogError::Damaged(Damage::Entry(index)))?;
    Ok(codec::decode("a log entry", body)?)
}

/// The log as openraft uses it. Cheap to clone; all writes go through one lock.
#[derive(Clone, Debug)]
pub struct LogStore {
    inner: Arc<Inner>,
    /// Kept so that `Group::stop` can see when the last user of the file is gone.
    _open: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    file: LogFile,
    written: Mutex<Written>,
    state: Arc<StateStore>,
    applied: watch::Receiver<Applied>,
    /// Length of all entries appended since the start, in bytes.
    appended: watch::Sender<u64>,
    /// A purge that is not carried out yet. Raft purges as soon as it has handed a received snapshot to the state machine;
    /// until the state holds that snapshot, the old entries are all that this server has.
    purging: Mutex<Option<LogId>>,
}

#[derive(Debug)]
struct Written {
    mark: HighWaterFile,
    /// Last committed id that Raft told us. It goes to disk with the next append: it only speeds up a restart.
    committed: Option<LogId>,
}

impl LogStore {
    /// Takes over what the gate has let pass.
    #[must_use]
    pub fn new(
        file: LogFile,
        mark: HighWaterFile,
        (state, applied): (Arc<StateStore>, watch::Receiver<Applied>),
        open: mpsc::Sender<()>,
    ) -> Self {
        let written = Mutex::new(Written { mark, committed: None });
        let inner = Inner { file, written, state, applied, appended: watch::Sender::new(0), purging: Mutex::new(None) };
        Self { inner: Arc::new(inner), _open: open }
    }

    /// Length of all entries appended since the start, in bytes; ends with the log.
    #[must_use]
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.inner.appended.subscribe()
    }

    /// Waits for the snapshot that is being installed when entries from `first` would leave a hole in the log without it.
    /// The state machine goes on meanwhile: it has a task of its own.
    async fn without_hole(&self, first: u64) -> Result<(), StorageError> {
        let Some(upto) = self.inner.purging() else { return Ok(()) };
        let last = self.inner.file.last().map_err(|error| unreadable(&error))?;
        if first <= last.map_or(0, |id| id.index + 1) {
            return Ok(());
        }
        let mut applied = self.inner.applied.clone();
        let installed = applied.wait_for(|applied| applied.index >= upto.index).await;
        installed.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)))?;
        Ok(())
    }

    /// Writes wait for the disk (1 to 3 ms an fsync), so they run beside the runtime's few worker threads, which carry the
    /// heartbeats. A failed write ends the process.
    async fn writing(
        &self,
        what: &'static str,
        work: impl FnOnce(&Inner, &mut Written) -> Result<(), LogError> + Send + 'static,
    ) -> Result<(), StorageError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || {
            let mut written = inner.written();
            if let Err(error) = work(&inner, &mut written) {
                end_process(what, &error);
            }
        });
        match done.await {
            Ok(()) => Ok(()),
            Err(error) if error.is_cancelled() => Err(StorageIOError::write_logs(AnyError::new(&error)).into()),
            Err(error) => end_process(what, &error),
        }
    }
}

impl Inner {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn purging(&self) -> Option<LogId> {
        *self.purging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out the purge that is due, if the state has come far enough.
    fn purge(&self, written: &mut Written) -> Result<(), LogError> {
        let Some(upto) = self.purging() else { return Ok(()) };
        if self.state.position()?.is_none_or(|position| position.index < upto.index) {
            return Ok(());
        }
        // What is purged can no longer rebuild the state: the state must be on disk before.
        fail::fail_point!("purge.before_state");
        self.state.sync()?;
        fail::fail_point!("purge.before_log");
        self.file.write(|table, facts| {
            table.retain_in(..=upto.index, |_, _| false)?;
            put(facts, "purged", &upto)
        })?;
        let last = self.file.last()?;
        fail::fail_point!("purge.before_mark");
        written.mark.advance(|mark| {
            mark.purged = Some(upto);
            mark.last = last;
        })?;
        *self.purging.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Entries as Raft sees them: without those that it has purged.
    fn entries(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let first = self.purging().map_or(0, |id| id.index + 1);
        self.file.entries(range, first, bytes_max)
    }
}

fn unreadable(error: &LogError) -> StorageError {
    StorageIOError::read_logs(AnyError::error(error)).into()
}

// Reads come out of redb's cache or the page cache and are short: they run inline.
impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.inner.entries(range, usize::MAX).map_err(|error| unreadable(&error))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.inner.entries(start..end, READ_BYTES_MAX).map_err(|error| unreadable(&error))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let state = || {
            let (file, purging) = (&self.inner.file, self.inner.purging());
            let purged: Option<LogId> = file.fact("purged")?;
            Ok(LogState { last_purged_log_id: purged.max(purging), last_log_id: file.last()?.max(purging) })
        };
        state().map_err(|error| unreadable(&error))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.writing("save the vote", move |log, written| {
            log.file.write(|_, facts| put(facts, "vote", &vote))?;
            fail::fail_point!("vote.before_mark");
            Ok(written.mark.advance(|mark| mark.vote = Some(vote))?)
        })
        .await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.inner.file.fact("vote").map_err(|error| unreadable(&error))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.inner.written().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let told = self.inner.written().committed;
        let stored = self.inner.file.fact("committed").map_err(|error| unreadable(&error))?;
        Ok(told.or(stored))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encode = |entry: Entry| (entry.log_id, seal(&entry.log_id.index.to_be_bytes(), &codec::encode(&entry)));
        let entries: Vec<(LogId, Vec<u8>)> = entries.into_iter().map(encode).collect();
        if let Some((first, _)) = entries.first() {
            self.without_hole(first.index).await?;
        }
        self.writing("append to the log", move |log, written| {
            log.purge(written)?;
            let Some((last, _)) = entries.last() else { return Ok(()) };
            let bytes = entries.iter().map(|(_, bytes)| u64::try_from(bytes.len()).unwrap_or(u64::MAX)).sum::<u64>();
            log.file.write(|table, facts| {
                for (id, bytes) in &entries {
                    table.insert(id.index, bytes.as_slice())?;
                }
                written.committed.map_or(Ok(()), |committed| put(facts, "committed", &committed))
            })?;
            written.mark.advance(|mark| mark.last = Some(*last))?;
            log.appended.send_modify(|appended| *appended += bytes);
            Ok(())
        })
        .await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.writing("truncate the log", move |log, written| {
            log.purge(written)?;
            let before = since.index.checked_sub(1);
            let entry = before.map_or(Ok(Vec::new()), |index| log.file.entries(index..since.index, 0, usize::MAX))?;
            let purged: Option<LogId> = log.file.fact("purged")?;
            let last = entry.first().map(|entry| entry.log_id).or(purged);
            // The mark goes down first: a crash in between leaves a log above its mark, which is fine.
            written.mark.advance(|mark| mark.last = last)?;
            log.file.write(|table, _| Ok(table.retain_in(since.index.., |_, _| false)?))
        })
        .await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        self.writing("purge the log", move |log, written| {
            let latest = log.purging().max(Some(upto));
            *log.purging.lock().unwrap_or_else(PoisonError::into_inner) = latest;
            log.purge(written)
        })
        .await
    }
}
