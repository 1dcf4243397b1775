//! Clients that propose without a pause, and note in the ledger what they are told.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use proto::mutation::Outcome;
use tokio::{sync::watch, task::JoinSet};

use super::{
    ledger::{Fate, Ledger, Proposal},
    solo::Solo,
};

/// Clients at once.
const CLIENTS: u32 = 16;
/// Proposals of a cycle at most: of up to three records each, two on average, and a server lists no more than a thousand.
pub const PROPOSALS_MAX: u32 = 450;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Whether a client got no answer any more.
    pub broken_off: bool,
    /// Answers that must not be.
    pub faults: Vec<String>,
}

/// Proposes until all is proposed or the server is gone. `acknowledged` counts.
pub async fn run(solo: &Solo, ledger: &Arc<Ledger>, cycle: u32, acknowledged: &watch::Sender<u32>) -> Loaded {
    let next = Arc::new(AtomicU32::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(solo.clone(), Arc::clone(ledger), cycle, Arc::clone(&next), acknowledged.clone()));
    }
    let mut all = Loaded::default();
    while let Some(loaded) = clients.join_next().await {
        match loaded {
            Ok(loaded) => {
                all.broken_off |= loaded.broken_off;
                all.faults.extend(loaded.faults);
            }
            Err(error) => all.faults.push(format!("a client failed: {error}")),
        }
    }
    all
}

async fn client(
    solo: Solo,
    ledger: Arc<Ledger>,
    cycle: u32,
    next: Arc<AtomicU32>,
    acknowledged: watch::Sender<u32>,
) -> Loaded {
    let mut loaded = Loaded::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= PROPOSALS_MAX {
            return loaded;
        }
        let proposal = Proposal { cycle, number };
        ledger.note(proposal, Fate::Unknown);
        let Ok(outcome) = solo.propose(proposal.mutation(), &proposal.change()).await else {
            loaded.broken_off = true;
            return loaded;
        };
        match fate(proposal, &outcome) {
            Ok(fate) => {
                ledger.note(proposal, fate);
                acknowledged.send_modify(|count| *count += 1);
            }
            Err(fault) => loaded.faults.push(fault),
        }
    }
}

/// What an outcome says about a proposal.
///
/// # Errors
/// When it cannot be the answer to it.
pub fn fate(proposal: Proposal, outcome: &Outcome) -> Result<Fate, String> {
    match outcome {
        Outcome::Done if !proposal.is_invalid() => Ok(Fate::Acknowledged),
        Outcome::Refused(_) if proposal.is_invalid() => Ok(Fate::Refused),
        Outcome::Done | Outcome::Refused(_) | Outcome::PolicyApplied { .. } | Outcome::Leased(_) => {
            Err(format!("{proposal:?} was answered with {outcome:?}"))
        }
    }
}
