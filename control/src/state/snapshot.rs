//! The state as a stream of bytes and back: what Raft sends to a server that lacks too much of the log.
//!
//! Magic, then pairs in order (`u32` length of the key, `u32` of the value, both), the position, a zero length, and the
//! SHA-256 of all before.

mod spill;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::PoisonError,
};

use proto::codec;
use sha2::{Digest, Sha256};

use self::spill::{Before, Spill};
use super::{
    digest::StateDigest,
    keys::{Keys, PART_BYTES},
    store::{
        INSTALLING, POSITION, Position, REPLICATED, Saved, StateStore, StoreError, disk,
        pages::{Packer, Pair},
        size,
    },
};

const MAGIC: &[u8; 16] = b"postern-state-1\n";
const KEY_BYTES_MAX: usize = 4 * 1024;
/// Parts and positions are far smaller.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Pages that one sled batch carries while installing.
const PAGES_A_BATCH: usize = 100;
/// After so many bytes of pages sled is made to write them: its buffers have no bound of their own.
const FLUSH_BYTES: usize = 8 * 1024 * 1024;
/// Pairs that are read at once while exporting, and their bytes; an apply waits that long at most.
const PAIRS_A_SLICE: usize = 500;
const SLICE_BYTES: usize = 256 * 1024;
/// How much of what changes during an export stays in memory, in bytes. More goes to a file.
const SAVED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Read at once from a snapshot's file, in bytes.
const READ_BYTES: usize = 256 * 1024;
/// About what removing a page costs in sled's buffers, in bytes.
const CLEARED_BYTES: usize = 100;
const _: () = assert!(PART_BYTES < VALUE_BYTES_MAX, "a part fits into a pair");

impl StateStore {
    /// Writes all keys with the position as of one moment, and says which.
    ///
    /// sled has no snapshots of its own. So the keys are read in slices, and an apply in between keeps the old value of
    /// what it changes behind the last slice: neither applies nor readers wait for the whole.
    ///
    /// # Errors
    /// When nothing has been applied yet or the disk fails.
    pub fn export(&self, out: impl Write) -> Result<Position, StoreError> {
        self.export_within(SAVED_BYTES_MAX, out)
    }

    /// The same with so many bytes of old values in memory.
    pub(super) fn export_within(&self, bytes_max: usize, out: impl Write) -> Result<Position, StoreError> {
        let _copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let position = {
            let _shared = self.shared();
            *self.saved() = Some(Saved { next: REPLICATED.start.to_vec(), bytes_max, ..Saved::default() });
            self.position()
        };
        let written = position.and_then(|position| {
            let position = position.unwrap_or_default();
            self.write_all(out, &position).map_err(disk("write a snapshot"))?;
            Ok(position)
        });
        *self.saved() = None;
        written
    }

    fn write_all(&self, out: impl Write, position: &Position) -> io::Result<()> {
        let mut out = Hashing { under: BufWriter::new(out), hasher: Sha256::new() };
        out.write_all(MAGIC)?;
        let mut spill = Spill::default();
        while let Some(slice) = self.next_slice() {
            if !slice.large.is_empty() {
                spill.add(slice.large)?;
            }
            let mut before = slice.before;
            spill.take_below(&slice.end, &mut before)?;
            let mut pairs = slice.pairs;
            for (key, value) in before {
                match value {
                    Some(value) => pairs.insert(key, value),
                    None => pairs.remove(&key),
                };
            }
            for (key, value) in pairs {
                write_pair(&mut out, &key, &value)?;
            }
        }
        write_pair(&mut out, POSITION, &codec::encode(position))?;
        out.write_all(&0_u32.to_be_bytes())?;
        let digest = out.hasher.clone().finalize();
        out.write_all(&digest)?;
        out.flush()
    }

    /// The next keys as they are, and what has changed in them since the export began. Applies wait for this only.
    fn next_slice(&self) -> Option<Slice> {
        let _shared = self.shared();
        let mut saved = self.saved();
        let saved = saved.as_mut()?;
        if saved.next.as_slice() >= REPLICATED.end {
            return None;
        }
        let mut bytes = 0;
        let mut pairs = Pairs::new();
        let mut end = REPLICATED.end.to_vec();
        for (key, value) in self.range(&saved.next, REPLICATED.end) {
            bytes += size(&key, Some(&value));
            if pairs.len() + 1 == PAIRS_A_SLICE || bytes >= SLICE_BYTES {
                // The smallest key behind it.
                end = [key.as_slice(), &[0]].concat();
                pairs.insert(key, value);
                break;
            }
            pairs.insert(key, value);
        }
        let later = saved.values.split_off(&end);
        let before = std::mem::replace(&mut saved.values, later);
        let gone: usize = before.iter().map(|(key, value)| size(key, value.as_deref())).sum();
        saved.bytes = saved.bytes.saturating_sub(gone);
        let mut large = Before::new();
        if saved.bytes > saved.bytes_max {
            large = std::mem::take(&mut saved.values);
            saved.bytes = 0;
        }
        saved.next.clone_from(&end);
        Some(Slice { pairs, before, large, end })
    }

