//! Looks for all patterns of one place at once: one pass over a text finds their literals, and only patterns of which all are there
//! that they cannot do without are tried, around one of them where their matches are short. Those without a literal are one expression, in one more pass.

use std::{collections::HashMap, ops::Range};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex_automata::{
    Input, PatternSet,
    meta::{self, Regex},
};
use regex_syntax::hir::Hir;

use super::{
    borders::{Text, by_marks},
    literals::folded,
    pattern::{Pattern, WORK_MAX, marked_settings, settings},
    place::Place,
};

/// Patterns of one place without a literal, at most: each of them is tried on each text.
pub(super) const WITHOUT_LITERAL_MAX: usize = 32;
/// Literals of one place, in bytes, of which a table is made: it is several times faster than what takes less memory.
const TABLE_LITERALS_BYTES_MAX: usize = 32 * 1024;
/// Places of one literal around which its patterns are tried one by one; then they are tried on the whole text.
const TRIES_MAX: u8 = 16;

/// What a hit of a literal costs.
const HIT_WORK: u64 = 2;

/// What was found, and what it has cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    patterns: Vec<bool>,
    found: Vec<usize>,
    work_left: u64,
    /// Patterns that were tried, each as often as it was.
    pub tried: usize,
    /// Whether the work came to an end before the texts did: then not all was found.
    pub is_cut: bool,
}

impl Found {
    pub(super) fn nothing(patterns: usize) -> Self {
        Self { patterns: vec![false; patterns], found: Vec::new(), work_left: WORK_MAX, tried: 0, is_cut: false }
    }

    pub(super) fn has(&self, pattern: usize) -> bool {
        self.patterns.get(pattern).copied().unwrap_or_default()
    }

    /// The patterns that were found.
    pub(super) fn all(&self) -> &[usize] {
        &self.found
    }

    fn note(&mut self, pattern: usize) {
        if let Some(found) = self.patterns.get_mut(pattern).filter(|found| !**found) {
            *found = true;
            self.found.push(pattern);
        }
    }

    /// Whether so much may still be done.
    fn pay(&mut self, work: u64) -> bool {
        let left = self.work_left.checked_sub(work);
        self.is_cut |= left.is_none();
        self.work_left = left.unwrap_or_default();
        left.is_some()
    }

    fn attempt(&mut self, number: usize, pattern: &Pattern, text: &Text<'_>, range: Range<usize>) {
        if !self.has(number) && self.pay(pattern.work(range.len(), text.is_ascii)) {
            self.tried += 1;
            if pattern.is_in(text, range) {
                self.note(number);
            }
        }
    }
}

/// All patterns of one place, each with its number.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    patterns: Vec<Numbered>,
    literals: Option<AhoCorasick>,
    /// For each literal those of whose choices it is.
    of_literal: Vec<Vec<Choice>>,
    others: Option<Others>,
}

/// A pattern with literals.
#[derive(Clone, Debug)]
struct Numbered {
    number: usize,
    pattern: Pattern,
    /// The literals of its first choice.
    first: Vec<usize>,
}

/// One choice of literals of a pattern.
#[derive(Clone, Copy, Debug)]
struct Choice {
    /// Place in `patterns`.
    pattern: usize,
    number: u8,
}

