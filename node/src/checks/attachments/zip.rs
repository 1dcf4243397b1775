//! Opens ZIP archives (APPNOTE 6.3.10) through the `zip` crate, which goes by the directory at their end; what readers that go by
//! the headers before each entry would find besides makes an archive unclear (threat 26).

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom},
    ops::Range,
};

use proto::policy::ContentKind;
use zip::ZipArchive;

use super::{Look, Place, budget::length_of, xml::text_of};

/// Entries in the directories of an archive, those of uncompressed archives in it too: each takes memory once it is read.
const DIRECTORY_ENTRIES_MAX: usize = 20_000;
/// Where the end of a ZIP archive is looked for: its record and the longest comment.
const ZIP_TAIL_BYTES: usize = 22 + 65_535;
/// What reading an archive may cost for each of its bytes. Real ones take about 2: opened backwards, then each entry once.
const READ_COST_PER_BYTE_MAX: u64 = 8;
/// What reading an archive may cost beside that.
const READ_COST_BASE: u64 = 64 * 1024;
/// What one call costs beside the bytes that it reads.
const READ_CALL_COST: u64 = 16;
/// What an unpacked byte costs.
const WEIGHT: u64 = 1;
/// What the directory says of an entry, without name, extra field and comment.
const RECORD_BYTES: usize = 46;
/// So far into an entry it is asked whether it is the mark of a document.
const MARK_BYTES: u64 = 16 * 1024;
/// The header before an entry, without its name.
const LOCAL_HEADER_BYTES: usize = 30;

/// Whether a ZIP archive follows other bytes: unpackers look for its end, not for its beginning.
pub(super) fn is_hidden(content: &[u8]) -> bool {
    let tail = &content[content.len().saturating_sub(ZIP_TAIL_BYTES)..];
    !content.starts_with(b"PK\x03\x04")
        && !content.starts_with(b"PK\x05\x06")
        && memchr::memmem::find(tail, b"PK\x05\x06").is_some()
        && !has_too_many(content)
        && ZipArchive::new(Metered::new(content)).is_ok_and(|archive| !archive.is_empty())
}

/// Whether a directory may have more entries than are read: each takes memory.
fn has_too_many(content: &[u8]) -> bool {
    memchr::memmem::find_iter(content, b"PK\x01\x02").nth(DIRECTORY_ENTRIES_MAX).is_some()
}

type Zip<'a> = ZipArchive<Metered<'a>>;

/// An archive's bytes, of which only so much can be read: the reader tries every end of a directory that it finds, and an
/// archive may hold thousands that all begin at the same long directory.
pub(super) struct Metered<'a> {
    bytes: Cursor<&'a [u8]>,
    pub(super) left: u64,
}

impl<'a> Metered<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        let left = length_of(content.len()).saturating_mul(READ_COST_PER_BYTE_MAX).saturating_add(READ_COST_BASE);
        Self { bytes: Cursor::new(content), left }
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(into)?;
        let cost = length_of(read).saturating_add(READ_CALL_COST);
        self.left = self.left.checked_sub(cost).ok_or_else(|| io::Error::other("reading it costs too much"))?;
        Ok(read)
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

