//! What the parts of a message are, by content and by every name they have, and what is in their ZIP archives.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use proto::{policy::ContentKind, score::Score, verdict::Reason};
use zip::{ZipArchive, read::ZipFile, result::ZipError};

use super::kinds;
use crate::{
    message::{Message, mime::Part, without_controls},
    policy::evidence::Found,
};

/// Entries of an archive that are looked at.
const ENTRIES_MAX: usize = 1000;
/// Bytes unpacked of one message.
const UNPACKED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes unpacked for each packed one; real documents stay far below.
const RATIO_MAX: u64 = 200;
/// Below this an archive's ratio says nothing.
const RATIO_FROM_BYTES: u64 = 8 * 1024 * 1024;
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
/// Archives in archives.
const DEPTH_MAX: usize = 2;
/// Findings of one sort that are named; further ones change nothing, and a verdict must stay small.
const FINDINGS_MAX: usize = 5;

/// What was found in the parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// Kinds of content, each with its rule.
    pub found: Vec<Found>,
    /// Archives over a limit: what is in them is not known.
    pub opaque: Vec<String>,
    /// Scored: what is odd and not forbidden.
    pub reasons: Vec<Reason>,
}

/// Looks at every part.
#[must_use]
pub fn analyse(message: &Message) -> Analysis {
    let mut look = Look { analysis: Analysis::default(), unpacked: 0 };
    for part in &message.parts {
        look.part(part);
    }
    look.analysis
}

struct Look {
    analysis: Analysis,
    unpacked: u64,
}

impl Look {
    fn part(&mut self, part: &Part) {
        let shown = part.names.first().map_or_else(|| "a part".to_owned(), |name| quoted(name));
        let by_content = kinds::of_content(&part.content);
        // What is shown as text in the message itself is not run, whatever it begins with.
        let is_body = part.charset.is_some() && part.names.is_empty() && !part.attached;
        let by_content = by_content.filter(|(kind, _)| !(is_body && *kind == ContentKind::Script));
        for name in &part.names {
            self.name(name, by_content.map(|(kind, _)| kind));
        }
        if is_hidden_zip(&part.content) {
            self.found(ContentKind::Archive, "BLOCKED_TYPE", format!("{shown} is a ZIP archive behind other bytes"));
            self.zip(&shown, &part.content, 1);
        }
        let Some((kind, words)) = by_content else { return };
        if words == "a ZIP archive" {
            self.zip(&shown, &part.content, 1);
            return;
        }
        let disguise = part.names.iter().find(|name| is_disguise(name, kind));
        match disguise {
            Some(name) => self.found(kind, "FALSE_EXTENSION", format!("{} is {words}", quoted(name))),
            None => self.found(kind, "BLOCKED_TYPE", format!("{shown} is {words}")),
        }
    }

    fn name(&mut self, name: &str, by_content: Option<ContentKind>) {
        if name.chars().any(crate::message::is_direction) {
            let text = format!("the name {} is written to be misread", quoted(name));
            self.reason("NAME_HIDES_EXTENSION", Score::points(4, 0), text);
        }
        if let Some(kind) = kinds::of_name(name).filter(|kind| Some(*kind) != by_content)
            && matches!(kind, ContentKind::Executable | ContentKind::Script)
        {
            self.found(kind, "BLOCKED_NAME", format!("{} would be run by its name", quoted(name)));
        }
    }

    fn zip(&mut self, shown: &str, content: &[u8], depth: usize) {
        if content.windows(4).filter(|four| *four == b"PK\x01\x02").count() > DIRECTORY_ENTRIES_MAX {
            self.found(ContentKind::Archive, "BLOCKED_TYPE", format!("{shown} is a ZIP archive"));
            self.opaque(format!("{shown} has more entries than are looked into"));
            return;
        }
        let mut archive = match ZipArchive::new(Metered::new(content)) {
            Ok(archive) => archive,
            Err(_) => {
                self.found(ContentKind::Archive, "BLOCKED_TYPE", format!("{shown} is a broken ZIP archive"));
                self.opaque(format!("{shown} is a broken ZIP archive"));
                return;
            }
        };
        let is_document = archive.file_names().any(|name| name == "[Content_Types].xml" || name == "mimetype");
        let is_program = archive.file_names().any(|name| name == "AndroidManifest.xml" || name.ends_with(".class"));
        if is_program {
            self.found(ContentKind::Executable, "BLOCKED_TYPE", format!("{shown} is a Java or Android program"));
        } else if !is_document {
            self.found(ContentKind::Archive, "BLOCKED_TYPE", format!("{shown} is a ZIP archive"));
        }
        if archive.len() > ENTRIES_MAX || overlaps(&mut archive, content.len()) {
            self.opaque(format!("{shown} unpacks to more than is looked into"));
            return;
        }
        let honest = length_of(content.len()).saturating_mul(RATIO_MAX).max(RATIO_FROM_BYTES);
        let unpacked_max = self.unpacked.saturating_add(honest).min(UNPACKED_BYTES_MAX);
        for index in 0..archive.len() {
            let unpacked = self.entry(&mut archive, index, shown, unpacked_max);
            if self.unpacked >= unpacked_max {
                self.opaque(format!("{shown} unpacks to more than is looked into"));
                return;
            }
            if let Some(content) = unpacked {
                self.unpacked_entry(shown, &content, depth);
            }
        }
    }

