//! Cuts the input into command lines. A line ends with CRLF and nothing else (RFC 5321 section 2.3.8).

use bytes::{Buf, BytesMut};

/// What was cut off the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its CRLF; free of CR and LF.
    Complete(BytesMut),
    /// It was longer than allowed; its bytes were thrown away.
    TooLong,
    /// As one of the next two, and it began as a BDAT command: what follows it may be a message, and nobody knows how long.
    BrokenChunk,
    /// A CR or LF stood alone. Nothing up to the next CRLF is taken for a command, because another server on the way may
    /// have seen other lines in it.
    BareEnd,
}

/// Remembers how far the input has been looked through, so that each byte is looked at once.
#[derive(Debug)]
pub struct LineDecoder {
    line_bytes_max: usize,
    /// Bytes of the buffer without a LF.
    scanned: usize,
    /// A LF stood alone since the last CRLF.
    tainted: bool,
    /// The line is too long; only its end is looked for.
    discarding: bool,
    /// The line that is thrown away began as a BDAT command.
    chunk: bool,
}

impl LineDecoder {
    /// For lines of at most `line_bytes_max` bytes with their CRLF.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, scanned: 0, tainted: false, discarding: false, chunk: false }
    }

    /// The next line in the input; `None` when more input is needed. Takes what it has cut off out of `input`, and of a
    /// line that is too long leaves one byte.
    pub fn cut(&mut self, input: &mut BytesMut) -> Option<Line> {
        while let Some(at) = input.iter().skip(self.scanned).position(|byte| *byte == b'\n') {
            let mut line = input.split_to(self.scanned + at + 1);
            self.scanned = 0;
            let ended = line.ends_with(b"\r\n");
            if self.discarding {
                if ended {
                    (self.discarding, self.tainted) = (false, false);
                    return Some(if self.chunk { Line::BrokenChunk } else { Line::TooLong });
                }
                continue;
            }
            if !ended || std::mem::replace(&mut self.tainted, false) {
                self.tainted = !ended;
                return Some(if is_bdat(&line) { Line::BrokenChunk } else { Line::BareEnd });
            }
            if line.len() > self.line_bytes_max {
                return Some(if is_bdat(&line) { Line::BrokenChunk } else { Line::TooLong });
            }
            line.truncate(line.len() - 2);
            return Some(match line.contains(&b'\r') {
                true if is_bdat(&line) => Line::BrokenChunk,
                true => Line::BareEnd,
                false => Line::Complete(line),
            });
        }
        self.scanned = input.len();
        if self.discarding || self.scanned > self.line_bytes_max {
            self.chunk = if self.discarding { self.chunk } else { is_bdat(input) };
            self.discarding = true;
            // The last byte stays: it may be the CR of the CRLF.
            input.advance(self.scanned.saturating_sub(1));
            self.scanned = input.len();
        }
        None
    }
}

/// Whether a line is a BDAT command, however wrong.
#[must_use]
pub fn is_bdat(line: &[u8]) -> bool {
    let (verb, rest) = line.split_at_checked(4).unwrap_or((line, b""));
    verb.eq_ignore_ascii_case(b"BDAT") && !rest.first().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{Line, LineDecoder, is_bdat};

    fn cut_all(chunks: &[&[u8]]) -> Vec<Line> {
        let mut decoder = LineDecoder::new(12);
        let mut input = BytesMut::new();
        let mut lines = Vec::new();
        for chunk in chunks {
            input.extend_from_slice(chunk);
            while let Some(line) = decoder.cut(&mut input) {
                lines.push(line);
            }
            assert!(input.len() <= 12, "memory is bounded");
        }
        lines
    }

    fn complete(text: &str) -> Line {
        Line::Complete(BytesMut::from(text))
    }

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(cut_all(&[b"NOOP\r\nQUIT\r\n"]), [complete("NOOP"), complete("QUIT")]);
        assert_eq!(cut_all(&[b"NO\nRSET\r\nQUIT\r\n"]), [Line::BareEnd, Line::BareEnd, complete("QUIT")]);
        assert_eq!(cut_all(&[b"NO\rOP\r\n", b"\r\r\n\r\n"]), [Line::BareEnd, Line::BareEnd, complete("")]);
        assert_eq!(cut_all(&[b"NOOP\r", b"\n"]), [complete("NOOP")]);
    }

    #[test]
    fn a_broken_line_that_began_as_a_chunk_says_so() {
        assert_eq!(cut_all(&[b"BDAT 9\n\r\n"]), [Line::BrokenChunk, Line::BareEnd]);
        assert_eq!(cut_all(&[b"bdat\r 9\r\n"]), [Line::BrokenChunk]);
        assert_eq!(cut_all(&[b"BDAT 0123456789\r\n"]), [Line::BrokenChunk]);
        let long: Vec<&[u8]> = vec![b"BDAT 01234", b"567890123", b"456\r\nNOOP\r\n"];
        assert_eq!(cut_all(&long), [Line::BrokenChunk, complete("NOOP")]);
        assert!(is_bdat(b"bdat x") && is_bdat(b"BDAT") && is_bdat(b"BDAT\t1") && is_bdat(b"BDAT \xff"));
        assert!(!is_bdat(b"BDATA 1") && !is_bdat(b"BDA") && !is_bdat(b"DATA"));
    }

    #[test]
    fn a_long_line_is_thrown_away_up_to_its_crlf() {
        assert_eq!(cut_all(&[b"0123456789\r\n"]), [complete("0123456789")]);
        assert_eq!(cut_all(&[b"0123456789x\r\nQUIT\r\n"]), [Line::TooLong, complete("QUIT")]);
        let long = [b"x".repeat(9), b"x".repeat(9), b"\nRSET\r".to_vec(), b"\nQUIT\r\n".to_vec()];
        let chunks: Vec<&[u8]> = long.iter().map(Vec::as_slice).collect();
        assert_eq!(cut_all(&chunks), [Line::TooLong, complete("QUIT")]);
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference_to_what_may_be_a_command(
            text in "(a|b|\r|\n|\r\n){0,60}", cuts in proptest::collection::vec(1_usize..8, 0..40),
        ) {
            let bytes = text.as_bytes();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                let to = (from + cut).min(bytes.len());
                chunks.push(&bytes[from..to]);
                from = to;
            }
            chunks.push(&bytes[from..]);
            let singles: Vec<&[u8]> = bytes.chunks(1).collect();
            let commands = |lines: Vec<Line>| -> Vec<Line> {
                lines.into_iter().filter(|line| matches!(line, Line::Complete(_))).collect()
            };
            let decoded = |chunks: &[&[u8]]| {
                let mut decoder = LineDecoder::new(12);
                let mut input = BytesMut::new();
                let mut lines = Vec::new();
                for chunk in chunks {
                    input.extend_from_slice(chunk);
                    while let Some(line) = decoder.cut(&mut input) { lines.push(line); }
                }
                lines
            };
            prop_assert_eq!(commands(decoded(&chunks)), commands(decoded(&singles)));
        }
    }
}
