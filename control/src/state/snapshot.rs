//! The state as a stream of bytes and back: what Raft sends to a server that lacks too much of the log.
//!
//! Magic, then pairs (`u32` length of the key, `u32` of the value, both), a zero length, and the SHA-256 of all before.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::PoisonError,
};

use proto::codec;
use sha2::{Digest, Sha256};

use super::{
    digest::StateDigest,
    keys::{Keys, PART_BYTES},
    store::{INSTALLING, POSITION, Position, REPLICATED, Saved, StateStore, StoreError, disk, size},
};

const MAGIC: &[u8; 16] = b"postern-state-1\n";
const KEY_BYTES_MAX: usize = 4 * 1024;
/// Parts and positions are far smaller.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Pairs that one sled batch carries while installing.
const PAIRS_A_BATCH: usize = 1_000;
/// Pairs that are read at once while exporting; an apply waits that long at most.
const PAIRS_A_SLICE: usize = 500;
/// How much may be kept of what changes during an export, in bytes. Beyond it applies wait for the rest of the export.
const SAVED_BYTES_MAX: usize = 64 * 1024 * 1024;
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
        let _copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let position = {
            let _shared = self.shared();
            *self.saved() = Some(Saved { next: REPLICATED.start.to_vec(), ..Saved::default() });
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
        // Held from one slice to the next only when too much has changed meanwhile.
        let mut held = None;
        loop {
            let shared = held.take().unwrap_or_else(|| self.shared());
            let Some((pairs, saved_bytes)) = self.next_slice() else { break };
            held = (saved_bytes > SAVED_BYTES_MAX).then_some(shared);
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

    /// The next keys as they were when the export began, and how much of what has changed since is still kept. No apply
    /// may run meanwhile.
    fn next_slice(&self) -> Option<(Pairs, usize)> {
        let mut saved = self.saved();
        let saved = saved.as_mut()?;
        if saved.next.as_slice() >= REPLICATED.end {
            return None;
        }
        let mut pairs: Pairs = self.range(&saved.next, REPLICATED.end).take(PAIRS_A_SLICE).collect();
        let next = match pairs.last_key_value() {
            // The smallest key behind it.
            Some((last, _)) if pairs.len() == PAIRS_A_SLICE => [last, [0].as_slice()].concat(),
            Some(_) | None => REPLICATED.end.to_vec(),
        };
        let later = saved.values.split_off(&next);
        for (key, value) in std::mem::replace(&mut saved.values, later) {
            saved.bytes = saved.bytes.saturating_sub(size(&key, value.as_deref()));
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        saved.next = next;
        Some((pairs, saved.bytes))
    }

    /// Replaces all keys by those of a snapshot, after checking its digest. A mark stands in the store from the first
    /// change to the last: `is_torn` tells that the process ended in between.
    ///
    /// # Errors
    /// When the bytes are no snapshot (nothing has been changed then), or when the disk fails.
    pub fn import(&self, mut from: impl Read + Seek) -> Result<Position, StoreError> {
        check(BufReader::new(&mut from))?;
        from.seek(SeekFrom::Start(0)).map_err(disk("read a snapshot"))?;
        // An export must not see half of this.
        let _copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = self.alone();
        let mut mark = sled::Batch::default();
        mark.insert(INSTALLING, &[1]);
        mark.remove(POSITION);
        self.tree.apply_batch(mark).map_err(disk("mark the state as torn"))?;
        self.sync()?;
        self.clear()?;
        let position = self.load(BufReader::new(from))?;
        let mut done = sled::Batch::default();
        done.insert(POSITION, codec::encode(&position));
        done.remove(INSTALLING);
        // The keys must be on disk before the mark goes.
        self.sync()?;
        self.tree.apply_batch(done).map_err(disk("write the state"))?;
        self.sync()?;
        Ok(position)
    }

    /// Whether a file is a whole snapshot.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub fn verify(path: &Path) -> Result<(), StoreError> {
        check(BufReader::new(File::open(path).map_err(disk("open a snapshot"))?))
    }

    fn clear(&self) -> Result<(), StoreError> {
        let mut keys = self.range(REPLICATED.start, REPLICATED.end).map(|(key, _)| key).peekable();
        while keys.peek().is_some() {
            let mut batch = sled::Batch::default();
            keys.by_ref().take(PAIRS_A_BATCH).for_each(|key| batch.remove(key));
            self.tree.apply_batch(batch).map_err(disk("clear the state"))?;
        }
        Ok(())
    }

    fn load(&self, mut from: impl Read) -> Result<Position, StoreError> {
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(cut_short)?;
        let mut position = None;
        let mut batch = sled::Batch::default();
        let mut count = 0;
        while let Some((key, value)) = pair(&mut from)? {
            if key == POSITION {
                position = Some(value);
                continue;
            }
            if !REPLICATED.contains(&key.as_slice()) {
                return Err(StoreError::Snapshot("a key that is not the state's"));
            }
            batch.insert(key, value);
            count += 1;
            if count % PAIRS_A_BATCH == 0 {
                self.tree.apply_batch(std::mem::take(&mut batch)).map_err(disk("write the state"))?;
            }
        }
        self.tree.apply_batch(batch).map_err(disk("write the state"))?;
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

/// Whether the bytes are a whole snapshot.
fn check(from: impl Read) -> Result<(), StoreError> {
    let mut from = Hashing { under: from, hasher: Sha256::new() };
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(cut_short)?;
    if magic != *MAGIC {
        return Err(StoreError::Snapshot("not a snapshot, or of another version of Postern"));
    }
    let mut positions = Vec::new();
    let mut digest = StateDigest::default();
    while let Some((key, value)) = pair(&mut from)? {
        if key == POSITION {
            positions.push(value);
        } else if REPLICATED.contains(&key.as_slice()) {
            digest.add(&key, &value);
        } else {
            return Err(StoreError::Snapshot("a key that is not the state's"));
        }
    }
    let expected = from.hasher.clone().finalize();
    let mut found = [0; 32];
    from.read_exact(&mut found).map_err(cut_short)?;
    if found != *expected {
        return Err(StoreError::Snapshot("the checksum is wrong"));
    }
    let [position] = positions.as_slice() else { return Err(StoreError::Snapshot("not one position")) };
    let position = codec::decode::<Position>("a position", position);
    let position = position.map_err(|_| StoreError::Snapshot("its position cannot be read"))?;
    // Whoever sent it has a state that is not what it has applied.
    if position.digest == digest { Ok(()) } else { Err(StoreError::Snapshot("the digest is not that of its keys")) }
}

type Pair = (Vec<u8>, Vec<u8>);
type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

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
