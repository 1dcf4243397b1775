//! What each rule is worth: a table that `cargo fit` writes.

use std::{collections::HashMap, sync::LazyLock};

use proto::score::Score;

/// The rule of the classifier that speaks against a message; its weight is that of one unit of its odds.
pub const WORDS_BAD: &str = "WORDS_BAD";
/// The same for a message.
pub const WORDS_GOOD: &str = "WORDS_GOOD";
/// More than so many units of odds either way do not count: hundredths of the natural logarithm.
pub const ODDS_MAX: i32 = 400;
/// All rules of one group together count no more than this, either way: one trait of a message must not decide about it.
pub const GROUP_MAX: Score = Score(450);

/// A rule, a tab, hundredths of a point; one a line.
const TABLE: &str = include_str!("weights.tsv");

static WEIGHTS: LazyLock<HashMap<&'static str, i32>> = LazyLock::new(|| read(TABLE));

fn read(table: &str) -> HashMap<&str, i32> {
    let lines = table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'));
    lines.filter_map(|(rule, points)| Some((rule, points.trim().parse().ok()?))).collect()
}

/// Of a rule; one that the table does not name is worth nothing.
#[must_use]
pub fn of(rule: &str) -> Score {
    Score(WEIGHTS.get(rule).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{TABLE, WORDS_BAD, WORDS_GOOD, of, read};
    use crate::checks::criteria::{Sense, rules};

    #[test]
    fn each_rule_has_a_weight_of_its_sense_and_each_weight_a_rule() {
        let named: BTreeSet<&str> = read(TABLE).into_keys().collect();
        let mut known: BTreeSet<&str> = rules().iter().map(|rule| rule.name).collect();
        assert_eq!(known.len(), rules().len(), "no name twice");
        known.extend([WORDS_BAD, WORDS_GOOD]);
        assert_eq!(named, known);
        for rule in rules() {
            let weight = of(rule.name).0;
            assert!(if rule.sense == Sense::Bad { weight >= 0 } else { weight <= 0 }, "{}: {weight}", rule.name);
        }
        assert!(of(WORDS_BAD).0 > 0 && of(WORDS_GOOD).0 > 0);
    }
}
