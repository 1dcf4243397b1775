//! Borders of words as signs of the text: no table can be made of a pattern that looks for them in a text that is not ASCII, and
//! without a table it takes many times as long. So each border is marked in the text, by a byte that no text has, and a pattern
//! looks for the marks.

use std::{cell::OnceCell, ops::Range};

use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

/// Not in UTF-8.
const MARK: u8 = 0xff;
/// Looks of which two may not follow each other without a character between them: the mark is there once.
const BORDER: u8 = 1;
const START: u8 = 2;
const END: u8 = 4;

/// A text that is looked through.
pub(super) struct Text<'t> {
    pub(super) text: &'t str,
    pub(super) is_ascii: bool,
    marked: OnceCell<Marked>,
}

impl<'t> Text<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, is_ascii: text.is_ascii(), marked: OnceCell::new() }
    }

    /// With its borders marked, which is done when it is needed at first.
    pub(super) fn marked(&self) -> &Marked {
        self.marked.get_or_init(|| Marked::of(self.text))
    }
}

/// A text with its borders marked.
#[derive(Clone, Debug)]
pub(super) struct Marked {
    pub(super) bytes: Vec<u8>,
    /// Where borders are in the text as it was.
    at: Vec<usize>,
}

impl Marked {
    pub(super) fn of(text: &str) -> Self {
        let mut marked = Self { bytes: Vec::with_capacity(text.len() + text.len() / 2), at: Vec::new() };
        let mut in_word = false;
        for (at, c) in text.char_indices() {
            let is_word = regex_syntax::is_word_character(c);
            if is_word != in_word {
                marked.mark(at);
            }
            in_word = is_word;
            marked.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if in_word {
            marked.mark(text.len());
        }
        marked
    }

    fn mark(&mut self, at: usize) {
        self.at.push(at);
        self.bytes.push(MARK);
    }

    /// Where a range of the text is now, with the borders at its ends.
    pub(super) fn range(&self, of: &Range<usize>) -> Range<usize> {
        let before = self.at.partition_point(|at| *at < of.start);
        of.start + before..of.end + self.at.partition_point(|at| *at <= of.end)
    }
}

/// The pattern that finds in marked texts what this one finds in texts as they are; `None` where it asks for more than a mark can
/// tell.
pub(super) fn by_marks(pattern: &Hir) -> Option<Hir> {
    of(pattern).map(|(pattern, _)| pattern)
}

/// Looks that a part of a pattern may begin or end with, and whether it may do without a character.
#[derive(Clone, Copy, Default)]
struct Ends {
    first: u8,
    last: u8,
    empty: bool,
}

impl Ends {
    const CHARACTER: Self = Self { first: 0, last: 0, empty: false };
    const EMPTY: Self = Self { first: 0, last: 0, empty: true };

    fn look(kind: u8) -> Self {
        Self { first: kind, last: kind, empty: true }
    }

