//! From what became of each recipient to the one reply that SMTP allows, and what must be held before it is given.

use proto::{held::HeldKind, verdict::Verdict};

use crate::smtp::{reply::Reply, transaction::Recipient};

/// What became of one recipient after `act`.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Who.
    pub recipient: Recipient,
    /// The verdict for it.
    pub verdict: Verdict,
    /// What came of it.
    pub end: End,
}

/// How far a recipient's mail got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The next hop said 250.
    Delivered {
        /// Which one.
        next_hop: String,
        /// Its reply, for the log.
        reply: String,
    },
    /// Its record is committed and its body durable.
    Held(HeldKind),
    /// Thrown away by policy, with an audit record.
    Discarded,
    /// Not safe anywhere; 5xx would be right.
    Refused(Reply),
    /// Not safe anywhere; 4xx would be right.
    Deferred(Reply),
}
