//! Documents: compound files (old Office, Outlook, installers), OOXML, OpenDocument, RTF, PDF, OneNote, markup, mail.

use std::io::{Cursor, Write as _};

use flate2::{Compression, write::ZlibEncoder};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::looked::looked;

const NAMES: [&str; 16] = [
    "a", "a.doc", "a.xls", "a.ppt", "a.docx", "a.xlsx", "a.pdf", "a.rtf", "a.one", "a.msi", "a.html", "a.svg", "a.csv",
    "a.eml", "a.odt", "a.mht",
];
/// What the pieces of an Office document are called, in this order.
const PARTS: [&str; 10] = [
    "[Content_Types].xml",
    "word/_rels/settings.xml.rels",
    "word/document.xml",
    "xl/vbaProject.bin",
    "xl/externalLinks/externalLink1.xml",
    "word/embeddings/oleObject1.bin",
    "mimetype",
    "content.xml",
    "META-INF/manifest.xml",
    "Basic/Standard/script.xml",
];
/// Parts one piece from the next.
const MARK: &[u8] = b"\xfe\xff\xfe";

/// A file. The low half of its first byte says what it is called, the high half what is made of the rest: nothing, an Office
/// document of its pieces, or a PDF whose streams are its pieces; the second how little a second look may cost.
///
/// # Panics
/// When it is not looked into as promised.
pub fn documents(input: &[u8]) {
    let [how, frugal, content @ ..] = input else { return };
    let content = match how >> 4 {
        1 => zipped(content),
        2 => pdf(content),
        _ => content.to_vec(),
    };
    looked(NAMES[usize::from(how & 15)], &content, *frugal);
}

fn pieces(content: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = content;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        pieces.push(&rest[..at]);
        rest = &rest[at + MARK.len()..];
    }
    pieces.push(rest);
    pieces
}

fn zipped(content: &[u8]) -> Vec<u8> {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, piece) in PARTS.iter().zip(pieces(content)).filter(|(_, piece)| !piece.is_empty()) {
        writer.start_file(*name, stored).expect("into memory");
        writer.write_all(piece).expect("into memory");
    }
    writer.finish().expect("into memory").into_inner()
}

/// Dictionaries and streams in turn, each stream packed.
fn pdf(content: &[u8]) -> Vec<u8> {
    let mut pdf = b"%PDF-1.7\n".to_vec();
    for (number, two) in pieces(content).chunks(2).enumerate() {
        let _ = write!(pdf, "{number} 0 obj\n<<");
        pdf.extend(two[0]);
        pdf.extend(b">>");
        if let Some(stream) = two.get(1) {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(stream).expect("into memory");
            pdf.extend(b"stream\n");
            pdf.extend(encoder.finish().expect("into memory"));
            pdf.extend(b"\nendstream");
        }
        pdf.extend(b"\nendobj\n");
    }
    pdf
}
