//! When what failed is tried again: after a pause that doubles with each failure in a row, up to a longest one.

use std::time::{Duration, Instant};

/// Whether something rests, first for `FIRST_MS` milliseconds, `LONGEST_MS` at most. By default it does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest<const FIRST_MS: u64, const LONGEST_MS: u64> {
    failures: u32,
    until: Option<Instant>,
}

impl<const FIRST_MS: u64, const LONGEST_MS: u64> Rest<FIRST_MS, LONGEST_MS> {
    /// It failed at `now`, and rests for longer than the time before. Further failures within a pause change nothing.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now < until) {
            return;
        }
        let pause_ms = FIRST_MS.saturating_mul(2_u64.saturating_pow(self.failures)).min(LONGEST_MS);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + Duration::from_millis(pause_ms));
    }

    /// It did as it should: back in service.
    pub(super) fn ends(&mut self) {
        *self = Self::default();
    }

    /// Whether it has failed and not done as it should since, also when its pause is over: it must show that it can first.
    pub(super) const fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it rests and its pause is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// What is left of the pause.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Rest;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew_after_an_answer() {
        let (mut now, mut rest) = (Instant::now(), Rest::<1_000, 60_000>::default());
        assert!(!rest.is_on() && !rest.is_over(now) && rest.left(now).is_zero());
        let second = Duration::from_secs(1);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            rest.failed(now);
            // Those who were on their way fail too.
            rest.failed(now);
            assert!(rest.is_on() && !rest.is_over(now + second * pause - second / 2), "{pause}");
            assert_eq!(rest.left(now), second * pause);
            now += second * pause;
            assert!(rest.is_over(now) && rest.left(now).is_zero(), "{pause}");
        }
        rest.ends();
        assert!(!rest.is_on());
        rest.failed(now);
        assert!(rest.is_over(now + second));
    }
}
