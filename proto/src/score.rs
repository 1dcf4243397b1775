//! Points that a message collects, as integers so that every node adds them up alike.

use std::{fmt, iter::Sum, ops::Add};

use serde::{Deserialize, Serialize};

/// Hundredths of a point. Positive speaks against the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(pub i32);

impl Score {
    /// No points.
    pub const ZERO: Self = Self(0);

    /// Whole points and hundredths: `Score::points(2, 50)` is 2.50.
    #[must_use]
    pub const fn points(whole: i32, hundredths: i32) -> Self {
        Self(whole * 100 + if whole < 0 { -hundredths } else { hundredths })
    }
}

impl Add for Score {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Score {
    fn sum<I: Iterator<Item = Self>>(scores: I) -> Self {
        scores.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let hundredths = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", hundredths / 100, hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::Score;

    #[test]
    fn a_score_is_shown_in_points() {
        assert_eq!(Score::points(6, 50).to_string(), "6.50");
        assert_eq!(Score(-5).to_string(), "-0.05");
        assert_eq!(Score::points(-1, 20).to_string(), "-1.20");
    }
}
