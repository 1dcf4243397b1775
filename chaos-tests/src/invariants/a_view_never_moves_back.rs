//! A node's view only moves forward, in log index and in policy version, also when it goes from server to server.

use std::collections::BTreeMap;

use super::Violation;
use crate::watchers::Seen;

/// Looks at what each watch saw, in its order.
#[must_use]
pub fn check(seen: &[Seen]) -> Vec<Violation> {
    let mut last: BTreeMap<usize, Seen> = BTreeMap::new();
    let mut violations = Vec::new();
    for now in seen {
        let before = last.get(&now.watcher).copied();
        let policy_version = now.policy_version.or(before.and_then(|before| before.policy_version));
        if let Some(before) = before
            && (now.index < before.index || policy_version < before.policy_version)
        {
            let seen = format!("{before:?}\nand then\n{now:?}");
            violations.push(Violation { invariant: "a view never moves back", seen });
        }
        last.insert(now.watcher, Seen { policy_version, ..*now });
    }
    violations
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::check;
    use crate::{oracle::Moment, watchers::Seen};

    fn seen(watcher: usize, server: usize, index: u64, policy_version: Option<u64>) -> Seen {
        let at = Moment { tick: index, at: Duration::ZERO };
        Seen { watcher, server, at, index, policy_version, confirmed: true }
    }

    #[test]
    fn a_step_back_of_index_or_policy_is_found_at_each_watch_on_its_own() {
        let well = [seen(0, 0, 5, Some(2)), seen(1, 1, 3, Some(1)), seen(0, 1, 5, None), seen(1, 2, 9, Some(3))];
        assert_eq!(check(&well), []);
        assert_eq!(check(&[seen(0, 0, 5, Some(2)), seen(0, 1, 4, None)]).len(), 1);
        assert_eq!(check(&[seen(0, 0, 5, Some(2)), seen(0, 1, 6, None), seen(0, 2, 7, Some(1))]).len(), 1);
    }
}
