//! What a loss of power leaves: takes back, by the preload shim's undo journal, what no fsync has made durable.
//!
//! The model is harsh, as POSIX allows: an fsync of a file covers its bytes and its length and not its name; a name is durable
//! when its folder was fsynced. What was not durable is lost, or, torn, each 512-byte piece of each write survives or not by
//! itself, a length likewise, and of the names in a folder the first few, because file systems log them in order.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use fastrand::Rng;

/// What a disk writes whole or not at all, in bytes.
const PIECE_BYTES: u64 = 512;
/// Length of `struct record` in shim.h.
const RECORD_BYTES: usize = 56;

/// How much of what was not durable is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    Everything,
    /// Each piece survives with this probability, in per cent.
    Torn(u8),
}

/// What was taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenBack {
    /// Writes and changes of length that were not durable.
    pub contents: u64,
    /// Names that were not durable and are as they were.
    pub names: u64,
    /// Pieces of writes that survived.
    pub pieces: u64,
}

#[derive(Debug)]
enum Change {
    Write { at: u64, length: u64, old_size: u64, old: Vec<u8> },
    Size { new_size: u64, old_size: u64, old: Vec<u8> },
    Create(PathBuf),
    Rename { from: PathBuf, to: PathBuf, kept: Option<PathBuf> },
    Unlink { path: PathBuf, kept: PathBuf },
    MakeFolder(PathBuf),
    RemoveFolder(PathBuf),
}

#[derive(Debug)]
struct Record {
    sequence: u64,
    /// Of the file, or of the folder that the name is in.
    inode: u64,
    change: Change,
}

#[derive(Debug, Default)]
struct Journal {
    records: Vec<Record>,
    /// Up to which record each file and folder is durable.
    durable: HashMap<u64, u64>,
}

fn paths(payload: &[u8]) -> Vec<PathBuf> {
    let parts = payload.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| PathBuf::from(String::from_utf8_lossy(part).into_owned())).collect()
}

impl Journal {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = match fs::read(path) {
            // The program ended before it began.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.with_context(|| format!("read {}", path.display()))?,
        };
        let mut journal = Self::default();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (head, behind) = rest.split_at_checked(RECORD_BYTES).context("the journal ends within a record")?;
            let mut numbers = [0_u64; 7];
            for (number, bytes) in numbers.iter_mut().zip(head.chunks_exact(8)) {
                *number = u64::from_ne_bytes(bytes.try_into().context("eight bytes are a number")?);
            }
            let [kind, sequence, inode, at, length, old_size, payload] = numbers;
            let (payload, behind) =
                behind.split_at_checked(usize::try_from(payload)?).context("the journal ends within a record")?;
            rest = behind;
            if kind == 3 {
                let durable = journal.durable.entry(inode).or_default();
                *durable = (*durable).max(length);
                continue;
            }
            let change = change(kind, (at, length, old_size), payload)?;
            journal.records.push(Record { sequence, inode, change });
        }
        Ok(journal)
    }

    fn is_lost(&self, record: &Record) -> bool {
        self.durable.get(&record.inode).is_none_or(|durable| record.sequence > *durable)
    }
}

fn change(kind: u64, (at, length, old_size): (u64, u64, u64), payload: &[u8]) -> anyhow::Result<Change> {
    let old = || payload.to_vec();
    let mut names = paths(if matches!(kind, 1 | 2) { &[] } else { payload }).into_iter();
    let mut name = || names.next().context("a record of the journal lacks a name");
    Ok(match kind {
        1 => Change::Write { at, length, old_size, old: old() },
        2 => Change::Size { new_size: length, old_size, old: old() },
        4 => Change::Create(name()?),
        5 => Change::Rename { from: name()?, to: name()?, kept: name().ok() },
        6 => Change::Unlink { path: name()?, kept: name()? },
        7 => Change::MakeFolder(name()?),
        8 => Change::RemoveFolder(name()?),
        other => bail!("the journal has a record of unknown kind {other}"),
    })
}

/// Files by inode, those too that have lost their name.
fn files_below(folder: &Path, into: &mut HashMap<u64, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            files_below(&entry.path(), into)?;
        } else if metadata.is_file() {
            into.insert(metadata.ino(), entry.path());
        }
    }
    Ok(())
}

/// One piece of a write: where, and its bytes.
type Piece = (u64, Vec<u8>);

/// What a lost change would have done.
enum Redo {
    Pieces { pieces: Vec<Piece>, end: u64, grew: bool },
    Size(u64),
}

fn take_back(file: &File, change: &Change) -> io::Result<Option<Redo>> {
    let size = file.metadata()?.len();
    match change {
        Change::Write { at, length, old_size, old } => {
            let end = at + length;
            let mut pieces = Vec::new();
            let mut from = *at;
            while from < end.min(size) {
                let to = end.min(size).min((from / PIECE_BYTES + 1) * PIECE_BYTES);
                let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
                file.read_exact_at(&mut bytes, from)?;
                pieces.push((from, bytes));
                from = to;
            }
            file.write_all_at(old, *at)?;
            file.set_len(*old_size)?;
            Ok(Some(Redo::Pieces { pieces, end, grew: end > *old_size }))
        }
        Change::Size { new_size, old_size, old } => {
            file.set_len(*old_size)?;
            file.write_all_at(old, *new_size)?;
            Ok(Some(Redo::Size(*new_size)))
        }
        Change::Create(_)
        | Change::Rename { .. }
        | Change::Unlink { .. }
        | Change::MakeFolder(_)
        | Change::RemoveFolder(_) => Ok(None),
    }
}

