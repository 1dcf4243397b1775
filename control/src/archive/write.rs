//! Writes an archive: under another name until it is whole and durable.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{ArchiveError, BODIES, MAGIC, MANIFEST, Manifest, STATE, VERSION, damaged, disk, header, padding, trailer};

/// Written at once, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// An archive being written. Dropped before its end, it leaves nothing behind. Only its owner can read it.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
    /// Of everything.
    sum: Sha256,
    /// Of the entry under way.
    entry: Sha256,
    size_bytes: u64,
    left_bytes: u64,
}

impl Writer {
    /// Begins in the folder of the file that is to be.
    ///
    /// # Errors
    /// When the file is there already, or its folder cannot be written to.
    pub fn create(path: &Path) -> Result<Self, ArchiveError> {
        if path.exists() {
            return Err(disk("make the archive")(std::io::ErrorKind::AlreadyExists.into()));
        }
        let file = NamedTempFile::new_in(folder_of(path)).map_err(disk("make the archive"))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let (sum, entry) = (Sha256::new(), Sha256::new());
        let mut this = Self { file, path: path.to_owned(), sum, entry, size_bytes: 0, left_bytes: 0 };
        this.whole(MAGIC, VERSION)?;
        Ok(this)
    }

    /// The state comes next.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn state(&mut self, size_bytes: u64) -> Result<(), ArchiveError> {
        self.begin(STATE, size_bytes)
    }

    /// A body comes next.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn body(&mut self, digest: &str, size_bytes: u64) -> Result<(), ArchiveError> {
        self.begin(&format!("{BODIES}{digest}"), size_bytes)
    }

    /// The next bytes of the state or of the body.
    ///
    /// # Errors
    /// When they are more than was announced, or the disk fails.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        match self.left_bytes.checked_sub(bytes.len() as u64) {
            Some(left) => self.left_bytes = left,
            None => return damaged("more bytes came than were announced"),
        }
        self.entry.update(bytes);
        self.raw(bytes)
    }

    /// Ends the state or the body, and gives its SHA-256.
    ///
    /// # Errors
    /// When it is shorter than announced, or the disk fails.
    pub fn end(&mut self) -> Result<String, ArchiveError> {
        if self.left_bytes > 0 {
            return damaged("fewer bytes came than were announced");
        }
        self.raw(&[0; super::BLOCK_BYTES][..padding(self.size_bytes)])?;
        Ok(hex::encode(std::mem::take(&mut self.entry).finalize()))
    }

    /// Adds the manifest and the checksum, makes the file durable and gives it its name; its SHA-256 as the archive has it.
    ///
    /// # Errors
    /// When the disk fails, or a file of that name has come meanwhile.
    pub fn finish(mut self, manifest: &Manifest) -> Result<String, ArchiveError> {
        let text = serde_json::to_vec_pretty(manifest).map_err(std::io::Error::other);
        self.whole(MANIFEST, &text.map_err(disk("write the manifest"))?)?;
        let sum = hex::encode(std::mem::take(&mut self.sum).finalize());
        self.raw(&trailer(&sum)?)?;
        let file = self.file.into_inner().map_err(|error| disk("write the archive")(error.into_error()))?;
        file.as_file().sync_all().map_err(disk("fsync the archive"))?;
        file.persist_noclobber(&self.path).map_err(|error| disk("name the archive")(error.error))?;
        let folder = File::open(folder_of(&self.path)).and_then(|folder| folder.sync_all());
        folder.map_err(disk("fsync the archive's folder"))?;
        Ok(sum)
    }

    fn begin(&mut self, name: &str, size_bytes: u64) -> Result<(), ArchiveError> {
        (self.size_bytes, self.left_bytes) = (size_bytes, size_bytes);
        let header = header(name, size_bytes)?;
        self.raw(header.as_bytes())
    }

    fn whole(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.begin(name, bytes.len() as u64)?;
        self.bytes(bytes)?;
        self.end().map(drop)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.sum.update(bytes);
        self.file.write_all(bytes).map_err(disk("write the archive"))
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
