//! One pattern: an expression of linear time within bounds, and what is known of it beforehand.

use std::ops::Range;

use regex_automata::{
    Input,
    meta::{self, Regex},
    nfa::thompson::{self, WhichCaptures},
};
use regex_syntax::{ParserBuilder, hir::Hir};

use super::{
    VALUE_BYTES_MAX,
    borders::{Text, by_marks},
    literals,
    place::Place,
};

/// Most bytes that a compiled pattern may have, and that what is worked out while it is looked for may take (threat 29).
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// How deep a pattern may be nested.
const NESTED_MAX: u32 = 40;
/// What all patterns together may cost of one message, which is too complex when it would be more. A unit is one state at one
/// byte, some nanoseconds.
pub(super) const WORK_MAX: u64 = 250_000_000;
/// What one pattern may cost of it where a place is full.
const PATTERN_WORK_MAX: u64 = WORK_MAX / 2;
/// So many states count as one where a table is made of the pattern as it is looked for, as almost always.
const STATES_BY_TABLE: u64 = 16;
/// What a byte costs without a table, beside the states.
const STATES_WITHOUT_TABLE: u64 = 64;

/// A pattern, ready to be looked for.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
    pub(super) hir: Hir,
    /// Choices of folded literals: one of each is in whatever it matches. None: it must be tried on each text.
    pub(super) literals: Vec<Vec<String>>,
    /// Longest match, in bytes, where it has a bound.
    pub(super) longest: Option<usize>,
    states: u64,
    /// Whether it looks for borders of words.
    pub(super) has_words: bool,
    /// Whether something finds the same in marked texts, which is only made where it looks for borders.
    pub(super) is_markable: bool,
    by_marks: Option<Regex>,
}

/// What an expression is compiled with, by itself or with others.
pub(super) fn settings() -> meta::Config {
    meta::Config::new()
        .nfa_size_limit(Some(PATTERN_BYTES_MAX))
        .hybrid_cache_capacity(PATTERN_BYTES_MAX)
        // Nobody asks where something was found, and these take most of the memory.
        .which_captures(WhichCaptures::None)
        .onepass(false)
}

/// What an expression for marked texts is compiled with.
pub(super) fn marked_settings() -> meta::Config {
    settings().utf8_empty(false)
}

impl Pattern {
    /// Compiles one for a place. Letters match in either case unless it begins with `(?-i)`; `^` and `$` are at lines.
    ///
    /// # Errors
    /// In words, what is wrong.
    pub(super) fn new(pattern: &str, place: &Place) -> Result<Self, String> {
        if pattern.is_empty() || pattern.len() > VALUE_BYTES_MAX {
            return Err(format!("a pattern of 1 to {VALUE_BYTES_MAX} bytes is expected"));
        }
        let mut parser = ParserBuilder::new().case_insensitive(true).multi_line(true).nest_limit(NESTED_MAX).build();
        let hir = parser.parse(pattern).map_err(|error| unreadable(&error))?;
        if hir.properties().minimum_len() == Some(0) && hir.properties().look_set().is_empty() {
            return Err("it fits an empty text, and so each".to_owned());
        }
        let too_large = || format!("it is larger than {PATTERN_BYTES_MAX} bytes when compiled: repeat less");
        let nfa = thompson::Config::new().nfa_size_limit(Some(PATTERN_BYTES_MAX)).which_captures(WhichCaptures::None);
        let nfa = thompson::Compiler::new().configure(nfa).build_from_hir(&hir).map_err(|_| too_large())?;
        let states = u64::try_from(nfa.states().len()).unwrap_or(u64::MAX);
        let has_words = hir.properties().look_set().contains_word_unicode();
        let regex = meta::Builder::new().configure(settings()).build_from_hir(&hir);
        let regex = regex.map_err(|_| too_large())?;
        let (literals, longest) = (literals::literals(&hir), hir.properties().maximum_len());
        let marked = by_marks(&hir);
        // One that is too large with marks is looked for without them.
        let compiled = |hir: &Hir| meta::Builder::new().configure(marked_settings()).build_from_hir(hir).ok();
        let by_marks = marked.as_ref().filter(|_| has_words).and_then(compiled);
        let is_markable = marked.is_some() && by_marks.is_some() == has_words;
        let pattern = Self { regex, hir, literals, longest, states, has_words, is_markable, by_marks };
        if pattern.work(place.bytes_max(), false) > PATTERN_WORK_MAX {
            return Err(format!(
                "it is too complex for so long a text ({states} states): repeat less, or write [a-z] for \\w, [0-9] for \\d and \
                 (?-u:\\b) for \\b"
            ));
        }
        Ok(pattern)
    }

    /// What it costs to look through so many bytes. Borders of words are what a table has only for ASCII and for marked texts.
    pub(super) fn work(&self, bytes: usize, is_ascii: bool) -> u64 {
        let of_byte = match (is_ascii || !self.has_words, self.is_markable) {
            (true, _) => self.states.div_ceil(STATES_BY_TABLE),
            (false, true) => self.work_by_marks(),
            (false, false) => self.work_without_table(),
        };
        of_byte.saturating_mul(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// What a byte of a marked text costs: there may be a mark beside each, and each state may look for one.
    pub(super) fn work_by_marks(&self) -> u64 {
        self.states.saturating_mul(2).div_ceil(STATES_BY_TABLE) + 1
    }

    /// What a byte costs where no table can be made.
    pub(super) fn work_without_table(&self) -> u64 {
        self.states.saturating_add(STATES_WITHOUT_TABLE)
    }

    /// How long all its literals are, in bytes.
    pub(super) fn literal_bytes(&self) -> usize {
        self.literals.iter().flatten().map(String::len).sum()
    }

    /// What it takes in memory, in bytes, without what is worked out while it is looked for.
    pub(super) fn bytes(&self) -> usize {
        self.regex.memory_usage() + self.by_marks.as_ref().map_or(0, Regex::memory_usage)
    }

    /// Whether it is within these bytes of a text.
    pub(super) fn is_in(&self, text: &Text<'_>, range: Range<usize>) -> bool {
        match &self.by_marks {
            Some(by_marks) if !text.is_ascii => {
                let marked = text.marked();
                by_marks.is_match(Input::new(&marked.bytes).range(marked.range(&range)))
            }
            Some(_) | None => self.regex.is_match(Input::new(text.text).range(range)),
        }
    }
}

/// On one line: the parser shows the pattern once more, with a mark below.
fn unreadable(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => format!("character {}: {}", error.span().start.column, error.kind()),
        regex_syntax::Error::Translate(error) => format!("character {}: {}", error.span().start.column, error.kind()),
        other => other.to_string(),
    }
}
