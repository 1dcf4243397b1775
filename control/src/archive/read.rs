//! Reads an archive: first all of it, to see whether it is whole, then what a restore sends.

use std::{
    fs::File,
    io::{BufReader, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use proto::{archive::pack, held::is_digest, policy::MESSAGE_BYTES_MAX};
use sha2::{Digest as _, Sha256};

use super::{
    ArchiveError, BODIES, MAGIC, MANIFEST, MANIFEST_BYTES_MAX, Manifest, STATE, SUM, TRAILER_BYTES, VERSION, damaged,
    disk, trailer,
};
use crate::state::{
    archive::{Contents, is_restored},
    snapshot,
    store::StoreError,
};

/// Read at once, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;
/// A piece of a restore is closed when it is as long, in bytes: what Raft sends between two heartbeats.
const PIECE_BYTES: usize = 64 * 1024;
/// Largest body, in bytes, as the body store takes it.
const BODY_BYTES_MAX: u64 = MESSAGE_BYTES_MAX + 1024 * 1024;

/// Where an entry lies in the file.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    start: u64,
    size_bytes: u64,
}

/// An archive that is whole.
#[derive(Debug)]
pub struct Archive {
    /// What it says of itself, checked.
    pub manifest: Manifest,
    /// SHA-256 of all before the last entry, which has it.
    pub sum: String,
    /// The state's own numbers.
    pub numbers: Vec<u8>,
    path: PathBuf,
    state: Place,
    bodies: Vec<(String, Place)>,
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl Archive {
    /// Reads everything and checks everything. `read` is told how many bytes more have been read, of twice the file's length.
    ///
    /// # Errors
    /// When a single bit is not as it was written, or the file cannot be read.
    pub fn open(path: &Path, mut read: impl FnMut(u64)) -> Result<Self, ArchiveError> {
        let mut file = File::open(path).map_err(disk("open the archive"))?;
        let length = file.metadata().map_err(disk("open the archive"))?.len();
        check_magic(&file)?;
        let sum = sum_of(&mut file, length, &mut read)?;
        file.rewind().map_err(disk("read the archive"))?;
        let mut this = Self {
            manifest: Manifest::default(),
            sum,
            numbers: Vec::new(),
            path: path.to_owned(),
            state: Place::default(),
            bodies: Vec::new(),
        };
        let manifest = this.entries(file, &mut read)?;
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|error| ArchiveError::Damaged(format!("its manifest cannot be read: {error}")))?;
        this.check(manifest)?;
        Ok(this)
    }

    /// Finds all entries, checks each body, and gives the manifest's text.
    fn entries(&mut self, file: File, read: &mut impl FnMut(u64)) -> Result<Vec<u8>, ArchiveError> {
        let mut archive = tar::Archive::new(BufReader::with_capacity(BUFFER_BYTES, file));
        let mut manifest = None;
        for (number, entry) in archive.entries().map_err(disk("read the archive"))?.enumerate() {
            let mut entry = entry.map_err(disk("read the archive"))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let place = Place { start: entry.raw_file_position(), size_bytes: entry.size() };
            let digest = name.strip_prefix(BODIES).filter(|digest| is_digest(digest));
            match (number, name.as_str(), digest) {
                (0, MAGIC, _) => {}
                (1, STATE, _) => self.state = place,
                (2.., _, Some(digest)) if manifest.is_none() => {
                    if place.size_bytes > BODY_BYTES_MAX || sha256(&mut entry)? != digest {
                        return damaged(format!("the body {digest} is not what its name says"));
                    }
                    if self.bodies.last().is_some_and(|(last, _)| last.as_str() >= digest) {
                        return damaged("its bodies are not in order");
                    }
                    self.bodies.push((digest.to_owned(), place));
                }
                (2.., MANIFEST, _) if manifest.is_none() && place.size_bytes <= MANIFEST_BYTES_MAX => {
                    let mut text = Vec::new();
                    entry.read_to_end(&mut text).map_err(disk("read the archive"))?;
                    manifest = Some(text);
                }
                (_, SUM, _) if manifest.is_some() => {}
                _ => return damaged(format!("the entry {name:?} does not belong there")),
            }
            read(place.size_bytes);
        }
        manifest.map_or_else(|| damaged("it has no manifest"), Ok)
    }

    /// Holds the manifest against what is there.
    fn check(&mut self, manifest: Manifest) -> Result<(), ArchiveError> {
        if sha256(self.state()?)? != manifest.state_sha256 || self.state.size_bytes != manifest.state_bytes {
            return damaged("its state is not that of its manifest");
        }
        snapshot::verify(self.state()?)?;
        let mut contents = Contents::default();
        let unreadable = |error: crate::state::archive::Unreadable| ArchiveError::Damaged(error.to_string());
        snapshot::each_pair(self.state()?, |key, value| contents.add(&key, &value).map_err(unreadable))?;
        contents.end_of_record().map_err(unreadable)?;
        let said = (manifest.policy_version, manifest.held, manifest.audit_records, manifest.at_ms);
        if said != (contents.policy_version, contents.held, contents.audit_records, contents.at.0) {
            return damaged("its manifest does not fit its state");
        }
        let mut there = self.bodies.iter().map(|(digest, place)| (digest.as_str(), place.size_bytes)).peekable();
        for (digest, size_bytes) in &contents.bodies {
            let found = there.next_if(|(found, found_bytes)| *found == digest.as_str() && found_bytes == size_bytes);
            if found.is_none() && !manifest.missing.contains(digest) {
                return damaged(format!("the body {digest} is not there, but a held message needs it"));
            }
        }
        let bytes: u64 = self.bodies.iter().map(|(_, place)| place.size_bytes).sum();
        if there.next().is_some() || (manifest.bodies, manifest.body_bytes) != (self.bodies.len() as u64, bytes) {
            return damaged("its bodies are not those of its state and its manifest");
        }
        (self.manifest, self.numbers) = (manifest, contents.numbers);
        Ok(())
    }

    fn at(&self, place: Place) -> Result<impl Read + use<>, ArchiveError> {
        let mut file = File::open(&self.path).map_err(disk("open the archive"))?;
        file.seek(SeekFrom::Start(place.start)).map_err(disk("read the archive"))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, file.take(place.size_bytes)))
    }

    /// The state's snapshot.
    fn state(&self) -> Result<impl Read + use<>, ArchiveError> {
        self.at(self.state)
    }

    /// The keys to be restored, packed into pieces; always the same ones for the same archive.
    ///
    /// # Errors
    /// When the file cannot be read, or `each` fails.
    pub fn pieces<E: From<ArchiveError> + From<StoreError>>(
        &self,
        mut each: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut piece = Vec::new();
        snapshot::each_pair(self.state()?, |key, value| {
            if is_restored(&key) {
                let long = |_| ArchiveError::Damaged("a key or a value is too long".into());
                pack(&mut piece, &key, &value).map_err(long)?;
            }
            if piece.len() >= PIECE_BYTES { each(std::mem::take(&mut piece)) } else { Ok(()) }
        })?;
        if piece.is_empty() { Ok(()) } else { each(piece) }
    }

    /// Digests of the bodies, in order.
    pub fn bodies(&self) -> impl Iterator<Item = &str> {
        self.bodies.iter().map(|(digest, _)| digest.as_str())
    }

    /// The bytes of the body with this number.
    ///
    /// # Errors
    /// When the file cannot be read, or has changed since it was opened.
    pub fn body(&self, number: usize) -> Result<Vec<u8>, ArchiveError> {
        let Some((digest, place)) = self.bodies.get(number) else { return damaged("there is no such body") };
        let mut bytes = Vec::new();
        self.at(*place)?.read_to_end(&mut bytes).map_err(disk("read the archive"))?;
        if hex::encode(Sha256::digest(&bytes)) != *digest {
            return damaged(format!("the body {digest} is not what its name says"));
        }
        Ok(bytes)
    }
}

