//! Takes out of an accepted message what its recipients' policy does not let in. What cannot be cut out cleanly is kept whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::{
    score::Score,
    verdict::{Disposition, Verdict},
};

use super::Examiner;
use crate::{
    actions::notice::notice,
    message::{
        Message,
        edit::{self, Uncut},
        quoted,
    },
    policy::{
        blocked::{self, NOT_STRIPPED, STRIPPED},
        decide::is_stripped,
        evidence::{Analysed, Evidence},
        resolve::Edit,
        score::reason,
    },
    smtp::transaction::{Recipient, Transaction},
};

/// Different edits of one message: each takes as much memory as the message.
const EDITS_MAX: usize = 4;
/// Names that a verdict tells.
const NAMES_MAX: usize = 5;

/// What is to be taken out, and what the notices say of it.
type Wish = (BTreeMap<usize, BTreeSet<String>>, String);

/// The message without it, and words for the verdict; or why it was not made.
type Made = Result<(Arc<Message>, String), Kept>;

#[derive(Clone, Copy)]
enum Kept {
    Uncut(Uncut),
    Unknown,
    TooMany,
    BrokeOff,
    NotNow,
}

impl Kept {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Uncut(why) => why.as_str(),
            Self::Unknown => "it holds more of that than is told",
            Self::TooMany => "its recipients want too many different messages",
            Self::BrokeOff | Self::NotNow => "it could not be cut",
        }
    }
}

impl Examiner {
    /// An edit for each group whose verdict demands one. Where it cannot be made the verdict changes: to quarantine, or, when
    /// only room was missing, to come again.
    pub(super) async fn strip(
        &self,
        message: &Arc<Message>,
        evidence: &Evidence,
        transaction: &Transaction,
        verdicts: &mut [(Vec<Recipient>, Verdict)],
    ) -> Vec<Edit> {
        let mut done: Vec<(Wish, Made)> = Vec::new();
        let mut edits = Vec::with_capacity(verdicts.len());
        for (group, verdict) in verdicts {
            let Some(first) = group.first().filter(|_| is_stripped(verdict)) else {
                edits.push(None);
                continue;
            };
            let made = match blocked::parts(message, evidence, &first.policy) {
                None => Err(Kept::Unknown),
                // What was found must be somewhere.
                Some(parts) if parts.is_empty() => Err(Kept::Unknown),
                Some(parts) => {
                    let wish = (parts, first.policy.strip_notice.value.clone());
                    match done.iter().find(|(other, _)| *other == wish) {
                        Some((_, made)) => made.clone(),
                        None if done.len() >= EDITS_MAX => Err(Kept::TooMany),
                        None => {
                            let made = self.made(message.clone(), transaction, wish.clone()).await;
                            done.push((wish, made.clone()));
                            made
                        }
                    }
                }
            };
            edits.push(told(verdict, made));
        }
        edits
    }

    async fn made(&self, message: Arc<Message>, transaction: &Transaction, wish: Wish) -> Made {
        let (limits, id, length) = (self.limits.clone(), transaction.id, message.bytes.len());
        let work = move || {
            let (parts, text) = wish;
            let pieces = edit::pieces(&message, &parts.keys().copied().collect())?;
            let noticed = |piece| {
                let text = notice(&text, &message, &piece, &parts, id);
                (piece, text)
            };
            let pieces: Vec<_> = pieces.into_iter().map(noticed).collect();
            let edited = edit::without(&message, &pieces, &limits)?;
            let gone = pieces.iter().flat_map(|(piece, _)| &piece.parts);
            let names = gone.filter_map(|at| message.parts.get(*at)?.names.first()).take(NAMES_MAX);
            let names: Vec<String> = names.map(|name| quoted(name)).collect();
            Ok((Arc::new(edited), format!("what is not let in was taken out: {}", names.join(", "))))
        };
        match self.in_time(length, work).await {
            Ok(made) => made.map_err(Kept::Uncut),
            Err(Analysed::NotNow) => Err(Kept::NotNow),
            Err(Analysed::BrokeOff | Analysed::Whole) => Err(Kept::BrokeOff),
        }
    }
}

/// The verdict says what came of it.
fn told(verdict: &mut Verdict, made: Made) -> Edit {
    let demand = verdict.reasons.iter_mut().find(|reason| reason.rule == STRIPPED)?;
    match made {
        Ok((message, text)) => {
            demand.text = text;
            Some(message)
        }
        Err(kept) => {
            let why = kept.as_str();
            *demand = reason(NOT_STRIPPED, Score::ZERO, format!("what is not let in was not taken out: {why}"));
            verdict.disposition = Disposition::Quarantine;
            if matches!(kept, Kept::NotNow) {
                verdict.disposition = Disposition::Defer;
                verdict.reasons.insert(0, reason("UNREAD", Score::ZERO, "there was no room to cut it"));
            }
            None
        }
    }
}

#[cfg(test)]
#[path = "strip_tests.rs"]
mod tests;
