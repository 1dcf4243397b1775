//! Which of the formats that are opened some bytes are, by their signatures.

use super::{compound, pdf, tar};

/// A format that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Zip,
    SevenZip,
    Tar,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    Compound,
    ActiveMime,
    Rtf,
    Pdf,
    Notebook,
}

const SIGNATURES: [(&[u8], Format); 11] = [
    (b"PK\x03\x04", Format::Zip),
    (b"PK\x05\x06", Format::Zip),
    (b"7z\xbc\xaf\x27\x1c", Format::SevenZip),
    (b"\x1f\x8b\x08", Format::Gzip),
    (b"BZh", Format::Bzip2),
    (b"\xfd7zXZ\0", Format::Xz),
    (b"\x28\xb5\x2f\xfd", Format::Zstd),
    (compound::SIGNATURE, Format::Compound),
    (b"ActiveMime", Format::ActiveMime),
    (b"{\\rt", Format::Rtf),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3", Format::Notebook),
];

impl Format {
    pub(super) fn of(content: &[u8]) -> Option<Self> {
        if is_skippable_zstd(content) {
            return Some(Self::Zstd);
        }
        let found = SIGNATURES.iter().find(|(signature, _)| content.starts_with(signature));
        let found = found.map(|(_, format)| *format);
        found
            .or_else(|| tar::is_tar(content).then_some(Self::Tar))
            .or_else(|| pdf::is_pdf(content).then_some(Self::Pdf))
    }
}

/// Marks of what is opened wherever it stands in a text: the end of a ZIP archive, the beginning of a 7z archive.
const MARKS: [&[u8]; 2] = [b"PK\x05\x06", b"7z\xbc\xaf\x27\x1c"];
/// Before the mode of a uuencoded file.
const UUENCODED: &[u8] = b"begin ";

/// Whether anything is opened in a text that is shown in the message itself, or may be: never false where something is.
pub(super) fn is_marked(text: &[u8]) -> bool {
    let has_mode = |at: usize| text[at + UUENCODED.len()..].trim_ascii_start().first().is_some_and(u8::is_ascii_digit);
    Format::of(text).is_some()
        || MARKS.iter().any(|mark| memchr::memmem::find(text, mark).is_some())
        || memchr::memmem::find_iter(text, UUENCODED).any(has_mode)
}

/// A zstd file may begin with a frame that is passed over (RFC 8878 section 3.1.2).
fn is_skippable_zstd(content: &[u8]) -> bool {
    matches!(content, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}
