//! A held message: kept, released once, leased by one node, delivered.

use super::Spec;

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeldState {
    /// Nobody has kept it yet.
    Absent,
    /// Quarantined.
    Waiting,
    /// Released, and perhaps on its way.
    Released {
        /// The operator.
        by: String,
        /// The node that delivers it. Leases here outlast a run, so that none runs out.
        lease: Option<String>,
    },
    /// At its recipients.
    Delivered {
        /// The operator.
        by: String,
    },
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldOp {
    /// A node keeps it.
    Hold,
    /// An operator releases it.
    Release {
        /// The operator.
        by: String,
    },
    /// An operator looks at it.
    Show,
    /// A node wants to deliver it.
    Lease {
        /// The node.
        node: String,
    },
    /// A node says that it has.
    Deliver {
        /// The node.
        node: String,
    },
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldAnswer {
    /// It is done, or the lease given.
    Done,
    /// There is none of that id.
    NoSuch,
    /// Somebody was first.
    AlreadyReleased {
        /// The operator.
        by: String,
    },
    /// Nobody has released it.
    NotReleased,
    /// Another node has it.
    LeasedBy {
        /// The node.
        node: String,
    },
    /// This node does not have it.
    LeaseLost,
    /// This is how it stands. A delivered one is shown without its operator.
    Shown(Shown),
    /// Something that is no answer to the question.
    Strange(String),
}

/// What an operator sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Quarantined.
    Waiting,
    /// Released.
    Released {
        /// The operator.
        by: String,
        /// The node that delivers it.
        lease: Option<String>,
    },
    /// At its recipients.
    Delivered,
}

/// The held message.
#[derive(Clone, Copy, Debug)]
pub struct HeldMessage;

fn show(state: &HeldState) -> HeldAnswer {
    match state {
        HeldState::Absent => HeldAnswer::NoSuch,
        HeldState::Waiting => HeldAnswer::Shown(Shown::Waiting),
        HeldState::Released { by, lease } => {
            HeldAnswer::Shown(Shown::Released { by: by.clone(), lease: lease.clone() })
        }
        HeldState::Delivered { .. } => HeldAnswer::Shown(Shown::Delivered),
    }
}

fn lease(state: &HeldState, node: &str) -> (HeldState, HeldAnswer) {
    match state {
        HeldState::Absent => (state.clone(), HeldAnswer::NoSuch),
        HeldState::Waiting => (state.clone(), HeldAnswer::NotReleased),
        HeldState::Released { lease: Some(other), .. } if other != node => {
            (state.clone(), HeldAnswer::LeasedBy { node: other.clone() })
        }
        HeldState::Released { by, .. } => {
            (HeldState::Released { by: by.clone(), lease: Some(node.to_owned()) }, HeldAnswer::Done)
        }
        HeldState::Delivered { by } => (state.clone(), HeldAnswer::AlreadyReleased { by: by.clone() }),
    }
}

fn deliver(state: &HeldState, node: &str) -> (HeldState, HeldAnswer) {
    match state {
        HeldState::Absent => (state.clone(), HeldAnswer::NoSuch),
        HeldState::Released { by, lease: Some(holder) } if holder == node => {
            (HeldState::Delivered { by: by.clone() }, HeldAnswer::Done)
        }
        HeldState::Waiting | HeldState::Released { .. } | HeldState::Delivered { .. } => {
            (state.clone(), HeldAnswer::LeaseLost)
        }
    }
}

impl Spec for HeldMessage {
    type State = HeldState;
    type Op = HeldOp;
    type Answer = HeldAnswer;

    fn step(state: &HeldState, op: &HeldOp) -> (HeldState, HeldAnswer) {
        match op {
            // The same record again changes nothing.
            HeldOp::Hold if *state == HeldState::Absent => (HeldState::Waiting, HeldAnswer::Done),
            HeldOp::Hold => (state.clone(), HeldAnswer::Done),
            HeldOp::Show => (state.clone(), show(state)),
            HeldOp::Lease { node } => lease(state, node),
            HeldOp::Deliver { node } => deliver(state, node),
            HeldOp::Release { by } => match state {
                HeldState::Absent => (HeldState::Absent, HeldAnswer::NoSuch),
                HeldState::Waiting => (HeldState::Released { by: by.clone(), lease: None }, HeldAnswer::Done),
                HeldState::Released { by: first, .. } | HeldState::Delivered { by: first } => {
                    (state.clone(), HeldAnswer::AlreadyReleased { by: first.clone() })
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HeldAnswer, HeldMessage, HeldOp, HeldState, Shown};
    use crate::{
        histories::{History, Judgement, tests::told},
        oracle::Told,
    };

    fn release(by: &str) -> HeldOp {
        HeldOp::Release { by: by.into() }
    }

    fn judge(told: Vec<Told<HeldOp, HeldAnswer>>) -> Judgement {
        History::<HeldMessage> { object: "a message".into(), initial: HeldState::Waiting, told }.judge()
    }

    #[test]
    fn a_release_that_is_done_twice_is_found() {
        let first = told(1, 4, release("ann"), Some(HeldAnswer::Done));
        let told_so = told(2, 5, release("bob"), Some(HeldAnswer::AlreadyReleased { by: "ann".into() }));
        assert_eq!(judge(vec![first.clone(), told_so]), Judgement::Linearizable);
        let twice = told(2, 5, release("bob"), Some(HeldAnswer::Done));
        assert!(matches!(judge(vec![first, twice]), Judgement::Violated(_)));
    }

    #[test]
    fn a_release_may_not_name_somebody_who_was_not_first() {
        let first = told(1, 2, release("ann"), Some(HeldAnswer::Done));
        let wrong = told(3, 4, release("bob"), Some(HeldAnswer::AlreadyReleased { by: "carl".into() }));
        assert!(matches!(judge(vec![first, wrong]), Judgement::Violated(_)));
    }

    #[test]
    fn a_lease_has_one_holder_and_an_unknown_one_may_be_it() {
        let lease = |from, node: &str, answer| told(from, from + 1, HeldOp::Lease { node: node.into() }, answer);
        let start = told(1, 2, release("ann"), Some(HeldAnswer::Done));
        let taken = Some(HeldAnswer::LeasedBy { node: "n1".into() });
        let unknown = vec![start.clone(), lease(3, "n1", None), lease(5, "n2", taken)];
        assert_eq!(judge(unknown), Judgement::Linearizable);
        let both = vec![start, lease(3, "n1", Some(HeldAnswer::Done)), lease(5, "n2", Some(HeldAnswer::Done))];
        assert!(matches!(judge(both), Judgement::Violated(_)));
    }

    #[test]
    fn what_was_kept_may_not_be_gone() {
        let all =
            vec![told(1, 2, HeldOp::Hold, Some(HeldAnswer::Done)), told(3, 4, HeldOp::Show, Some(HeldAnswer::NoSuch))];
        let history = History::<HeldMessage> { object: "a message".into(), initial: HeldState::Absent, told: all };
        assert!(matches!(history.judge(), Judgement::Violated(_)));
        let seen = told(3, 4, HeldOp::Show, Some(HeldAnswer::Shown(Shown::Waiting)));
        assert_eq!(judge(vec![seen]), Judgement::Linearizable);
    }
}
