//! What a next hop says, read line by line (RFC 5321 section 4.2). Pure. Nonsense is an error, and an error is temporary.

use bytes::BytesMut;

use crate::smtp::reply::{Class, Reply};

/// A line with its line end, in bytes. RFC 5321 section 4.5.3.1.5 allows 512; real servers say more.
pub const LINE_BYTES_MAX: usize = 2048;
/// Lines of one answer.
pub const LINES_MAX: usize = 128;
/// Characters of an answer's text that we pass on.
pub const TEXT_MAX: usize = 300;

/// An answer that breaks the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// A line longer than [`LINE_BYTES_MAX`].
    #[error("a line longer than {LINE_BYTES_MAX} bytes")]
    LongLine,
    /// More than [`LINES_MAX`] lines in one answer.
    #[error("more than {LINES_MAX} lines in one answer")]
    ManyLines,
    /// A line without a reply code from 200 to 599, or with something else than a blank or a hyphen behind it.
    #[error("a line without a reply code")]
    NoCode,
    /// Two reply codes in one answer.
    #[error("two reply codes in one answer")]
    TwoCodes,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    code: u16,
    /// Subject and detail, when the first line carries an enhanced code (RFC 2034) of the reply code's own class.
    enhanced: Option<(u16, u16)>,
    /// Printable ASCII, without codes; at least one.
    lines: Vec<String>,
}

/// The lines of an answer that is not complete yet.
#[derive(Debug, Default)]
pub struct Reader {
    code: Option<u16>,
    lines: Vec<String>,
    /// Bytes of the input without a LF.
    scanned: usize,
}

impl Reader {
    /// Reads on in what has come and takes the lines that it has looked at out of `input`; `None` when more is needed. Then
    /// at most [`LINE_BYTES_MAX`] bytes are left in `input`, which it must be given again with what comes behind them.
    ///
    /// # Errors
    /// When it is nonsense. Nothing on this connection makes sense any more.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Answer>, Nonsense> {
        while let Some(at) = input.iter().skip(self.scanned).position(|&byte| byte == b'\n') {
            let end = self.scanned + at;
            self.scanned = 0;
            let line = input.split_to(end + 1);
            if line.len() > LINE_BYTES_MAX {
                return Err(Nonsense::LongLine);
            }
            // Servers that end their lines with LF alone exist; a wrongly split answer could only fail.
            let line = line.strip_suffix(b"\r\n").unwrap_or(&line[..end]);
            if let Some(answer) = self.line(line)? {
                return Ok(Some(answer));
            }
        }
        self.scanned = input.len();
        if input.len() > LINE_BYTES_MAX { Err(Nonsense::LongLine) } else { Ok(None) }
    }

    /// Takes one line without its line end; gives the answer when this was its last.
    fn line(&mut self, line: &[u8]) -> Result<Option<Answer>, Nonsense> {
        if self.lines.len() == LINES_MAX {
            return Err(Nonsense::ManyLines);
        }
        let (code, last, text) = split(line).ok_or(Nonsense::NoCode)?;
        if self.code.is_some_and(|before| before != code) {
            return Err(Nonsense::TwoCodes);
        }
        self.code = Some(code);
        self.lines.push(printable(text));
        if !last {
            return Ok(None);
        }
        self.code = None;
        Ok(Some(Answer::new(code, std::mem::take(&mut self.lines))))
    }
}

/// Reply code, whether it is the last line, and the text: `250-text`, `250 text`, or `250` alone.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !(b'2'..=b'5').contains(&digits[0]) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

fn printable(text: &[u8]) -> String {
    text.iter().map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' }).collect()
}

/// An enhanced code of this class at the start of a text, and what follows it, perhaps nothing.
fn enhanced(class: u16, text: &str) -> Option<((u16, u16), &str)> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut numbers = word.split('.').map(|part| {
        let plain = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse::<u16>().ok()).flatten()
    });
    let (first, subject, detail) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (numbers.next().is_none() && first == class).then_some(((subject, detail), rest))
}

impl Answer {
    /// Whether it says that a mailbox does not exist: with an enhanced code about the address (RFC 3463 section 3.2), or without one
    /// with a reply code that means it (RFC 5321 section 4.2.3).
    #[must_use]
    pub fn is_no_such_mailbox(&self) -> bool {
        match self.enhanced {
            Some(about) => self.class() == Class::Permanent && matches!(about, (1, 1 | 2 | 3 | 6 | 10)),
            None => matches!(self.code, 550 | 551 | 553),
        }
    }

    fn new(code: u16, mut lines: Vec<String>) -> Self {
        let class = code / 100;
        let first = lines.first().and_then(|line| enhanced(class, line)).map(|(numbers, _)| numbers);
        if first.is_some() {
            for line in &mut lines {
                if let Some((_, rest)) = enhanced(class, line) {
                    *line = rest.to_owned();
                }
            }
        }
        Self { code, enhanced: first, lines }
    }

