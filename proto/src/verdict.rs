//! What is decided about a message for one policy and route, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::score::Score;

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// On to the next hop.
    Accept,
    /// Kept for recipient and operator.
    Quarantine,
    /// 5xx.
    Reject,
    /// 4xx: the sender keeps it.
    Defer,
    /// 250 and gone, with an audit record.
    Discard,
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
            Self::Defer => "defer",
            Self::Discard => "discard",
        })
    }
}

/// One thing that speaks for or against a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Name of the rule, upper case with underscores, stable over versions.
    pub rule: String,
    /// Its points; zero for a hard rule.
    pub score: Score,
    /// In words that a recipient understands, without hostile bytes.
    pub text: String,
}

/// Reasons of a verdict that is kept, at most.
pub const REASONS_MAX: usize = 200;
/// Length of a reason that is kept, rule and text together, in bytes.
pub const REASON_BYTES_MAX: usize = 2_000;

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What happens.
    pub disposition: Disposition,
    /// Sum of the reasons' points.
    pub score: Score,
    /// Whether a header field marks it as suspicious.
    pub tagged: bool,
    /// Hard rules first, then by points.
    pub reasons: Vec<Reason>,
    /// The policy version under which it was made.
    pub policy_version: u64,
}

impl Verdict {
    /// With no more reasons, and no longer ones, than can be kept: the first are hard rules and those of most points.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.reasons.truncate(REASONS_MAX);
        for reason in &mut self.reasons {
            let room = REASON_BYTES_MAX.saturating_sub(reason.rule.len());
            reason.text.truncate(reason.text.floor_char_boundary(room));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Disposition, REASON_BYTES_MAX, REASONS_MAX, Reason, Verdict};
    use crate::score::Score;

    #[test]
    fn a_verdict_that_is_kept_has_no_more_than_can_be_kept() {
        let reason = Reason { rule: "RULE".into(), score: Score::ZERO, text: "ä".repeat(5_000) };
        let (disposition, reasons) = (Disposition::Quarantine, vec![reason; 1_000]);
        let verdict = Verdict { disposition, score: Score::ZERO, tagged: false, reasons, policy_version: 1 }.bounded();
        assert_eq!(verdict.reasons.len(), REASONS_MAX);
        assert!(verdict.reasons.iter().all(|one| one.rule.len() + one.text.len() <= REASON_BYTES_MAX));
    }
}
