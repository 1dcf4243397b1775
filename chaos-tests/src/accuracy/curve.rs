//! Scores of good and bad messages: the area under the ROC curve, and what a threshold catches and touches.

/// Scores of both.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// Of good ones, ascending.
    pub good: Vec<f64>,
    /// Of bad ones, ascending.
    pub bad: Vec<f64>,
}

impl Curve {
    /// Of scores and whether they are of bad messages.
    #[must_use]
    pub fn of(scores: impl IntoIterator<Item = (f64, bool)>) -> Self {
        let mut curve = Self::default();
        for (score, bad) in scores {
            if bad { curve.bad.push(score) } else { curve.good.push(score) }
        }
        curve.good.sort_by(f64::total_cmp);
        curve.bad.sort_by(f64::total_cmp);
        curve
    }

    /// How often a bad one has a higher score than a good one; of equal ones half. `None` when there are not both.
    #[must_use]
    pub fn area(&self) -> Option<f64> {
        let pairs = self.good.len() * self.bad.len();
        let above: f64 = self
            .bad
            .iter()
            .map(|score| {
                let below = self.good.partition_point(|other| other < score);
                let up_to = self.good.partition_point(|other| other <= score);
                below as f64 + (up_to - below) as f64 / 2.0
            })
            .sum();
        (pairs > 0).then(|| above / pairs as f64)
    }

    /// Which parts of the good and of the bad reach a threshold.
    #[must_use]
    pub fn reach(&self, threshold: f64) -> (f64, f64) {
        let part = |scores: &[f64]| {
            let below = scores.partition_point(|score| *score < threshold);
            (scores.len() - below) as f64 / scores.len().max(1) as f64
        };
        (part(&self.good), part(&self.bad))
    }

    /// The threshold that this part of the good reaches, between two scores by interpolation: one message more or less does not
    /// make it jump.
    #[must_use]
    pub fn quantile(&self, touched: f64) -> f64 {
        let at = (self.good.len() as f64 * (1.0 - touched) - 1.0).max(0.0);
        let score = |at: usize| self.good.get(at).or(self.good.last()).copied().unwrap_or_default();
        let (low, part) = (at.floor() as usize, at.fract());
        score(low) + (score(low + 1) - score(low)) * part
    }

    /// The lowest threshold that no more than this part of the good reaches.
    #[must_use]
    pub fn threshold(&self, touched_max: f64) -> f64 {
        let allowed = (self.good.len() as f64 * touched_max) as usize;
        let at = self.good.len().saturating_sub(allowed + 1);
        self.good.get(at).map_or(0.0, |score| score + 1e-9)
    }
}

/// Where a part of so many lies with 95 % confidence (Wilson 1927).
#[must_use]
pub fn interval(part: f64, of: usize) -> (f64, f64) {
    const Z: f64 = 1.96;
    let of = of.max(1) as f64;
    let centre = part + Z * Z / (2.0 * of);
    let spread = Z * (part * (1.0 - part) / of + Z * Z / (4.0 * of * of)).sqrt();
    let whole = 1.0 + Z * Z / of;
    (((centre - spread) / whole).max(0.0), ((centre + spread) / whole).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::{Curve, interval};

    #[test]
    fn the_area_is_the_part_of_pairs_in_order() {
        let curve = Curve::of([(1.0, false), (2.0, false), (2.0, true), (3.0, true)]);
        assert_eq!(curve.area(), Some(3.5 / 4.0));
        assert_eq!(Curve::of([(1.0, true)]).area(), None);
        assert_eq!(curve.reach(2.0), (0.5, 1.0));
        assert_eq!(curve.reach(3.5), (0.0, 0.0));
    }

    #[test]
    fn no_more_of_the_wanted_reaches_the_threshold_than_is_allowed() {
        let curve = Curve::of((0..1000).map(|n| (f64::from(n), false)));
        for allowed in [0.0, 0.003, 0.5] {
            let touched = curve.reach(curve.threshold(allowed)).0;
            assert!(touched <= allowed && touched > allowed - 0.002, "{allowed}: {touched}");
        }
    }

    #[test]
    fn between_two_scores_the_threshold_lies_in_proportion() {
        let curve = Curve::of((0..1000).map(|n| (f64::from(n), false)));
        assert!((curve.quantile(0.0) - 999.0).abs() < 1e-6);
        assert!((curve.quantile(0.0045) - 994.5).abs() < 1e-6);
        assert!((curve.quantile(1.0)).abs() < 1e-6);
    }

    #[test]
    fn an_interval_is_narrow_for_many_and_within_all_and_nothing() {
        let (low, high) = interval(0.5, 100);
        assert!((low - 0.404).abs() < 0.001 && (high - 0.596).abs() < 0.001, "{low} {high}");
        assert!(interval(0.0, 10).0 >= 0.0 && interval(1.0, 10).1 <= 1.0);
    }
}
