//! Words that are written so that programs do not read them.

use super::{Criterion, Group, bad};

pub(super) const GROUP: Group = Group {
    name: "obfuscation",
    about: "invisible characters, mixed scripts, spaced-out and rewritten words",
    criteria: &CRITERIA,
};

const CRITERIA: [Criterion; 7] = [
    bad("INVISIBLE_CHARACTERS", "words are broken up by invisible characters", |f| f.invisible_in_words > 2),
    bad("MIXED_SCRIPTS", "letters of other scripts imitate Latin ones", |f| f.mixed_words > 0),
    bad("STYLED_LETTERS", "its letters are mathematical signs", |f| {
        f.raw_text
            .chars()
            .filter(|c| matches!(c, '\u{1d400}'..='\u{1d7ff}' | '\u{2460}'..='\u{24ff}' | '\u{ff21}'..='\u{ff5a}'))
            .count()
            > 3
    }),
    bad("SPACED_OUT", "words are spaced out", |f| spaced_out(&f.words)),
    bad("DIGITS_IN_WORDS", "digits stand for letters", |f| digits_in_words(&f.words) >= 3),
    bad("NAME_MIXED", "the author's name or the subject mixes scripts", |f| {
        let odd = |c: char| matches!(c, '\u{370}'..='\u{52f}' | '\u{1d400}'..='\u{1d7ff}' | '\u{200b}'..='\u{200d}' | '\u{ad}');
        let mixed = |text: &str| text.chars().any(odd) && text.chars().filter(char::is_ascii_alphabetic).count() >= 3;
        mixed(&f.message.subject) || f.message.from.iter().any(|mailbox| mixed(&mailbox.name))
    }),
    bad("INVISIBLE_MANY", "it holds many invisible characters", |f| {
        !f.raw_text.is_ascii()
            && f.raw_text
                .chars()
                .filter(|c| matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2060}' | '\u{ad}' | '\u{34f}'))
                .count()
                > 10
    }),
];

fn spaced_out(words: &str) -> bool {
    let mut run = 0;
    for word in words.split(' ') {
        let single = word.len() == 1 && word.bytes().all(|byte| byte.is_ascii_alphabetic());
        run = if single { run + 1 } else { 0 };
        if run >= 5 {
            return true;
        }
    }
    false
}

/// Words in which a digit stands between letters, as in `v1agra`.
fn digits_in_words(words: &str) -> usize {
    let is_such = |word: &&str| {
        let bytes = word.as_bytes();
        word.len() <= 14
            && bytes.windows(3).any(|three| {
                three[0].is_ascii_alphabetic()
                    && matches!(three[1], b'0' | b'1' | b'3' | b'4' | b'5' | b'@' | b'$')
                    && three[2].is_ascii_alphabetic()
            })
            && !word.contains(['.', '/', '-'])
            && bytes.iter().filter(|byte| byte.is_ascii_digit()).count() <= 2
    };
    words.split(' ').filter(is_such).count()
}
