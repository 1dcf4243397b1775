//! Who asks a server that has been cut off for longer than an election takes is told so soon, and need not wait.

use std::{fmt, time::Duration};

use super::Violation;
use crate::{
    faults::Spell,
    histories::{History, Spec},
    workload::Histories,
};

/// What a busy machine may add.
const MARGIN: Duration = Duration::from_secs(1);

fn waits<S: Spec>(history: &History<S>, spell: &Spell, after: Duration) -> Vec<Violation>
where
    S::Op: fmt::Debug,
    S::Answer: fmt::Debug,
{
    let long = history.told.iter().filter(|told| {
        let asked_within = told.from.tick > spell.from.tick && told.from.tick < spell.to.tick;
        let due = told.from.at.max(spell.from.at + after) + MARGIN;
        told.server == spell.server && asked_within && told.to.at.min(spell.to.at) > due
    });
    let seen = |told| format!("{}, cut off at {:?}:\n{told}", history.object, spell.from.at);
    long.map(|told| Violation { invariant: "a cut-off server refuses soon", seen: seen(told) }).collect()
}

/// Looks at the time of one cut.
#[must_use]
pub fn check(histories: &Histories, spell: &Spell) -> Vec<Violation> {
    let Some(after) = spell.refuses_after else { return Vec::new() };
    let messages = histories.messages.iter().flat_map(|message| waits(message, spell, after));
    waits(&histories.policy, spell, after).into_iter().chain(messages).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::check;
    use crate::{
        faults::Spell,
        histories::{
            History,
            held::{HeldOp, HeldState},
            policy::InForce,
            tests::told,
        },
        oracle::Moment,
        schedule::FaultKind,
        workload::Histories,
    };

    fn found(from: u64, to: u64, refuses_after: Option<Duration>) -> usize {
        let moment = |tick| Moment { tick, at: Duration::from_millis(tick) };
        let spell = Spell {
            kind: FaultKind::Cut,
            server: 0,
            from: moment(1_000),
            to: moment(9_000),
            cut_off: true,
            refuses_after,
            term: 1,
            ended_by_itself: false,
        };
        let told = vec![told(from, to, HeldOp::Hold, None)];
        let policy = History { object: "p".into(), initial: InForce::default(), told: Vec::new() };
        let messages = vec![History { object: "m".into(), initial: HeldState::Waiting, told }];
        check(&Histories { policy, messages }, &spell).len()
    }

    #[test]
    fn whoever_waits_for_a_server_that_is_long_cut_off_is_found() {
        let after = Some(Duration::from_secs(2));
        assert_eq!(found(1_500, 3_900, after), 0, "an election may be under way");
        assert_eq!(found(1_500, 4_100, after), 1);
        assert_eq!(found(5_000, 5_900, after), 0);
        assert_eq!(found(5_000, 6_100, after), 1);
        assert_eq!(found(8_500, 9_900, after), 0, "it healed meanwhile");
        assert_eq!(found(500, 5_000, after), 0, "asked before the cut");
        assert_eq!(found(5_000, 8_000, None), 0);
    }
}
