//! Undoes transfer encodings (RFC 2045 section 6) as readers do: strictly where the rules are kept, and where they are not in
//! each way that readers have.

use bytes::Bytes;
use mail_parser::decoders::{base64::base64_decode, quoted_printable::quoted_printable_decode};

use super::Defect;

/// Whether an encoding changes nothing.
pub(super) fn is_identity(encoding: &str) -> bool {
    ["", "7bit", "8bit", "binary"].iter().any(|known| encoding.eq_ignore_ascii_case(known))
}

/// What some bytes are once their encoding is undone, in each way that readers undo it, and what is wrong with them.
pub(super) fn undone(encoding: &str, body: Bytes) -> (Vec<Bytes>, Option<Defect>) {
    if is_identity(encoding) {
        return (vec![body], None);
    }
    if encoding.eq_ignore_ascii_case("base64") {
        return base64(&body);
    }
    if encoding.eq_ignore_ascii_case("quoted-printable") {
        return match quoted_printable_decode(&body) {
            Some(strict) => (vec![Bytes::from(strict)], None),
            None => (vec![lenient_quoted_printable(&body)], Some(Defect::Undecodable)),
        };
    }
    // Some take the word that they know out of what they do not, others leave all as it is.
    let lower = encoding.to_ascii_lowercase();
    let other = if lower.contains("base64") {
        Some(lenient_base64(&body))
    } else {
        lower.contains("quoted").then(|| lenient_quoted_printable(&body))
    };
    let other = other.filter(|other| *other != body);
    (std::iter::once(body).chain(other).collect(), Some(Defect::UnknownEncoding))
}

/// Padding ends the bits of what stands before it, or is passed over.
fn base64(body: &[u8]) -> (Vec<Bytes>, Option<Defect>) {
    let padding = memchr::memchr(b'=', body).unwrap_or(body.len());
    let goes_on = body.get(padding..).unwrap_or_default().iter().any(|byte| is_of_alphabet(*byte));
    let Some(strict) = base64_decode(body).map(Bytes::from) else {
        return (vec![lenient_base64(body)], Some(Defect::Undecodable));
    };
    if !goes_on {
        return (vec![strict], None);
    }
    let lenient = lenient_base64(body);
    let views = if lenient == strict { vec![strict] } else { vec![strict, lenient] };
    (views, Some(Defect::Undecodable))
}

fn is_of_alphabet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// Whatever is not of the alphabet is skipped, padding too.
fn lenient_base64(body: &[u8]) -> Bytes {
    let alphabet: Vec<u8> = body.iter().copied().filter(|byte| is_of_alphabet(*byte)).collect();
    base64_decode(&alphabet).map(Bytes::from).unwrap_or_default()
}

/// What is no escape stays as it is.
fn lenient_quoted_printable(body: &[u8]) -> Bytes {
    let mut plain = Vec::with_capacity(body.len());
    let mut rest = body;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'=' {
            plain.push(*byte);
            continue;
        }
        let blanks = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let line_end = after.get(blanks..).unwrap_or_default();
        if let Some(next) = line_end.strip_prefix(b"\r\n").or_else(|| line_end.strip_prefix(b"\n")) {
            rest = next;
        } else if let [high, low, next @ ..] = after
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            plain.push(u8::try_from(high << 4 | low).unwrap_or_default());
            rest = next;
        } else {
            plain.push(b'=');
        }
    }
    Bytes::from(plain)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::undone;
    use crate::message::Defect;

    fn views(encoding: &str, body: &'static [u8]) -> (Vec<Vec<u8>>, Option<Defect>) {
        let (views, defect) = undone(encoding, Bytes::from_static(body));
        (views.iter().map(|view| view.to_vec()).collect(), defect)
    }

    #[test]
    fn what_keeps_the_rules_is_read_in_one_way() {
        for (encoding, body, expected) in [
            ("", &b"TVqQ"[..], &b"TVqQ"[..]),
            ("8BIT", b"\xff", b"\xff"),
            ("Base64", b"TVqQ\r\nAAM=\r\n", b"MZ\x90\0\x03"),
            ("QUOTED-printable", b"=4D=5a=\r\n!=3D \r\n", b"MZ!=\r\n"),
        ] {
            assert_eq!(views(encoding, body), (vec![expected.to_vec()], None), "{encoding}");
        }
    }

    #[test]
    fn what_breaks_them_is_read_in_each_way_that_readers_have() {
        let broken = Some(Defect::Undecodable);
        assert_eq!(views("base64", b"TV\0qQ!AAM=").0, [b"MZ\x90\0\x03"]);
        assert_eq!(views("base64", b"TVo=\r\nkAAD"), (vec![b"MZ\x90\0\x03".to_vec(), b"MZ\x24\0\0".to_vec()], broken));
        assert_eq!(views("base64", b"TV=qQ"), (vec![b"M\xa9".to_vec(), b"MZ\x90".to_vec()], broken));
        assert_eq!(views("quoted-printable", b"=4D=5A=G1=\t\r\nx=").0, [b"MZ=G1x="]);
        for (encoding, body) in [
            ("base64 (x)", &b"TVqQ"[..]),
            ("\"base64\"", b"TVqQ"),
            ("x-quoted", b"=4D=5A=90"),
            ("base64, 7bit", b"TVqQ"),
        ] {
            assert_eq!(views(encoding, body), (vec![body.to_vec(), b"MZ\x90".to_vec()], Some(Defect::UnknownEncoding)));
        }
        assert_eq!(views("x-uuencode", b"begin").0, [b"begin"]);
    }
}
