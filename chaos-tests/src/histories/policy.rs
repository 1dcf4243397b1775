//! The policy as a register: read it, or replace the version that one has seen.

use super::Spec;

/// The version in force and who put it there: each write has a tag of its own. Version zero has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InForce {
    /// Its number.
    pub version: u64,
    /// The grounds that it was applied with.
    pub tag: String,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyOp {
    /// `PolicyHistory`, its newest entry.
    Read,
    /// `PolicyApply` against the version `base`.
    Apply {
        /// What the client has seen.
        base: u64,
        /// Names this write.
        tag: String,
    },
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAnswer {
    /// This is in force.
    Read(InForce),
    /// It is in force under this version.
    Applied(u64),
    /// Another version is in force: this one.
    Moved(u64),
    /// Something that is no answer to the question.
    Strange(String),
}

/// The register.
#[derive(Clone, Copy, Debug)]
pub struct Policy;

impl Spec for Policy {
    type State = InForce;
    type Op = PolicyOp;
    type Answer = PolicyAnswer;

    fn step(state: &InForce, op: &PolicyOp) -> (InForce, PolicyAnswer) {
        match op {
            PolicyOp::Read => (state.clone(), PolicyAnswer::Read(state.clone())),
            PolicyOp::Apply { base, .. } if *base != state.version => {
                (state.clone(), PolicyAnswer::Moved(state.version))
            }
            PolicyOp::Apply { tag, .. } => {
                let version = state.version + 1;
                (InForce { version, tag: tag.clone() }, PolicyAnswer::Applied(version))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{InForce, Policy, PolicyAnswer, PolicyOp};
    use crate::histories::{History, Judgement, tests::told};

    fn apply(base: u64, tag: &str) -> PolicyOp {
        PolicyOp::Apply { base, tag: tag.into() }
    }

    fn judge(told: Vec<crate::oracle::Told<PolicyOp, PolicyAnswer>>) -> Judgement {
        History::<Policy> { object: "the policy".into(), initial: InForce::default(), told }.judge()
    }

    #[test]
    fn of_two_that_replace_the_same_version_one_wins() {
        let first = told(1, 5, apply(0, "a"), Some(PolicyAnswer::Applied(1)));
        let moved = told(2, 6, apply(0, "b"), Some(PolicyAnswer::Moved(1)));
        assert_eq!(judge(vec![first.clone(), moved]), Judgement::Linearizable);
        let both = told(2, 6, apply(0, "b"), Some(PolicyAnswer::Applied(1)));
        assert!(matches!(judge(vec![first, both]), Judgement::Violated(_)));
    }

    #[test]
    fn a_write_that_was_acknowledged_and_lost_is_found() {
        let lost = told(1, 2, apply(0, "a"), Some(PolicyAnswer::Applied(1)));
        let other = InForce { version: 1, tag: "b".into() };
        let late = told(3, 4, apply(0, "b"), None);
        let read = told(5, 6, PolicyOp::Read, Some(PolicyAnswer::Read(other)));
        assert!(matches!(judge(vec![lost, late.clone(), read.clone()]), Judgement::Violated(_)));
        assert_eq!(judge(vec![late, read]), Judgement::Linearizable);
    }
}
