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