    /// Replaces all keys by those of a snapshot, after checking its digest. A mark stands in the store from the first
    /// change to the last: `is_torn` tells that the process ended in between.
    ///
    /// # Errors
    /// When the bytes are no snapshot (nothing has been changed then), or when the disk fails.
    pub fn import(&self, mut from: impl Read + Seek) -> Result<Position, StoreError> {
        check(BufReader::with_capacity(READ_BYTES, &mut from))?;
        from.seek(SeekFrom::Start(0)).map_err(disk("read a snapshot"))?;
        self.import_verified(from)
    }

    /// The same for bytes that `verify` has just seen.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn import_verified(&self, from: impl Read) -> Result<Position, StoreError> {
        // An export must not see half of this.
        let _copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.alone();
        let mut mark = sled::Batch::default();
        mark.insert(INSTALLING, &[1]);
        mark.remove(POSITION);
        self.tree.apply_batch(mark).map_err(disk("mark the state as torn"))?;
        self.sync()?;
        fail::fail_point!("import.marked");
        self.clear()?;
        fail::fail_point!("import.cleared");
        let position = self.load(BufReader::with_capacity(READ_BYTES, from))?;
        let mut done = sled::Batch::default();
        done.insert(POSITION, codec::encode(&position));
        done.remove(INSTALLING);
        fail::fail_point!("import.loaded");
        // The keys must be on disk before the mark goes.
        self.sync()?;
        fail::fail_point!("import.synced");
        self.tree.apply_batch(done).map_err(disk("write the state"))?;
        fail::fail_point!("import.done");
        self.sync()?;
        Ok(position)
    }

    /// The position of a file that is a whole snapshot.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub fn verify(path: &Path) -> Result<Position, StoreError> {
        check(BufReader::with_capacity(READ_BYTES, File::open(path).map_err(disk("open a snapshot"))?))
    }

    /// Removes all pages.
    fn clear(&self) -> Result<(), StoreError> {
        let mut bounds = self.tree.range(REPLICATED).keys();
        let mut staged = Staged::new(self);
        while let Some(bound) = bounds.next().transpose().map_err(disk("clear the state"))? {
            staged.batch.remove(&bound);
            staged.count(bound.len() + CLEARED_BYTES)?;
        }
        staged.store()
    }

    fn load(&self, from: impl Read) -> Result<Position, StoreError> {
        let mut from = Hashing { under: from, hasher: Sha256::new() };
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(cut_short)?;
        let mut position = None;
        let (mut packer, mut staged) = (Packer::from_first(), Staged::new(self));
        while let Some((key, value)) = pair(&mut from)? {
            if key == POSITION {
                position = Some(value);
            } else if let Some(page) = packer.add(&key, &value) {
                staged.insert(page)?;
            }
        }
        packer.finish().map_or(Ok(()), |page| staged.insert(page))?;
        staged.store()?;
        // The file was whole when it was checked: what has changed since is the disk's fault, and the next start tries again.
        from.check().map_err(disk("read a snapshot again"))?;
        let position = position.ok_or(StoreError::Snapshot("no position"))?;
        let position: Position = codec::decode("a position", &position).map_err(disk("read a snapshot"))?;
        Ok(Position { installed: true, ..position })
    }
}

fn write_pair(out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    out.write_all(&length(key).to_be_bytes())?;
    out.write_all(&length(value).to_be_bytes())?;
    out.write_all(key)?;
    out.write_all(value)
}

/// A snapshot that ends too early is a bad snapshot, not a bad disk.
fn cut_short(error: io::Error) -> StoreError {
    if error.kind() == ErrorKind::UnexpectedEof {
        return StoreError::Snapshot("it ends too early");
    }
    disk("read a snapshot")(error)
}

