//! Reads tags and text out of XML and HTML in one linear pass, without building a tree: it is for finding, not for showing.

use std::borrow::Cow;

use super::length_of;

/// The content as text: UTF-8, or UTF-16 where its first bytes say so or look like it.
pub(super) fn text_of(content: &[u8]) -> Cow<'_, str> {
    let wide = |bytes: &[u8], number: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks::<2>().0.iter().map(|two| number(*two));
        Cow::Owned(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
    };
    match content {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [b'<', 0, ..] => wide(content, u16::from_le_bytes),
        [0, b'<', ..] => wide(content, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest),
        _ => String::from_utf8_lossy(content),
    }
}

/// A tag: what stands between `<` and `>`, and the text after it up to the next one.
pub(super) struct Tag<'t> {
    inner: &'t str,
    /// The tag and all that follows it.
    rest: &'t str,
    /// Not unescaped.
    pub(super) text: &'t str,
}

/// All tags; comments and what is quoted in them too, since readers differ about where those end.
pub(super) fn tags(text: &str) -> impl Iterator<Item = Tag<'_>> {
    text.match_indices('<').filter_map(|(at, _)| {
        let rest = text.get(at + 1..)?;
        let piece = rest.split('<').next()?;
        let (inner, text) = piece.split_once('>').unwrap_or((piece, ""));
        Some(Tag { inner, rest, text })
    })
}

/// All tags as XML has them, where a value in quotes may hold `>` but never `<` (XML 1.0 section 2.3): for what strict readers open.
pub(super) fn xml_tags(text: &str) -> impl Iterator<Item = Tag<'_>> {
    tags(text).map(|tag| {
        let piece = tag.rest.split('<').next().unwrap_or_default();
        let mut within = None;
        let end = piece.char_indices().find_map(|(at, c)| match (within, c) {
            (None, '>') => Some(at),
            (None, '"' | '\'') => {
                within = Some(c);
                None
            }
            (Some(quote), c) if c == quote => {
                within = None;
                None
            }
            _ => None,
        });
        match end.filter(|_| !piece.starts_with('!')) {
            Some(end) => Tag { inner: &piece[..end], rest: tag.rest, text: &piece[end + 1..] },
            None => tag,
        }
    })
}

/// How many tags there are at most, for what they cost.
pub(super) fn count(text: &str) -> u64 {
    length_of(memchr::memchr_iter(b'<', text.as_bytes()).count())
}

/// So long a tag may be of which a value holds `<` or `>`.
const QUOTED_BYTES_MAX: usize = 1024;

impl<'t> Tag<'t> {
    /// The tag as a browser reads it, when a value goes on behind the first `<` or `>` because it is in quotes. Takes as long as
    /// `QUOTED_BYTES_MAX` at most.
    pub(super) fn quoted(&self) -> Option<Tag<'t>> {
        let is_open = |quote: char| {
            let after_equals = self.inner.split('=').skip(1).map(str::trim_start);
            self.inner.matches(quote).count() % 2 == 1 && after_equals.into_iter().any(|value| value.starts_with(quote))
        };
        if !is_open('"') && !is_open('\'') {
            return None;
        }
        let near = &self.rest[..self.rest.floor_char_boundary(QUOTED_BYTES_MAX)];
        let (mut within, mut after_equals) = (None, false);
        for (at, c) in near.char_indices() {
            match (within, c) {
                (Some(quote), c) if c == quote => within = None,
                (Some(_), _) => {}
                (None, '"' | '\'') if after_equals => within = Some(c),
                (None, '>') => return Some(Tag { inner: &near[..at], rest: self.rest, text: "" }),
                (None, _) => {}
            }
            after_equals = within.is_none() && (c == '=' || after_equals && c.is_whitespace());
        }
        Some(Tag { inner: near, rest: self.rest, text: "" })
    }

    /// Its name without the prefix of a namespace; a closing one begins with `/`.
    pub(super) fn name(&self) -> &'t str {
        let ends = |c: char| c.is_whitespace() || c == '>' || c == '/';
        let start = usize::from(self.inner.starts_with('/'));
        let end = self.inner.get(start..).and_then(|rest| rest.find(ends)).map_or(self.inner.len(), |at| at + start);
        let name = self.inner.get(..end).unwrap_or_default();
        name.rsplit(':').next().unwrap_or(name)
    }

    /// Its attributes without the prefixes of namespaces, in their order, unescaped.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (&'t str, String)> {
        let mut rest = self.inner;
        std::iter::from_fn(move || {
            let (before, after) = rest.split_once('=')?;
            let name = before.trim_end().rsplit(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '/')).next()?;
            let after = after.trim_start();
            let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
            let (value, next) = match quote {
                Some(quote) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
                None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
            };
            rest = next;
            Some((name.rsplit(':').next().unwrap_or(name), unescaped(value)))
        })
    }

    /// The value of an attribute, whatever its case.
    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        self.attributes().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Entities of HTML that hide what matters here, each also where browsers do without its semicolon.
