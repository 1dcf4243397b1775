//! Text that all readers of mail find in the same place and decode to the same bytes: inline, in multiparts that everybody takes
//! apart alike, in an encoding that keeps all rules. A virus scanner that reads the whole message sees such a text by itself.
//! What is not by the book in the least is none.

use super::fields::{Field, Header};

/// Multiparts of which every reader reads every part.
const MULTIPARTS: [&str; 3] = ["multipart/alternative", "multipart/mixed", "multipart/related"];
/// Character sets in which markup is what it is in ASCII.
const CHARSETS: [&str; 6] = ["us-ascii", "utf-8", "iso-8859-1", "iso-8859-15", "windows-1252", "ascii"];
/// Longest header section, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Longest line of an encoded text, in characters (RFC 2045 sections 6.7 and 6.8).
const LINE_CHARS_MAX: usize = 76;
/// Depth from which on readers may give up.
const DEPTH_MAX: usize = 5;

/// A header section that can be read in one way only.
pub(super) fn is_plain_header(header: &Header, bytes: &[u8]) -> bool {
    let section = bytes.get(..header.body_at).unwrap_or_default();
    let is_sound = !header.invalid_lines && !header.nul && !header.too_long && section.len() <= HEADER_BYTES_MAX;
    // Some take a line of blanks for the end.
    let mut lines = section.split_inclusive(|byte| *byte == b'\n');
    let is_line = |line: &[u8]| {
        let text = line.strip_suffix(b"\r\n");
        text.is_some_and(|text| !text.contains(&b'\r') && (text.is_empty() || !text.trim_ascii().is_empty()))
    };
    let of_content = |field: &&Field| field.name.starts_with("content-");
    is_sound
        && lines.all(is_line)
        && header.fields.iter().filter(of_content).all(|field| is_plain_field(header, field, field.value(bytes)))
}

/// Of content: once, without comments, sections, encoded words and escapes.
fn is_plain_field(header: &Header, field: &Field, value: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b'\r' | b'\n' | b'\t' | b' '..=b'~') && !b"(*\\%".contains(byte);
    !field.has_blank
        && header.count(&field.name) == 1
        && value.iter().all(is_plain)
        && memchr::memmem::find(value, b"=?").is_none()
}

/// Whether a Content-Type field says this type, at once and as it is written here.
fn declares(header: &Header, bytes: &[u8], kind: &str) -> bool {
    header.named("content-type").any(|field| {
        let value = field.value(bytes).to_ascii_lowercase();
        let value = value.strip_prefix(b" ").unwrap_or(&value);
        value.strip_prefix(kind.as_bytes()).is_some_and(|rest| rest.starts_with(b";") || rest.starts_with(b"\r\n"))
    })
}

/// Whether the one boundary is written as everybody writes it.
fn names_boundary(header: &Header, bytes: &[u8], boundary: &str) -> bool {
    header.named("content-type").any(|field| {
        let value = field.text(bytes);
        let lower = value.to_ascii_lowercase();
        let after = lower.find("boundary=").and_then(|at| value.get(at + "boundary=".len()..)).unwrap_or_default();
        let quoted =
            after.strip_prefix('"').map(|rest| rest.strip_prefix(boundary).is_some_and(|rest| rest.starts_with('"')));
        let bare =
            || after.strip_prefix(boundary).is_some_and(|rest| rest.is_empty() || rest.starts_with([';', ' ', '\t']));
        quoted.unwrap_or_else(bare) && lower.matches("boundary").count() == 1
    })
}