/// Reads a whole snapshot, and gives its position.
fn check(from: impl Read) -> Result<Position, StoreError> {
    let mut from = Hashing { under: from, hasher: Sha256::new() };
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(cut_short)?;
    if magic != *MAGIC {
        return Err(StoreError::Snapshot("not a snapshot, or of another version of Postern"));
    }
    let mut positions = Vec::new();
    let mut digest = StateDigest::default();
    let mut last = Vec::new();
    while let Some((key, value)) = pair(&mut from)? {
        if key == POSITION {
            positions.push(value);
            continue;
        }
        if !REPLICATED.contains(&key.as_slice()) {
            return Err(StoreError::Snapshot("a key that is not the state's"));
        }
        if key <= last {
            return Err(StoreError::Snapshot("its keys are not in order"));
        }
        digest.add(&key, &value);
        last = key;
    }
    from.check()?;
    let [position] = positions.as_slice() else { return Err(StoreError::Snapshot("not one position")) };
    let position = codec::decode::<Position>("a position", position);
    let position = position.map_err(|_| StoreError::Snapshot("its position cannot be read"))?;
    // Whoever sent it has a state that is not what it has applied.
    if position.digest != digest {
        return Err(StoreError::Snapshot("the digest is not that of its keys"));
    }
    Ok(position)
}

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What `next_slice` gives.
struct Slice {
    pairs: Pairs,
    /// What has changed in this slice.
    before: Before,
    /// What has changed behind it, when that is too much for the memory.
    large: Before,
    /// The key behind the slice.
    end: Vec<u8>,
}

/// Writes of an installation on their way to sled.
struct Staged<'s> {
    store: &'s StateStore,
    batch: sled::Batch,
    pages: usize,
    bytes: usize,
}

impl<'s> Staged<'s> {
    fn new(store: &'s StateStore) -> Self {
        Self { store, batch: sled::Batch::default(), pages: 0, bytes: 0 }
    }

    fn insert(&mut self, (bound, page): Pair) -> Result<(), StoreError> {
        let bytes = bound.len() + page.len();
        self.batch.insert(bound, page);
        self.count(bytes)
    }

    fn count(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.pages += 1;
        self.bytes += bytes;
        if self.pages >= PAGES_A_BATCH {
            self.store()?;
        }
        Ok(())
    }

    fn store(&mut self) -> Result<(), StoreError> {
        self.pages = 0;
        self.store.tree.apply_batch(std::mem::take(&mut self.batch)).map_err(disk("write the state"))?;
        if self.bytes >= FLUSH_BYTES {
            self.bytes = 0;
            self.store.flush()?;
        }
        Ok(())
    }
}

fn pair(from: &mut impl Read) -> Result<Option<Pair>, StoreError> {
    let key_bytes = read_length(from, KEY_BYTES_MAX)?;
    if key_bytes == 0 {
        return Ok(None);
    }
    let value_bytes = read_length(from, VALUE_BYTES_MAX)?;
    let (mut key, mut value) = (vec![0; key_bytes], vec![0; value_bytes]);
    from.read_exact(&mut key).map_err(cut_short)?;
    from.read_exact(&mut value).map_err(cut_short)?;
    Ok(Some((key, value)))
}

fn read_length(from: &mut impl Read, max: usize) -> Result<usize, StoreError> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes).map_err(cut_short)?;
    let length = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    if length > max { Err(StoreError::Snapshot("a length beyond its bound")) } else { Ok(length) }
}

/// Lengths of keys and values are far below 4 GiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Hashes what passes through.
struct Hashing<T> {
    under: T,
    hasher: Sha256,
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.under.write(bytes)?;
        self.hasher.update(bytes.get(..written).ok_or(ErrorKind::InvalidData)?);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.under.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.under.read(bytes)?;
        self.hasher.update(bytes.get(..read).ok_or(ErrorKind::InvalidData)?);
        Ok(read)
    }
}

impl<T: Read> Hashing<T> {
    /// Reads the checksum that stands behind everything else.
    fn check(&mut self) -> Result<(), StoreError> {
        let expected = self.hasher.clone().finalize();
        let mut found = [0; 32];
        self.read_exact(&mut found).map_err(cut_short)?;
        if found == *expected { Ok(()) } else { Err(StoreError::Snapshot("the checksum is wrong")) }
    }
}

/// Whether a stream is a whole snapshot.
///
/// # Errors
/// When it is not, or cannot be read.
pub fn verify(from: impl Read) -> Result<(), StoreError> {
    check(from)?;
    Ok(())
}

/// Gives each pair of a snapshot that `verify` has seen, in the order of the keys, but not its position.
///
/// # Errors
/// When it cannot be read, or `each` fails.
pub fn each_pair<E: From<StoreError>>(
    mut from: impl Read,
    mut each: impl FnMut(Vec<u8>, Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(cut_short)?;
    while let Some((key, value)) = pair(&mut from)? {
        if key != POSITION {
            each(key, value)?;
        }
    }
    Ok(())
}
