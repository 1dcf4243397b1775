//! Which attachments a policy does not let in: by kind, format, name and size; and in which parts of the message they are.

use std::collections::{BTreeMap, BTreeSet};

use proto::{policy::Policy, score::Score};

use super::{
    evidence::{Barred, Evidence},
    score::Listed,
};
use crate::message::{Message, mime::Part, quoted};

/// Findings of one sort that a verdict names.
const NAMED_MAX: usize = 5;

/// Of a message that goes on without what its policy does not let in.
pub const STRIPPED: &str = "STRIPPED";
/// Of a message that should have gone on so, and is kept because that could not be done.
pub const NOT_STRIPPED: &str = "NOT_STRIPPED";
/// Of the message as it came, which is kept for those who got it without something.
pub const STRIPPED_ORIGINAL: &str = "STRIPPED_ORIGINAL";

/// Rules that have no points: the policy says what becomes of a message.
pub const RULES: [Listed; 9] = [
    ("attachments", "BLOCKED_TYPE", Score::ZERO, "a file is of a kind that is not let in, by its content"),
    ("attachments", "BLOCKED_NAME", Score::ZERO, "a file would be run by its name"),
    ("attachments", "FALSE_EXTENSION", Score::ZERO, "a program bears the name of something harmless"),
    ("attachments", "BLOCKED_FINGERPRINT", Score::ZERO, "a file is of a format that the policy describes"),
    ("attachments", "BLOCKED_FILE_NAME", Score::ZERO, "a file has a name that the policy does not let in"),
    ("attachments", "BLOCKED_SIZE", Score::ZERO, "a file is larger than the policy lets in"),
    ("attachments", STRIPPED, Score::ZERO, "what is not let in was taken out of it"),
    ("attachments", NOT_STRIPPED, Score::ZERO, "what is not let in could not be taken out of it"),
    ("attachments", STRIPPED_ORIGINAL, Score::ZERO, "it is kept whole for those who got it without something"),
];

/// What speaks against a message, each with its rule.
pub(super) fn reasons<'e>(message: &Message, evidence: &'e Evidence, policy: &Policy) -> Vec<(&'e str, String)> {
    let kinds = evidence.kinds.iter().filter(|found| policy.blocked_types.value.contains(&found.kind));
    let mut reasons: Vec<(&str, String)> = kinds.map(|found| (found.rule.as_str(), found.text.clone())).collect();
    let formats = evidence.fingerprints.iter().filter(|(format, _)| policy.fingerprints.value.contains(format));
    reasons.extend(formats.map(|(_, text)| ("BLOCKED_FINGERPRINT", text.clone())));
    let names = evidence.names.iter().filter(|(pattern, _)| policy.blocked_names.value.contains(pattern));
    reasons.extend(names.take(NAMED_MAX).map(|(_, text)| ("BLOCKED_FILE_NAME", text.clone())));
    let most = policy.attachment_bytes_max.value;
    reasons.extend(too_large(message, policy).take(NAMED_MAX).map(|(_, part)| {
        let name = part.names.first().map_or_else(|| "an attachment".to_owned(), |name| quoted(name));
        ("BLOCKED_SIZE", format!("{name} has {} bytes, {most} are let in at most", part.content.len()))
    }));
    reasons
}

/// Attachments over their size, with their places.
fn too_large<'m>(message: &'m Message, policy: &Policy) -> impl Iterator<Item = (usize, &'m Part)> {
    let most = usize::try_from(policy.attachment_bytes_max.value).unwrap_or(usize::MAX);
    let parts = message.parts.iter().enumerate();
    parts.filter(move |(_, part)| part.content.len() > most && !part.is_body())
}

/// In which parts lies what is not let in, each with what it is, in words. `None` when that is not known.
#[must_use]
pub fn parts(message: &Message, evidence: &Evidence, policy: &Policy) -> Option<BTreeMap<usize, BTreeSet<String>>> {
    let mut parts: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (at, what) in evidence.barred.as_ref()? {
        let words = match what {
            Barred::Kind(kind) => policy.blocked_types.value.contains(kind).then(|| kind.as_str().to_owned()),
            Barred::Fingerprint(format) => policy.fingerprints.value.contains(format).then(|| format.name().to_owned()),
            Barred::Name(pattern) => policy.blocked_names.value.contains(pattern).then(|| pattern.to_string()),
        };
        if let Some(words) = words {
            parts.entry(*at).or_default().insert(words);
        }
    }
    for (at, _) in too_large(message, policy) {
        parts.entry(at).or_default().insert(format!("> {}", policy.attachment_bytes_max.value));
    }
    Some(parts)
}

#[cfg(test)]
#[path = "blocked_tests.rs"]
mod tests;
