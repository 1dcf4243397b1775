//! Which fixed text is in whatever a pattern matches: where none of it is, the pattern need not be tried.
//!
//! Text and patterns are folded by the same function of single characters. A class of characters that all fold to the same one is
//! that one; so what a pattern matches, folded, holds one of its literals, folded, whatever the function is.

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

/// Shortest literal that is of use, in bytes: shorter ones are everywhere.
const LITERAL_BYTES_MIN: usize = 3;
/// Shortest one that is of use beside a longer one, in bytes: seeing words that are in each text costs more than it spares.
const LITERAL_BYTES_MIN_BESIDE: usize = 5;
/// Longest, in bytes.
const LITERAL_BYTES_MAX: usize = 48;
/// Most strings that a part of a pattern is taken for.
const WHOLE_MAX: usize = 16;
/// Most literals of which one must be there.
const LITERALS_MAX: usize = 64;
/// Most such choices of one pattern: one of each must be there.
const CHOICES_MAX: usize = 4;

/// A character without its case.
fn fold(c: char) -> char {
    // The long s is a lower-case letter of its own, and yet `(?i)s` matches it.
    if c == '\u{17f}' {
        return 's';
    }
    let mut lower = c.to_lowercase();
    let first = lower.next().unwrap_or(c);
    if lower.next().is_some() { c } else { first }
}

/// A text folded, and whether each character stands where it stood.
pub(super) fn folded(text: &str) -> (String, bool) {
    if text.is_ascii() {
        return (text.to_ascii_lowercase(), true);
    }
    let mut folded = String::with_capacity(text.len());
    let (mut rest, mut in_place) = (text, true);
    // Also of such a text most is ASCII, of which many bytes are folded at once.
    loop {
        let ascii = rest.bytes().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
        let begin = folded.len();
        folded.push_str(&rest[..ascii]);
        folded[begin..].make_ascii_lowercase();
        let Some(c) = rest[ascii..].chars().next() else { break };
        let other = fold(c);
        in_place &= other.len_utf8() == c.len_utf8();
        folded.push(other);
        rest = &rest[ascii + c.len_utf8()..];
    }
    (folded, in_place)
}

/// Choices of literals, folded, the best first: one of each choice is in whatever the pattern matches. None is told when none is
/// known that is long enough.
pub(super) fn literals(pattern: &Hir) -> Vec<Vec<String>> {
    let mut choices = Strings::of(pattern).choices();
    choices.retain(|choice| shortest(choice) >= LITERAL_BYTES_MIN);
    choices.sort_by_key(|choice| std::cmp::Reverse(rank(choice)));
    let beside = choices.split_off(choices.len().min(1));
    choices
        .extend(beside.into_iter().filter(|choice| shortest(choice) >= LITERAL_BYTES_MIN_BESIDE).take(CHOICES_MAX - 1));
    choices
}

/// What is known of the strings that a part of a pattern matches.
#[derive(Default)]
struct Strings {
    /// All of them, when they are few.
    whole: Option<Vec<String>>,
    /// Of each of these choices one is in each of them.
    within: Vec<Vec<String>>,
}

impl Strings {
    fn exactly(whole: Vec<String>) -> Self {
        let fits = whole.len() <= WHOLE_MAX && whole.iter().all(|one| one.len() <= LITERAL_BYTES_MAX);
        if fits { Self { whole: Some(whole), within: Vec::new() } } else { Self { whole: None, within: vec![whole] } }
    }

    fn choices(self) -> Vec<Vec<String>> {
        let mut choices = self.within;
        choices.extend(self.whole);
        choices
    }

    fn of(pattern: &Hir) -> Self {
        match pattern.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::exactly(vec![String::new()]),
            HirKind::Literal(literal) => {
                std::str::from_utf8(&literal.0).map(|text| Self::exactly(vec![folded(text).0])).unwrap_or_default()
            }
            HirKind::Class(class) => chars(class).map(Self::exactly).unwrap_or_default(),
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Repetition(repetition) => Self::repeated(repetition),
            HirKind::Concat(parts) => Self::concat(parts),
            HirKind::Alternation(ways) => Self::either(ways),
        }
    }

    fn repeated(repetition: &Repetition) -> Self {
        let Repetition { min, max, sub, .. } = repetition;
        let sub = Self::of(sub);
        match (*min, *max) {
            (0, Some(1)) => {
                let whole = sub.whole.filter(|whole| whole.len() < WHOLE_MAX);
                let whole = whole.map(|whole| whole.into_iter().chain([String::new()]).collect());
                Self { whole, within: Vec::new() }
            }
            (0, _) => Self::default(),
            (1, Some(1)) => sub,
            _ => Self { whole: None, within: sub.choices() },
        }
    }

    /// Strings that follow each other grow together until there are too many of them.
    fn concat(parts: &[Hir]) -> Self {
        let (mut run, mut runs, mut within) = (vec![String::new()], 0, Vec::new());
        for part in parts.iter().map(Self::of) {
            within.extend(part.within);
            match part.whole {
                Some(next) if grows(&run, &next) => {
                    run = run.iter().flat_map(|begin| next.iter().map(move |end| format!("{begin}{end}"))).collect();
                }
                next => {
                    within.push(std::mem::replace(&mut run, next.unwrap_or_else(|| vec![String::new()])));
                    runs += 1;
                }
            }
        }
        if runs == 0 {
            return Self { whole: Some(run), within };
        }
        within.push(run);
        Self { whole: None, within }
    }

    fn either(ways: &[Hir]) -> Self {
        let (mut whole, mut within) = (Some(Vec::new()), Some(Vec::new()));
        for way in ways.iter().map(Self::of) {
            whole = joined(whole, way.whole.clone(), WHOLE_MAX);
            within = joined(within, way.choices().into_iter().max_by_key(|choice| rank(choice)), LITERALS_MAX);
        }
        Self { whole, within: within.into_iter().collect() }
    }
}

fn joined(all: Option<Vec<String>>, more: Option<Vec<String>>, max: usize) -> Option<Vec<String>> {
    let mut all = all?;
    all.extend(more?);
    (all.len() <= max).then_some(all)
}

fn grows(run: &[String], next: &[String]) -> bool {
    let longest = |strings: &[String]| strings.iter().map(String::len).max().unwrap_or_default();
    run.len() * next.len() <= WHOLE_MAX && longest(run) + longest(next) <= LITERAL_BYTES_MAX
}

fn shortest(strings: &[String]) -> usize {
    strings.iter().map(String::len).min().unwrap_or_default()
}

/// Longer strings are better; of equally long ones fewer.
fn rank(strings: &[String]) -> (usize, std::cmp::Reverse<usize>) {
    (shortest(strings), std::cmp::Reverse(strings.len()))
}

/// The characters of a class, folded, when they are few.
fn chars(class: &Class) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut take = |c: char| {
        let text = fold(c).to_string();
        if !found.contains(&text) {
            found.push(text);
        }
        found.len() <= WHOLE_MAX
    };
    let fits = match class {
        Class::Unicode(class) => class.ranges().iter().all(|range| (range.start()..=range.end()).all(&mut take)),
        // In a pattern for text these are ASCII.
        Class::Bytes(class) => class
            .ranges()
            .iter()
            .all(|range| (range.start()..=range.end()).all(|byte| byte.is_ascii() && take(byte.into()))),
    };
    // Of a class of none nothing is matched; better to try it than to prove that.
    (fits && !found.is_empty()).then_some(found)
}
