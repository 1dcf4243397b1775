//! Splits a header section into its fields (RFC 5322 section 2.2) in one linear pass: every reader of the header in this
//! crate sees the same fields.

use std::ops::Range;

/// One header field, as bytes in the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in lower case; white space before the colon is taken off.
    pub name: String,
    /// Whether there was such white space.
    pub has_blank: bool,
    /// Where the whole field is, name to the last CRLF of its folded lines.
    pub span: Range<usize>,
    /// Where the value begins, after the colon; it ends with the span.
    pub value_at: usize,
}

impl Field {
    /// The value's bytes with folding and its end of line.
    #[must_use]
    pub fn value<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.value_at..self.span.end).unwrap_or_default()
    }

    /// The value as text on one line, trimmed.
    #[must_use]
    pub fn text(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(self.value(bytes));
        text.replace(['\r', '\n'], "").trim().to_owned()
    }
}

/// A header section, split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// In the order of the message.
    pub fields: Vec<Field>,
    /// Where the body begins: after the empty line, or the end when there is none.
    pub body_at: usize,
    /// Whether a line was neither a field nor a continuation, or a name had white space before its colon.
    pub invalid_lines: bool,
    /// Whether there is a NUL in it.
    pub nul: bool,
    /// Whether it is longer than the limit; `fields` ends there.
    pub too_long: bool,
}

impl Header {
    /// Splits a header section of at most `bytes_max` bytes. Lines end with CRLF; a bare LF ends a line as well, so that
    /// an embedded part of a careless sender is read like its reader would.
    #[must_use]
    pub fn split(bytes: &[u8], bytes_max: usize) -> Self {
        let mut header = Self { body_at: bytes.len(), ..Self::default() };
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |line| at + line + 1);
            let line = &bytes[at..end];
            if matches!(line, b"\r\n" | b"\n") {
                header.body_at = end;
                return header;
            }
            if end > bytes_max {
                header.too_long = true;
                header.body_at = body_after(bytes, at);
                return header;
            }
            header.nul |= line.contains(&0);
            header.line(at..end, line);
            at = end;
        }
        header
    }

    fn line(&mut self, span: Range<usize>, line: &[u8]) {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            match self.fields.last_mut() {
                Some(field) => field.span.end = span.end,
                None => self.invalid_lines = true,
            }
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            self.invalid_lines = true;
            return;
        };
        let name = line.get(..colon).unwrap_or_default();
        let trimmed = name.trim_ascii_end();
        if trimmed.is_empty() || !trimmed.iter().all(u8::is_ascii_graphic) {
            self.invalid_lines = true;
            return;
        }
        let has_blank = trimmed.len() != name.len();
        self.invalid_lines |= has_blank;
        let name = String::from_utf8_lossy(trimmed).to_ascii_lowercase();
        self.fields.push(Field { name, has_blank, value_at: span.start + colon + 1, span });
    }

    /// The fields of a name, in lower case.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |field| field.name == name)
    }

    /// How many fields there are of a name, in lower case.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.named(name).count()
    }
}

fn body_after(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| from + at + 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Header;

    fn names(text: &str) -> (Vec<String>, Header) {
        let header = Header::split(text.as_bytes(), 1000);
        (header.fields.iter().map(|field| field.name.clone()).collect(), header)
    }

    #[test]
    fn folded_lines_belong_to_their_field() {
        let text = "Subject: a\r\n\tb\r\n c\r\nFROM:x\r\n\r\nbody: no\r\n";
        let (names, header) = names(text);
        assert_eq!(names, ["subject", "from"]);
        assert_eq!(header.fields[0].text(text.as_bytes()), "a\tb c");
        assert_eq!(&text[header.body_at..], "body: no\r\n");
        assert!(!header.invalid_lines && !header.nul && !header.too_long);
    }

    #[test]
    fn what_breaks_the_syntax_is_noticed_and_the_names_are_still_seen() {
        let (names_seen, header) = names("From : a@b.test\r\nnonsense\r\nSubject: x\r\n\r\n");
        assert_eq!(names_seen, ["from", "subject"]);
        assert!(header.invalid_lines);
        assert!(names(" folded first: x\r\n\r\n").1.invalid_lines);
        assert!(names("A: \0\r\n\r\n").1.nul);
    }

    #[test]
    fn a_header_over_the_limit_ends_at_the_limit_and_its_body_is_still_found() {
        let text = format!("A: {}\r\nB: x\r\n\r\nbody", "y".repeat(990));
        let (names, header) = names(&text);
        assert!(header.too_long);
        assert_eq!(names, ["a"]);
        assert_eq!(&text[header.body_at..], "body");
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_into_fields_that_lie_within_them(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let header = Header::split(&bytes, 300);
            let mut end = 0;
            for field in &header.fields {
                prop_assert!(field.span.start >= end && field.span.end <= header.body_at);
                prop_assert!(field.value_at <= field.span.end && field.value_at > field.span.start);
                end = field.span.end;
            }
            prop_assert!(header.body_at <= bytes.len());
        }
    }
}
