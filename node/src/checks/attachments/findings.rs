//! What was found in the parts of a message, each thing once and few of a sort: a verdict must stay small.

use proto::{fingerprint::Fingerprint, policy::ContentKind, score::Score, verdict::Reason};
use serde::{Deserialize, Serialize};

use crate::{message::without_controls, policy::evidence::Found};

/// Findings of one sort that are named; further ones change nothing.
const FINDINGS_MAX: usize = 5;

/// What was found in the parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// Kinds of content, each with its rule.
    pub found: Vec<Found>,
    /// Formats that people described, each with words about where.
    pub fingerprints: Vec<(Fingerprint, String)>,
    /// What is over a limit, broken, or cannot be opened: what is in it is not known.
    pub opaque: Vec<String>,
    /// Scored: what is odd and not forbidden.
    pub reasons: Vec<Reason>,
}

impl Analysis {
    pub(super) fn found(&mut self, kind: ContentKind, rule: &str, text: String) {
        // Counted for each kind and rule, so that a crowd of harmless ones does not push out the one that matters.
        let same = self.found.iter().filter(|found| found.kind == kind && found.rule == rule).count();
        let found = Found { kind, rule: rule.to_owned(), text };
        if same < FINDINGS_MAX && !self.found.contains(&found) {
            self.found.push(found);
        }
    }

    pub(super) fn fits(&mut self, fingerprint: &Fingerprint, text: String) {
        if !self.fingerprints.iter().any(|(known, _)| known == fingerprint) {
            self.fingerprints.push((fingerprint.clone(), text));
        }
    }

    pub(super) fn opaque(&mut self, text: String) {
        if self.opaque.len() < FINDINGS_MAX && !self.opaque.contains(&text) {
            self.opaque.push(text);
        }
    }

    pub(super) fn reason(&mut self, rule: &str, score: Score, text: String) {
        if !self.reasons.iter().any(|reason| reason.rule == rule) {
            self.reasons.push(Reason { rule: rule.to_owned(), score, text });
        }
    }
}

/// Longest name that is kept, in bytes.
const NAME_BYTES_MAX: usize = 4096;

/// A name as it is written in an archive; of a longer one beginning and end, for the end says what it is.
pub(super) fn shortened(name: &[u8]) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return String::from_utf8_lossy(name).into_owned();
    }
    let (begin, end) = (&name[..NAME_BYTES_MAX / 2], &name[name.len() - NAME_BYTES_MAX / 2..]);
    format!("{}{}", String::from_utf8_lossy(begin), String::from_utf8_lossy(end))
}

/// A hostile name as text: on one line, short, in quotes.
pub(super) fn quoted(name: &str) -> String {
    let name: String = without_controls(name).chars().take(80).collect();
    format!("\"{}\"", name.replace('"', "'"))
}
