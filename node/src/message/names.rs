//! Every name under which some reader may show or save a part: values of `name` and `filename` parameters (RFC 2045 section 5.1),
//! in sections and in percent signs (RFC 2231), in encoded words (RFC 2047), and however those are mixed.

use std::borrow::Cow;

use mail_parser::{decoders::charsets::map::charset_decoder, parsers::MessageStream};

/// A piece of a value.
struct Piece {
    /// Which section it is; a value that has none is its own.
    section: Option<u32>,
    /// As it is written, without quotes.
    value: Vec<u8>,
}

/// The names that a field gives, each once: the value of each parameter, and the sections put together in the order of their
/// numbers and in that of their places. `field` is the value of a Content-Type or Content-Disposition field. `None` when its
/// values overlap more than any reader would let them.
pub(super) fn names(field: &[u8]) -> Option<Vec<String>> {
    let field: Vec<u8> = field.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let mut names = Vec::new();
    for parameter in [&b"filename"[..], b"name"] {
        let pieces = pieces(&field, parameter)?;
        let sections = || pieces.iter().filter(|piece| piece.section.is_some());
        let together = sections().map(|piece| piece.value.as_slice()).collect::<Vec<_>>().concat();
        let mut sorted: Vec<&Piece> = sections().collect();
        sorted.sort_by_key(|piece| piece.section);
        let in_order = sorted.iter().map(|piece| piece.value.as_slice()).collect::<Vec<_>>().concat();
        let values = pieces.iter().filter(|piece| piece.section.is_none()).map(|piece| &piece.value);
        for value in values.chain([&in_order, &together]).filter(|value| !value.is_empty()) {
            for name in [decoded_words(value), undone(value)] {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    Some(names)
}

/// The pieces of a parameter, in their order.
fn pieces(field: &[u8], parameter: &[u8]) -> Option<Vec<Piece>> {
    let lower = field.to_ascii_lowercase();
    let mut pieces = Vec::new();
    let (mut from, mut left) = (0, 2 * field.len());
    while let Some(found) = lower.get(from..).and_then(|rest| memchr::memmem::find(rest, parameter)) {
        let at = from + found;
        from = at + parameter.len();
        let starts = at == 0 || lower.get(at - 1).is_some_and(|byte| !byte.is_ascii_alphanumeric());
        let after = field.get(from..).unwrap_or_default().trim_ascii_start();
        let (section, after) = section(after);
        if let Some(value) = after.trim_ascii_start().strip_prefix(b"=").filter(|_| starts) {
            let value = value_of(value.trim_ascii_start());
            // Pieces that lie in each other would be as long together as the square of the field.
            left = left.checked_sub(value.len())?;
            pieces.push(Piece { section, value });
        }
    }
    Some(pieces)
}

/// `*`, `*7` or `*7*`, and what follows. A star without a number says no more than that the value is encoded.
fn section(after: &[u8]) -> (Option<u32>, &[u8]) {
    let Some(rest) = after.strip_prefix(b"*") else { return (None, after) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at(digits);
    let number = std::str::from_utf8(number).ok().filter(|digits| !digits.is_empty());
    let number = number.map(|digits| digits.parse().unwrap_or(u32::MAX));
    (number, rest.strip_prefix(b"*").unwrap_or(rest))
}

/// Up to the closing quote, or to the semicolon.
fn value_of(rest: &[u8]) -> Vec<u8> {
    let Some(quoted) = rest.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        return rest[..end].trim_ascii_end().to_vec();
    };
    let mut value = Vec::new();
    let mut escaped = false;
    for byte in quoted {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => break,
            byte => {
                value.push(*byte);
                escaped = false;
            }
        }
    }
    value
}

/// A value with its character set taken off and its percent signs undone, where it has any.
fn undone(value: &[u8]) -> String {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, text) = match (parts.next(), parts.next(), parts.next()) {
        (Some(charset), Some(_), Some(text)) => (Some(charset), text),
        _ => (None, value),
    };
    let bytes = without_percents(text);
    match charset.and_then(charset_decoder) {
        Some(decode) => decode(&bytes),
        None => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn without_percents(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let escaped = after.get(..2).filter(|_| *byte == b'%').and_then(|digits| hex::decode(digits).ok());
        match escaped.as_deref() {
            Some([escaped]) => {
                bytes.push(*escaped);
                rest = after.get(2..).unwrap_or_default();
            }
            Some(_) | None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

/// Undoes RFC 2047, which many senders use in parameters against RFC 2231.
pub(super) fn decoded_words(value: &[u8]) -> String {
    let mut line = value.to_vec();
    line.push(b'\n');
    let text = MessageStream::new(&line).parse_unstructured().into_text().map(Cow::into_owned);
    text.unwrap_or_else(|| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_plain_name_is_the_only_one() {
        for field in [
            "attachment; filename=a.exe",
            "attachment; FileName = \"a.exe\"; size=3",
            "x/y; name=\"a.exe",
            "attachment; filename*=utf-8''a%2Eexe",
            "attachment; filename=a\\.exe; filename=\"a.\\exe\"",
        ] {
            assert!(names(field.as_bytes()).expect("names").contains(&"a.exe".to_owned()), "{field}");
        }
        assert_eq!(names(b"attachment; filename=a.exe").expect("names"), ["a.exe"]);
        assert_eq!(names(b"attachment; filename=\"100% sure.pdf\"").expect("names"), ["100% sure.pdf"]);
        assert_eq!(names("name=".repeat(1_000).as_bytes()), None, "each would run to the end of the field");
        assert_eq!(names(b"text/plain; charset=utf-8").expect("names"), [""; 0]);
    }

    #[test]
    fn a_name_in_sections_is_put_together_in_each_way_that_readers_have() {
        for field in [
            "attachment; filename*0=\"a.e\"; filename*1=xe",
            "attachment; filename*1=xe; filename*0=\"a.e\"",
            "attachment;\r\n\tfilename*0*=utf-8''a.e;\r\n\tfilename*1*=%78e",
            "attachment; filename*0*=utf-8''a%2; filename*1*=Eexe",
            "attachment; filename*0*=utf-8''a.; filename*1=%65xe",
            "attachment; filename*0=\"=?utf-8?q?a.e?=\"; filename*1=\" =?utf-8?q?xe?=\"",
            "attachment; filename*7=a.; filename*9=exe",
            "attachment; filename*0=a.; filename*99999999999999999999=exe",
            "attachment; filename*00*=''a.; filename*01*=exe",
            "attachment; filename=a.txt; filename*0=a.; filename*1=exe",
            "attachment; filename*=utf-8''a.txt; filename=a.exe",
            "attachment; filename*='a.exe; filename=\"=?utf-8?b?YS5leGU=?=\"",
            "attachment; filename*=x-none'de'a.exe",
        ] {
            let found = names(field.as_bytes()).expect("names");
            assert!(found.contains(&"a.exe".to_owned()), "{field}: {found:?}");
        }
    }
}
