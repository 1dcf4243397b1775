//! The subject.

use super::{Criterion, Group, author::is_pictograph, bad, hint};
use crate::checks::facts::Facts;

pub(super) const GROUP: Group =
    Group { name: "subject", about: "how the subject calls for attention", criteria: &CRITERIA };

const CRITERIA: [Criterion; 14] = [
    bad("SUBJECT_ALL_CAPS", "its subject shouts", |f| {
        let letters: Vec<char> = f.message.subject.chars().filter(|c| c.is_alphabetic()).collect();
        letters.len() >= 10 && letters.iter().all(|c| !c.is_lowercase())
    }),
    hint("SUBJECT_CAPS_WORDS", "words of its subject shout", |f| {
        let words = f
            .message
            .subject
            .split_whitespace()
            .filter(|word| word.len() >= 4 && word.chars().all(|c| c.is_ascii_uppercase() || "!?.,:".contains(c)));
        words.count() >= 2
    }),
    bad("SUBJECT_EXCITED", "its subject is excited", |f| {
        ["!!", "$$", "???", "!?"].iter().any(|mark| f.message.subject.contains(mark))
    }),
    hint("SUBJECT_EXCLAIMS", "its subject exclaims", |f| f.message.subject.trim_end().ends_with('!')),
    hint("SUBJECT_PICTURES", "its subject holds pictures", |f| f.message.subject.chars().any(is_pictograph)),
    hint("SUBJECT_MONEY", "its subject is about money", |f| {
        f.message.subject.contains(['$', '\u{20ac}', '\u{a3}']) || f.message.subject.contains('%')
    }),
    bad("SUBJECT_FAKE_REPLY", "it pretends to be an answer", |f| {
        let subject = f.message.subject.to_ascii_lowercase();
        let is_reply = ["re:", "aw:", "re[", "fwd: re:"].iter().any(|prefix| subject.starts_with(prefix));
        is_reply && !f.message.has("in-reply-to") && !f.message.has("references")
    }),
    bad("SUBJECT_GAPPY", "words of its subject are spaced out", |f| {
        is_gappy(&f.message.subject, &[' ', '.', '-', '_', '*'])
    }),
    bad("SUBJECT_UNDERSCORES", "the words of its subject are held together by underscores", |f| {
        // A name of a file has an extension.
        let words = f.message.subject.split_whitespace().filter(|word| !word.contains('.'));
        f.message.subject.starts_with('_') || words.map(|word| word.matches('_').count()).sum::<usize>() >= 4
    }),
    hint("SUBJECT_NUMBER", "its subject ends with a number or code", |f| {
        let last = f.message.subject.split_whitespace().next_back().unwrap_or_default();
        last.len() >= 5 && last.chars().filter(char::is_ascii_digit).count() * 2 > last.len()
    }),
    bad("SUBJECT_WIDE_GAP", "its subject has a wide gap", |f| f.message.subject.contains("    ")),
    hint("SUBJECT_URGENT", "its subject urges", |f| {
        has_word(
            f,
            &[
                "urgent",
                "immediately",
                "final",
                "last",
                "expire",
                "expires",
                "expired",
                "suspended",
                "limited",
                "warning",
                "alert",
                "action",
                "required",
                "verify",
                "confirm",
                "attention",
                "important",
                "deactivated",
                "locked",
                "unusual",
                "security",
            ],
        )
    }),
    bad("SUBJECT_PROMISES", "its subject promises", |f| {
        has_word(
            f,
            &[
                "free",
                "win",
                "winner",
                "won",
                "congratulations",
                "prize",
                "cash",
                "save",
                "earn",
                "guaranteed",
                "bonus",
                "reward",
                "gift",
                "lowest",
                "cheap",
                "viagra",
                "weight",
                "lose",
                "loan",
                "mortgage",
                "debt",
                "rates",
                "miracle",
                "secret",
            ],
        )
    }),
    hint("SUBJECT_INVOICE", "its subject is about a bill or a delivery", |f| {
        has_word(
            f,
            &[
                "invoice",
                "payment",
                "remittance",
                "delivery",
                "package",
                "parcel",
                "shipment",
                "refund",
                "receipt",
                "statement",
                "wallet",
                "account",
                "password",
                "mailbox",
            ],
        )
    }),
];

/// Whether letters stand alone between these, four in a row.
pub(super) fn is_gappy(text: &str, between: &[char]) -> bool {
    let single = |word: &&str| word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    let words: Vec<&str> = text.split(between).collect();
    words.windows(4).any(|four| four.iter().all(single))
}

fn has_word(f: &Facts<'_>, words: &[&str]) -> bool {
    let subject = f.message.subject.to_lowercase();
    subject.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(&word))
}
