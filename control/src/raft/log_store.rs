//! The Raft log and vote in redb: one transaction with fsync an append, then the high-water mark, then the acknowledgement.

use std::{
    fmt::Debug,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};
use proto::codec;
use tokio::sync::{mpsc, watch};

use super::{
    Applied,
    high_water::{HighWater, HighWaterFile},
    log_error::LogError,
    log_file::{LogFile, Piece, put, remove_piece},
    sealed::seal,
    types::{Entry, LogId, StorageError, StorageIOError, TypeConfig, Vote},
};
use crate::state::store::{StateStore, end_process};

/// What one read for replication returns at most; one entry always. openraft gives up an AppendEntries after one heartbeat
/// interval and sends the same again, so that what does not fit through the line in that time never arrives.
const READ_BYTES_MAX: usize = 256 * 1024;

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
    /// A purge that is not carried out yet, or not in full. Raft purges as soon as it has handed a received snapshot to the
    /// state machine; until the state holds that snapshot, the old entries are all that this server has.
    purging: Mutex<Option<LogId>>,
    /// What a write removes of a purge. Raft waits for each write, and to remove 256 MiB at once takes seconds.
    piece: Piece,
}

#[derive(Debug)]
struct Written {
    mark: HighWaterFile,
    /// Last committed id that Raft told us. It goes to disk with the next append: it only speeds up a restart.
    committed: Option<LogId>,
    /// The state is on disk as far as a purge up to here needs it.
    state_on_disk: Option<LogId>,
}

impl LogStore {
    /// Takes over what the gate has let pass, and goes on with a purge that the end of the process has broken off.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(
        (file, mark, piece): (LogFile, HighWaterFile, Piece),
        (state, applied): (Arc<StateStore>, watch::Receiver<Applied>),
        open: mpsc::Sender<()>,
    ) -> Result<Self, LogError> {
        let purging = Mutex::new(file.purging()?);
        let written = Mutex::new(Written { mark, committed: None, state_on_disk: None });
        let inner = Inner { file, written, state, applied, appended: watch::Sender::new(0), purging, piece };
        Ok(Self { inner: Arc::new(inner), _open: open })
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

    /// The purge that is due, if the state has come far enough; it is on disk then.
    fn due(&self, written: &mut Written) -> Result<Option<LogId>, LogError> {
        let Some(upto) = self.purging() else { return Ok(None) };
        if written.state_on_disk < Some(upto) {
            if self.state.position()?.is_none_or(|position| position.index < upto.index) {
                return Ok(None);
            }
            // What is purged can no longer rebuild the state: the state must be on disk before.
            fail::fail_point!("purge.before_state");
            self.state.sync()?;
            written.state_on_disk = Some(upto);
        }
        fail::fail_point!("purge.before_log");
        Ok(Some(upto))
    }

    /// Moves the mark behind a piece of a purge that is gone, and ends the purge with the last one.
    fn purged(&self, written: &mut Written, gone: LogId, last: Option<LogId>) -> Result<(), LogError> {
        fail::fail_point!("purge.before_mark");
        written.mark.advance(|mark| *mark = HighWater { purged: Some(gone), last, ..mark.clone() })?;
        self.purging.lock().unwrap_or_else(PoisonError::into_inner).take_if(|upto| *upto == gone);
        Ok(())
    }

    fn append(&self, written: &mut Written, entries: &[(LogId, Vec<u8>)]) -> Result<(), LogError> {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else { return Ok(()) };
        let bytes = entries.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let due = self.due(written)?;
        // Large entries go as fast as they come. Where a snapshot took the place of the log it must go as a whole, or there would
        // be a hole in it.
        let piece = match due {
            Some(_) if first.index > self.file.last()?.map_or(0, |id| id.index + 1) => None,
            _ => Some(Piece { bytes: self.piece.bytes.max(2 * bytes), ..self.piece }),
        };
        let mut gone = None;
        self.file.write(|table, facts| {
            gone = due.map(|upto| remove_piece(table, facts, upto, piece)).transpose()?;
            for (id, bytes) in entries {
                table.insert(id.index, bytes.as_slice())?;
            }
            written.committed.map_or(Ok(()), |committed| put(facts, "committed", &committed))
        })?;
        match gone {
            Some(gone) => self.purged(written, gone, Some(*last))?,
            None => written.mark.advance(|mark| mark.last = Some(*last))?,
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.appended.send_modify(|appended| *appended += bytes);
        Ok(())
    }

    /// Begins a purge; the appends that follow carry on with it.
    fn purge(&self, written: &mut Written) -> Result<(), LogError> {
        let Some(upto) = self.due(written)? else { return Ok(()) };
        let mut gone = upto;
        self.file.write(|table, facts| {
            gone = remove_piece(table, facts, upto, Some(self.piece))?;
            Ok(())
        })?;
        self.purged(written, gone, self.file.last()?)
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
        self.writing("append to the log", move |log, written| log.append(written, &entries)).await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.writing("truncate the log", move |log, written| {
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
            // Backwards there is nothing to purge, and the mark must not move back.
            if log.file.fact("purged")? >= Some(upto) {
                return Ok(());
            }
            let latest = log.purging().max(Some(upto));
            *log.purging.lock().unwrap_or_else(PoisonError::into_inner) = latest;
            log.purge(written)
        })
        .await
    }
}
