//! What the content of a message says of it: the criteria and the classifiers, in points.

use std::collections::HashMap;

use proto::{score::Score, verdict::Reason};

use super::{
    classifier,
    criteria::{self, Rule, weights},
    facts::Facts,
};
use crate::{message::Message, policy::score::reason, smtp::transaction::Transaction};

/// The test string that every spam filter knows.
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

/// What the rules and the words say about a message.
#[must_use]
pub fn analyse(message: &Message, transaction: &Transaction) -> Vec<Reason> {
    let facts = Facts::of(message, transaction);
    let mut reasons = Vec::new();
    if facts.raw_text.contains(GTUBE) {
        reasons.push(reason("GTUBE", Score(100_000), "it holds the test string for spam filters"));
    }
    let rules = criteria::rules();
    reasons.extend(capped(criteria::holding(&facts).into_iter().filter_map(|at| rules.get(at))));
    let odds = classifier::judge(&facts);
    reasons.extend(by_odds(odds.words, &weights::WORDS));
    reasons.extend(by_odds(odds.form, &weights::FORM));
    reasons
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
