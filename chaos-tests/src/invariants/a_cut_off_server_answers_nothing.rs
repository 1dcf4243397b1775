//! A server that no quorum can hear, or that hears none, confirms no write and answers no read that needs the quorum: no stale
//! "released", and no view called fresh later than an election time-out and a second.

use std::{fmt, time::Duration};

use super::Violation;
use crate::{
    faults::Spell,
    histories::{History, Spec},
    watchers::Seen,
    workload::Histories,
};

/// The longest election time-out and a margin of a second.
const FRESH_MAX: Duration = Duration::from_secs(2);

fn violation(seen: String) -> Violation {
    Violation { invariant: "a cut-off server answers nothing", seen }
}

/// Whatever was asked of the cut-off server after the cut and answered before it healed.
fn answers<S: Spec>(history: &History<S>, spell: &Spell) -> Vec<Violation>
where
    S::Op: fmt::Debug,
    S::Answer: fmt::Debug,
{
    let wrong = history.told.iter().filter(|told| {
        let within = told.from.tick > spell.from.tick && told.to.tick < spell.to.tick;
        told.server == spell.server && within && told.answer.is_some()
    });
    wrong.map(|told| violation(format!("{}, cut off {:?}:\n{told}", history.object, spell.from.at))).collect()
}

/// Looks at the time of one cut.
#[must_use]
pub fn check(histories: &Histories, seen: &[Seen], spell: &Spell) -> Vec<Violation> {
    if !spell.cut_off {
        return Vec::new();
    }
    let mut violations = answers(&histories.policy, spell);
    violations.extend(histories.messages.iter().flat_map(|message| answers(message, spell)));
    let fresh = seen.iter().filter(|seen| {
        let late = seen.at.at > spell.from.at + FRESH_MAX && seen.at.tick < spell.to.tick;
        seen.server == spell.server && seen.confirmed && late
    });
    violations.extend(fresh.map(|seen| violation(format!("cut off {:?}, and yet confirmed: {seen:?}", spell.from.at))));
    violations
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::check;
    use crate::{
        faults::Spell,
        histories::{
            History,
            held::{HeldAnswer, HeldOp, HeldState},
            policy::InForce,
            tests::told,
        },
        oracle::Moment,
        schedule::FaultKind,
        watchers::Seen,
        workload::Histories,
    };

    fn moment(tick: u64) -> Moment {
        Moment { tick, at: Duration::from_millis(tick) }
    }

    fn spell(cut_off: bool) -> Spell {
        let (from, to) = (moment(1_000), moment(9_000));
        Spell {
            kind: FaultKind::Cut,
            server: 0,
            from,
            to,
            cut_off,
            refuses_after: None,
            term: 1,
            ended_by_itself: false,
        }
    }

    fn histories(from: u64, to: u64) -> Histories {
        let told = vec![told(from, to, HeldOp::Release { by: "ann".into() }, Some(HeldAnswer::Done))];
        let policy = History { object: "p".into(), initial: InForce::default(), told: Vec::new() };
        Histories { policy, messages: vec![History { object: "m".into(), initial: HeldState::Waiting, told }] }
    }

    fn confirmed(tick: u64) -> [Seen; 1] {
        [Seen { watcher: 0, server: 0, at: moment(tick), index: 1, policy_version: None, confirmed: true }]
    }

    #[test]
    fn an_answer_within_the_cut_is_found() {
        assert_eq!(check(&histories(2_000, 3_000), &[], &spell(true)).len(), 1);
        assert_eq!(check(&histories(500, 3_000), &[], &spell(true)), [], "asked before the cut");
        assert_eq!(check(&histories(2_000, 9_500), &[], &spell(true)), [], "answered after it");
        assert_eq!(check(&histories(2_000, 3_000), &[], &spell(false)), [], "it was not cut off");
    }

    #[test]
    fn a_view_that_is_called_fresh_for_too_long_is_found() {
        assert_eq!(check(&histories(1, 2), &confirmed(2_500), &spell(true)), []);
        assert_eq!(check(&histories(1, 2), &confirmed(3_500), &spell(true)).len(), 1);
        assert_eq!(check(&histories(1, 2), &confirmed(9_500), &spell(true)), []);
    }
}
