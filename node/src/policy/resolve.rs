//! From what became of each recipient to the one reply that SMTP allows, and what must be held before it is given.

use std::sync::Arc;

use proto::{
    held::{HeldKind, TransactionId},
    verdict::{Disposition, Verdict},
};

use crate::{
    message::Message,
    smtp::{
        reply::{Class, Reply},
        transaction::Recipient,
    },
};

/// A message from which something was taken out; nothing where it goes on as it came.
pub type Edit = Option<Arc<Message>>;

/// Whether two get the same.
#[must_use]
pub fn is_same_edit(one: &Edit, other: &Edit) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

/// What became of one recipient after `act`.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Who.
    pub recipient: Recipient,
    /// The verdict for it.
    pub verdict: Verdict,
    /// What it gets in the place of the message.
    pub edit: Edit,
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
    /// Sent, but the next hop's final answer has not come. To be held rather than left with the sender: whoever sends it
    /// again with the same patience gets the same end and leaves another copy.
    Unknown(Reply),
}

impl End {
    /// Whether the sender may forget this recipient.
    #[must_use]
    pub const fn is_safe(&self) -> bool {
        match self {
            Self::Delivered { .. } | Self::Held(_) | Self::Discarded => true,
            Self::Refused(_) | Self::Deferred(_) | Self::Unknown(_) => false,
        }
    }
}

/// What follows from the fates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Which fates, by their place, must be held as what before `reply` may be given.
    pub hold: Vec<(usize, HeldKind)>,
    /// The reply when all of `hold` is held.
    pub reply: Reply,
}

/// The plan's rules: all refused, 5xx; nothing safe and something temporary, 4xx; something safe, 250 after the rest is
/// held. A mixed verdict never bounces and never disappears. What may have been delivered counts as something safe, because it
/// is held.
#[must_use]
pub fn resolve(id: TransactionId, fates: &[Fate]) -> Resolution {
    if fates.iter().any(|fate| fate.end.is_safe() || matches!(fate.end, End::Unknown(_))) {
        let unsafe_ones = fates.iter().enumerate().filter(|(_, fate)| !fate.end.is_safe());
        let hold = unsafe_ones.map(|(at, fate)| (at, kind(fate))).collect();
        return Resolution { hold, reply: Reply::done(50, (0, 0), format!("accepted as {id}")) };
    }
    let deferred = fates.iter().find_map(|fate| match &fate.end {
        End::Deferred(reply) => Some(reply),
        End::Refused(_) | End::Unknown(_) | End::Delivered { .. } | End::Held(_) | End::Discarded => None,
    });
    let refused = fates.iter().find_map(|fate| match &fate.end {
        End::Refused(reply) => Some(reply),
        End::Deferred(_) | End::Unknown(_) | End::Delivered { .. } | End::Held(_) | End::Discarded => None,
    });
    let reply = match (deferred, refused) {
        (Some(reply), _) => of_class(reply, Class::Temporary, id),
        (None, Some(reply)) => of_class(reply, Class::Permanent, id),
        (None, None) => unheld(id),
    };
    Resolution { hold: Vec::new(), reply }
}

/// The reply when what must be held could not be.
#[must_use]
pub fn unheld(id: TransactionId) -> Reply {
    Reply::temporary(51, (3, 0), format!("cannot keep the message safe now, try again later ({id})"))
}

/// A next hop's or a rule's reply is passed on, but never with another class than its fate's.
fn of_class(reply: &Reply, class: Class, id: TransactionId) -> Reply {
    if reply.class() == class {
        return reply.clone();
    }
    match class {
        Class::Permanent => Reply::permanent(54, (0, 0), format!("refused ({id})")),
        Class::Temporary | Class::Done | Class::Continue => unheld(id),
    }
}

/// Only what was accepted moves by itself later. A recipient whose verdict was to defer or to reject would get what the
/// checks did not let pass: a person must look at it.
fn kind(fate: &Fate) -> HeldKind {
    let may_move = match (&fate.end, fate.verdict.disposition) {
        (End::Deferred(_) | End::Unknown(_), Disposition::Accept) => true,
        (
            End::Deferred(_) | End::Unknown(_),
            Disposition::Quarantine | Disposition::Reject | Disposition::Defer | Disposition::Discard,
        )
        | (End::Refused(_) | End::Delivered { .. } | End::Held(_) | End::Discarded, _) => false,
    };
    if may_move { HeldKind::Deferred } else { HeldKind::Quarantined }
}

/// What the sender of a message is told when a verdict rejects or defers it. `None` for the other dispositions.
#[must_use]
pub fn reply_of(verdict: &Verdict, id: TransactionId) -> Option<Reply> {
    let first = verdict.reasons.first();
    let rule = first.map_or("", |reason| reason.rule.as_str());
    let text = first.map_or("by policy", |reason| reason.text.as_str());
    match verdict.disposition {
        Disposition::Reject => {
            let (detail, enhanced) = match rule {
                "MAIL_LOOP" => (54, (4, 6)),
                "TOO_LARGE" => (52, (3, 4)),
                "UNPARSABLE" => (54, (6, 0)),
                "DMARC_POLICY" => (50, (7, 26)),
                "FORGED_DEPARTMENT" => (50, (7, 1)),
                _ => (54, (7, 1)),
            };
            let is_hard = first.is_some_and(|reason| reason.score == proto::score::Score::ZERO);
            let text = if is_hard { text } else { "it looks like spam" };
            Some(Reply::permanent(detail, enhanced, format!("refused: {text} ({id})")))
        }
        Disposition::Defer => {
            let (detail, enhanced) = if rule == "AUTHENTICATION_UNAVAILABLE" { (51, (4, 3)) } else { (51, (7, 0)) };
            Some(Reply::temporary(detail, enhanced, format!("not now, try again later: {text} ({id})")))
        }
        Disposition::Accept | Disposition::Quarantine | Disposition::Discard => None,
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
