//! A small file beside the log that says how far the log has been: redb can lose its last transaction without an error, and
//! then this file knows better.
//!
//! Two slots are written in turn, each with a sequence number and a checksum, so that a torn write leaves the other one.
//! It is written and synced after each commit of the log and before the acknowledgement; before a truncation, because
//! the mark must never stand above what the log is allowed to hold.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use proto::codec;
use serde::{Deserialize, Serialize};

use super::{
    stamp::{Stamp, sync_folder},
    types::{LogId, Vote},
};

/// Name of the file in the data folder.
pub(super) const FILE: &str = "high-water";
/// A slot is a page, so that a torn write of one cannot reach into the other.
const SLOT_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"postern\x01";
/// Magic, sequence number, length.
const HEADER_BYTES: usize = 20;

/// How far the log has been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    /// Whose log.
    pub stamp: Stamp,
    /// Last vote saved.
    pub vote: Option<Vote>,
    /// Last entry appended, or purged when none is left.
    pub last: Option<LogId>,
    /// Last entry purged.
    pub purged: Option<LogId>,
}

/// What reading the file gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// There is no file.
    Missing,
    /// Neither slot is whole.
    Unreadable,
    /// The newer whole slot.
    Found(HighWater),
}

/// The open file.
#[derive(Debug)]
pub struct HighWaterFile {
    file: File,
    sequence: u64,
    mark: HighWater,
}

impl HighWaterFile {
    /// Creates the file for a new log, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn create(folder: &Path, stamp: Stamp) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(folder.join(FILE))?;
        file.set_len(2 * SLOT_BYTES)?;
        let mark = HighWater { stamp, vote: None, last: None, purged: None };
        let mut this = Self { file, sequence: 0, mark };
        this.write()?;
        this.file.sync_all()?;
        sync_folder(folder)?;
        Ok(this)
    }

    /// Opens the file; `None` when it is missing or unreadable, as the mark says.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(folder: &Path) -> io::Result<(Mark, Option<Self>)> {
        let file = match OpenOptions::new().read(true).write(true).open(folder.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Mark::Missing, None)),
            Err(error) => return Err(error),
        };
        let newest = [0, 1].into_iter().filter_map(|slot| read_slot(&file, slot)).max_by_key(|(sequence, _)| *sequence);
        Ok(match newest {
            None => (Mark::Unreadable, None),
            Some((sequence, mark)) => (Mark::Found(mark.clone()), Some(Self { file, sequence, mark })),
        })
    }

    /// Moves the mark and syncs it, unless nothing has changed.
    ///
    /// # Errors
    /// When the disk fails; the caller must end the process.
    pub fn advance(&mut self, change: impl FnOnce(&mut HighWater)) -> io::Result<()> {
        let before = self.mark.clone();
        change(&mut self.mark);
        if self.mark == before {
            return Ok(());
        }
        self.sequence += 1;
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let body = codec::encode(&self.mark);
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut slot = Vec::with_capacity(HEADER_BYTES + body.len() + 4);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&self.sequence.to_be_bytes());
        slot.extend_from_slice(&length.to_be_bytes());
        slot.extend_from_slice(&body);
        slot.extend_from_slice(&crc32fast::hash(&slot).to_be_bytes());
        if slot.len() > usize::try_from(SLOT_BYTES).unwrap_or(usize::MAX) {
            return Err(io::Error::other("the high-water mark does not fit into its slot"));
        }
        fail::fail_point!("mark.before_write");
        self.file.write_all_at(&slot, (self.sequence % 2) * SLOT_BYTES)?;
        fail::fail_point!("mark.after_write");
        self.file.sync_data()?;
        fail::fail_point!("mark.after_sync");
        Ok(())
    }
}

fn read_slot(file: &File, slot: u64) -> Option<(u64, HighWater)> {
    let mut bytes = vec![0; usize::try_from(SLOT_BYTES).ok()?];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES).ok()?;
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let sequence = u64::from_be_bytes(header.get(8..16)?.try_into().ok()?);
    let length = usize::try_from(u32::from_be_bytes(header.get(16..20)?.try_into().ok()?)).ok()?;
    let body = rest.get(..length)?;
    let sum = u32::from_be_bytes(rest.get(length..length.checked_add(4)?)?.try_into().ok()?);
    let whole = header.starts_with(MAGIC) && crc32fast::hash(bytes.get(..HEADER_BYTES + length)?) == sum;
    if !whole {
        return None;
    }
    Some((sequence, codec::decode("a high-water mark", body).ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use openraft::{CommittedLeaderId, testing::log_id};

    use super::{FILE, HighWaterFile, Mark, SLOT_BYTES};
    use crate::raft::{stamp::Stamp, types::Vote};

    fn last(mark: &Mark) -> Option<u64> {
        match mark {
            Mark::Found(mark) => mark.last.map(|id| id.index),
            Mark::Missing | Mark::Unreadable => None,
        }
    }

    #[test]
    fn a_mark_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(HighWaterFile::open(folder.path()).expect("readable").0, Mark::Missing);
        let mut file = HighWaterFile::create(folder.path(), Stamp::new("c1", 7)).expect("a file");
        file.advance(|mark| mark.vote = Some(Vote::new(3, 2))).expect("written");
        file.advance(|mark| mark.last = Some(log_id(3, 2, 9))).expect("written");
        let (mark, _) = HighWaterFile::open(folder.path()).expect("readable");
        let Mark::Found(found) = mark else { panic!("{mark:?}") };
        assert_eq!((found.vote, found.last), (Some(Vote::new(3, 2)), Some(log_id(3, 2, 9))));
        assert_eq!((found.stamp, found.purged), (Stamp::new("c1", 7), None));
        assert_eq!(CommittedLeaderId::new(3, 2), found.last.expect("a log id").leader_id);
    }

    #[test]
    fn a_torn_slot_leaves_the_one_before_it_and_two_torn_slots_are_unreadable() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = HighWaterFile::create(folder.path(), Stamp::new("c1", 7)).expect("a file");
        for index in 1..=5 {
            file.advance(|mark| mark.last = Some(log_id(1, 1, index))).expect("written");
        }
        let raw = std::fs::OpenOptions::new().write(true).open(folder.path().join(FILE)).expect("the file");
        // The fifth change has sequence number five, in the odd slot; its tail is overwritten.
        raw.write_all_at(&[0xee; 64], SLOT_BYTES + 30).expect("written");
        let (mark, reopened) = HighWaterFile::open(folder.path()).expect("readable");
        assert_eq!(last(&mark), Some(4));
        // The next write goes into the torn slot, not over the only whole one.
        reopened.expect("a file").advance(|mark| mark.last = Some(log_id(1, 1, 6))).expect("written");
        assert_eq!(last(&HighWaterFile::open(folder.path()).expect("readable").0), Some(6));

        raw.write_all_at(&[0xee; 64], SLOT_BYTES + 30).expect("written");
        raw.write_all_at(&[0xee; 64], 30).expect("written");
        assert_eq!(HighWaterFile::open(folder.path()).expect("readable").0, Mark::Unreadable);
    }
}
