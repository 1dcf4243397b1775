//! Every history has an order that explains each answer; one that could not be decided is a fault of the check, and no pass.

use super::Violation;
use crate::{
    histories::{History, Judgement, Spec},
    workload::Histories,
};

fn judged<S: Spec>(history: &History<S>) -> Option<Violation> {
    let invariant = "histories are linearizable";
    match history.judge() {
        Judgement::Linearizable => None,
        Judgement::Violated(seen) | Judgement::Undecided(seen) => Some(Violation { invariant, seen }),
    }
}

/// Judges each history on its own. Takes processor time: call it off the runtime's threads.
#[must_use]
pub fn check(histories: &Histories) -> Vec<Violation> {
    let messages = histories.messages.iter().filter_map(judged);
    judged(&histories.policy).into_iter().chain(messages).collect()
}