/// Whether the file is of the kind and the version that is read here.
fn check_magic(mut file: &File) -> Result<(), ArchiveError> {
    let mut begin = [0; 2 * super::BLOCK_BYTES];
    if file.read_exact(&mut begin).is_err() {
        return Err(ArchiveError::Foreign);
    }
    let (header, text) = begin.split_at(super::BLOCK_BYTES);
    if !header.starts_with(MAGIC.as_bytes()) {
        return Err(ArchiveError::Foreign);
    }
    if text.starts_with(VERSION) { Ok(()) } else { Err(ArchiveError::Version) }
}

/// The SHA-256 of all before the last entry, which must hold it.
fn sum_of(file: &mut File, length: u64, read: &mut impl FnMut(u64)) -> Result<String, ArchiveError> {
    let Some(before) = length.checked_sub(TRAILER_BYTES as u64) else { return damaged("it is too short") };
    file.rewind().map_err(disk("read the archive"))?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut rest = Read::by_ref(file).take(before);
    loop {
        let count = rest.read(&mut buffer).map_err(disk("read the archive"))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        sum.update(bytes);
        read(count as u64);
    }
    let sum = hex::encode(sum.finalize());
    let mut found = Vec::new();
    file.read_to_end(&mut found).map_err(disk("read the archive"))?;
    if found != trailer(&sum)? {
        return damaged("its checksum is wrong");
    }
    Ok(sum)
}

fn sha256(mut from: impl Read) -> Result<String, ArchiveError> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).map_err(disk("read the archive"))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        sum.update(bytes);
    }
    Ok(hex::encode(sum.finalize()))
}
