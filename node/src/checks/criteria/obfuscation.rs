//! Words that are written so that programs do not read them.

use super::{Criterion, Group, bad, brands::BRANDS};

pub(super) const GROUP: Group = Group {
    name: "obfuscation",
    about: "invisible characters, mixed scripts, spaced-out and rewritten words",
    criteria: &CRITERIA,
};

const CRITERIA: [Criterion; 9] = [
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
    bad("LETTERS_SWAPPED", "a letter or digit stands for another that looks like it", |f| {
        let names = f.message.from.iter().map(|mailbox| mailbox.name.as_str());
        names.chain([f.message.subject.as_str()]).any(swapped) || swapped(&f.raw_text)
    }),
    bad("LETTERS_MARKED", "its letters carry marks of other scripts", |f| marked(&f.raw_text) >= 3),
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

/// Words of advertising that are written with a capital `I` for a small `l`.
const IMITATED: [&str; 32] = [
    "account", "alert", "bill", "billing", "blue", "call", "claim", "club", "deal", "deals", "delivery", "email",
    "family", "final", "health", "help", "loan", "loyalty", "mail", "medical", "online", "plan", "plans", "policies",
    "policy", "relief", "roll", "sale", "solar", "tools", "tool", "wallet",
];

/// Whether a capital `I` stands for a small `l`, as in `poIicy`, or a zero for an `O`, as in `C0STC0`: only in words and brands that are
/// written so on purpose, for `KollegInnen` and `K0TRWQ` are no tricks.
fn swapped(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| (4..=24).contains(&word.len())).any(|word| {
        let as_l =
            word.get(1..).is_some_and(|rest| rest.contains('I')).then(|| word.replace('I', "l").to_ascii_lowercase());
        let as_o = (word.contains('0') && !word.starts_with('0')).then(|| word.replace('0', "o").to_ascii_lowercase());
        let imitates = |word: &str| IMITATED.contains(&word) || BRANDS.contains(&word);
        let lower = word.bytes().any(|byte| byte.is_ascii_lowercase());
        as_l.is_some_and(|word| lower && imitates(&word)) || as_o.is_some_and(|word| imitates(&word))
    })
}

/// Latin letters with a mark of another script, or one that strikes them out.
fn marked(text: &str) -> usize {
    if text.is_ascii() {
        return 0;
    }
    let is_foreign = |c: char| {
        matches!(c, '\u{335}'..='\u{338}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}'
            | '\u{730}'..='\u{74a}' | '\u{1ab0}'..='\u{1aff}' | '\u{20d0}'..='\u{20f0}')
    };
    let letters = text.chars().zip(text.chars().skip(1));
    letters.filter(|(letter, mark)| letter.is_ascii_alphabetic() && is_foreign(*mark)).count()
}

#[cfg(test)]
mod tests {
    use super::{marked, swapped};

    #[test]
    fn marks_of_other_scripts_on_latin_letters_are_seen() {
        assert_eq!(marked("Co\u{73f}nf\u{73f}ir\u{73f}m s\u{336}o\u{336}"), 5);
        assert_eq!(marked("Cafe\u{301} na\u{308}mlich \u{5d1}\u{5bc} 1\u{fe0f}\u{20e3}"), 0);
    }

    #[test]
    fn letters_that_stand_for_others_are_seen_and_words_that_are_written_so_are_not() {
        for text in ["Your pIan", "the poIicy", "ACE TooIs", "C0STC0 member", "BIueCross", "Amaz0n"] {
            assert!(swapped(text), "{text}");
        }
        for text in [
            "LinkedIn iPhone WiFi OpenAI McIntyre",
            "Einladung an alle KollegInnen und BürgerInnen",
            "eInvoice myInfo SysInternals maxItems",
            "K0TRWQ CO2 H2O A0 B0C1 IIS PLAN POLICY",
            "plan policy tools costco",
        ] {
            assert!(!swapped(text), "{text}");
        }
    }
}
