//! Whom this server turned away, counted by reason; and a bound on what a flood of them writes to the log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines of one reason in one window.
const LOGGED_MAX: u32 = 10;
/// Time until so many may be logged again.
const WINDOW: Duration = Duration::from_secs(10);

/// Counts since the start. Cheap to clone. Reasons are words of the program, never of a caller, so there are few.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<&'static str, Count>>>);

#[derive(Debug, Default)]
struct Count {
    all: u64,
    window: Option<Instant>,
    logged: u32,
    unlogged: u64,
}

impl Refusals {
    /// One more. If it is to be logged: how many of the same reason were not since the last one that was.
    #[must_use = "whom it turns away should be logged"]
    pub fn count(&self, reason: &'static str) -> Option<u64> {
        self.count_at(reason, Instant::now())
    }

    fn count_at(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(reason).or_default();
        count.all += 1;
        if count.window.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (count.window, count.logged) = (Some(now), 0);
        }
        if count.logged >= LOGGED_MAX {
            count.unlogged += 1;
            return None;
        }
        count.logged += 1;
        Some(std::mem::take(&mut count.unlogged))
    }

    /// Each reason with its count, in the order of the alphabet.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(reason, count)| (*reason, count.all)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{LOGGED_MAX, Refusals, WINDOW};

    #[test]
    fn a_flood_is_counted_whole_and_logged_in_part() {
        let (refusals, began) = (Refusals::default(), Instant::now());
        let logged = (0..1000).filter(|_| refusals.count_at("role", began).is_some()).count();
        assert_eq!(logged, LOGGED_MAX as usize);
        assert_eq!(refusals.count_at("expired", began), Some(0), "one reason does not hide another");
        assert_eq!(refusals.count_at("role", began + WINDOW), Some(1000 - u64::from(LOGGED_MAX)));
        assert_eq!(refusals.snapshot(), [("expired", 1), ("role", 1001)]);
    }
}