fn survive(file: &File, redo: &Redo, rng: &mut Rng, percent: u8) -> io::Result<u64> {
    let mut survived = 0;
    let mut lives = || rng.u8(..100) < percent;
    match redo {
        Redo::Pieces { pieces, end, grew } => {
            for (at, bytes) in pieces {
                if lives() {
                    file.write_all_at(bytes, *at)?;
                    survived += 1;
                }
            }
            if *grew && lives() && file.metadata()?.len() < *end {
                file.set_len(*end)?;
            }
        }
        Redo::Size(size) => {
            if lives() {
                file.set_len(*size)?;
            }
        }
    }
    Ok(survived)
}

fn contents(journal: &Journal, roots: [&Path; 2], loss: Loss, rng: &mut Rng) -> anyhow::Result<TakenBack> {
    let mut files = HashMap::new();
    for root in roots {
        files_below(root, &mut files).with_context(|| format!("list {}", root.display()))?;
    }
    let mut lost: Vec<(u64, Vec<&Record>)> = Vec::new();
    let is_content = |change: &Change| matches!(change, Change::Write { .. } | Change::Size { .. });
    for record in journal.records.iter().filter(|record| is_content(&record.change) && journal.is_lost(record)) {
        match lost.iter_mut().find(|(inode, _)| *inode == record.inode) {
            Some((_, records)) => records.push(record),
            None => lost.push((record.inode, vec![record])),
        }
    }
    let mut taken = TakenBack::default();
    for (inode, records) in lost {
        // A file that never had a name is gone with the process.
        let Some(path) = files.get(&inode) else { continue };
        let file = File::options().read(true).write(true).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        let mut redo = Vec::new();
        for record in records.iter().rev() {
            redo.extend(take_back(&file, &record.change).with_context(|| format!("take back in {}", path.display()))?);
            taken.contents += 1;
        }
        if let Loss::Torn(percent) = loss {
            for redo in redo.iter().rev() {
                taken.pieces += survive(&file, redo, rng, percent).context("write what survives")?;
            }
        }
    }
    Ok(taken)
}

fn absent_is_well(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn undo_name(change: &Change) -> io::Result<()> {
    match change {
        Change::Create(path) => absent_is_well(fs::remove_file(path)),
        Change::Rename { from, to, kept } => {
            absent_is_well(fs::rename(to, from))?;
            kept.as_ref().map_or(Ok(()), |kept| fs::hard_link(kept, to))
        }
        Change::Unlink { path, kept } => fs::hard_link(kept, path),
        Change::MakeFolder(path) => absent_is_well(fs::remove_dir_all(path)),
        Change::RemoveFolder(path) => fs::create_dir(path),
        Change::Write { .. } | Change::Size { .. } => Ok(()),
    }
}

fn names(journal: &Journal, loss: Loss, rng: &mut Rng) -> anyhow::Result<u64> {
    let is_name = |change: &Change| !matches!(change, Change::Write { .. } | Change::Size { .. });
    let lost: Vec<&Record> =
        journal.records.iter().filter(|record| is_name(&record.change) && journal.is_lost(record)).collect();
    let mut surviving: HashMap<u64, usize> = HashMap::new();
    if let Loss::Torn(_) = loss {
        let mut folders: Vec<u64> = lost.iter().map(|record| record.inode).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            let count = lost.iter().filter(|record| record.inode == folder).count();
            surviving.insert(folder, rng.usize(..=count));
        }
    }
    let mut back = Vec::new();
    for record in lost {
        match surviving.get_mut(&record.inode) {
            Some(left) if *left > 0 => *left -= 1,
            Some(_) | None => back.push(record),
        }
    }
    for record in back.iter().rev() {
        undo_name(&record.change).with_context(|| format!("take back {:?}", record.change))?;
    }
    Ok(u64::try_from(back.len()).unwrap_or(u64::MAX))
}

/// Makes `watched` what it would be after a loss of power, and begins the journal anew. The program must have ended.
///
/// # Errors
/// When the journal cannot be read, or the disk fails.
pub fn lose_power(watched: &Path, journal: &Path, loss: Loss, rng: &mut Rng) -> anyhow::Result<TakenBack> {
    let kept = kept(journal);
    fs::create_dir_all(&kept).with_context(|| format!("make {}", kept.display()))?;
    let read = Journal::read(journal)?;
    let mut taken = contents(&read, [watched, &kept], loss, rng)?;
    taken.names = names(&read, loss, rng)?;
    forget(journal)?;
    Ok(taken)
}

/// Says that everything is durable now: after an orderly stop, or before the first start.
///
/// # Errors
/// When a file cannot be removed.
pub fn forget(journal: &Path) -> anyhow::Result<()> {
    absent_is_well(fs::remove_file(journal)).with_context(|| format!("remove {}", journal.display()))?;
    let kept = kept(journal);
    absent_is_well(fs::remove_dir_all(&kept)).with_context(|| format!("remove {}", kept.display()))
}

fn kept(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".kept");
    PathBuf::from(name)
}
