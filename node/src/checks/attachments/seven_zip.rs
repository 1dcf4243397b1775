//! Opens 7z archives through `sevenz-rust2`, with its memory bounded before anything is allocated. PPMd, bzip2 and AES are not
//! built in: what is packed with them is not opened, and said to be so.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use sevenz_rust2::{ArchiveEntry, ArchiveReader, EncoderMethod, EntryDecision, Error, Password};

use super::{
    Look, Place,
    budget::{Budget, WINDOW_BYTES_MAX, length_of},
};

const SIGNATURE: &[u8] = b"7z\xbc\xaf\x27\x1c";
/// The header at the beginning.
const HEADER_BYTES: usize = 32;
/// Longest packed directory that is read, in bytes.
const DIRECTORY_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// What a byte that comes out costs.
const WEIGHT: u64 = 2;
/// What a block costs: each takes a decoder.
const BLOCK_COST: u64 = 64 * 1024;

/// The archive behind other bytes. Its header has a checksum, so no text that speaks of one is taken for one.
pub(super) fn hidden(content: &[u8]) -> Option<&[u8]> {
    let found = memchr::memmem::find_iter(content, SIGNATURE).filter(|at| *at > 0).take(1000);
    found.map(|at| &content[at..]).find(|archive| {
        let Some(header) = archive.get(..HEADER_BYTES) else { return false };
        let stated = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        stated == crc32(&header[12..])
    })
}

/// The checksum of a few bytes (ISO 3309).
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

impl Look<'_> {
    pub(super) fn seven_zip(&mut self, place: &Place, content: &[u8]) {
        let directory = content.get(20..28).and_then(|size| size.try_into().ok()).map(u64::from_le_bytes);
        if directory.is_none_or(|bytes| bytes > DIRECTORY_BYTES_MAX) {
            self.broken(place, "a 7z archive");
            return;
        }
        let source = Source { bytes: Cursor::new(content), budget: self.budget.clone() };
        let memory_kb = usize::try_from(WINDOW_BYTES_MAX / 1024 + 1024).unwrap_or(usize::MAX);
        let mut reader = match ArchiveReader::new_with_memory_limit(source, Password::empty(), memory_kb) {
            Ok(reader) => reader,
            Err(error) if is_about_encryption(&error) => return self.encrypted(place),
            Err(_) => return self.broken(place, "a 7z archive"),
        };
        reader.set_thread_count(1);
        let encrypted: Vec<bool> =
            (0..reader.archive().files.len()).map(|file| reader.archive().is_file_encrypted(file)).collect();
        if encrypted.contains(&true) {
            self.encrypted(place);
        }
        if !self.may_unpack(place, &reader) {
            return;
        }
        // All names first: one block that does not unpack must not hide what the others are called.
        let names: Vec<String> = reader.archive().files.iter().map(|file| file.name.clone()).collect();
        for name in &names {
            let Some(inside) = self.entry(place, name) else { return };
            self.names(&inside, None);
        }
        let walked = reader.for_each_entries_with_decision_allowing_surplus(|entry, content| {
            self.seven_zip_entry(place, entry, content)
        });
        if walked.is_err() && !encrypted.contains(&true) {
            self.broken(place, "a 7z archive");
        }
    }

    /// Whether its blocks, each of which takes a decoder, are paid for.
    fn may_unpack(&mut self, place: &Place, reader: &ArchiveReader<Source<'_>>) -> bool {
        let blocks = length_of(reader.archive().blocks.len());
        let files = length_of(reader.archive().files.len());
        self.analysis.found(
            proto::policy::ContentKind::Archive,
            "BLOCKED_TYPE",
            format!("{} is a 7z archive", place.shown),
        );
        self.budget.work(blocks.saturating_mul(BLOCK_COST).saturating_add(files)).is_ok()
    }

    fn seven_zip_entry(
        &mut self,
        place: &Place,
        entry: &ArchiveEntry,
        content: &mut dyn Read,
    ) -> Result<EntryDecision, Error> {
        if entry.is_directory {
            return Ok(EntryDecision::Continue);
        }
        let unpacked = self.budget.unpack(content, WEIGHT);
        if self.budget.is_spent() {
            return Ok(EntryDecision::Stop);
        }
        self.look(&place.inside(Some(&entry.name)), &unpacked.content);
        if unpacked.is_whole {
            return Ok(EntryDecision::Continue);
        }
        self.broken(place, "a 7z archive");
        Ok(EntryDecision::SkipBlock)
    }
}

/// Encrypted names: the directory itself is packed with AES.
fn is_about_encryption(error: &Error) -> bool {
    match error {
        Error::PasswordRequired | Error::MaybeBadPassword(_) => true,
        Error::UnsupportedCompressionMethod(method) => {
            method.contains(EncoderMethod::AES256_SHA256.name()) || method.contains("6, 241, 7, 1")
        }
        Error::BadSignature(_)
        | Error::UnsupportedVersion { .. }
        | Error::ChecksumVerificationFailed
        | Error::NextHeaderCrcMismatch
        | Error::Io(..)
        | Error::FileOpen(..)
        | Error::Other(_)
        | Error::BadTerminatedStreamsInfo(_)
        | Error::BadTerminatedUnpackInfo
        | Error::BadTerminatedPackInfo(_)
        | Error::BadTerminatedSubStreamsInfo
        | Error::BadTerminatedHeader(_)
        | Error::ExternalUnsupported
        | Error::MaxMemLimited { .. }
        | Error::Unsupported(_)
        | Error::FileNotFound => false,
    }
}

/// The archive's bytes, each paid for as often as it is read.
#[derive(Debug)]
struct Source<'a> {
    bytes: Cursor<&'a [u8]>,
    budget: Budget,
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(into)?;
        self.budget.work(length_of(read).saturating_add(16))?;
        Ok(read)
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}
