//! What was found in the parts of a message, each thing once and few of a sort: a verdict must stay small.

use std::collections::BTreeSet;

use proto::{file_name::NamePattern, fingerprint::Fingerprint, policy::ContentKind, score::Score, verdict::Reason};
use serde::{Deserialize, Serialize};

use crate::policy::evidence::{Barred, Found};

/// Findings of one sort that are named; further ones change nothing.
const FINDINGS_MAX: usize = 5;

/// Things in parts that are told; of a message with more of them nothing can be taken out.
pub const BARRED_MAX: usize = 500;

/// What recipients of a message do not let in beside the kinds that are known here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwanted {
    /// Formats.
    pub fingerprints: BTreeSet<Fingerprint>,
    /// Names of files.
    pub names: BTreeSet<NamePattern>,
}

/// What was found in the parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// Kinds of content, each with its rule.
    pub found: Vec<Found>,
    /// Formats that people described, each with words about where.
    pub fingerprints: Vec<(Fingerprint, String)>,
    /// Names that people do not want, each with words about where.
    pub names: Vec<(NamePattern, String)>,
    /// In which part, by its place, what lies of all that; `None` when it is more than is told.
    pub barred: Option<BTreeSet<(usize, Barred)>>,
    /// What is over a limit, broken, or cannot be opened: what is in it is not known.
    pub opaque: Vec<String>,
    /// Scored: what is odd and not forbidden.
    pub reasons: Vec<Reason>,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            found: Vec::new(),
            fingerprints: Vec::new(),
            names: Vec::new(),
            barred: Some(BTreeSet::new()),
            opaque: Vec::new(),
            reasons: Vec::new(),
        }
    }
}

impl Analysis {
    /// Takes in what was found in one part.
    pub(super) fn add(&mut self, part: usize, of: Self) {
        let kinds = of.found.iter().map(|found| Barred::Kind(found.kind));
        let formats = of.fingerprints.iter().map(|(fingerprint, _)| Barred::Fingerprint(fingerprint.clone()));
        let names = of.names.iter().map(|(pattern, _)| Barred::Name(pattern.clone()));
        if let Some(barred) = &mut self.barred {
            barred.extend(kinds.chain(formats).chain(names).map(|what| (part, what)));
        }
        if self.barred.as_ref().is_some_and(|barred| barred.len() > BARRED_MAX) {
            self.barred = None;
        }
        of.found.into_iter().for_each(|found| self.found(found.kind, &found.rule, found.text));
        of.fingerprints.into_iter().for_each(|(fingerprint, text)| self.fits(&fingerprint, text));
        of.names.into_iter().for_each(|(pattern, text)| self.named(&pattern, text));
        of.opaque.into_iter().for_each(|text| self.opaque(text));
        of.reasons.into_iter().for_each(|reason| self.reason(&reason.rule, reason.score, reason.text));
    }

    pub(super) fn named(&mut self, pattern: &NamePattern, text: String) {
        if !self.names.iter().any(|(known, _)| known == pattern) {
            self.names.push((pattern.clone(), text));
        }
    }

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