/// What one pass over a text finds of literals. Used for one text after the other: most have none, and then nothing is to be made.
#[derive(Default)]
struct Pass {
    /// Of each literal how often it was seen, up to one more than is noted.
    times: Vec<u8>,
    /// Literals that were seen, and where.
    seen: Vec<usize>,
    hits: Vec<(usize, Range<usize>)>,
    /// Of each pattern a bit for each choice of which a literal was seen.
    choices: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Others {
    regex: Regex,
    /// For marked texts, when one of them looks for borders of words and all of them can do it so.
    by_marks: Option<Regex>,
    numbers: Vec<usize>,
    /// In ASCII and in other texts.
    work_of_byte: [u64; 2],
}

impl Matcher {
    /// Of all patterns of a place.
    ///
    /// # Errors
    /// In words, when they cannot be compiled together.
    pub(super) fn new(patterns: Vec<(usize, Pattern)>) -> Result<Self, String> {
        let (without, with): (Vec<_>, Vec<_>) =
            patterns.into_iter().partition(|(_, pattern)| pattern.literals.is_empty());
        let (mut literals, mut of_literal): (Vec<String>, Vec<Vec<Choice>>) = (Vec::new(), Vec::new());
        let mut known = HashMap::new();
        let mut numbered = Vec::new();
        for (at, (number, pattern)) in with.into_iter().enumerate() {
            let mut first = Vec::new();
            for (choice, literal) in
                (0..).zip(&pattern.literals).flat_map(|(n, all)| all.iter().map(move |one| (n, one)))
            {
                let place = *known.entry(literal.clone()).or_insert_with(|| {
                    literals.push(literal.clone());
                    of_literal.push(Vec::new());
                    of_literal.len() - 1
                });
                of_literal[place].push(Choice { pattern: at, number: choice });
                first.extend((choice == 0).then_some(place));
            }
            numbered.push(Numbered { number, pattern, first });
        }
        let has_table = literals.iter().map(String::len).sum::<usize>() <= TABLE_LITERALS_BYTES_MAX;
        let kind = if has_table { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA };
        let mut building = AhoCorasick::builder();
        building.match_kind(MatchKind::Standard).kind(Some(kind));
        let literals = (!literals.is_empty()).then(|| building.build(&literals)).transpose();
        let literals = literals.map_err(|error| error.to_string())?;
        Ok(Self { literals, of_literal, others: Others::new(without)?, patterns: numbered })
    }

    /// Looks through the texts of the place.
    pub(super) fn search(&self, texts: &[String], found: &mut Found) {
        let mut pass = Pass::default();
        for text in texts {
            let text = Text::new(text);
            if let Some(literals) = &self.literals {
                let (folded, in_place) = folded(text.text);
                pass.look(literals, &folded, found);
                self.attempt(&mut pass, (&text, in_place), found);
            }
            if let Some(others) = &self.others {
                others.search(&text, found);
            }
        }
    }

