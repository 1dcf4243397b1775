//! A view that a server calls confirmed has every policy that was acknowledged a while before.

use std::{collections::BTreeMap, time::Duration};

use super::Violation;
use crate::{
    histories::{
        History,
        policy::{Policy, PolicyAnswer},
    },
    watchers::Seen,
};

/// From the acknowledgement to the view at a server that is in touch with its quorum: two seconds, and a margin for a slow disk
/// and a line between sites.
const LATE_MAX: Duration = Duration::from_secs(5);

/// A version of the policy, and when its client was told that it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Since the start of the run.
    pub at: Duration,
    /// Number of the version.
    pub version: u64,
}

/// What a window's clients were told.
pub fn acknowledged(policy: &History<Policy>) -> impl Iterator<Item = Acknowledged> {
    policy.told.iter().filter_map(|told| match told.answer {
        Some(PolicyAnswer::Applied(version)) => Some(Acknowledged { at: told.to.at, version }),
        Some(PolicyAnswer::Read(_) | PolicyAnswer::Moved(_) | PolicyAnswer::Strange(_)) | None => None,
    })
}

/// Looks at what each watch of a run saw, in its order. A watch that was told of no policy yet knows of none.
#[must_use]
pub fn check(acknowledged: &[Acknowledged], seen: &[Seen]) -> Vec<Violation> {
    let mut known: BTreeMap<usize, u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for now in seen {
        let version = known.entry(now.watcher).or_default();
        *version = now.policy_version.unwrap_or(*version);
        let due = acknowledged.iter().filter(|one| one.at + LATE_MAX <= now.at.at && one.version > *version);
        if now.confirmed
            && let Some(missing) = due.max_by_key(|one| one.version)
        {
            let seen = format!("{now:?} at policy version {version}, and before that {missing:?}");
            violations.push(Violation { invariant: "a confirmed view is up to date", seen });
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Acknowledged, check};
    use crate::{oracle::Moment, watchers::Seen};

    fn seen(seconds: u64, policy_version: Option<u64>, confirmed: bool) -> Seen {
        let at = Moment { tick: seconds, at: Duration::from_secs(seconds) };
        Seen { watcher: 0, server: 0, at, index: 1, policy_version, confirmed }
    }

    #[test]
    fn a_policy_that_never_comes_is_found() {
        let acknowledged = [(1, 1), (10, 2)].map(|(at, version)| Acknowledged { at: Duration::from_secs(at), version });
        let table = [
            (vec![seen(2, Some(1), true), seen(14, None, true), seen(16, Some(2), true)], 0),
            (vec![seen(2, Some(1), true), seen(15, None, true)], 1),
            (vec![seen(2, Some(1), true), seen(15, Some(1), true), seen(16, Some(2), true)], 1),
            (vec![seen(2, Some(1), true), seen(60, None, false)], 0),
            (vec![seen(6, None, true)], 1),
        ];
        for (seen, wrong) in table {
            assert_eq!(check(&acknowledged, &seen).len(), wrong, "{seen:?}");
        }
    }
}
