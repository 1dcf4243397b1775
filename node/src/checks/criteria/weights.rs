//! What each rule is worth: a table that `cargo fit` writes.

use std::{collections::HashMap, sync::LazyLock};

use proto::score::Score;

/// The two rules of a classifier, with their words; the weight of each is that of one unit of the odds.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Speaks against a message.
    pub bad: (&'static str, &'static str),
    /// Speaks for it.
    pub good: (&'static str, &'static str),
}

/// What a message says.
pub const WORDS: Rules = Rules {
    bad: ("WORDS_BAD", "its words are those of spam"),
    good: ("WORDS_GOOD", "its words are those of wanted mail"),
};
/// How it is made.
pub const FORM: Rules =
    Rules { bad: ("FORM_BAD", "it is made as spam is"), good: ("FORM_GOOD", "it is made as wanted mail is") };

/// More than so many units of odds either way do not count: hundredths of the natural logarithm.
pub const ODDS_MAX: i32 = 800;
/// All rules of one group together count no more than this, either way: one trait of a message must not decide about it.
pub const GROUP_MAX: Score = Score(450);
/// The same of what is seen of the client: many an honest office has a small provider, and its server has a name like any other.
pub const CONNECTION_MAX: Score = Score(250);
/// The same of the customs of mass mail and of conversations: they are fields that anybody can write.
pub const BULK_MAX: Score = Score(250);
/// The same of one classifier: less than the built-in policy quarantines at, so none decides alone.
pub const CLASSIFIER_MAX: Score = Score(550);

/// What the rules of a group count at most, either way.
#[must_use]
pub fn most(group: &str) -> Score {
    match group {
        super::CONNECTION => CONNECTION_MAX,
        super::BULK => BULK_MAX,
        _ => GROUP_MAX,
    }
}

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

    use super::{FORM, TABLE, WORDS, of, read};
    use crate::checks::criteria::{Sense, rules};

    #[test]
    fn each_rule_has_a_weight_of_its_sense_and_each_weight_a_rule() {
        let named: BTreeSet<&str> = read(TABLE).into_keys().collect();
        let mut known: BTreeSet<&str> = rules().iter().map(|rule| rule.name).collect();
        assert_eq!(known.len(), rules().len(), "no name twice");
        let classifiers = [WORDS.bad.0, WORDS.good.0, FORM.bad.0, FORM.good.0];
        known.extend(classifiers);
        assert_eq!(named, known);
        for rule in rules() {
            let weight = of(rule.name).0;
            assert!(if rule.sense == Sense::Good { weight <= 0 } else { weight >= 0 }, "{}: {weight}", rule.name);
        }
        assert!(classifiers.iter().all(|rule| of(rule).0 > 0));
    }
}