    /// Tries the patterns of which all literals were seen that they cannot do without, and forgets what was seen.
    fn attempt(&self, pass: &mut Pass, text: (&Text<'_>, bool), found: &mut Found) {
        let mut begun = Vec::new();
        pass.choices.resize(self.patterns.len(), 0);
        for Choice { pattern, number } in pass.seen.iter().filter_map(|literal| self.of_literal.get(*literal)).flatten()
        {
            if let Some(choices) = pass.choices.get_mut(*pattern) {
                if *choices == 0 {
                    begun.push(*pattern);
                }
                *choices |= 1 << number;
            }
        }
        for at in &begun {
            let choices = pass.choices.get_mut(*at).map(std::mem::take).unwrap_or_default();
            let one = self.patterns.get(*at).filter(|one| choices.count_ones() as usize == one.pattern.literals.len());
            if let Some(one) = one.filter(|one| !found.has(one.number)) {
                Self::attempt_one(one, pass, text, found);
            }
        }
        pass.forget();
    }

    /// Tries a pattern of short matches around its first literals, where they are few, and any other one on all of the text.
    fn attempt_one(
        Numbered { number, pattern, first }: &Numbered,
        pass: &Pass,
        (text, in_place): (&Text<'_>, bool),
        found: &mut Found,
    ) {
        let few = first.iter().all(|literal| pass.times.get(*literal).is_none_or(|times| *times <= TRIES_MAX));
        let Some(longest) = pattern.longest.filter(|_| in_place && few) else {
            return found.attempt(*number, pattern, text, 0..text.text.len());
        };
        for (_, hit) in pass.hits.iter().filter(|(literal, _)| first.contains(literal)) {
            let (from, to) = (hit.end.saturating_sub(longest), hit.start.saturating_add(longest).min(text.text.len()));
            found.attempt(*number, pattern, text, from..to);
        }
    }
}

impl Pass {
    /// Each hit is paid for: literals that stand in each other may have many at each byte.
    fn look(&mut self, literals: &AhoCorasick, folded: &str, found: &mut Found) {
        self.times.resize(literals.patterns_len(), 0);
        for hit in literals.find_overlapping_iter(folded) {
            if !found.pay(HIT_WORK) {
                return;
            }
            let literal = hit.pattern().as_usize();
            let Some(times) = self.times.get_mut(literal).filter(|times| **times <= TRIES_MAX) else { continue };
            if *times == 0 {
                self.seen.push(literal);
            }
            *times += 1;
            self.hits.push((literal, hit.range()));
        }
    }

    fn forget(&mut self) {
        for literal in self.seen.drain(..) {
            if let Some(times) = self.times.get_mut(literal) {
                *times = 0;
            }
        }
        self.hits.clear();
    }
}

impl Others {
    fn new(patterns: Vec<(usize, Pattern)>) -> Result<Option<Self>, String> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let numbers = patterns.iter().map(|(number, _)| *number).collect();
        let work_of_byte = work_of_byte(patterns.iter().map(|(_, pattern)| pattern));
        let all: Vec<&Hir> = patterns.iter().map(|(_, pattern)| &pattern.hir).collect();
        let compiled = |settings: meta::Config, all: &[&Hir]| {
            let settings = settings.match_kind(regex_automata::MatchKind::All).nfa_size_limit(None);
            let regex = meta::Builder::new().configure(settings).build_many_from_hir(all);
            regex.map_err(|error| error.to_string())
        };
        let has_words = patterns.iter().any(|(_, pattern)| pattern.has_words);
        let marked = all.iter().map(|hir| by_marks(hir)).collect::<Option<Vec<Hir>>>().filter(|_| has_words);
        let by_marks = marked.map(|all| compiled(marked_settings(), &all.iter().collect::<Vec<_>>())).transpose()?;
        Ok(Some(Self { regex: compiled(settings(), &all)?, by_marks, numbers, work_of_byte }))
    }

    fn search(&self, text: &Text<'_>, found: &mut Found) {
        let bytes = u64::try_from(text.text.len()).unwrap_or(u64::MAX);
        let [of_ascii, of_others] = self.work_of_byte;
        if !found.pay(bytes.saturating_mul(if text.is_ascii { of_ascii } else { of_others })) {
            return;
        }
        found.tried += self.numbers.len();
        let mut matched = PatternSet::new(self.numbers.len());
        match &self.by_marks {
            Some(by_marks) if !text.is_ascii => {
                by_marks.which_overlapping_matches(&Input::new(&text.marked().bytes), &mut matched);
            }
            Some(_) | None => self.regex.which_overlapping_matches(&Input::new(text.text), &mut matched),
        }
        for number in matched.iter().filter_map(|pattern| self.numbers.get(pattern.as_usize())) {
            found.note(*number);
        }
    }
}

/// What patterns without a literal may cost together where a place is full.
pub(super) fn work_of(patterns: &[(usize, Pattern)], place: &Place) -> u64 {
    let without = patterns.iter().map(|(_, pattern)| pattern).filter(|pattern| pattern.literals.is_empty());
    let bytes = u64::try_from(place.bytes_max()).unwrap_or(u64::MAX);
    work_of_byte(without).into_iter().max().unwrap_or_default().saturating_mul(bytes)
}

/// What patterns that are looked for as one expression cost at a byte, in ASCII and in other texts: one that has no table takes it
/// from all.
fn work_of_byte<'p>(patterns: impl Iterator<Item = &'p Pattern> + Clone) -> [u64; 2] {
    let has_words = patterns.clone().any(|pattern| pattern.has_words);
    let are_markable = patterns.clone().all(|pattern| pattern.is_markable);
    let in_ascii: u64 = patterns.clone().map(|pattern| pattern.work(1, true)).sum();
    let in_others = match (has_words, are_markable) {
        (false, _) => in_ascii,
        (true, true) => patterns.map(Pattern::work_by_marks).sum(),
        (true, false) => patterns.map(Pattern::work_without_table).sum(),
    };
    [in_ascii, in_others]
}