    /// The three digits.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// What the first digit says.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.code / 100 {
            2 => Class::Done,
            3 => Class::Continue,
            5 => Class::Permanent,
            _ => Class::Temporary,
        }
    }

    /// The lines without codes, as an EHLO answer needs them.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// All lines in one, at most 300 characters.
    #[must_use]
    pub fn text(&self) -> String {
        let joined = self.lines.join(" ");
        joined.trim().chars().take(TEXT_MAX).collect()
    }

    /// A refusal as we pass it on: class and enhanced code kept, and who said it in the note. Whatever is not a refusal is
    /// passed on as temporary: the next hop answered something that does not fit. Codes that would say something about our
    /// own session (421, 500 to 504) become 451 and 550.
    #[must_use]
    pub fn passed_on(&self, next_hop: &str) -> Reply {
        let text = self.quoted();
        let detail = u8::try_from(self.code % 100).unwrap_or_default();
        let reply = match self.class() {
            Class::Permanent => {
                let detail = if detail < 5 { 50 } else { detail };
                Reply::permanent(detail, self.enhanced.unwrap_or((0, 0)), text)
            }
            Class::Temporary => {
                let detail = if detail == 21 { 51 } else { detail };
                Reply::temporary(detail, self.enhanced.unwrap_or((0, 0)), text)
            }
            Class::Done | Class::Continue => Reply::temporary(51, (5, 0), text),
        };
        reply.noted(format!("next hop {next_hop}"))
    }

    /// The same as temporary, whatever its class: for a refusal of the whole session, which says nothing about the mail.
    #[must_use]
    pub fn passed_on_as_temporary(&self, next_hop: &str) -> Reply {
        let reply = Reply::temporary(51, self.enhanced.unwrap_or((3, 0)), self.quoted());
        reply.noted(format!("next hop {next_hop}"))
    }

    /// Without the hop: the sender need not know the hosts of the private network.
    fn quoted(&self) -> String {
        format!("the next hop said: {} {}", self.code, self.text()).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{Answer, LINE_BYTES_MAX, LINES_MAX, Nonsense, Reader};

    fn read(lines: &[&str]) -> Result<Option<Answer>, Nonsense> {
        let mut reader = Reader::default();
        let mut answer = None;
        for line in lines {
            assert_eq!(answer, None, "an answer ended early");
            answer = reader.read(&mut BytesMut::from(format!("{line}\r\n").as_bytes()))?;
        }
        Ok(answer)
    }

    fn passed_on(lines: &[&str]) -> String {
        read(lines).expect("an answer").expect("a whole one").passed_on("mx:25").to_string()
    }

    #[test]
    fn refusals_are_passed_on_with_their_class_and_enhanced_code() {
        let said = "the next hop said:";
        let cases: [(&[&str], &str); 10] = [
            (&["550 5.1.1 no such user"], "550 5.1.1 S 550 no such user"),
            (&["450-4.2.0 greylisted,", "450 4.2.0 come back"], "450 4.2.0 S 450 greylisted, come back"),
            (&["550 5.7.2"], "550 5.7.2 S 550"),
            (&["550"], "550 5.0.0 S 550"),
            (&["571 go away"], "571 5.0.0 S 571 go away"),
            (&["550 4.7.1 mixed up"], "550 5.0.0 S 550 4.7.1 mixed up"),
            (&["421 4.3.2 closing"], "451 4.3.2 S 421 closing"),
            (&["503 5.5.1 sequence"], "550 5.5.1 S 503 sequence"),
            (&["354 what?"], "451 4.5.0 S 354 what?"),
            (&["550 5.1.1 a\u{1b}[31m\u{202e}b"], "550 5.1.1 S 550 a?[31m???b"),
        ];
        for (lines, expected) in cases {
            assert_eq!(passed_on(lines), expected.replace('S', said) + "\r\n");
        }
    }

    #[test]
    fn nonsense_is_recognised() {
        for bad in ["", "2", "25", "hello", "150 x", "650 x", "25a x", "250_x", " 250 x"] {
            assert_eq!(read(&[bad]), Err(Nonsense::NoCode), "{bad:?}");
        }
        assert_eq!(read(&["250-a", "550 b"]), Err(Nonsense::TwoCodes));
        assert_eq!(read(&["250-a"; LINES_MAX + 1]), Err(Nonsense::ManyLines));
    }

    /// A line that is a byte too long is so wherever it is cut, its line end included.
    #[test]
    fn how_the_bytes_arrive_makes_no_difference_to_a_long_line() {
        for (text_bytes, expected) in [(LINE_BYTES_MAX - 6, Ok(true)), (LINE_BYTES_MAX - 5, Err(Nonsense::LongLine))] {
            let line = format!("250 {}\r\n", "x".repeat(text_bytes));
            for cut in [line.len(), line.len() - 1, line.len() - 2, 10] {
                let (mut reader, mut input) = (Reader::default(), BytesMut::from(&line.as_bytes()[..cut]));
                let mut told = reader.read(&mut input);
                if told == Ok(None) {
                    input.extend_from_slice(&line.as_bytes()[cut..]);
                    told = reader.read(&mut input);
                }
                assert_eq!(told.map(|answer| answer.is_some()), expected, "{} bytes cut at {cut}", line.len());
            }
        }
        let endless = &mut BytesMut::from("2".repeat(LINE_BYTES_MAX + 1).as_str());
        assert_eq!(Reader::default().read(endless), Err(Nonsense::LongLine));
    }

    #[test]
    fn lines_keep_what_ehlo_offers() {
        let answer = read(&["250-mx.test", "250-SIZE 100", "250 STARTTLS"]).expect("an answer").expect("a whole one");
        assert_eq!(answer.lines(), ["mx.test", "SIZE 100", "STARTTLS"]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_one_printable_line_or_nonsense(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Some(answer)) = Reader::default().line(&line) {
                let reply = answer.passed_on("mx:25").to_string();
                prop_assert!(reply.starts_with('4') || reply.starts_with('5'));
                prop_assert_eq!(reply.matches(|c: char| c.is_control()).count(), 2);
                prop_assert!(answer.text().len() <= 300);
            }
        }
    }
}
