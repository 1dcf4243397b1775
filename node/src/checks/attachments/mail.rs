//! Looks into mail that comes as a file, into uuencoded files in text, and into notebooks of OneNote, which carry files as they
//! are.

use bytes::Bytes;

use super::{Look, Place, kinds, length_of};
use crate::{
    limits::Limits,
    message::{Message, fields::Header},
};

/// Fields of which a message has two at least; text that speaks of mail has fewer at its very beginning.
const FIELDS: [&str; 9] =
    ["from", "to", "received", "subject", "date", "mime-version", "content-type", "message-id", "return-path"];
/// So far into a file it is asked whether it is mail.
const HEAD_BYTES: usize = 16 * 1024;
/// Longest line that begins a uuencoded file: its mode and name.
const BEGIN_BYTES_MAX: usize = 1024;
/// Work for each byte of a message that is taken apart.
const PARSING_COST: u64 = 8;
/// The files of a notebook (MS-ONESTORE 2.6.13): a mark, a length, twelve bytes, the file.
const NOTEBOOK_FILE: &[u8] = b"\xe7\x16\xe3\xbd\x65\x26\x11\x45\xa4\xc4\x8d\x4d\x0b\x7a\x9e\xac";
const NOTEBOOK_HEADER_BYTES: usize = 36;

/// Whether it begins with the header of a message.
pub(super) fn is_mail(content: &[u8]) -> bool {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content).trim_ascii_start();
    if !content.first().is_some_and(u8::is_ascii_alphabetic) {
        return false;
    }
    let head = &content[..content.len().min(HEAD_BYTES)];
    let header = Header::split(head, HEAD_BYTES);
    let first = header.fields.first().is_some_and(|field| field.span.start == 0);
    first && FIELDS.iter().filter(|name| header.named(name).next().is_some()).count() >= 2
}

impl Look<'_> {
    pub(super) fn mail(&mut self, place: &Place, content: &[u8]) {
        if self.budget.work(length_of(content.len()).saturating_mul(PARSING_COST)).is_err() {
            return;
        }
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content).trim_ascii_start();
        let limits = Limits { parts_max: 1000, ..Limits::default() };
        let message = Message::parse(Bytes::copy_from_slice(content), &limits);
        if message.defects.iter().any(|defect| defect.breaks()) {
            self.analysis.opaque(format!("{} is mail that is broken or too complex", place.shown));
        }
        // A page that was saved as mail is shown by a browser.
        let is_page = place.names.iter().filter_map(|name| kinds::extension(name)).any(|ending| ending != "eml");
        for part in &message.parts {
            if self.budget.entry().is_err() || self.budget.unpacked(part.content.len(), 1).is_err() {
                return;
            }
            let mut inside = place.inside(part.names.first().map(String::as_str));
            inside.names.clone_from(&part.names);
            inside.is_body = Place::of(part).is_body && !is_page;
            self.look(&inside, &part.content);
        }
    }

    /// `begin 644 NAME`, lines whose first sign says how long they are, `end`.
    pub(super) fn uuencoded(&mut self, place: &Place, content: &[u8]) {
        let mut rest = content;
        while let Some(at) = memchr::memmem::find(rest, b"begin ") {
            let is_line = at == 0 || rest.get(at - 1) == Some(&b'\n');
            rest = &rest[at + 6..];
            if !is_line {
                continue;
            }
            let near = &rest[..rest.len().min(BEGIN_BYTES_MAX)];
            let line = near[..memchr::memchr(b'\n', near).unwrap_or(near.len())].trim_ascii();
            let (mode, name) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
            if !(3..=4).contains(&mode.len()) || !mode.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
                continue;
            }
            let name = String::from_utf8_lossy(&name[..name.len().min(1000)]).trim().to_owned();
            let after = memchr::memchr(b'\n', rest).and_then(|end| rest.get(end + 1..)).unwrap_or_default();
            let file = undo_uuencode(after);
            if file.is_empty() {
                continue;
            }
            if self.budget.entry().is_err() || self.budget.unpacked(file.len(), 1).is_err() {
                return;
            }
            self.look(&place.inside(Some(&name)), &file);
            rest = after;
        }
    }

    pub(super) fn notebook(&mut self, place: &Place, content: &[u8]) {
        for at in memchr::memmem::find_iter(content, NOTEBOOK_FILE) {
            let Some(header) = content.get(at + 16..at + 24).and_then(|length| length.try_into().ok()) else {
                continue;
            };
            let length = usize::try_from(u64::from_le_bytes(header)).unwrap_or(usize::MAX);
            let Some(file) = content.get(at + NOTEBOOK_HEADER_BYTES..) else { continue };
            if self.budget.entry().is_err() {
                return;
            }
            self.look(&place.inside(None), &file[..file.len().min(length)]);
        }
    }
}

fn undo_uuencode(text: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let [length @ b'!'..=b'M', packed @ ..] = line else { break };
        let from = file.len();
        let value = |byte: Option<&u8>| u32::from(byte.copied().unwrap_or(b' ').wrapping_sub(b' ') & 0x3f);
        for four in packed.chunks(4) {
            let bits = (0..4).fold(0, |bits, at| bits << 6 | value(four.get(at)));
            file.extend(bits.to_be_bytes().into_iter().skip(1));
        }
        file.truncate(from + usize::from(length - b' '));
    }
    file
}

#[cfg(test)]
mod tests {
    use super::{is_mail, undo_uuencode};

    #[test]
    fn uuencoded_lines_are_undone() {
        assert_eq!(undo_uuencode(b"#0V%T\r\n`\r\nend\r\n"), b"Cat");
        assert_eq!(undo_uuencode(b"words that are none\n"), b"");
    }

    #[test]
    fn mail_is_told_by_the_fields_at_its_beginning() {
        assert!(is_mail(b"Received: from a\r\nFrom: a@b.test\r\n\r\nx"));
        assert!(is_mail(b"\xef\xbb\xbfMIME-Version: 1.0\nContent-Type: text/html\n\n"));
        assert!(
            !is_mail(b"Hello,\r\n\r\nFrom: a\r\nTo: b\r\n") && !is_mail(b"Subject: only this\r\n\r\n") && !is_mail(b"")
        );
    }
}
