//! The tokens of PDF (ISO 32000-1 section 7.2): names with their escapes undone, texts, numbers, words, dictionaries.

/// Longest name or text that is kept, in bytes.
const KEPT_BYTES_MAX: usize = 512;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'c> {
    Name(String),
    Text(String),
    /// A whole number that is not negative; others are 0.
    Number(u32),
    Word(&'c [u8]),
    /// `<<`.
    Open,
    /// `>>`.
    Close,
}

pub(super) struct Tokens<'c> {
    rest: &'c [u8],
    /// What follows the parenthesis that began the last text.
    text: &'c [u8],
}

fn is_regular(byte: u8) -> bool {
    !is_space(byte) && !b"()<>[]{}/%".contains(&byte)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

impl<'c> Tokens<'c> {
    pub(super) fn new(content: &'c [u8]) -> Self {
        Self { rest: content, text: &[] }
    }

    /// What stands between `stream` and an `endstream`: the one that the length leads to, where one of `lengths` does, else the
    /// first. And whether two of them lead to two ends. Reading goes on at the first in any case: readers that repair a file
    /// find objects in the bytes of a stream, too.
    pub(super) fn stream(&mut self, lengths: &[usize]) -> (&'c [u8], bool) {
        const END: &[u8] = b"endstream";
        let rest = self.rest.strip_prefix(b"\r").unwrap_or(self.rest);
        let rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        let first = memchr::memmem::find(rest, END).unwrap_or(rest.len());
        self.rest = &rest[first..];
        let leads = |length: &usize| {
            let after = rest.get(*length..)?;
            let near = &after[..after.len().min(16)];
            near.trim_ascii_start().starts_with(END).then(|| near.len() - near.trim_ascii_start().len() + length)
        };
        let ends: Vec<(usize, usize)> = lengths.iter().filter_map(|length| Some((leads(length)?, *length))).collect();
        let is_unclear = ends.iter().any(|(end, _)| Some(end) != ends.first().map(|(end, _)| end));
        let end = ends.iter().max().map_or(first, |(_, length)| *length);
        (&rest[..end], is_unclear)
    }

    /// Whether the last token was a text in which objects begin, or that has no end.
    pub(super) fn text_holds_objects(&self) -> bool {
        let text = &self.text[..self.text.len() - self.rest.len()];
        !text.is_empty() && (self.rest.is_empty() || memchr::memmem::find(text, b" obj").is_some())
    }

    /// Goes back to just behind the parenthesis that began the last text; by how many bytes.
    pub(super) fn read_again(&mut self) -> usize {
        let back = self.text.len() - self.rest.len();
        self.rest = self.text;
        back
    }

    pub(super) fn next(&mut self) -> Option<Token<'c>> {
        loop {
            let [byte, after @ ..] = self.rest else { return None };
            match byte {
                b'%' => {
                    let end = after.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(after.len());
                    self.rest = &after[end..];
                }
                b'/' => {
                    let (name, rest) = split(after);
                    self.rest = rest;
                    return Some(Token::Name(unescaped(name)));
                }
                b'(' => {
                    (self.rest, self.text) = (after, after);
                    return Some(Token::Text(self.literal()));
                }
                b'<' if after.first() == Some(&b'<') => {
                    self.rest = &after[1..];
                    return Some(Token::Open);
                }
                b'>' if after.first() == Some(&b'>') => {
                    self.rest = &after[1..];
                    return Some(Token::Close);
                }
                b'<' => {
                    let end = memchr::memchr(b'>', after).unwrap_or(after.len());
                    self.rest = after.get(end + 1..).unwrap_or_default();
                    self.text = self.rest;
                    return Some(Token::Text(text(&hexadecimal(&after[..end]))));
                }
                byte if is_regular(*byte) => {
                    let (word, rest) = split(self.rest);
                    self.rest = rest;
                    return Some(of_word(word));
                }
                _ => self.rest = after,
            }
        }
    }

    /// Parentheses in it are paired or escaped.
    fn literal(&mut self) -> String {
        let (mut bytes, mut depth) = (Vec::new(), 1);
        while let [byte, after @ ..] = self.rest {
            self.rest = after;
            let byte = match byte {
                b'(' => {
                    depth += 1;
                    *byte
                }
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                    *byte
                }
                b'\\' => {
                    let digits = self.rest.iter().take(3).take_while(|digit| (b'0'..=b'7').contains(*digit)).count();
                    let (octal, rest) = self.rest.split_at(digits.max(usize::from(!self.rest.is_empty())));
                    self.rest = rest;
                    if digits == 0 {
                        octal.first().copied().unwrap_or_default()
                    } else {
                        octal.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0'))
                    }
                }
                _ => *byte,
            };
            if bytes.len() < KEPT_BYTES_MAX {
                bytes.push(byte);
            }
        }
        text(&bytes)
    }
}