/// A multipart at this depth whose parts every reader finds: its boundary has no odd signs, and no line is nearly a delimiter.
pub(super) fn is_plain_multipart(header: &Header, bytes: &[u8], depth: usize, kind: &str, boundary: &str) -> bool {
    let body = bytes.get(header.body_at..).unwrap_or_default();
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"=_.-+/:'".contains(&byte);
    let is_delimiter_or_none = |line: &[u8]| {
        let Some(rest) = line.strip_prefix(b"--") else { return true };
        let text = rest.trim_ascii_end();
        let begins = text.get(..boundary.len()).is_some_and(|head| head.eq_ignore_ascii_case(boundary.as_bytes()));
        let is_exact = |end: &[u8]| rest.strip_prefix(boundary.as_bytes()) == Some(end);
        let is_one = [&b"\r\n"[..], b"--\r\n", b"--"].into_iter().any(is_exact);
        // Comments are taken out of lines by some.
        is_one || !begins && !text.contains(&b'(')
    };
    MULTIPARTS.contains(&kind)
        && depth < DEPTH_MAX
        && declares(header, bytes, kind)
        && names_boundary(header, bytes, boundary)
        && boundary.bytes().all(is_usual)
        && body.split_inclusive(|byte| *byte == b'\n').all(is_delimiter_or_none)
}

/// What a leaf that stands in a plain place says of itself.
pub(super) struct Leaf<'l> {
    pub(super) header: &'l Header,
    /// Its header and body.
    pub(super) bytes: &'l [u8],
    /// Its type.
    pub(super) kind: &'l str,
    pub(super) encoding: &'l str,
    /// As declared.
    pub(super) charset: Option<&'l str>,
    /// Decoded.
    pub(super) content: &'l [u8],
}

impl Leaf<'_> {
    /// Whether it is inline text, all of which every reader decodes to the same.
    pub(super) fn is_plain(&self) -> bool {
        let body = self.bytes.get(self.header.body_at..).unwrap_or_default();
        let on_one_line = |name| {
            self.header.named(name).all(|field| {
                let value = field.value(self.bytes);
                value.iter().filter(|byte| **byte == b'\n').count() < 2
            })
        };
        let is_inline =
            self.header.named("content-disposition").all(|field| field.text(self.bytes).eq_ignore_ascii_case("inline"));
        let charset = self.charset.unwrap_or("utf-8");
        matches!(self.kind, "text/plain" | "text/html")
            && declares(self.header, self.bytes, self.kind)
            && on_one_line("content-transfer-encoding")
            && on_one_line("content-disposition")
            && is_inline
            && CHARSETS.iter().any(|known| known.eq_ignore_ascii_case(charset))
            && self.content.iter().all(|byte| *byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0c'))
            && match self.encoding.to_ascii_lowercase().as_str() {
                "base64" => is_strict_base64(body),
                "quoted-printable" => is_strict_quoted_printable(body),
                _ => false,
            }
    }
}

/// Lines of whole groups, and padding nowhere but at the end.
fn is_strict_base64(body: &[u8]) -> bool {
    let Some(text) = lines(body.trim_ascii_end()) else { return false };
    let mut rest = text.as_slice();
    while let [line, after @ ..] = rest {
        let is_last = after.is_empty();
        let unpadded = if is_last { line.strip_suffix(b"==").or_else(|| line.strip_suffix(b"=")) } else { None };
        let digits = unpadded.unwrap_or(line);
        let are_digits = digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        if line.is_empty() || line.len() % 4 != 0 || line.len() > LINE_CHARS_MAX || !are_digits {
            return false;
        }
        rest = after;
    }
    !text.is_empty()
}

/// Printable signs, escapes of two digits, soft ends of lines; no blanks at the end of a line, which some take away.
fn is_strict_quoted_printable(body: &[u8]) -> bool {
    let is_strict = |line: &&[u8]| {
        let mut rest = line.strip_suffix(b"=").unwrap_or(line);
        let ends_well = !line.ends_with(b" ") && !line.ends_with(b"\t");
        while let [byte, after @ ..] = rest {
            rest = match (byte, after) {
                (b'=', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
                (b'=', _) => return false,
                (b'\t' | b' '..=b'~', _) => after,
                _ => return false,
            };
        }
        ends_well && line.len() <= LINE_CHARS_MAX
    };
    lines(body).is_some_and(|lines| lines.iter().all(is_strict))
}

/// Without their ends, which are CRLF all of them; the last one may have none.
fn lines(body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = body;
    let mut lines = Vec::new();
    while let Some(end) = memchr::memchr(b'\n', rest) {
        lines.push(rest.get(..end)?.strip_suffix(b"\r")?);
        rest = rest.get(end + 1..)?;
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    Some(lines)
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
