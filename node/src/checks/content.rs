//! What the content of a message says of it: the criteria and the classifiers, in points.

use std::collections::HashMap;

use proto::{score::Score, verdict::Reason};

use super::{
    classifier,
    criteria::{self, Rule, weights},
    facts::Facts,
};
use crate::{message::Message, policy::score::reason, smtp::transaction::Transaction};

pub use weights::GROUP_MAX;

/// The test string that every spam filter knows.
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

/// What the rules and the words say about a message.
#[must_use]
pub fn analyse(message: &Message, transaction: &Transaction) -> Vec<Reason> {
    let facts = Facts::of(message, transaction);
    if facts.raw_text.contains(GTUBE) {
        return vec![reason("GTUBE", Score(100_000), "it holds the test string for spam filters")];
    }
    let mut reasons = Vec::new();
    let rules = criteria::rules();
    reasons.extend(capped(criteria::holding(&facts).into_iter().filter_map(|at| rules.get(at))));
    let odds = classifier::judge(&facts);
    reasons.extend(by_odds(odds.words, &weights::WORDS));
    reasons.extend(by_odds(odds.form, &weights::FORM));
    reasons
}

/// A rule, as people list it.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Name of its group.
    pub group: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// What it is worth; of a classifier one unit of its odds.
    pub score: Score,
    /// In words.
    pub text: &'static str,
}

/// All rules that [`analyse`] knows, in the order of their groups.
#[must_use]
pub fn listed() -> Vec<Listed> {
    let of_rule =
        |rule: Rule| Listed { group: rule.group, name: rule.name, score: weights::of(rule.name), text: rule.text };
    let by_odds = [("words", weights::WORDS), ("form", weights::FORM)].into_iter().flat_map(|(group, rules)| {
        let good = Score(-weights::of(rules.good.0).0);
        let bad = Listed { group, name: rules.bad.0, score: weights::of(rules.bad.0), text: rules.bad.1 };
        [bad, Listed { group, name: rules.good.0, score: good, text: rules.good.1 }]
    });
    criteria::rules().into_iter().map(of_rule).chain(by_odds).collect()
}

/// The weights of rules that hold, those of each group up to its bound. What is worth nothing is not told.
fn capped<'r>(holding: impl Iterator<Item = &'r Rule>) -> Vec<Reason> {
    let mut of_group: HashMap<&str, Score> = HashMap::new();
    let mut reasons = Vec::new();
    for rule in holding {
        let so_far = of_group.entry(rule.group).or_insert(Score::ZERO);
        let most = weights::GROUP_MAX.0;
        let score = Score((so_far.0 + weights::of(rule.name).0).clamp(-most, most) - so_far.0);
        if score != Score::ZERO {
            so_far.0 += score.0;
            reasons.push(reason(rule.name, score, rule.text));
        }
    }
    reasons
}

/// What the odds of a classifier are worth.
fn by_odds(odds: i32, rules: &weights::Rules) -> Option<Reason> {
    let (rule, text) = if odds > 0 { rules.bad } else { rules.good };
    let odds = odds.clamp(-weights::ODDS_MAX, weights::ODDS_MAX);
    let most = weights::GROUP_MAX.0;
    let score = Score((weights::of(rule).0 * odds / 100).clamp(-most, most));
    (score != Score::ZERO).then(|| reason(rule, score, text))
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
