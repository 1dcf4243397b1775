//! What the parts of a message are, by content and by every name they have, and what is in their ZIP archives.

use std::io::{Cursor, Read as _};

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
        let mut archive = match ZipArchive::new(Cursor::new(content)) {
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
        let before = self.unpacked;
        for index in 0..archive.len() {
            self.entry(&mut archive, index, shown, depth);
            let unpacked = self.unpacked - before;
            let is_bomb = unpacked > RATIO_FROM_BYTES && unpacked / length_of(content.len()).max(1) > RATIO_MAX;
            if is_bomb || self.unpacked >= UNPACKED_BYTES_MAX {
                self.opaque(format!("{shown} unpacks to more than is looked into"));
                return;
            }
        }
    }

    fn entry(&mut self, archive: &mut ZipArchive<Cursor<&[u8]>>, index: usize, shown: &str, depth: usize) {
        if let Some(name) = archive.name_for_index(index).map(str::to_owned)
            && let Some(kind) = kinds::of_name(&name)
            && matches!(kind, ContentKind::Executable | ContentKind::Script)
        {
            self.found(kind, "BLOCKED_NAME", format!("{} in {shown} would be run by its name", quoted(&name)));
        }
        let room = UNPACKED_BYTES_MAX.saturating_sub(self.unpacked);
        let unpacked = match archive.by_index(index) {
            Ok(file) => unpack(file, room),
            Err(ZipError::UnsupportedArchive(_)) => {
                let text = format!("{shown} is encrypted or packed in a way that cannot be looked into");
                self.reason("UNREADABLE_ARCHIVE", Score::points(1, 50), text);
                return;
            }
            Err(_) => None,
        };
        match unpacked {
            Some(content) => {
                self.unpacked = self.unpacked.saturating_add(length_of(content.len()));
                self.unpacked_entry(shown, &content, depth);
            }
            None => self.opaque(format!("{shown} holds an entry that does not unpack")),
        }
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
fn overlaps(archive: &mut ZipArchive<Cursor<&[u8]>>, packed: usize) -> bool {
    let mut claimed = 0_u64;
    for index in 0..archive.len() {
        if let Ok(file) = archive.by_index_raw(index) {
            claimed = claimed.saturating_add(file.compressed_size());
        }
    }
    claimed > length_of(packed)
}

fn unpack(file: ZipFile<'_, Cursor<&[u8]>>, bytes_max: u64) -> Option<Vec<u8>> {
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

    use super::{Analysis, analyse};
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
