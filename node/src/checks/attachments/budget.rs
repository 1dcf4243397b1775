//! What looking into a message may cost, shared by all that is in it: archives in archives, documents in them, all parts.
//! It is counted and not timed, so that the same message always gets the same verdict.

use std::{
    cell::Cell,
    io::{self, BufRead, Read},
    rc::Rc,
};

/// Bytes unpacked of one message.
const UNPACKED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes unpacked for each byte of the message; real documents stay far below.
const RATIO_MAX: u64 = 200;
/// Below this the ratio says nothing.
const RATIO_FROM_BYTES: u64 = 8 * 1024 * 1024;
/// Entries of all archives of a message, the streams of compound files and the parts of mail in it too.
const ENTRIES_MAX: u64 = 5000;
/// Work on one message: a unit is about a byte that is read, unpacked or searched, one or two nanoseconds. All of it is two seconds
/// of a processor, a quarter of the time that an opener has for a message where nothing else is said.
const WORK_MAX: u64 = 1 << 30;
/// Work for each byte of the message: real ones take below a hundred.
const WORK_PER_BYTE_MAX: u64 = 4096;
/// Below this work says nothing.
const WORK_FROM: u64 = 64 * 1024 * 1024;
/// What one call of a reader costs beside the bytes that it reads.
const READ_CALL_COST: u64 = 16;
/// Memory that a decoder may take for its window or dictionary, in bytes: what `xz -9` and 7-Zip's "ultra" take.
pub(super) const WINDOW_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes unpacked at a time.
const CHUNK_BYTES: usize = 32 * 1024;

/// What is left. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Rc<Left>);

#[derive(Debug)]
struct Left {
    unpacked: Cell<u64>,
    entries: Cell<u64>,
    work: Cell<u64>,
    is_spent: Cell<bool>,
}

/// Nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("looking into it costs too much")]
pub(super) struct Spent;

impl From<Spent> for io::Error {
    fn from(spent: Spent) -> Self {
        Self::other(spent)
    }
}

impl Budget {
    /// So many bytes that are unpacked, so many entries, so much work.
    #[must_use]
    pub fn new(unpacked: u64, entries: u64, work: u64) -> Self {
        let [unpacked, entries, work] = [unpacked, entries, work].map(Cell::new);
        Self(Rc::new(Left { unpacked, entries, work, is_spent: Cell::new(false) }))
    }

    /// For a message whose parts have so many bytes together.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self::new(
            bytes.saturating_mul(RATIO_MAX).clamp(RATIO_FROM_BYTES, UNPACKED_BYTES_MAX),
            ENTRIES_MAX,
            bytes.saturating_mul(WORK_PER_BYTE_MAX).clamp(WORK_FROM, WORK_MAX),
        )
    }

    fn take(&self, from: &Cell<u64>, amount: u64) -> Result<(), Spent> {
        match from.get().checked_sub(amount) {
            Some(left) if !self.0.is_spent.get() => {
                from.set(left);
                Ok(())
            }
            Some(_) | None => {
                self.0.is_spent.set(true);
                Err(Spent)
            }
        }
    }

    /// Pays for work.
    pub(super) fn work(&self, units: u64) -> Result<(), Spent> {
        self.take(&self.0.work, units)
    }

    /// Pays for one more entry.
    pub(super) fn entry(&self) -> Result<(), Spent> {
        self.take(&self.0.entries, 1)
    }

    /// Pays for bytes that were unpacked, each of them so much work.
    pub(super) fn unpacked(&self, bytes: usize, weight: u64) -> Result<(), Spent> {
        self.take(&self.0.unpacked, length_of(bytes))?;
        self.work(length_of(bytes).saturating_mul(weight))
    }

    /// Whether something was asked for that was no longer there: from then on nothing is to be had.
    pub(super) fn is_spent(&self) -> bool {
        self.0.is_spent.get()
    }

    /// Reads to the end or until nothing is left.
    pub(super) fn unpack(&self, mut from: impl Read, weight: u64) -> Unpacked {
        let mut unpacked = Unpacked { content: Vec::new(), is_whole: false };
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => {
                    unpacked.is_whole = true;
                    return unpacked;
                }
                Ok(read) => {
                    if self.unpacked(read, weight).is_err() {
                        return unpacked;
                    }
                    unpacked.content.extend_from_slice(&chunk[..read.min(chunk.len())]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return unpacked,
            }
        }
    }
}

/// What came out of a decoder.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// As far as it came: other unpackers may get further with a broken file.
    pub(super) content: Vec<u8>,
    /// Whether that is all of it.
    pub(super) is_whole: bool,
}

/// Packed bytes for a decoder, each paid for.
#[derive(Debug)]
pub(super) struct Metered<'a> {
    bytes: &'a [u8],
    budget: Budget,
}

impl<'a> Metered<'a> {
    pub(super) fn new(bytes: &'a [u8], budget: &Budget) -> Self {
        Self { bytes, budget: budget.clone() }
    }

    /// What was not read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(into)?;
        self.budget.work(length_of(read).saturating_add(READ_CALL_COST))?;
        Ok(read)
    }
}

impl BufRead for Metered<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.budget.work(READ_CALL_COST)?;
        Ok(self.bytes)
    }

    fn consume(&mut self, amount: usize) {
        // Too much is refused by the next call: this one has no word for it.
        let _ = self.budget.work(length_of(amount));
        self.bytes = self.bytes.get(amount..).unwrap_or_default();
    }
}

pub(super) fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::{Budget, ENTRIES_MAX, Metered, RATIO_FROM_BYTES, UNPACKED_BYTES_MAX};

    #[test]
    fn what_is_spent_once_stays_spent() {
        let budget = Budget::of(0);
        assert!((0..ENTRIES_MAX).all(|_| budget.entry().is_ok()) && !budget.is_spent());
        assert!(budget.entry().is_err() && budget.is_spent());
        assert!(budget.work(1).is_err() && budget.unpacked(1, 1).is_err());
    }

    #[test]
    fn unpacking_ends_at_what_the_message_may_unpack_to() {
        for (bytes, room) in [(1, RATIO_FROM_BYTES), (1 << 30, UNPACKED_BYTES_MAX)] {
            let budget = Budget::of(bytes);
            let unpacked = budget.unpack(std::io::repeat(7), 1);
            assert!(!unpacked.is_whole && unpacked.content.len() as u64 <= room && budget.is_spent());
        }
    }

    #[test]
    fn bytes_that_go_into_a_decoder_are_paid_for() {
        let budget = Budget::of(0);
        let mut small = [0];
        let bytes = vec![0; 8 * 1024 * 1024];
        let mut reader = Metered::new(&bytes, &budget);
        let read = std::iter::from_fn(|| reader.read(&mut small).ok()).take(bytes.len()).count();
        assert!(read < bytes.len() && budget.is_spent(), "{read} calls");
    }
}
