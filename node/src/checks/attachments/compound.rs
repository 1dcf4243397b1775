//! Reads compound files (MS-CFB), which old Office documents, Outlook messages and Windows installers are. Written here because
//! the crates go by the tree of names, so that what hangs beside it is not seen, and walk a chain anew for each block.

use super::budget::{Budget, length_of};

pub(super) const SIGNATURE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";
/// Sector numbers from here on mean something else.
const SECTOR_MAX: u32 = 0xffff_fffa;
const DIRECTORY_ENTRY_BYTES: usize = 128;
const MINI_SECTOR_BYTES: usize = 64;

/// Some entry of the directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Of a storage: the class of the object in it.
    pub(super) class: [u8; 16],
    /// `None` for a storage.
    pub(super) content: Option<Vec<u8>>,
}

/// A file, read.
#[derive(Debug, Default)]
pub(super) struct Compound {
    /// What program made it, as the root says.
    pub(super) class: [u8; 16],
    /// All entries of the directory, whatever leads to them.
    pub(super) entries: Vec<Entry>,
    /// Whether all that it says is there.
    pub(super) is_whole: bool,
}

impl Compound {
    /// `None` when the header or the directory makes no sense, or nothing is left of the budget.
    pub(super) fn read(content: &[u8], budget: &Budget) -> Option<Self> {
        let file = File::open(content, budget)?;
        let directory = file.chain(number(content, 48)?, usize::MAX, budget)?;
        let root = directory.get(..DIRECTORY_ENTRY_BYTES)?;
        let root_class = class(root)?;
        let mini = file.chain(number(root, 116)?, size(root)?, budget)?;
        let mini_table = numbers(&file.chain(number(content, 60)?, usize::MAX, budget)?);
        let mini_max = usize::try_from(number(content, 56)?).ok()?;
        let mut compound = Self { class: root_class, entries: Vec::new(), is_whole: true };
        for entry in directory.as_chunks::<DIRECTORY_ENTRY_BYTES>().0.iter().skip(1) {
            let kind = entry[66];
            if !matches!(kind, 1 | 2) {
                continue;
            }
            budget.entry().ok()?;
            let content = if kind == 2 {
                let (start, size) = (number(entry, 116)?, size(entry)?);
                let stream = if size < mini_max {
                    follow(&mini_table, start, size, MINI_SECTOR_BYTES, budget, |at| {
                        slice(&mini, at, MINI_SECTOR_BYTES)
                    })
                } else {
                    file.chain(start, size, budget)
                }?;
                compound.is_whole &= stream.len() == size;
                Some(stream)
            } else {
                None
            };
            compound.entries.push(Entry { name: name(entry), class: class(entry)?, content });
        }
        Some(compound)
    }
}

struct File<'a> {
    content: &'a [u8],
    sector_bytes: usize,
    table: Vec<u32>,
}

impl<'a> File<'a> {
    fn open(content: &'a [u8], budget: &Budget) -> Option<Self> {
        let sector_bytes = match content.get(30..32)? {
            [9, 0] => 512,
            [12, 0] => 4096,
            _ => return None,
        };
        let mut file = Self { content, sector_bytes, table: Vec::new() };
        let sectors = content.len() / sector_bytes + 1;
        let mut list = numbers(content.get(76..512)?);
        let mut next = number(content, 68)?;
        for _ in 0..sectors {
            let Some(sector) = (next < SECTOR_MAX).then(|| file.sector(next)).flatten() else { break };
            let mut more = numbers(sector);
            next = more.pop()?;
            list.extend(more);
            budget.work(length_of(sector_bytes)).ok()?;
        }
        for sector in list.into_iter().filter(|sector| *sector < SECTOR_MAX) {
            // It may not name the same sector again and again.
            if file.table.len() > sectors + sector_bytes {
                break;
            }
            budget.work(length_of(sector_bytes)).ok()?;
            let numbers = numbers(file.sector(sector)?);
            file.table.extend(numbers);
        }
        Some(file)
    }

    /// The last one may be cut short.
    fn sector(&self, at: u32) -> Option<&'a [u8]> {
        let from = usize::try_from(at).ok()?.checked_add(1)?.checked_mul(self.sector_bytes)?;
        let rest = self.content.get(from..).filter(|rest| !rest.is_empty())?;
        Some(&rest[..rest.len().min(self.sector_bytes)])
    }

    fn chain(&self, start: u32, size: usize, budget: &Budget) -> Option<Vec<u8>> {
        follow(&self.table, start, size, self.sector_bytes, budget, |at| self.sector(at))
    }
}

/// What a chain of sectors holds, at most `size` bytes of it: less where it breaks off. `None` when the budget is spent.
fn follow<'a>(
    table: &[u32],
    start: u32,
    size: usize,
    sector_bytes: usize,
    budget: &Budget,
    sector: impl Fn(u32) -> Option<&'a [u8]>,
) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut at = start;
    // A chain that comes back to itself ends when it is longer than the table.
    for _ in 0..=table.len() {
        if at >= SECTOR_MAX || bytes.len() >= size {
            break;
        }
        let Some(sector) = sector(at) else { break };
        budget.unpacked(sector_bytes, 1).ok()?;
        bytes.extend_from_slice(sector);
        at = usize::try_from(at).ok().and_then(|at| table.get(at)).copied().unwrap_or(u32::MAX);
    }
    bytes.truncate(size);
    Some(bytes)
}

fn slice(bytes: &[u8], at: u32, length: usize) -> Option<&[u8]> {
    let from = usize::try_from(at).ok()?.checked_mul(length)?;
    let rest = bytes.get(from..).filter(|rest| !rest.is_empty())?;
    Some(&rest[..rest.len().min(length)])
}

/// Four bytes as a number, the least first.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_le_bytes(four))
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)).collect()
}

/// Files are smaller than 4 GiB here; old versions left rubbish in the upper half.
fn size(entry: &[u8]) -> Option<usize> {
    usize::try_from(number(entry, 120)?).ok()
}

fn class(entry: &[u8]) -> Option<[u8; 16]> {
    entry.get(80..96)?.try_into().ok()
}

fn name(entry: &[u8]) -> String {
    utf16(&entry[..64])
}

/// Text in UTF-16 up to its end or to a NUL.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|two| u16::from_le_bytes(*two)).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
