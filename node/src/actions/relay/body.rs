//! The message as it goes out after DATA (RFC 5321 section 4.5.2): dots stuffed, CRLF only. Pure.

/// Whether each CR is followed by LF and each LF comes after CR. What is not so may end DATA early at a lenient receiver
/// and smuggle a second message (CVE-2023-51764), so it is never sent.
pub(super) fn has_clean_line_ends(message: &[u8]) -> bool {
    let mut rest = message;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        match rest.get(at..).unwrap_or_default() {
            [b'\r', b'\n', after @ ..] => rest = after,
            _ => return false,
        }
    }
    true
}

/// The pieces of a message in the order they are written, with the final dot. Each line that begins with a dot gets one
/// more; a last line without its CRLF gets it.
pub(super) fn stuffed(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first: &[u8] = if message.starts_with(b".") { b"." } else { b"" };
    // Pieces end where a line begins with a dot.
    let dots = memchr::memmem::find_iter(message, b"\n.").map(|at| at + 1);
    let ends = dots.chain([message.len()]).scan(0, |from, to| {
        let piece = message.get(*from..to).unwrap_or_default();
        *from = to;
        Some(piece)
    });
    let lines = ends.enumerate().flat_map(move |(at, piece)| [if at == 0 { first } else { b"." }, piece]);
    let line_end: &[u8] = if message.is_empty() || message.ends_with(b"\r\n") { b"" } else { b"\r\n" };
    lines.chain([line_end, b".\r\n"]).filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{has_clean_line_ends, stuffed};

    fn sent(message: &[u8]) -> Vec<u8> {
        stuffed(message).flatten().copied().collect()
    }

    /// What a receiver reads that takes any of the known wrong ends of DATA for an end: the messages, unstuffed.
    fn read_leniently(bytes: &[u8]) -> Vec<Vec<u8>> {
        let ends: [&[u8]; 7] = [b"\r\n.\r\n", b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\n.\r"];
        let mut messages = Vec::new();
        // As if after the CRLF of the 354.
        let mut rest = [b"\r\n", bytes].concat();
        while rest.len() > 2 {
            let end = (0..rest.len()).find_map(|at| {
                let end = ends.iter().filter(|end| rest[at..].starts_with(end)).max_by_key(|end| end.len())?;
                Some((at, end.len()))
            });
            let Some((at, len)) = end else { return vec![b"unfinished".to_vec(); 9] };
            messages.push(String::from_utf8_lossy(&rest[..at]).replace("\r\n..", "\r\n.").into_bytes());
            rest = [b"\r\n", &rest[at + len..]].concat();
        }
        messages
    }

    #[test]
    fn dots_are_stuffed_and_the_end_is_marked() {
        assert_eq!(sent(b""), b".\r\n");
        assert_eq!(sent(b"a\r\n"), b"a\r\n.\r\n");
        assert_eq!(sent(b"a"), b"a\r\n.\r\n");
        assert_eq!(sent(b".\r\n..b\r\nc.\r\n"), b"..\r\n...b\r\nc.\r\n.\r\n");
    }

    #[test]
    fn a_lone_cr_or_lf_is_noticed_wherever_it_is() {
        for clean in ["", "a", "\r\n", "a\r\n\r\nb\r\n"] {
            assert!(has_clean_line_ends(clean.as_bytes()), "{clean:?}");
        }
        for bad in ["\n", "\r", "a\nb", "a\rb", "a\r\r\n", "a\n\r\n", "a\r\n\r", "a\r\n.\n", "a\n.\r\n", "\r.\r"] {
            assert!(!has_clean_line_ends(bad.as_bytes()), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_sent_is_exactly_one_message_for_a_lenient_receiver(message in "(a|\\.|\r\n){0,24}") {
            prop_assert!(has_clean_line_ends(message.as_bytes()));
            let messages = read_leniently(&sent(message.as_bytes()));
            let mut expected = format!("\r\n{message}");
            if message.is_empty() || message.ends_with("\r\n") {
                expected.truncate(expected.len() - 2);
            }
            prop_assert_eq!(messages, vec![expected.into_bytes()]);
        }
    }
}
