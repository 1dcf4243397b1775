//! What a client was told is done is there at the end: messages kept, releases, versions of the policy.

use std::collections::BTreeMap;

use super::Violation;
use crate::{
    histories::{
        held::{HeldAnswer, HeldOp, Shown},
        policy::{PolicyAnswer, PolicyOp},
    },
    workload::Histories,
};

fn violation(seen: String) -> Violation {
    Violation { invariant: "nothing acknowledged is lost", seen }
}

/// `versions`: the history of policies as a server that is well shows it after the window. The last answered look at each message
/// is taken as what became of it.
#[must_use]
pub fn check(histories: &Histories, versions: &BTreeMap<u64, String>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for message in &histories.messages {
        let shown = |op: &HeldOp| matches!(op, HeldOp::Show);
        let looks = message.told.iter().filter(|told| shown(&told.op) && told.answer.is_some());
        let Some(last) = looks.max_by_key(|told| told.from.tick) else {
            violations.push(violation(format!("{}: nobody could look at it at the end", message.object)));
            continue;
        };
        for told in message.told.iter().filter(|told| told.answer == Some(HeldAnswer::Done)) {
            let kept = match (&told.op, &last.answer) {
                (_, None | Some(HeldAnswer::NoSuch)) => false,
                (HeldOp::Release { by }, Some(HeldAnswer::Shown(Shown::Released { by: shown, .. }))) => by == shown,
                (HeldOp::Release { .. } | HeldOp::Lease { .. }, Some(HeldAnswer::Shown(Shown::Waiting))) => false,
                (HeldOp::Deliver { .. }, answer) => *answer == Some(HeldAnswer::Shown(Shown::Delivered)),
                (HeldOp::Hold | HeldOp::Release { .. } | HeldOp::Lease { .. } | HeldOp::Show, Some(_)) => true,
            };
            if !kept {
                violations.push(violation(format!("{}:\n{told}\nbut at the end\n{last}", message.object)));
            }
        }
    }
    for told in &histories.policy.told {
        if let (PolicyOp::Apply { tag, .. }, Some(PolicyAnswer::Applied(version))) = (&told.op, &told.answer)
            && versions.get(version) != Some(tag)
        {
            let there = versions.get(version);
            violations.push(violation(format!("{}:\n{told}\nbut at the end it is {there:?}", histories.policy.object)));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::check;
    use crate::{
        histories::{
            History,
            held::{HeldAnswer, HeldOp, HeldState, Shown},
            policy::{InForce, PolicyAnswer, PolicyOp},
            tests::told,
        },
        workload::Histories,
    };

    fn histories(answer: HeldAnswer) -> Histories {
        let by = || "ann".to_owned();
        let message = vec![
            told(1, 2, HeldOp::Hold, Some(HeldAnswer::Done)),
            told(3, 4, HeldOp::Release { by: by() }, Some(HeldAnswer::Done)),
            told(5, 6, HeldOp::Show, Some(answer)),
        ];
        let apply = told(1, 2, PolicyOp::Apply { base: 6, tag: "t".into() }, Some(PolicyAnswer::Applied(7)));
        Histories {
            policy: History { object: "policy".into(), initial: InForce::default(), told: vec![apply] },
            messages: vec![History { object: "m".into(), initial: HeldState::Absent, told: message }],
        }
    }

    #[test]
    fn a_lost_message_release_or_policy_is_found() {
        let there = BTreeMap::from([(7, "t".to_owned())]);
        let released = |by: &str| HeldAnswer::Shown(Shown::Released { by: by.into(), lease: None });
        assert_eq!(check(&histories(released("ann")), &there), []);
        assert_eq!(check(&histories(HeldAnswer::Shown(Shown::Delivered)), &there), []);
        assert_eq!(check(&histories(HeldAnswer::NoSuch), &there).len(), 2, "kept and released, and gone");
        assert_eq!(check(&histories(HeldAnswer::Shown(Shown::Waiting)), &there).len(), 1, "the release is gone");
        assert_eq!(check(&histories(released("bob")), &there).len(), 1, "somebody else's release");
        assert_eq!(check(&histories(released("ann")), &BTreeMap::new()).len(), 1, "the policy is gone");
        let other = BTreeMap::from([(7, "u".to_owned())]);
        assert_eq!(check(&histories(released("ann")), &other).len(), 1, "another policy in its place");
    }
}
