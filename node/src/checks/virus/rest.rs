//! When a clamd that failed is asked again: after a pause that doubles with each failure in a row, up to a minute.

use std::time::{Duration, Instant};

/// The pause after the first failure.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Whether one clamd rests. By default it does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    failures: u32,
    until: Option<Instant>,
}

impl Rest {
    /// It failed at `now`, and rests for longer than the time before. Further failures within a pause change nothing.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now < until) {
            return;
        }
        let pause = PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause);
    }

    /// It answered as it should: back in service.
    pub(super) fn ends(&mut self) {
        *self = Self::default();
    }

    /// Whether mail is not for it now, also when its pause is over: it must answer first.
    pub(super) const fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it rests and its pause is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Rest;

    #[test]
    fn pauses_grow_up_to_a_minute_and_begin_anew_after_an_answer() {
        let (mut now, mut rest) = (Instant::now(), Rest::default());
        assert!(!rest.is_on() && !rest.is_over(now));
        let second = Duration::from_secs(1);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            rest.failed(now);
            // Those who were on their way fail too.
            rest.failed(now);
            assert!(rest.is_on() && !rest.is_over(now + second * pause - second / 2), "{pause}");
            now += second * pause;
            assert!(rest.is_over(now), "{pause}");
        }
        rest.ends();
        assert!(!rest.is_on());
        rest.failed(now);
        assert!(rest.is_over(now + second));
    }
}