const ENTITIES: [(&str, char); 12] = [
    ("amp;", '&'),
    ("amp", '&'),
    ("lt;", '<'),
    ("gt;", '>'),
    ("quot;", '"'),
    ("apos;", '\''),
    ("colon;", ':'),
    ("Tab;", '\t'),
    ("NewLine;", '\n'),
    ("lpar;", '('),
    ("rpar;", ')'),
    ("sol;", '/'),
];

/// Text with its entities undone: those by number, and those that hide what matters here.
pub(super) fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        rest = after;
        if let Some((c, after)) = numbered(after) {
            plain.push(c);
            rest = after;
        } else if let Some((name, c)) = ENTITIES.iter().find(|(name, _)| after.starts_with(name)) {
            plain.push(*c);
            rest = &after[name.len()..];
        } else {
            plain.push('&');
        }
    }
    plain.push_str(rest);
    plain
}

/// A character by its number, and what follows it: any number of zeros may stand before it, and it ends with its digits, with
/// or without a semicolon (HTML section 13.2.5.75).
fn numbered(after: &str) -> Option<(char, &str)> {
    let number = after.strip_prefix('#')?;
    let (digits, radix) = number.strip_prefix(['x', 'X']).map_or((number, 10), |digits| (digits, 16));
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let digits_only = digits.get(..end).filter(|digits| !digits.is_empty())?;
    let value = digits_only.chars().filter_map(|digit| digit.to_digit(radix));
    let value = value.fold(0_u32, |value, digit| value.saturating_mul(radix).saturating_add(digit));
    let rest = digits.get(end..).unwrap_or_default();
    let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
    Some((c, rest.strip_prefix(';').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::{tags, text_of, unescaped};

    #[test]
    fn tags_are_read_as_they_stand() {
        let text = "<?xml x?><a:b r:Id='1' Target = \"x&amp;y\" bare=z/>t&#x65;xt</a:b>";
        let tags: Vec<_> = tags(text).collect();
        assert_eq!(
            tags.iter().map(|tag| tag.name()).collect::<Vec<_>>(),
            ["?xml", "b", "/a:b".rsplit(':').next().unwrap_or("")]
        );
        assert_eq!(tags[1].attribute("id").as_deref(), Some("1"));
        assert_eq!(tags[1].attribute("target").as_deref(), Some("x&y"));
        assert_eq!(unescaped(tags[1].text), "text");
        assert_eq!(unescaped("a & b &unknown; &#; &#x; &#zz &"), "a & b &unknown; &#; &#x; &#zz &");
        assert_eq!(unescaped("&#106avascript:&#x6A;&#X6ay&#0000000000000106;"), "javascript:jjyj");
        assert_eq!(unescaped("&#xd800;&#99999999999;&#x6aa"), "\u{fffd}\u{fffd}\u{6aa}");
        assert_eq!(unescaped("java&Tab;script&colon;&#40&amp&lt;"), "java\tscript:(&<");
        assert_eq!(text_of(b"\xff\xfe<\0a\0"), "<a");
        assert_eq!(text_of(b"<\0a\0"), "<a");
    }
}
