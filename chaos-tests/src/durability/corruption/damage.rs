//! What is done to one file of a data folder.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use fastrand::Rng;

const PAGE_BYTES: usize = 4096;
/// The file that knows how far the log has been.
const HIGH_WATER: &str = "high-water";
/// How often another place is looked for when the one that was drawn holds nothing but zeros.
const PLACES_MAX: u32 = 64;

/// One damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// One bit is the other way round.
    Flip,
    /// A page is all zeros.
    Zeroed,
    /// The file is shorter.
    Truncated,
    /// The file is empty.
    Emptied,
    /// The file is gone.
    Removed,
    /// The file is as it was some time ago.
    Older,
    /// Log, state and bodies are as they were some time ago: all but the high-water mark. Nothing in them is damaged.
    PutBack,
}

/// Those that have one place in a file, or none.
const RARE: [Damage; 4] = [Damage::Emptied, Damage::Removed, Damage::Older, Damage::PutBack];

impl Damage {
    /// Flips and zeroed pages have many places, the others few.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.usize(..16) {
            rare @ 0..4 => RARE[rare],
            4..7 => Self::Truncated,
            7..11 => Self::Zeroed,
            _ => Self::Flip,
        }
    }

    /// Does this to a file of a folder; `older` is what the folder was some time ago. `false` when it would change nothing.
    pub(super) fn strike(self, folder: &Path, older: &Path, file: &Path, rng: &mut Rng) -> anyhow::Result<bool> {
        let path = folder.join(file);
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let open = || File::options().write(true).open(&path).with_context(|| format!("open {}", path.display()));
        let old = older.join(file);
        match self {
            Self::Removed => std::fs::remove_file(&path)?,
            Self::PutBack => put_back(folder, older).context("put an older copy back")?,
            Self::Older if !old.exists() || std::fs::read(&old)? == bytes => return Ok(false),
            Self::Older => std::fs::copy(old, &path).map(drop)?,
            Self::Flip | Self::Zeroed | Self::Truncated | Self::Emptied if bytes.is_empty() => return Ok(false),
            Self::Emptied => open()?.set_len(0)?,
            Self::Truncated => open()?.set_len(rng.u64(..bytes.len() as u64))?,
            Self::Flip => {
                let (at, byte) = place(&bytes, 1, rng);
                let flipped = byte.first().copied().unwrap_or_default() ^ (1 << rng.u8(..8));
                open()?.write_all_at(&[flipped], at as u64)?;
            }
            Self::Zeroed => {
                let (at, page) = place(&bytes, PAGE_BYTES, rng);
                if page.iter().all(|byte| *byte == 0) {
                    return Ok(false);
                }
                open()?.write_all_at(&vec![0; page.len()], at as u64)?;
            }
        }
        Ok(true)
    }
}

fn put_back(folder: &Path, older: &Path) -> std::io::Result<()> {
    let mark = std::fs::read(folder.join(HIGH_WATER))?;
    std::fs::remove_dir_all(folder)?;
    copy(older, folder)?;
    std::fs::write(folder.join(HIGH_WATER), mark)
}

/// A place in the file that holds something, if one is met: most of sled's segments is still empty.
fn place<'b>(bytes: &'b [u8], length: usize, rng: &mut Rng) -> (usize, &'b [u8]) {
    let mut drawn = (0, bytes);
    for _ in 0..PLACES_MAX {
        let at = rng.usize(..bytes.len().div_ceil(length)) * length;
        drawn = (at, bytes.get(at..(at + length).min(bytes.len())).unwrap_or_default());
        if drawn.1.iter().any(|byte| *byte != 0) {
            break;
        }
    }
    drawn
}

/// All files below a folder, in order.
pub(super) fn files_of(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = folders.pop() {
        for entry in std::fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

/// Copies a folder.
pub(super) fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
