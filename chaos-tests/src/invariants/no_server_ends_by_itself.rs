//! A server ends by itself only when its disk has failed it.

use super::Violation;
use crate::{faults::Spell, schedule::FaultKind};

/// Whether this kind of fault may end a process: after a failed write or fsync nobody knows what is on the disk.
fn may_end(kind: FaultKind) -> bool {
    match kind {
        FaultKind::Diskfull | FaultKind::Eio => true,
        FaultKind::Kill
        | FaultKind::Pause
        | FaultKind::Cut
        | FaultKind::Oneway
        | FaultKind::Flap
        | FaultKind::Slowdisk
        | FaultKind::Clock => false,
    }
}

/// `down`: each server that should run after the fault and does not, with the end of its log.
#[must_use]
pub fn check(spell: &Spell, down: &[String]) -> Vec<Violation> {
    let violation = |seen: String| Violation { invariant: "no server ends by itself", seen };
    let struck = spell.ended_by_itself && !may_end(spell.kind);
    let struck = struck.then(|| violation(format!("server {} under {}", spell.server, spell.kind)));
    struck.into_iter().chain(down.iter().cloned().map(violation)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::check;
    use crate::{faults::Spell, oracle::Moment, schedule::FaultKind};

    #[test]
    fn only_a_broken_disk_excuses_an_end() {
        let at = Moment { tick: 1, at: Duration::ZERO };
        let spell = |kind| Spell {
            kind,
            server: 0,
            from: at,
            to: at,
            cut_off: false,
            refuses_after: None,
            term: 1,
            ended_by_itself: true,
        };
        assert_eq!(check(&spell(FaultKind::Pause), &[]).len(), 1);
        assert_eq!(check(&spell(FaultKind::Eio), &[]), []);
        assert_eq!(check(&spell(FaultKind::Eio), &["beta".into()]).len(), 1, "another one than was struck");
    }
}
