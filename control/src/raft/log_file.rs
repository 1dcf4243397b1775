//! The file of the Raft log and vote, in redb: every write is one transaction with fsync, every record sealed by a checksum.

use std::{ops::RangeBounds, path::Path};

use proto::codec;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    log_error::{Damage, LogError},
    sealed::{seal, unseal},
    stamp::Stamp,
    types::{Entry, LogId, Vote},
};

/// Name of the file in the data folder.
pub(super) const FILE: &str = "log.redb";
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
const CACHE_BYTES: usize = 64 * 1024 * 1024;

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
        self.purging()?;
        let (stamp, vote, checksum) = (self.fact("stamp")?, self.fact("vote")?, hasher.finalize());
        Ok(LogFacts { stamp, vote, last, purged, hole, damaged: None, bytes, checksum })
    }

    pub(super) fn fact<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, LogError> {
        let table = self.0.begin_read()?.open_table(FACTS)?;
        let value = table.get(name)?;
        let Some(value) = value else { return Ok(None) };
        let body = unseal(name.as_bytes(), value.value()).ok_or(LogError::Damaged(Damage::Fact(name)))?;
        Ok(Some(codec::decode(name, body)?))
    }

    /// Up to where entries are being removed, if not all of them are gone.
    pub(super) fn purging(&self) -> Result<Option<LogId>, LogError> {
        let (purging, purged) = (self.fact::<LogId>("purging")?, self.fact("purged")?);
        Ok(purging.filter(|upto| purged < Some(*upto)))
    }

    pub(super) fn last(&self) -> Result<Option<LogId>, LogError> {
        let table = self.0.begin_read()?.open_table(LOG)?;
        match table.last()? {
            Some((index, value)) => Ok(Some(entry(index.value(), value.value())?.log_id)),
            None => self.fact("purged"),
        }
    }

    /// The entries of a range from `first` on.
    pub(super) fn entries(
        &self,
        range: impl RangeBounds<u64>,
        first: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LogError> {
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
    pub(super) fn write(
        &self,
        change: impl FnOnce(&mut Entries<'_>, &mut Facts<'_>) -> Result<(), LogError>,
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

/// Entries by index, within a transaction.
pub(super) type Entries<'t> = Table<'t, u64, &'static [u8]>;
/// Facts by name, within a transaction.
pub(super) type Facts<'t> = Table<'t, &'static str, &'static [u8]>;

/// Stores a fact.
pub(super) fn put<T: Serialize>(facts: &mut Facts<'_>, name: &'static str, value: &T) -> Result<(), LogError> {
    facts.insert(name, seal(name.as_bytes(), &codec::encode(value)).as_slice())?;
    Ok(())
}

/// Removes entries up to `upto`, oldest first: at least one, and at most what `piece` allows; without a piece all. Gives the last
/// one that is gone; that is `upto` when nothing is left to remove.
pub(super) fn remove_piece(
    entries: &mut Entries<'_>,
    facts: &mut Facts<'_>,
    upto: LogId,
    piece: Option<Piece>,
) -> Result<LogId, LogError> {
    let gone = piece.map_or(Ok(None), |piece| end_of(entries, upto, piece))?.unwrap_or(upto);
    entries.retain_in(..=gone.index, |_, _| false)?;
    put(facts, "purged", &gone)?;
    put(facts, "purging", &upto)?;
    Ok(gone)
}

/// The last entry of a piece; `None` when it holds all up to `upto`.
fn end_of(entries: &Entries<'_>, upto: LogId, piece: Piece) -> Result<Option<LogId>, LogError> {
    let (mut count, mut bytes) = (0, 0);
    for pair in entries.range(..=upto.index)? {
        let (index, value) = pair?;
        (count, bytes) = (count + 1, bytes + value.value().len());
        if count >= piece.entries || bytes >= piece.bytes {
            return Ok(Some(entry(index.value(), value.value())?.log_id));
        }
    }
    Ok(None)
}

/// How much of a purge is done in one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Entries, at most; at least one.
    pub entries: usize,
    /// The entry with which their length as stored comes to this, in bytes, is the last one.
    pub bytes: usize,
}

impl Default for Piece {
    fn default() -> Self {
        Self { entries: 500, bytes: 512 * 1024 }
    }
}

/// Checks and decodes what is stored at an index.
fn entry(index: u64, sealed: &[u8]) -> Result<Entry, LogError> {
    let body = unseal(&index.to_be_bytes(), sealed).ok_or(LogError::Damaged(Damage::Entry(index)))?;
    Ok(codec::decode("a log entry", body)?)
}
