//! What the server says: code, enhanced status code and text, with the status class following from the code.

use std::fmt;

/// Longest line of a reply's text, in characters: with the codes it stays below the 512 bytes of RFC 5321 section 4.5.3.1.5.
const TEXT_CHARS_MAX: usize = 400;

/// Whether a failure is for good. The first digits of both codes follow from it, so "450 5.x.x" cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 2yz and 2.x.x.
    Done,
    /// 3yz; no enhanced code (RFC 2034 section 4).
    Continue,
    /// 4yz and 4.x.x: come back.
    Temporary,
    /// 5yz and 5.x.x: never.
    Permanent,
}

/// A reply to a command (RFC 5321 section 4.2, RFC 2034).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    class: Class,
    /// The last two digits of the reply code.
    detail: u8,
    /// Subject and detail of the enhanced code (RFC 3463), unless the command's reply has none.
    enhanced: Option<(u16, u16)>,
    /// Lines of printable ASCII; at least one.
    lines: Vec<String>,
    /// Printable ASCII that only operators get to see: hosts of the private network. Empty when there is none.
    note: String,
    /// The limit or rule that it tells of, by the name under which it is counted.
    rule: Option<&'static str>,
}

impl Reply {
    /// A reply with an enhanced status code. `detail` is below 100; `text` is reduced to printable ASCII, at most 400
    /// characters.
    #[must_use]
    pub fn new(class: Class, detail: u8, enhanced: (u16, u16), text: impl AsRef<str>) -> Self {
        let lines = vec![printable(text.as_ref())];
        Self { class, detail: detail % 100, enhanced: Some(enhanced), lines, note: String::new(), rule: None }
    }

    /// A reply without an enhanced code: banner, EHLO, HELO, 354.
    #[must_use]
    pub fn plain(class: Class, detail: u8, lines: Vec<String>) -> Self {
        let lines = if lines.is_empty() { vec![String::new()] } else { lines };
        let lines = lines.iter().map(|line| printable(line)).collect();
        Self { class, detail: detail % 100, enhanced: None, lines, note: String::new(), rule: None }
    }

    /// With a note for operators, which never goes over the wire; reduced as a text is.
    #[must_use]
    pub fn noted(self, note: impl AsRef<str>) -> Self {
        Self { note: printable(note.as_ref()), ..self }
    }

    /// With the limit or rule that it tells of, to be counted.
    #[must_use]
    pub fn because(self, rule: &'static str) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// The limit or rule that it tells of.
    #[must_use]
    pub fn rule(&self) -> Option<&'static str> {
        self.rule
    }

    /// The note for operators.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// In one line and with its note: for records that operators read, and for local logs.
    #[must_use]
    pub fn for_operators(&self) -> String {
        let wire = self.to_string().trim_end().replace("\r\n", " ");
        if self.note.is_empty() { wire } else { format!("{wire} ({})", self.note) }
    }

    /// The codes alone. A text may hold an address, so logs carry this.
    #[must_use]
    pub fn codes(&self) -> String {
        let code = self.code();
        self.enhanced
            .map_or_else(|| code.to_string(), |(subject, detail)| format!("{code} {}.{subject}.{detail}", code / 100))
    }

    /// 2yz 2.x.x.
    #[must_use]
    pub fn done(detail: u8, enhanced: (u16, u16), text: impl AsRef<str>) -> Self {
        Self::new(Class::Done, detail, enhanced, text)
    }

    /// 4yz 4.x.x.
    #[must_use]
    pub fn temporary(detail: u8, enhanced: (u16, u16), text: impl AsRef<str>) -> Self {
        Self::new(Class::Temporary, detail, enhanced, text)
    }

    /// 5yz 5.x.x.
    #[must_use]
    pub fn permanent(detail: u8, enhanced: (u16, u16), text: impl AsRef<str>) -> Self {
        Self::new(Class::Permanent, detail, enhanced, text)
    }

    /// Whether it says yes, come back, or no.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether it says that there is no such mailbox (RFC 3463 section 3.2).
    #[must_use]
    pub fn is_no_such_mailbox(&self) -> bool {
        self.class == Class::Permanent && self.enhanced == Some((1, 1))
    }

    /// The three digits.
    #[must_use]
    pub fn code(&self) -> u16 {
        let first = match self.class {
            Class::Done => 200,
            Class::Continue => 300,
            Class::Temporary => 400,
            Class::Permanent => 500,
        };
        first + u16::from(self.detail)
    }
}

fn printable(text: &str) -> String {
    if text.len() <= TEXT_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(TEXT_CHARS_MAX).collect()
}

/// As it goes over the wire, each line ended by CRLF.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code();
        for (at, line) in self.lines.iter().enumerate() {
            let separator = if at + 1 == self.lines.len() { ' ' } else { '-' };
            write!(f, "{code}{separator}")?;
            if let Some((subject, detail)) = self.enhanced {
                write!(f, "{}.{subject}.{detail} ", code / 100)?;
            }
            write!(f, "{line}\r\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Reply};

    #[test]
    fn a_note_is_for_operators_and_never_on_the_wire() {
        let reply = Reply::temporary(51, (4, 1), "no answer").noted("next hop 10.1.2.3:25\r\n");
        assert_eq!(reply.to_string(), "451 4.4.1 no answer\r\n");
        assert_eq!(reply.for_operators(), "451 4.4.1 no answer (next hop 10.1.2.3:25??)");
        assert_eq!(reply.codes(), "451 4.4.1");
        assert_eq!(Reply::plain(Class::Done, 50, vec!["a".into(), "b".into()]).for_operators(), "250-a 250 b");
    }

    #[test]
    fn the_status_class_follows_from_the_code() {
        assert_eq!(Reply::temporary(51, (3, 0), "come back").to_string(), "451 4.3.0 come back\r\n");
        let ehlo = Reply::plain(Class::Done, 50, vec!["mx.gov.test".into(), "SIZE 10".into()]);
        assert_eq!(ehlo.to_string(), "250-mx.gov.test\r\n250 SIZE 10\r\n");
        assert_eq!(Reply::permanent(50, (7, 1), "a\r\n250 b\u{202e}").to_string(), "550 5.7.1 a??250 b?\r\n");
    }
}
