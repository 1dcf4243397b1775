//! What is said: runs of letters of subject and text, and the words of subject and author's name.
//!
//! Left out is what only tells where and when a message was collected: numbers, names of days and months, tags and footers of lists,
//! signatures, addresses.

use proto::learning::features::Gathering;

use crate::checks::facts::Facts;

/// Letters of a run, in bytes: five say more of mail that was never seen than words and their pairs do (README, decision 49).
const RUN_BYTES: u32 = 5;
/// Of the subject so many bytes are looked at.
const SUBJECT_BYTES_MAX: usize = 400;
/// Of the author's name.
const NAME_BYTES_MAX: usize = 100;
/// Of each text.
const TEXT_BYTES_MAX: usize = 5000;
/// A longer word is none.
const WORD_BYTES_MAX: usize = 200;
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

/// The features of what a message says, in ascending order, each once.
#[must_use]
pub fn of(facts: &Facts<'_>) -> Vec<u32> {
    let message = facts.message;
    let mut gathering = Gathering::default();
    let mut text = plain(without_tag(&message.subject), SUBJECT_BYTES_MAX);
    text.split_whitespace().for_each(|word| gathering.word(b's', word));
    if let Some(author) = message.from.first() {
        let name = plain(&author.name, NAME_BYTES_MAX);
        name.split_whitespace().for_each(|word| gathering.word(b'f', word));
        text.push_str(&name);
    }
    for shown in facts.text.shown() {
        text.push_str(&plain(without_footer(shown), TEXT_BYTES_MAX));
    }
    let mut run = 0;
    for (at, byte) in text.bytes().enumerate() {
        run = (run << 8 | u64::from(byte)) & ((1 << (8 * RUN_BYTES)) - 1);
        if at + 1 >= RUN_BYTES as usize {
            gathering.number(b't', run);
        }
    }
    gathering.ended()
}

/// About so many bytes of a text: words in lower case with a space before each and one at the end, all numbers the same.
fn plain(text: &str, bytes_max: usize) -> String {
    let mut plain = String::from(" ");
    let sign = |c: char| matches!(c, '\'' | '\u{2019}' | '$' | '%' | '!' | '\u{20ac}');
    for chunk in text.split_whitespace().filter(|chunk| chunk.len() <= WORD_BYTES_MAX && !chunk.contains('@')) {
        for word in chunk.split(|c: char| !(c.is_alphanumeric() || sign(c))).filter(|word| !word.is_empty()) {
            push_word(&mut plain, word);
        }
        if plain.len() > bytes_max {
            break;
        }
    }
    plain
}

/// Adds a word and a space, but no name of a day or month.
fn push_word(plain: &mut String, word: &str) {
    let before = plain.len();
    for c in word.chars().flat_map(char::to_lowercase) {
        let c = if c.is_numeric() { '0' } else { c };
        if !(c == '0' && plain.ends_with('0')) {
            plain.push(c);
        }
    }
    if WHEN.contains(&&plain[before..]) {
        plain.truncate(before);
    } else {
        plain.push(' ');
    }
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

    use super::{plain, without_footer, without_tag};

    #[test]
    fn what_only_tells_where_and_when_a_message_was_collected_is_left_out() {
        assert_eq!(without_tag("Re: [alpha-dev] Fwd: [x] hello [y]"), "hello [y]");
        let list = "Hello\n\n____________________\nalpha mailing list\nhttps://lists.test\n";
        assert_eq!(without_footer(list), "Hello\n\n");
        assert_eq!(without_footer("Hello\n-- \nKarl\nOffice 7\n"), "Hello\n");
        assert_eq!(without_footer("-- \nbuy now\n"), "-- \nbuy now\n", "nothing hides behind a mark");
        let long = format!("--\n{}", "buy\n".repeat(30));
        assert_eq!(without_footer(&long), long);
        assert_eq!(plain("Monday, 18 Sept 2026: to a@b.test", 100), " 0 0 to ");
    }

    #[test]
    fn a_text_is_the_same_however_it_is_set_and_all_numbers_are_one() {
        assert_eq!(plain("Buy  VIAGRA\nfor $500!", 100), plain("buy viagra for $77!", 100));
        assert!(plain(&"word ".repeat(5000), 100).len() < 120);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,80}(\n\\PC{0,20}){0,5}") {
            let _ = (without_tag(&text), without_footer(&text), plain(&text, 50));
        }
    }
}
