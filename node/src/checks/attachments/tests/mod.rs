//! Attachments by content: types, disguises, archives and their limits.

mod archives;
mod corpus;
mod documents;
mod limits;
mod pages;
mod pdf;
mod unwanted;

use std::io::{Cursor, Write as _};

use bytes::Bytes;
use proto::policy::ContentKind;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{Analysis, Unwanted, zip::Metered};
use crate::{
    message::{Message, mime::Part},
    policy::samples::message,
};

fn analyse(message: &Message) -> Analysis {
    super::analyse(message, &Unwanted::default())
}

fn with_part(name: &str, content: Vec<u8>) -> Message {
    let mut message = message("From: a@b.test\n\nx\n");
    message.parts = vec![Part {
        declared: "application/octet-stream".into(),
        names: vec![name.to_owned()],
        attached: true,
        content: Bytes::from(content),
        charset: None,
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

/// Rules as they are written in a test, which lives too short for the few bytes to matter.
fn rules(analysis: &Analysis) -> Vec<(ContentKind, &'static str)> {
    analysis.found.iter().map(|found| (found.kind, &*found.rule.clone().leak())).collect()
}

#[test]
fn an_archive_behind_other_bytes_is_looked_into() {
    let archive = zipped(&[("a.exe", b"MZ\x90\0\x03")]);
    for prefix in [&b"J"[..], b"%PDF-1.4\n", b"GIF89a", b"PK00"] {
        let rules: Vec<_> = analyse(&with_part("a.bin", [prefix, &archive].concat())).found;
        assert!(rules.iter().any(|found| found.kind == ContentKind::Executable), "{prefix:?}: {rules:?}");
        assert!(rules.iter().any(|found| found.kind == ContentKind::Archive), "{prefix:?}: {rules:?}");
    }
    let harmless = [&b"a text that speaks of "[..], b"PK\x05\x06", b" and means no archive at all, just that"].concat();
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
    assert!(rules(&analysis).contains(&(ContentKind::Executable, "FALSE_EXTENSION")), "{analysis:?}");
    assert_eq!(analysis.opaque, Vec::<String>::new());
}

#[test]
fn an_office_document_is_not_an_archive() {
    let document = zipped(&[("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b"<x/>")]);
    assert_eq!(analyse(&with_part("a.docx", document)), Analysis::default());
}

#[test]
fn a_bomb_is_not_unpacked_to_its_end() {
    let zeros = vec![0; 16 * 1024 * 1024];
    let analysis = analyse(&with_part("a.zip", zipped(&[("zeros", &zeros), ("b.exe", b"x")])));
    assert_eq!(analysis.opaque.len(), 1, "{analysis:?}");
    let many: Vec<(String, &[u8])> = (0..5100).map(|n| (format!("f{n}"), &b"x"[..])).collect();
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
