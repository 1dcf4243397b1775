//! What the content of a message says of it: the criteria and the classifiers, in points.

use std::collections::HashMap;

use proto::{learning::model::Model, score::Score, verdict::Reason};

use super::{
    calendar,
    campaign::Digest,
    classifier,
    criteria::{self, CONNECTION, Rule, weights},
    facts::Facts,
    impersonation, learnt,
    listing::Entry,
};
use crate::policy::score::{reason, within};

pub use weights::GROUP_MAX;

/// The test string that every spam filter knows.
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

/// Domains that lists are asked about.
const DOMAINS_MAX: usize = 20;

/// What was found in a message.
#[derive(Debug, Default)]
pub struct Content {
    /// Reasons with points.
    pub reasons: Vec<Reason>,
    /// What its near-copies have in common with it.
    pub copies: Digest,
    /// Domains of its authors and links, at most 20, but for those that are guarded.
    pub domains: Vec<Entry>,
}

/// What there is to say about a message, by what the cluster has learnt, too, if it has learnt anything.
#[must_use]
pub fn analyse(facts: &Facts<'_>, own: Option<&Model>) -> Content {
    // Whoever tests a filter speaks ill of no text.
    let copies = if is_test(facts) { Digest::default() } else { Digest::of(facts) };
    Content { reasons: reasons(facts, own), domains: domains(facts), copies }
}

fn is_test(facts: &Facts<'_>) -> bool {
    facts.raw_text.contains(GTUBE)
}

/// What is asked about in lists: the authors first, then the links as they come.
fn domains(facts: &Facts<'_>) -> Vec<Entry> {
    let mailboxes = facts.message.from.iter().chain(&facts.message.reply_to);
    let authors = mailboxes.filter_map(|mailbox| mailbox.domain.as_ref()).map(|domain| domain.as_str());
    let named = authors.chain(facts.distinct_hosts());
    let mut domains: Vec<Entry> = Vec::new();
    for host in named.filter(|host| !facts.transaction.view.guard.has(host)) {
        // Lists of names have no addresses, and some answer to all of them.
        if let Some(domain @ Entry::Name(_)) = Entry::of_host(host)
            && domains.len() < DOMAINS_MAX
            && !domains.contains(&domain)
        {
            domains.push(domain);
        }
    }
    domains
}

/// What the rules and the words say.
fn reasons(facts: &Facts<'_>, own: Option<&Model>) -> Vec<Reason> {
    if is_test(facts) {
        return vec![reason("GTUBE", Score(100_000), "it holds the test string for spam filters")];
    }
    let mut reasons = impersonation::reasons(facts);
    reasons.extend(calendar::reasons(facts));
    let rules = criteria::rules();
    let holding = criteria::holding(facts).into_iter().filter_map(|at| rules.get(at));
    let met = &facts.transaction.client.reasons;
    reasons.extend(capped(holding.map(Counted::from).map(|rule| rule.beyond(met)), &[(CONNECTION, of_client(met))]));
    let features = classifier::features_of(facts);
    let odds = classifier::judge(&features);
    reasons.extend(by_odds(odds.words, &weights::WORDS));
    reasons.extend(by_odds(odds.form, &weights::FORM));
    reasons.extend(own.and_then(|model| learnt::judge(model, &features)));
    reasons
}

/// A rule that holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'r> {
    pub(super) group: &'r str,
    /// What its group counts at most.
    pub(super) cap: Score,
    pub(super) name: &'r str,
    pub(super) score: Score,
    pub(super) text: &'r str,
}

impl<'r> From<&'r Rule> for Counted<'r> {
    fn from(rule: &'r Rule) -> Self {
        let Rule { group, name, score, text, .. } = rule;
        Self { group, cap: weights::most(group), name, score: *score, text }
    }
}

impl Counted<'_> {
    /// What it says more than the door has said by the same name.
    fn beyond(self, met: &[Reason]) -> Self {
        let said =
            met.iter().filter(|reason| reason.rule == self.name).map(|reason| reason.score.0.max(0)).sum::<i32>();
        Self { score: Score(if self.score.0 > 0 { (self.score.0 - said).max(0) } else { self.score.0 }), ..self }
    }
}

/// What the door has said of a client's names: with what the criteria see of the client it is one trait.
fn of_client(met: &[Reason]) -> Score {
    let names = ["NO_REVERSE_NAME", "GENERIC_REVERSE_NAME", "FALSE_HELO", "BAD_HELO", "UNKNOWN_HELO"];
    let said: Score =
        met.iter().filter(|reason| names.contains(&reason.rule.as_str())).map(|reason| reason.score).sum();
    said.clamp(Score::ZERO, weights::CONNECTION_MAX)
}

/// The points of rules that hold, those of each group up to its cap, of which `counted` has been used already. What is worth nothing
/// is not told.
pub(super) fn capped<'r>(holding: impl Iterator<Item = Counted<'r>>, counted: &[(&'r str, Score)]) -> Vec<Reason> {
    let mut of_group: HashMap<&str, Score> = counted.iter().copied().collect();
    let mut reasons = Vec::new();
    for Counted { group, cap, name, score, text } in holding {
        reasons.extend(within(cap, of_group.entry(group).or_default(), reason(name, score, text)));
    }
    reasons
}

/// What the odds of a classifier are worth.
fn by_odds(odds: i32, rules: &weights::Rules) -> Option<Reason> {
    let (rule, text) = if odds > 0 { rules.bad } else { rules.good };
    let odds = odds.clamp(-weights::ODDS_MAX, weights::ODDS_MAX);
    let most = weights::CLASSIFIER_MAX.0;
    let score = Score((weights::of(rule).0 * odds / 100).clamp(-most, most));
    (score != Score::ZERO).then(|| reason(rule, score, text))
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
