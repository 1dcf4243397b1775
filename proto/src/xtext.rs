//! xtext (RFC 3461 section 4): how values of SMTP parameters carry characters that a command line does not take.

/// What a value stands for; nothing when it is no xtext: a character outside `!` to `~`, a bare `+`, a `=`, or a `+` without two
/// upper-case hexadecimal digits.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => decoded.push(hex(bytes.next()?)? << 4 | hex(bytes.next()?)?),
            b'=' => return None,
            b'!'..=b'~' => decoded.push(byte),
            _ => return None,
        }
    }
    Some(decoded)
}

/// What a value stands for when that is printable ASCII; nothing otherwise.
#[must_use]
pub fn decode_printable(text: &str) -> Option<String> {
    let decoded = String::from_utf8(decode(text)?).ok()?;
    decoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)).then_some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, decode_printable};

    #[test]
    fn what_is_no_xtext_is_refused() {
        assert_eq!(decode_printable("a+2Bb+3Dc+20d").as_deref(), Some("a+b=c d"));
        assert_eq!(decode("+00+FF"), Some(vec![0, 255]));
        for wrong in ["a=b", "a b", "+", "+4", "+4g", "+2b", "a\u{e9}", "\t", "\u{7f}"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
        for not_printable in ["+00", "+0D+0A", "+7F", "+C3+A9", "+FF"] {
            assert_eq!(decode_printable(not_printable), None, "{not_printable:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fall_or_grow(text in "\\PC{0,60}") {
            if let Some(decoded) = decode(&text) {
                prop_assert!(decoded.len() <= text.len());
            }
        }
    }
}
