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
        let is_body = part.text.is_some() && part.names.is_empty() && !part.attached;
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
        && tail.windows(4).any(|four| four == b"PK\x05\x06")
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
mod tests {
    use std::io::{Cursor, Write as _};

    use bytes::Bytes;
    use proto::policy::ContentKind;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::{Analysis, Metered, analyse};
    use crate::{
        message::{Message, mime::Part},
        policy::samples::message,
    };

    fn with_part(name: &str, content: Vec<u8>) -> Message {
        let mut message = message("From: a@b.test\n\nx\n");
        message.parts = vec![Part {
            declared: "application/pdf".into(),
            names: vec![name.to_owned()],
            attached: true,
            content: Bytes::from(content),
            text: None,
        }];
        message
    }

    fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            writer.start_file(*name, SimpleFileOptions::default()).expect("starts");
            writer.write_all(content).expect("writes");
        }
        writer.finish().expect("finishes").into_inner()
    }

    fn rules(analysis: &Analysis) -> Vec<(ContentKind, &'static str)> {
        analysis.found.iter().map(|found| (found.kind, found.rule)).collect()
    }

    #[test]
    fn an_archive_behind_other_bytes_is_looked_into() {
        let archive = zipped(&[("a.exe", b"MZ\x90\0\x03")]);
        for prefix in [&b"J"[..], b"%PDF-1.4\n", b"GIF89a", b"PK00"] {
            let rules: Vec<_> = analyse(&with_part("a.bin", [prefix, &archive].concat())).found;
            assert!(rules.iter().any(|found| found.kind == ContentKind::Executable), "{prefix:?}: {rules:?}");
            assert!(rules.iter().any(|found| found.kind == ContentKind::Archive), "{prefix:?}: {rules:?}");
        }
        let harmless =
            [&b"a text that speaks of "[..], b"PK\x05\x06", b" and means no archive at all, just that"].concat();
        assert!(analyse(&with_part("a.txt", harmless)).found.is_empty());
    }

    #[test]
    fn a_program_named_pdf_is_a_program_with_a_false_extension() {
        let analysis = analyse(&with_part("invoice.pdf", b"MZ\x90\0\x03".to_vec()));
        assert_eq!(rules(&analysis), [(ContentKind::Executable, "FALSE_EXTENSION")]);
        assert_eq!(analysis.found[0].text, "\"invoice.pdf\" is a Windows program");
        assert_eq!(analyse(&with_part("invoice.pdf", b"%PDF-1.4".to_vec())), Analysis::default());
    }

    #[test]
    fn a_name_that_would_be_run_counts_whatever_the_bytes_are() {
        let analysis = analyse(&with_part("photo.jpg.scr. ", b"text".to_vec()));
        assert_eq!(rules(&analysis), [(ContentKind::Executable, "BLOCKED_NAME")]);
        let analysis = analyse(&with_part("annexe\u{202e}fdp.exe", b"text".to_vec()));
        assert_eq!(analysis.reasons[0].rule, "NAME_HIDES_EXTENSION");
        assert!(!analysis.reasons[0].text.contains('\u{202e}'));
    }

    #[test]
    fn a_program_in_an_archive_in_an_archive_is_found() {
        let inner = zipped(&[("readme.txt", b"MZ\x90\0\x03")]);
        let analysis = analyse(&with_part("a.zip", zipped(&[("inner.zip", &inner)])));
        assert!(rules(&analysis).contains(&(ContentKind::Executable, "BLOCKED_TYPE")), "{analysis:?}");
        assert_eq!(analysis.opaque, Vec::<String>::new());
        let deep = zipped(&[("b.zip", &zipped(&[("c.zip", &inner)]))]);
        assert!(!analyse(&with_part("a.zip", deep)).opaque.is_empty());
    }

    #[test]
    fn an_office_document_is_not_an_archive() {
        let document = zipped(&[("[Content_Types].xml", b"<x/>"), ("word/document.xml", b"<x/>")]);
        assert_eq!(analyse(&with_part("a.docx", document)), Analysis::default());
    }

    #[test]
    fn a_bomb_is_not_unpacked_to_its_end() {
        let zeros = vec![0; 16 * 1024 * 1024];
        let analysis = analyse(&with_part("a.zip", zipped(&[("zeros", &zeros), ("b.exe", b"x")])));
        assert_eq!(analysis.opaque.len(), 1, "{analysis:?}");
        let many: Vec<(String, &[u8])> = (0..1100).map(|n| (format!("f{n}"), &b"x"[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(name, content)| (name.as_str(), *content)).collect();
        assert!(!analyse(&with_part("a.zip", zipped(&many))).opaque.is_empty());
    }

    /// An archive after which ends of a directory follow that all mean its directory, of one entry too many.
    fn with_false_ends(files: usize, ends: usize) -> Vec<u8> {
        let named: Vec<String> = (0..files).map(|n| format!("f{n}")).collect();
        let files: Vec<(&str, &[u8])> = named.iter().map(|name| (name.as_str(), &b""[..])).collect();
        let mut bytes = zipped(&files);
        let end = bytes.split_off(bytes.len() - 22);
        let mut false_end = end.clone();
        let one_more = u16::try_from(files.len() + 1).expect("few").to_le_bytes();
        false_end[8..10].copy_from_slice(&one_more);
        false_end[10..12].copy_from_slice(&one_more);
        bytes.extend(false_end.repeat(ends));
        bytes
    }

    #[test]
    fn an_archive_of_a_thousand_directories_is_not_read_a_thousand_times() {
        let few = with_false_ends(500, 1);
        let mut archive = Metered::new(&few);
        assert!(zip::ZipArchive::new(&mut archive).is_err());
        let one = Metered::new(&few).left - archive.left;
        let many = with_false_ends(500, 3000);
        let mut archive = Metered::new(&many);
        assert!(zip::ZipArchive::new(&mut archive).is_err());
        assert!(archive.left < one, "it is read until nothing is left");
        assert!(!analyse(&with_part("a.zip", many)).opaque.is_empty());
    }

    #[test]
    fn an_archive_of_uncompressed_archives_is_read() {
        let inner = zipped(&[("a.txt", b"x"), ("b.txt", b"y")]);
        let named: Vec<String> = (0..200).map(|n| format!("{n}.docx")).collect();
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for name in &named {
            let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            writer.start_file(name.as_str(), stored).expect("starts");
            writer.write_all(&inner).expect("writes");
        }
        let content = writer.finish().expect("finishes").into_inner();
        assert_eq!(analyse(&with_part("a.zip", content)).opaque, Vec::<String>::new());
    }

    #[test]
    fn an_archive_with_a_vast_directory_is_not_opened() {
        let mut content = b"PK\x03\x04".to_vec();
        content.extend(b"PK\x01\x02".repeat(20_001));
        assert!(analyse(&with_part("a.zip", content)).opaque[0].contains("more entries"));
    }

    #[test]
    fn a_bomb_is_not_opened_further_to_look_for_archives() {
        let mut inner = zipped(&[("b.exe", b"MZ\x90\0\x03")]);
        // An archive may have anything before it, and this one is over the ratio of the outer one.
        let mut padded = zipped(&[("a", b"x")]);
        padded.resize(9 * 1024 * 1024, 0);
        padded.append(&mut inner);
        let analysis = analyse(&with_part("a.zip", zipped(&[("c.zip", &padded)])));
        assert_eq!((analysis.opaque.len(), rules(&analysis)), (1, vec![(ContentKind::Archive, "BLOCKED_TYPE")]));
    }

    #[test]
    fn a_crowd_of_archives_does_not_hide_a_program() {
        let mut message = with_part("a.zip", zipped(&[("a.txt", b"x")]));
        let archive = message.parts[0].clone();
        let named = |name: String| Part { names: vec![name], ..archive.clone() };
        message.parts.extend((0..50).map(|n| named(format!("{n}.zip"))));
        message.parts.push(Part { content: Bytes::from_static(b"\x7fELF"), ..archive.clone() });
        assert!(rules(&analyse(&message)).iter().any(|(kind, _)| *kind == ContentKind::Executable));
    }

    #[test]
    fn a_small_archive_after_a_large_one_is_no_bomb() {
        let noise: Vec<u8> = (0..12_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let mut message = with_part("a.zip", zipped(&[("large", &noise)]));
        let small = Part { content: Bytes::from(zipped(&[("small", b"x")])), ..message.parts[0].clone() };
        message.parts.push(small);
        assert_eq!(analyse(&message).opaque, Vec::<String>::new());
    }

    #[test]
    fn a_broken_archive_is_said_to_be_broken() {
        assert!(!analyse(&with_part("a.zip", b"PK\x03\x04 nonsense".to_vec())).opaque.is_empty());
    }
}