/// What belongs to a word or name, and what follows.
fn split(rest: &[u8]) -> (&[u8], &[u8]) {
    rest.split_at(rest.iter().position(|byte| !is_regular(*byte)).unwrap_or(rest.len()))
}

fn of_word(word: &[u8]) -> Token<'_> {
    if word.first().is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.')) {
        let number = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
        return Token::Number(number.unwrap_or_default());
    }
    Token::Word(word)
}

/// `#4a` in a name is a byte.
fn unescaped(name: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = &name[..name.len().min(KEPT_BYTES_MAX)];
    while let [byte, after @ ..] = rest {
        let escaped = after.get(..2).filter(|_| *byte == b'#').and_then(|digits| hex::decode(digits).ok());
        bytes.push(escaped.as_ref().and_then(|bytes| bytes.first()).copied().unwrap_or(*byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hexadecimal(digits: &[u8]) -> Vec<u8> {
    let digits = digits.iter().filter_map(|digit| char::from(*digit).to_digit(16)).take(2 * KEPT_BYTES_MAX);
    let digits: Vec<u8> = digits.filter_map(|digit| u8::try_from(digit).ok()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or_default()).collect()
}

/// Texts are in UTF-16 where they say so.
fn text(bytes: &[u8]) -> String {
    super::xml::text_of(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Token, Tokens};

    #[test]
    fn a_stream_ends_where_its_length_says_when_that_is_right() {
        let text = b"\r\none endstream two\nendstream three endstream";
        let stream = |lengths: &[usize]| Tokens::new(text).stream(lengths);
        assert_eq!(stream(&[]), (&b"one "[..], false));
        assert_eq!(stream(&[3, 4]), (&b"one "[..], false));
        assert_eq!(stream(&[17]), (&b"one endstream two"[..], false));
        assert_eq!(stream(&[5]), (&b"one "[..], false), "a wrong one");
        assert_eq!(stream(&[999, usize::MAX]), (&b"one "[..], false));
        assert_eq!(stream(&[4, 17]), (&b"one endstream two"[..], true));
        let mut tokens = Tokens::new(text);
        tokens.stream(&[17]);
        assert_eq!(tokens.next(), Some(Token::Word(b"endstream")));
        assert_eq!(tokens.next(), Some(Token::Word(b"two")));
    }

    #[test]
    fn tokens_are_read_as_readers_read_them() {
        let text = b"1 0 obj % a comment >>\n<</J#61vaScript(a\\(b\\051(c))/F<4142>[-7 x]>>stream\nbytes<<endstream";
        let mut tokens = Tokens::new(text);
        let mut all = Vec::new();
        while let Some(token) = tokens.next() {
            if token == Token::Word(b"stream") {
                assert_eq!(tokens.stream(&[]), (&b"bytes<<"[..], false));
            }
            all.push(token);
        }
        let expected = [
            Token::Number(1),
            Token::Number(0),
            Token::Word(b"obj"),
            Token::Open,
            Token::Name("JavaScript".into()),
            Token::Text("a(b)(c)".into()),
            Token::Name("F".into()),
            Token::Text("AB".into()),
            Token::Number(0),
            Token::Word(b"x"),
            Token::Close,
            Token::Word(b"stream"),
            Token::Word(b"endstream"),
        ];
        assert_eq!(all, expected);
    }
}
