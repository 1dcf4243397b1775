//! What the classifier looks at: the words of subject, text and author's name, alone and in pairs with words near them (sparse
//! orthogonal bigrams), each by a hash.
//!
//! Left out is what only tells where and when a message was collected: numbers, names of days and months, tags and footers of lists,
//! signatures, hosts.

use crate::checks::facts::Facts;

/// Bits of a feature.
pub const FEATURE_BITS: u32 = 20;
/// How many features there can be.
pub const FEATURES: usize = 1 << FEATURE_BITS;
/// A message with fewer says nothing.
pub const FEATURES_MIN: usize = 4;
/// Up to about so many features a message says less, the fewer it has.
const FEATURES_FEW: f32 = 100.0;
/// Words of the text that are looked at.
const WORDS_MAX: usize = 2000;
/// How far the second word of a pair is from the first, at most.
const REACH: usize = 4;
/// Characters of a word.
const WORD_CHARS: std::ops::RangeInclusive<usize> = 1..=25;
/// FNV-1a over code points: the same in all versions and on all machines.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
/// A footer is at most so many lines from the end.
const FOOTER_LINES_MAX: usize = 15;

const WHEN: [&str; 38] = [
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "sat",
    "sun",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
    "january",
    "february",
    "march",
    "april",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "gmt",
];

/// The features of a message, in ascending order, each once.
#[must_use]
pub fn of(facts: &Facts<'_>) -> Vec<u32> {
    let mut features = Vec::new();
    let message = facts.message;
    collect(&mut features, b's', &words(without_tag(&message.subject), 100));
    for mailbox in message.from.iter().take(3) {
        collect(&mut features, b'f', &words(&mailbox.name, 20));
    }
    for text in facts.text.shown() {
        collect(&mut features, b't', &words(without_footer(text), WORDS_MAX));
    }
    collect(&mut features, b'l', &link_words(facts));
    features.sort_unstable();
    features.dedup();
    features
}

/// What one of so many features of a message counts.
#[must_use]
pub fn share(features: usize) -> f32 {
    1.0 / (features as f32 + FEATURES_FEW).sqrt()
}

/// What the links look like: their suffixes and the words of their paths, but not their hosts.
fn link_words(facts: &Facts<'_>) -> Vec<u64> {
    let mut all = Vec::new();
    for target in facts.targets.iter().take(50) {
        let (scheme, rest) = target.split_once("://").unwrap_or(("", target));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        all.extend(word(scheme));
        all.extend(host.rsplit('.').next().and_then(word));
        all.extend(words(path, 6));
    }
    all
}

fn collect(features: &mut Vec<u32>, kind: u8, words: &[u64]) {
    for (at, word) in words.iter().enumerate() {
        features.push(feature(kind, 0, *word, 0));
        for (gap, other) in (1..=REACH).zip(words.get(at + 1..).unwrap_or_default()) {
            features.push(feature(kind, gap as u64, *word, *other));
        }
    }
}

fn feature(kind: u8, gap: u64, one: u64, other: u64) -> u32 {
    let seed = u64::from(kind) << 8 | gap;
    let mixed = mix(mix(seed ^ one) ^ other);
    u32::try_from(mixed >> (64 - FEATURE_BITS)).unwrap_or_default()
}

/// Finalizer of MurmurHash3.
const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Hashes of the words that count.
fn words(text: &str, most: usize) -> Vec<u64> {
    let parts = |c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '\u{2019}' | '$' | '%' | '!' | '\u{20ac}'));
    text.split(parts).filter_map(word).take(most).collect()
}

/// The hash of a word that counts. Prices and percentages are words; other numbers are dates and counters.
fn word(word: &str) -> Option<u64> {
    let mut hash = FNV_START;
    let (mut chars, mut last, mut digits, mut money) = (0, 0, false, false);
    let mut small = [0; 16];
    for c in word.trim_matches(['\'', '\u{2019}']).chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        (digits, money) = (digits || c == '0', money || matches!(c, '$' | '%' | '\u{20ac}'));
        for c in c.to_lowercase() {
            // All numbers are one, however long.
            if c == '0' && last == u32::from(c) {
                continue;
            }
            last = u32::from(c);
            chars += 1;
            hash = (hash ^ u64::from(last)).wrapping_mul(FNV_PRIME);
            if let Some(slot) = small.get_mut(chars - 1) {
                *slot = u8::try_from(last).unwrap_or(b'?');
            }
        }
    }
    let tells_when = small.get(..chars).is_some_and(|lower| WHEN.iter().any(|when| when.as_bytes() == lower));
    (WORD_CHARS.contains(&chars) && (!digits || money) && !tells_when).then(|| mix(hash))
}

/// Without the names that mailing lists put in front, and marks of answers.
fn without_tag(subject: &str) -> &str {
    let mut rest = subject.trim();
    loop {
        let before = rest;
        if let Some(tag) = rest.strip_prefix('[') {
            rest = tag.split_once(']').map_or(rest, |(_, after)| after.trim_start());
        }
        for prefix in ["re:", "fwd:", "fw:", "aw:"] {
            if rest.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix)) {
                rest = rest[prefix.len()..].trim_start();
            }
        }
        if rest == before {
            return rest;
        }
    }
}

/// Without a signature or a list's footer at the end. What is nothing else stays.
fn without_footer(text: &str) -> &str {
    let mut cut = text.len();
    for line in text.trim_end().rsplit('\n').take(FOOTER_LINES_MAX) {
        let mark = line.trim_end();
        if mark == "--" || (mark.len() >= 10 && mark.bytes().all(|byte| matches!(byte, b'_' | b'-'))) {
            cut = text.len() - text.get(offset(text, line)..).map_or(0, str::len);
        }
    }
    if text[..cut].trim().is_empty() { text } else { &text[..cut] }
}

/// Where a piece of a text begins.
fn offset(text: &str, piece: &str) -> usize {
    piece.as_ptr().addr() - text.as_ptr().addr()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{without_footer, without_tag, word};

    #[test]
    fn what_only_tells_where_and_when_a_message_was_collected_is_left_out() {
        assert_eq!(without_tag("Re: [alpha-dev] Fwd: [x] hello [y]"), "hello [y]");
        let list = "Hello\n\n____________________\nalpha mailing list\nhttps://lists.test\n";
        assert_eq!(without_footer(list), "Hello\n\n");
        assert_eq!(without_footer("Hello\n-- \nKarl\nOffice 7\n"), "Hello\n");
        assert_eq!(without_footer("-- \nbuy now\n"), "-- \nbuy now\n", "nothing hides behind a mark");
        let long = format!("--\n{}", "buy\n".repeat(30));
        assert_eq!(without_footer(&long), long);
        for left_out in ["Monday", "2026", "Sept", "12345", "", "x26"] {
            assert_eq!(word(left_out), None, "{left_out}");
        }
    }

    #[test]
    fn a_word_is_the_same_however_it_is_written_and_numbers_of_money_are_one() {
        assert!(word("Viagra").is_some() && word("Viagra") == word("VIAGRA"));
        assert_eq!(word("$500"), word("$1234567"));
        assert_ne!(word("$5"), word("5%"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,80}(\n\\PC{0,20}){0,5}") {
            let _ = (without_tag(&text), without_footer(&text), word(&text));
        }
    }
}
