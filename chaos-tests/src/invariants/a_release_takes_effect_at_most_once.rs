//! Of all who release a message one at most is told that it is done, however many sites they ask at.

use super::Violation;
use crate::{
    histories::held::{HeldAnswer, HeldOp},
    workload::Histories,
};

/// Looks at each message on its own.
#[must_use]
pub fn check(histories: &Histories) -> Vec<Violation> {
    let twice = histories.messages.iter().filter_map(|message| {
        let done = |op: &HeldOp| matches!(op, HeldOp::Release { .. });
        let done = message.told.iter().filter(|told| done(&told.op) && told.answer == Some(HeldAnswer::Done));
        let done: Vec<String> = done.map(ToString::to_string).collect();
        (done.len() > 1).then(|| Violation {
            invariant: "a release takes effect at most once",
            seen: format!("{}:\n{}", message.object, done.join("\n")),
        })
    });
    twice.collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::{
        histories::{
            History,
            held::{HeldAnswer, HeldOp, HeldState},
            policy::InForce,
            tests::told,
        },
        workload::Histories,
    };

    #[test]
    fn two_that_were_told_done_are_found() {
        let release = |from, answer| told(from, from + 1, HeldOp::Release { by: "ann".into() }, Some(answer));
        let first = HeldAnswer::AlreadyReleased { by: "ann".into() };
        for (second, wrong) in [(HeldAnswer::Done, 1), (first, 0)] {
            let all = vec![release(1, HeldAnswer::Done), release(3, second)];
            let messages = vec![History { object: "m".into(), initial: HeldState::Waiting, told: all }];
            let policy = History { object: "p".into(), initial: InForce::default(), told: Vec::new() };
            assert_eq!(check(&Histories { policy, messages }).len(), wrong);
        }
    }
}
