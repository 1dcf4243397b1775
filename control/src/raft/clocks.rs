//! What time it is, by most of the control servers. The leader stamps what it proposes, and log time never goes back: one wrong
//! clock must not move leases, attempts and deadlines of the whole cluster.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proto::time::UnixMs;
use tokio::time::Instant;

/// A clock that nobody has asked for longer than this does not count.
const HEARD_MAX: Duration = Duration::from_secs(30);
/// A clock that is off by no more is taken as it is, in milliseconds: what a line between sites and chrony leave.
const CLOSE_MS: i64 = 1_000;

/// What the other servers' clocks said, and when by the clock of this process that nobody sets.
#[derive(Debug, Default)]
pub(super) struct Clocks(Mutex<BTreeMap<u64, (UnixMs, Instant)>>);

impl Clocks {
    /// Server `id`, asked at `asked`, has just said that it is `theirs`.
    pub(super) fn heard(&self, id: u64, theirs: UnixMs, asked: Instant) {
        let middle = asked + asked.elapsed() / 2;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, (theirs, middle));
    }

    /// Since server `id` last answered; `None` when it never has.
    pub(super) fn answered(&self, id: u64) -> Option<Duration> {
        let clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.get(&id).map(|(_, answered)| answered.elapsed())
    }

    /// The time to stamp a proposal with, where this server's own clock says `own`.
    pub(super) fn time(&self, own: UnixMs) -> UnixMs {
        self.time_at(own, Instant::now())
    }

    fn time_at(&self, own: UnixMs, now: Instant) -> UnixMs {
        let clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = clocks.values().filter(|(_, heard)| now.duration_since(*heard) <= HEARD_MAX);
        let ahead = |(theirs, heard): &(UnixMs, Instant)| {
            let since = i64::try_from(now.duration_since(*heard).as_millis()).unwrap_or(i64::MAX);
            signed(theirs.0).saturating_add(since).saturating_sub(signed(own.0))
        };
        most(own, fresh.map(ahead))
    }
}

/// The middle one of all clocks, the own one among them; of the two in the middle the earlier: log time that stands still for a
/// while does less harm than one that has jumped ahead for good.
fn most(own: UnixMs, others: impl Iterator<Item = i64>) -> UnixMs {
    let mut ahead: Vec<i64> = others.chain([0]).collect();
    ahead.sort_unstable();
    let middle = ahead.get((ahead.len() - 1) / 2).copied().unwrap_or_default();
    if middle.abs() <= CLOSE_MS { own } else { UnixMs(own.0.saturating_add_signed(middle)) }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::time::UnixMs;
    use tokio::time::Instant;

    use super::{Clocks, HEARD_MAX, most};

    const OWN: UnixMs = UnixMs(1_800_000_000_000);
    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn one_wrong_clock_of_three_moves_nothing() {
        let table: [(&[i64], i64); 9] = [
            (&[], 0),
            (&[20, -30], 0),
            // This server's own clock is the wrong one.
            (&[-30 * DAY_MS, -30 * DAY_MS + 200], -30 * DAY_MS + 200),
            (&[DAY_MS, DAY_MS + 5], DAY_MS),
            // Another one's is.
            (&[DAY_MS, 10], 0),
            (&[-DAY_MS, 10], 0),
            // Of two nobody knows which one is wrong.
            (&[DAY_MS], 0),
            (&[-DAY_MS], -DAY_MS),
            (&[DAY_MS, DAY_MS, 0, 5], 0),
        ];
        for (others, moved) in table {
            let time = most(OWN, others.iter().copied());
            assert_eq!(time.0, OWN.0.saturating_add_signed(moved), "{others:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_at_once() {
        let (clocks, heard) = (Clocks::default(), Instant::now());
        for id in [2, 3] {
            clocks.0.lock().expect("no panic").insert(id, (OWN, heard));
        }
        let later = heard + Duration::from_secs(2);
        assert_eq!(clocks.time_at(UnixMs(OWN.0 + 2_900), later), UnixMs(OWN.0 + 2_900), "close enough");
        assert_eq!(clocks.time_at(UnixMs(OWN.0 + 2_000 + 86_400_000), later), UnixMs(OWN.0 + 2_000));
        assert_eq!(clocks.time_at(UnixMs(7), later + HEARD_MAX), UnixMs(7), "nobody was heard for long");
    }
}
