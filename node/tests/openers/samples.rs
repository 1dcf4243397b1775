//! Messages with attachments of every sort that is opened: few bytes each, and all that `POSTERN_ATTACHMENTS` names.

use std::{
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use node::{
    limits::Limits,
    message::{Message, mime::Part},
};
use zip::{ZipWriter, write::SimpleFileOptions};

/// A message with one attachment.
pub(crate) fn with(name: &str, content: &[u8]) -> Message {
    // Another file, another message.
    let bytes = format!("From: a@b.test\r\nX-Length: {}\r\n\r\nx\r\n", content.len());
    let mut message = Message::parse(bytes.into(), &Limits::default());
    message.parts.push(Part {
        declared: "application/octet-stream".into(),
        names: vec![name.to_owned()],
        attached: true,
        content: Bytes::copy_from_slice(content),
        charset: None,
    });
    message
}

/// A ZIP archive.
pub(crate) fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).expect("starts");
        writer.write_all(content).expect("writes");
    }
    writer.finish().expect("finishes").into_inner()
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("writes");
    encoder.finish().expect("finishes")
}

fn compound() -> Vec<u8> {
    let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new())).expect("a file");
    file.create_stream("WordDocument").and_then(|mut stream| stream.write_all(&[7; 600])).expect("written");
    file.into_inner().into_inner()
}

/// One of each, each with what may be wrong with it.
pub(crate) fn built_in() -> Vec<(String, Message)> {
    let program = b"MZ\x90\0\x03\0";
    let archive = zipped(&[("a.exe", program), ("b.txt", b"x"), ("../../../etc/cron.d/x;`touch canary`", b"x")]);
    let seven_zip = b"7z\xbc\xaf\x27\x1c\0\x04 and nothing sound";
    let page = b"<html><body onload=\"x()\"><script>location='http://x.test'</script></body></html>";
    let pdf =
        b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF";
    let mail = b"From: a@b.test\r\nTo: c@d.test\r\nSubject: x\r\n\r\nbegin 644 a.exe\r\n#35J0\r\n`\r\nend\r\n";
    let samples: Vec<(&str, Vec<u8>)> = vec![
        ("a.txt", b"words".to_vec()),
        ("a.exe", program.to_vec()),
        ("invoice.pdf", program.to_vec()),
        ("a.zip", archive.clone()),
        ("a.zip.gz", gzipped(&archive)),
        ("deep.zip", (0..9).fold(archive.clone(), |inner, _| zipped(&[("in.zip", &inner)]))),
        ("behind.jpg", [b"\xff\xd8\xff\xe0 a picture", &archive[..]].concat()),
        ("cut.zip", archive[..archive.len() / 2].to_vec()),
        ("bomb.zip", zipped(&[("zeros", &vec![0; 12 << 20])])),
        ("bomb.gz", gzipped(&vec![0; 12 << 20])),
        ("a.docx", zipped(&[("[Content_Types].xml", b"<x/>"), ("word/vbaProject.bin", &compound())])),
        ("a.doc", compound()),
        ("cut.doc", compound()[..700].to_vec()),
        ("a.7z", seven_zip.to_vec()),
        ("a.bz2", b"BZh9 nothing sound".to_vec()),
        ("a.xz", b"\xfd7zXZ\0 nothing sound".to_vec()),
        ("a.zst", b"\x28\xb5\x2f\xfd\0\0\x09\0\0abc".to_vec()),
        ("a.rtf", b"{\\rtf1{\\object\\objupdate{\\*\\objclass Package}{\\*\\objdata 0105}}}".to_vec()),
        ("a.pdf", pdf.to_vec()),
        ("a.html", page.to_vec()),
        ("a.csv", b"=cmd|' /C calc'!A0".to_vec()),
        ("a.eml", mail.to_vec()),
        ("a.rar", b"Rar!\x1a\x07\0".to_vec()),
        ("b.bin", b"..AC10 and more".to_vec()),
    ];
    let named = |(name, content): (&str, Vec<u8>)| (name.to_owned(), with(name, &content));
    samples.into_iter().map(named).collect()
}

/// Files of others, which are not part of the repository.
pub(crate) fn of_others() -> Vec<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the folder is named by whoever has one")]
    let folder = std::env::var("POSTERN_ATTACHMENTS").unwrap_or_default();
    let mut found = if folder.is_empty() { Vec::new() } else { files(Path::new(&folder)) };
    found.sort();
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