    fn then(self, next: Self) -> Option<Self> {
        let clash = self.last & (BORDER | END) != 0 && next.first & BORDER != 0
            || self.last & BORDER != 0 && next.first & START != 0;
        (!clash).then_some(Self {
            first: self.first | if self.empty { next.first } else { 0 },
            last: next.last | if next.empty { self.last } else { 0 },
            empty: self.empty && next.empty,
        })
    }
}

fn mark() -> Hir {
    Hir::literal([MARK])
}

/// A mark that nobody asks for.
fn perhaps_mark() -> Hir {
    Hir::repetition(Repetition { min: 0, max: Some(1), greedy: true, sub: Box::new(mark()) })
}

fn of(pattern: &Hir) -> Option<(Hir, Ends)> {
    Some(match pattern.kind() {
        HirKind::Empty => (Hir::empty(), Ends::EMPTY),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            let one = |c: char| [Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()), perhaps_mark()];
            (Hir::concat(text.chars().flat_map(one).collect()), Ends::CHARACTER)
        }
        HirKind::Class(class) => (Hir::concat(vec![Hir::class(class.clone()), perhaps_mark()]), Ends::CHARACTER),
        HirKind::Look(look) => match look {
            Look::WordUnicode => (mark(), Ends::look(BORDER)),
            Look::Start | Look::StartLF => (Hir::concat(vec![Hir::look(*look), perhaps_mark()]), Ends::look(START)),
            Look::End | Look::EndLF => (Hir::look(*look), Ends::look(END)),
            Look::StartCRLF
            | Look::EndCRLF
            | Look::WordAscii
            | Look::WordAsciiNegate
            | Look::WordUnicodeNegate
            | Look::WordStartAscii
            | Look::WordEndAscii
            | Look::WordStartUnicode
            | Look::WordEndUnicode
            | Look::WordStartHalfAscii
            | Look::WordEndHalfAscii
            | Look::WordStartHalfUnicode
            | Look::WordEndHalfUnicode => return None,
        },
        HirKind::Capture(capture) => of(&capture.sub)?,
        HirKind::Repetition(repetition) => {
            let (sub, ends) = of(&repetition.sub)?;
            if repetition.max.is_none_or(|max| max > 1) {
                ends.then(ends)?;
            }
            let ends = Ends { empty: ends.empty || repetition.min == 0, ..ends };
            (Hir::repetition(Repetition { sub: Box::new(sub), ..repetition.clone() }), ends)
        }
        HirKind::Concat(parts) => {
            let mut all = (Vec::new(), Ends::EMPTY);
            for part in parts {
                let (part, ends) = of(part)?;
                all.0.push(part);
                all.1 = all.1.then(ends)?;
            }
            (Hir::concat(all.0), all.1)
        }
        HirKind::Alternation(ways) => {
            let ways = ways.iter().map(of).collect::<Option<Vec<_>>>()?;
            let either = |one: Ends, other: Ends| Ends {
                first: one.first | other.first,
                last: one.last | other.last,
                empty: one.empty || other.empty,
            };
            let ends = ways.iter().fold(Ends::CHARACTER, |all, (_, ends)| either(all, *ends));
            (Hir::alternation(ways.into_iter().map(|(way, _)| way).collect()), ends)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex_automata::{Input, meta::Regex};

    use super::{Marked, by_marks};
    use crate::rules::pattern::{marked_settings, settings};

    fn parsed(pattern: &str) -> regex_syntax::hir::Hir {
        regex_syntax::ParserBuilder::new().case_insensitive(true).multi_line(true).build().parse(pattern).expect("read")
    }

    const EXACT: [&str; 24] = [
        r"\bab\b",
        r"\bab",
        r"ab\b",
        r"\b\w+\b",
        r"a\b.?b",
        r"^\bab",
        r"ab\b$",
        r"\bä",
        r"ä\b",
        r"ab",
        r"a.{0,3}b\b",
        r"(?:\ba|b)+\b",
        r"\b(?:ab|ba|ä b)\b",
        r"(?:^|\W)ab\b",
        r"a*\b-",
        r"\b",
        r"^a",
        r"b$",
        r"\A\bab",
        r"b\b\z",
        r"[^a]\bb",
        r"(?:ab|a)\bä?",
        r"\ba(?:b\b)?",
        r"\W\b.\b",
    ];

    /// Each as it is, and by marks.
    static BOTH: LazyLock<Vec<(&str, Regex, Regex)>> = LazyLock::new(|| {
        let both = |pattern: &'static str| {
            let hir = parsed(pattern);
            let plain = Regex::builder().configure(settings()).build_from_hir(&hir).expect("compiled");
            let hir = by_marks(&hir).expect(pattern);
            let by_marks = Regex::builder().configure(marked_settings()).build_from_hir(&hir).expect("compiled");
            (pattern, plain, by_marks)
        };
        EXACT.into_iter().map(both).collect()
    });

    #[test]
    fn what_a_mark_cannot_tell_is_told() {
        for pattern in [r"a\Bb", r"\b{start}a", r"(?-u:\b)a", r"\b\ba", r"(?:\b|a)\bb", r"(?:\b-?)+", r"a$\b", r"\b^a"]
        {
            assert!(by_marks(&parsed(pattern)).is_none(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn marks_find_what_borders_find(text in "[abBäÄ1_\n -]{0,12}", from in 0..12_usize, length in 0..12_usize) {
            let marked = Marked::of(&text);
            let place = |at: usize| (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            let range = place(from.min(text.len()))..place((from + length).min(text.len()));
            for (pattern, plain, by_marks) in BOTH.iter() {
                for range in [0..text.len(), range.clone()] {
                    let expected = plain.is_match(Input::new(&text).range(range.clone()));
                    let found = by_marks.is_match(Input::new(&marked.bytes).range(marked.range(&range)));
                    prop_assert_eq!(found, expected, "{} in {:?} of {:?}", pattern, range, text);
                }
            }
        }
    }
}
