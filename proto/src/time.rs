//! Points in time as the log carries them: stamped by a proposer, never read inside the state.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The wall clock now. Edges only; the pure layers are handed the time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// This many milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this; zero when `earlier` is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    fn timestamp(self) -> jiff::Timestamp {
        i64::try_from(self.0)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .unwrap_or(jiff::Timestamp::MAX)
    }

    /// As RFC 5322 section 3.3 writes it, in UTC.
    #[must_use]
    pub fn rfc5322(self) -> String {
        self.timestamp().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
    }
}

/// As RFC 3339 writes it, in UTC, to the second.
impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::UnixMs;

    #[test]
    fn times_are_shown_as_rfc_3339_and_rfc_5322() {
        let at = UnixMs(1_795_000_000_000);
        assert_eq!(at.to_string(), "2026-11-18T11:06:40Z");
        assert_eq!(at.rfc5322(), "Wed, 18 Nov 2026 11:06:40 +0000");
    }
}