    /// What an entry unpacks to, so that `unpacked` stays at `unpacked_max`: whoever calls looks at that before at the content.
    fn entry(&mut self, archive: &mut Zip<'_>, index: usize, shown: &str, unpacked_max: u64) -> Option<Vec<u8>> {
        if let Some(name) = archive.name_for_index(index).map(str::to_owned)
            && let Some(kind) = kinds::of_name(&name)
            && matches!(kind, ContentKind::Executable | ContentKind::Script)
        {
            self.found(kind, "BLOCKED_NAME", format!("{} in {shown} would be run by its name", quoted(&name)));
        }
        let room = unpacked_max.saturating_sub(self.unpacked);
        let unpacked = match archive.by_index(index) {
            Ok(file) => unpack(file, room),
            Err(ZipError::UnsupportedArchive(_)) => {
                let text = format!("{shown} is encrypted or packed in a way that cannot be looked into");
                self.reason("UNREADABLE_ARCHIVE", Score::points(1, 50), text);
                return None;
            }
            Err(_) => None,
        };
        match &unpacked {
            Some(content) => self.unpacked = self.unpacked.saturating_add(length_of(content.len())),
            None => self.opaque(format!("{shown} holds an entry that does not unpack")),
        }
        unpacked
    }

    fn unpacked_entry(&mut self, shown: &str, content: &[u8], depth: usize) {
        match kinds::of_content(content) {
            Some((ContentKind::Archive, "a ZIP archive")) if depth < DEPTH_MAX => {
                self.zip(&format!("an archive in {shown}"), content, depth + 1);
            }
            Some((ContentKind::Archive, "a ZIP archive")) => {
                self.opaque(format!("{shown} holds archives in archives"));
            }
            Some((kind @ (ContentKind::Executable | ContentKind::Script), words)) => {
                self.found(kind, "BLOCKED_TYPE", format!("{shown} holds {words}"));
            }
            None if is_hidden_zip(content) && depth < DEPTH_MAX => {
                self.zip(&format!("an archive in {shown}"), content, depth + 1);
            }
            None if is_hidden_zip(content) => self.opaque(format!("{shown} holds archives in archives")),
            Some((ContentKind::Archive | ContentKind::Image, _)) | None => {}
        }
    }

    fn found(&mut self, kind: ContentKind, rule: &'static str, text: String) {
        // Counted for each kind and rule, so that a crowd of harmless ones does not push out the one that matters.
        let same = self.analysis.found.iter().filter(|found| found.kind == kind && found.rule == rule).count();
        let found = Found { kind, rule, text };
        if same < FINDINGS_MAX && !self.analysis.found.contains(&found) {
            self.analysis.found.push(found);
        }
    }

    fn opaque(&mut self, text: String) {
        if self.analysis.opaque.len() < FINDINGS_MAX && !self.analysis.opaque.contains(&text) {
            self.analysis.opaque.push(text);
        }
    }

    fn reason(&mut self, rule: &str, score: Score, text: String) {
        if !self.analysis.reasons.iter().any(|reason| reason.rule == rule) {
            self.analysis.reasons.push(Reason { rule: rule.to_owned(), score, text });
        }
    }
}

/// Whether a ZIP archive follows other bytes: unpackers look for its end, not for its beginning.
fn is_hidden_zip(content: &[u8]) -> bool {
    let tail = &content[content.len().saturating_sub(ZIP_TAIL_BYTES)..];
    !content.starts_with(b"PK\x03\x04")
        && !content.starts_with(b"PK\x05\x06")
        && memchr::memmem::find(tail, b"PK\x05\x06").is_some()
        && ZipArchive::new(Metered::new(content)).is_ok_and(|archive| !archive.is_empty())
}

type Zip<'a> = ZipArchive<Metered<'a>>;

/// An archive's bytes, of which only so much can be read: the reader tries every end of a directory that it finds, and an
/// archive may hold thousands that all begin at the same long directory.
struct Metered<'a> {
    bytes: Cursor<&'a [u8]>,
    left: u64,
}

impl<'a> Metered<'a> {
    fn new(content: &'a [u8]) -> Self {
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

/// Whether a name says that this is something harmless.
fn is_disguise(name: &str, kind: ContentKind) -> bool {
    kinds::extension(name).is_some() && kinds::of_name(name) != Some(kind) && kind == ContentKind::Executable
}

/// A hostile name as text: on one line, short, in quotes.
fn quoted(name: &str) -> String {
    let name: String = without_controls(name).chars().take(80).collect();
    format!("\"{}\"", name.replace('"', "'"))
}

/// Whether the entries claim more packed bytes than there are: then they lie over each other, as in bombs.
fn overlaps(archive: &mut Zip<'_>, packed: usize) -> bool {
    let mut claimed = 0_u64;
    for index in 0..archive.len() {
        if let Ok(file) = archive.by_index_raw(index) {
            claimed = claimed.saturating_add(file.compressed_size());
        }
    }
    claimed > length_of(packed)
}

fn unpack(file: ZipFile<'_, Metered<'_>>, bytes_max: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    file.take(bytes_max).read_to_end(&mut content).ok()?;
    Some(content)
}

fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "attachments_tests.rs"]
mod tests;