impl Look<'_> {
    /// `is_first` says that the archive begins with its first entry and not behind other bytes.
    pub(super) fn zip(&mut self, place: &Place, content: &[u8], is_first: bool) {
        let shown = &place.shown;
        if has_too_many(content) {
            self.analysis.found(ContentKind::Archive, "BLOCKED_TYPE", format!("{shown} is a ZIP archive"));
            self.analysis.opaque(format!("{shown} has more entries than are looked into"));
            return;
        }
        let Ok(mut archive) = ZipArchive::new(Metered::new(content)) else {
            self.analysis.found(ContentKind::Archive, "BLOCKED_TYPE", format!("{shown} is a broken ZIP archive"));
            self.broken(place, "a ZIP archive");
            return;
        };
        let is_document = self.is_document(&mut archive);
        let marks = ["[content_types].xml", "mimetype", "meta-inf/manifest.xml"];
        let may_be_document = archive.file_names().any(|name| marks.iter().any(|mark| name.eq_ignore_ascii_case(mark)));
        let is_program = archive.file_names().any(|name| name == "AndroidManifest.xml" || name.ends_with(".class"));
        if is_program {
            self.analysis.found(
                ContentKind::Executable,
                "BLOCKED_TYPE",
                format!("{shown} is a Java or Android program"),
            );
        } else if !is_document {
            self.analysis.found(ContentKind::Archive, "BLOCKED_TYPE", format!("{shown} is a ZIP archive"));
        }
        let Some(listed) = self.listed(place, content, &mut archive) else { return };
        // A reader that goes by names has one entry of each.
        if records(content, archive.central_directory_start()) != archive.len() {
            self.analysis.opaque(format!("{shown} is a ZIP archive with two entries of one name"));
        }
        if is_first && has_unlisted(content, &listed) {
            self.analysis.opaque(format!("{shown} is a ZIP archive with entries that its directory does not name"));
        }
        for index in 0..archive.len() {
            self.zip_entry(place, &mut archive, index, [is_document, may_be_document]);
            if self.budget.is_spent() {
                return;
            }
        }
    }

    /// Whether it is what it calls itself: Office and OpenDocument say so in an entry that has something in it, and have another
    /// one that says what belongs to the document.
    fn is_document(&mut self, archive: &mut Zip<'_>) -> bool {
        let mut says = |name: &str, marks: &[&str]| {
            let Ok(file) = archive.by_name(name) else { return false };
            let said = self.budget.unpack(file.take(MARK_BYTES), WEIGHT).content;
            let said = text_of(&said).into_owned();
            marks.iter().any(|mark| said.contains(mark))
        };
        says("[Content_Types].xml", &["Types"])
            || says("mimetype", &["application/vnd.oasis.opendocument.", "application/vnd.sun.xml."])
                && says("META-INF/manifest.xml", &["manifest"])
            || says("mimetype", &["application/epub+zip"]) && says("META-INF/container.xml", &["container"])
    }

    /// Where the entries lie that the directory names; `None` when they lie over each other, as in bombs.
    fn listed(&mut self, place: &Place, content: &[u8], archive: &mut Zip<'_>) -> Option<Vec<Range<usize>>> {
        let mut listed = Vec::new();
        let mut claimed = 0_u64;
        for index in 0..archive.len() {
            self.budget.entry().ok()?;
            let Ok(file) = archive.by_index_raw(index) else { continue };
            claimed = claimed.saturating_add(file.compressed_size());
            let at = usize::try_from(file.header_start()).unwrap_or(usize::MAX);
            let packed = usize::try_from(file.compressed_size()).unwrap_or(usize::MAX);
            let data = file.data_start().and_then(|at| usize::try_from(at).ok()).unwrap_or(at);
            listed.push(at..data.saturating_add(packed));
            let name = local_name(content, at);
            if name != Some(file.name_raw()) {
                let name = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
                self.names(&place.inside(Some(&name)), None);
                let text = format!("{} is a ZIP archive whose directory and entries do not agree", place.shown);
                self.analysis.opaque(text);
            }
        }
        if claimed > length_of(content.len()) {
            self.analysis.opaque(format!("{} unpacks to more than is looked into", place.shown));
            return None;
        }
        listed.sort_by_key(|range| range.start);
        Some(listed)
    }

    /// Readers of documents are less strict about what is one than we are.
    fn zip_entry(
        &mut self,
        place: &Place,
        archive: &mut Zip<'_>,
        index: usize,
        [is_document, may_be_document]: [bool; 2],
    ) {
        let (name, is_encrypted, is_folder) = match archive.by_index_raw(index) {
            Ok(file) => (file.name().to_owned(), file.encrypted(), file.is_dir() && file.size() == 0),
            Err(_) => return self.broken(place, "a ZIP archive"),
        };
        let mut inside = place.inside(Some(&name));
        inside.is_body =
            is_document && [".xml", ".rels", ".vml"].iter().any(|ending| name.to_ascii_lowercase().ends_with(ending));
        if is_encrypted {
            self.names(&inside, None);
            self.encrypted(place);
            return;
        }
        if is_folder {
            return;
        }
        match archive.by_index(index) {
            Ok(file) => {
                let unpacked = self.budget.unpack(file, WEIGHT);
                if !unpacked.is_whole {
                    self.broken(&inside, "an entry");
                }
                if self.budget.is_spent() {
                    return;
                }
                if may_be_document {
                    self.office_part(place, &name, &unpacked.content);
                }
                self.look(&inside, &unpacked.content);
            }
            Err(_) => {
                self.names(&inside, None);
                self.broken(&inside, "an entry");
            }
        }
    }
}

/// Entries that the directory names, each as often as it does. Another directory or a comment behind it may hold more.
fn records(content: &[u8], from: u64) -> usize {
    let mut rest = usize::try_from(from).ok().and_then(|from| content.get(from..)).unwrap_or_default();
    let mut records = 0;
    while let Some(record) = rest.strip_prefix(b"PK\x01\x02") {
        let length =
            |at: usize| record.get(at..at + 2).map_or(0, |two| usize::from(u16::from_le_bytes([two[0], two[1]])));
        let after = RECORD_BYTES - 4 + length(24) + length(26) + length(28);
        records += 1;
        rest = record.get(after..).unwrap_or_default();
    }
    records
}

fn local_name(content: &[u8], at: usize) -> Option<&[u8]> {
    let header = content.get(at..)?.get(..LOCAL_HEADER_BYTES)?;
    let length = usize::from(u16::from_le_bytes([header[26], header[27]]));
    content.get(at + LOCAL_HEADER_BYTES..)?.get(..length)
}

/// Whether an entry begins where the directory knows of none. `listed` is in the order of the archive.
fn has_unlisted(content: &[u8], listed: &[Range<usize>]) -> bool {
    let mut known = 0;
    let mut ranges = listed.iter().peekable();
    memchr::memmem::find_iter(content, b"PK\x03\x04").any(|at| {
        while let Some(range) = ranges.next_if(|range| range.start <= at) {
            known = known.max(range.end);
        }
        at >= known
    })
}
