//! What its text looks like from afar.

use super::{Criterion, Group, bad, hint};

pub(super) const GROUP: Group =
    Group { name: "statistics", about: "length, case, punctuation and rareness of words", criteria: &CRITERIA };

const CRITERIA: [Criterion; 8] = [
    bad("SHOUTING", "its text shouts", |f| {
        let (upper, lower) = cases(&f.raw_text);
        upper > 150 && upper > lower
    }),
    hint("SHOUTING_LINES", "much of its text shouts", |f| {
        let (upper, lower) = cases(&f.raw_text);
        upper > 100 && upper * 4 > lower && upper <= lower
    }),
    hint("EXCLAIMING", "it exclaims much", |f| {
        f.raw_text.matches('!').count() * 400 > f.raw_text.len() && f.raw_text.matches('!').count() >= 4
    }),
    hint("MONEY_MUCH", "it speaks much of money", |f| f.raw_text.matches(['$', '\u{20ac}', '\u{a3}']).count() >= 5),
    hint("PERCENT_MUCH", "it speaks much of percentages", |f| f.raw_text.matches('%').count() >= 4),
    bad("WORDS_RANDOM", "it holds random words", |f| {
        f.words.split(' ').filter(|word| word.len() < 24 && crate::checks::names::is_random(word)).count() >= 4
    }),
    hint("WORDS_LONG", "it holds very long words", |f| {
        f.words.split(' ').any(|word| word.len() > 60 && !word.contains("http") && !word.contains('/'))
    }),
    hint("SHORT", "it is very short", |f| f.words.len() < 160),
];

/// How many letters are upper case and lower case. Those of ASCII are counted by the byte, which is much faster.
pub(super) fn cases(text: &str) -> (usize, usize) {
    let upper = text.bytes().filter(u8::is_ascii_uppercase).count();
    let lower = text.bytes().filter(u8::is_ascii_lowercase).count();
    if text.is_ascii() {
        return (upper, lower);
    }
    let others = text.chars().filter(|c| !c.is_ascii());
    let (other_upper, other_lower): (Vec<_>, Vec<_>) =
        others.filter(|c| c.is_uppercase() || c.is_lowercase()).partition(|c| c.is_uppercase());
    (upper + other_upper.len(), lower + other_lower.len())
}
