//! What a node and an opener say to each other: each a length of four bytes and so much MessagePack. What an opener says is as
//! untrusted as the message that it has read.

use proto::{codec, score::Score};
use serde::{Deserialize, Serialize};

use crate::{
    checks::attachments::{Analysis, BARRED_MAX, Unwanted},
    message::{mime::Part, without_controls},
    policy::evidence::Barred,
};

/// A question in bytes: more than the largest message, whose parts are never longer than the message is, but for their names.
pub(super) const QUESTION_BYTES_MAX: usize = 128 * 1024 * 1024;
/// An answer in bytes, beside the formats and names that it repeats.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// What one of those takes in an answer, with the words about where it was found.
const UNWANTED_BYTES_MAX: usize = 4096;
/// Things that an answer names, of each sort.
const NAMED_MAX: usize = 1000;
/// The longest text of an answer, in characters; all together they stand in a verdict.
const TEXT_CHARS_MAX: usize = 1000;
/// The longest name of a rule.
const RULE_BYTES_MAX: usize = 64;

/// What is asked: what is in these parts, and are there files of these formats and names?
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) parts: Vec<Part>,
    pub(super) unwanted: Unwanted,
}

/// What an opener says: first that it is ready, then one word for each question.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// It has shut itself off and waits for questions.
    Ready {
        /// Whether the kernel's Landlock holds it too.
        landlock: bool,
    },
    /// It cannot shut itself off, so it reads nothing.
    Unfit(String),
    /// What was found.
    Found(Analysis),
    /// A reader gave up in a way that was not foreseen: a panic.
    BrokeOff,
}

/// How long the answer about these may be.
pub(super) fn answer_bytes_max(unwanted: &Unwanted) -> usize {
    let repeated = unwanted.fingerprints.len().saturating_add(unwanted.names.len());
    ANSWER_BYTES_MAX.saturating_add(repeated.saturating_mul(UNWANTED_BYTES_MAX))
}

/// A value with its length before it; `None` when it is too long to be said.
pub(super) fn framed<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    let encoded = codec::encode(value);
    let length = u32::try_from(encoded.len()).ok()?;
    Some([&length.to_be_bytes(), &encoded[..]].concat())
}

/// The length that a frame begins with; `None` when it is over the bound.
pub(super) fn length_of(head: [u8; 4], bytes_max: usize) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(head)).ok().filter(|length| *length <= bytes_max)
}

/// Whether an opener that does as it should could have said this of so many parts.
pub(super) fn is_sound(analysis: &Analysis, parts: usize, asked: &Unwanted) -> bool {
    let Analysis { found, fingerprints, names, barred, opaque, reasons } = analysis;
    let mut rules = found.iter().map(|found| &found.rule).chain(reasons.iter().map(|reason| &reason.rule));
    let of_formats = fingerprints.iter().map(|(_, text)| text).chain(names.iter().map(|(_, text)| text));
    let texts = found.iter().map(|found| &found.text).chain(of_formats);
    let mut texts = texts.chain(opaque).chain(reasons.iter().map(|reason| &reason.text));
    [found.len(), opaque.len(), reasons.len()].into_iter().all(|count| count <= NAMED_MAX)
        && fingerprints.len() <= asked.fingerprints.len()
        && names.len() <= asked.names.len()
        && rules.all(|rule| is_rule(rule))
        && texts.all(|text| is_text(text))
        && fingerprints.iter().all(|(fingerprint, _)| asked.fingerprints.contains(fingerprint))
        && names.iter().all(|(pattern, _)| asked.names.contains(pattern))
        && barred.iter().all(|barred| barred.len() <= BARRED_MAX)
        && barred.iter().flatten().all(|(part, what)| *part < parts && is_asked_for(what, asked))
        // An attachment may speak against a message, never for it.
        && reasons.iter().all(|reason| reason.score >= Score::ZERO)
}

fn is_asked_for(what: &Barred, asked: &Unwanted) -> bool {
    match what {
        Barred::Kind(_) => true,
        Barred::Fingerprint(fingerprint) => asked.fingerprints.contains(fingerprint),
        Barred::Name(pattern) => asked.names.contains(pattern),
    }
}

fn is_rule(rule: &str) -> bool {
    (1..=RULE_BYTES_MAX).contains(&rule.len())
        && rule.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
}

/// Words for a header field and a reply: short, and without what changes how they are shown.
fn is_text(text: &str) -> bool {
    text.chars().count() <= TEXT_CHARS_MAX && without_controls(text).len() == text.len()
}
