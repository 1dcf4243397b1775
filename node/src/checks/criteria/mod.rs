//! The criteria: what a message can be seen to be. Each group is a small table of rules over the same facts; what a rule is worth was
//! fitted to sorted mail (`cargo fit`) and stands in `weights.tsv`.

mod author;
mod brands;
mod bulk;
mod connection;
mod date;
mod header;
mod html;
mod language;
mod links;
mod message_id;
mod obfuscation;
mod parts;
mod recipients;
mod route;
mod statistics;
mod subject;
pub mod weights;

use std::sync::LazyLock;

use proto::score::Score;

use super::{
    facts::Facts,
    phrases::{self, TOPICS},
};

/// Which way a rule can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// It speaks against a message, or says nothing.
    Bad,
    /// The same, but it is true of much wanted mail, too: it may count little.
    Hint,
    /// It speaks for a message, or says nothing.
    Good,
}

/// One rule.
#[derive(Debug)]
pub struct Criterion {
    /// Its name: stable, upper case.
    pub rule: &'static str,
    /// In words, for the verdict.
    pub text: &'static str,
    /// Which way it can count.
    pub sense: Sense,
    holds: fn(&Facts<'_>) -> bool,
}

impl Criterion {
    /// Whether it is so.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        (self.holds)(facts)
    }
}

/// A rule that speaks against a message.
const fn bad(rule: &'static str, text: &'static str, holds: fn(&Facts<'_>) -> bool) -> Criterion {
    Criterion { rule, text, sense: Sense::Bad, holds }
}

/// A rule that speaks a little against a message.
const fn hint(rule: &'static str, text: &'static str, holds: fn(&Facts<'_>) -> bool) -> Criterion {
    Criterion { rule, text, sense: Sense::Hint, holds }
}

/// A rule that speaks for a message.
const fn good(rule: &'static str, text: &'static str, holds: fn(&Facts<'_>) -> bool) -> Criterion {
    Criterion { rule, text, sense: Sense::Good, holds }
}

/// Rules about one matter.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// What it looks at.
    pub about: &'static str,
    /// Its rules.
    pub criteria: &'static [Criterion],
}

/// Name of the group that looks at the client.
pub const CONNECTION: &str = "connection";
/// Name of the group of what mass mail writes.
pub const BULK: &str = "bulk";

/// All groups.
pub const GROUPS: &[Group] = &[
    author::GROUP,
    brands::GROUP,
    bulk::GROUP,
    connection::GROUP,
    date::GROUP,
    header::GROUP,
    html::GROUP,
    language::GROUP,
    links::GROUP,
    message_id::GROUP,
    obfuscation::GROUP,
    parts::GROUP,
    recipients::GROUP,
    route::GROUP,
    statistics::GROUP,
    subject::GROUP,
];

/// The group of phrases, which have a table of their own.
pub const PHRASES: (&str, &str) = ("phrases", "what it is about, by what it says");

/// A rule, as people list it.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Name of its group.
    pub group: &'static str,
    /// Its own name.
    pub name: &'static str,
    /// What it is worth; of a classifier one unit of its odds.
    pub score: Score,
    /// In words, for the verdict.
    pub text: &'static str,
    /// Which way it can count.
    pub sense: Sense,
}

impl Rule {
    fn new(group: &'static str, (name, text): (&'static str, &'static str), sense: Sense) -> Self {
        Self { group, name, score: weights::of(name), text, sense }
    }
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let criteria = GROUPS.iter().flat_map(|group| group.criteria.iter().map(|criterion| (group.name, criterion)));
    let criteria = criteria.map(|(group, one)| Rule::new(group, (one.rule, one.text), one.sense));
    let phrases = TOPICS.iter().flat_map(|topic| {
        [topic.rule, topic.rule_more].map(|name| Rule::new(PHRASES.0, (name, topic.text), Sense::Bad))
    });
    criteria.chain(phrases).collect()
});

/// All rules, in the order in which [`holding`] counts them.
#[must_use]
pub fn rules() -> &'static [Rule] {
    &RULES
}

/// The rules of the classifiers, whose odds count and not whether they hold.
pub fn by_odds() -> impl Iterator<Item = Rule> {
    [("words", weights::WORDS), ("form", weights::FORM)].into_iter().flat_map(|(group, rules)| {
        let good = Rule::new(group, rules.good, Sense::Good);
        [Rule::new(group, rules.bad, Sense::Bad), Rule { score: Score(-good.score.0), ..good }]
    })
}

/// All groups, each with what it looks at and what it counts at most.
pub fn groups() -> impl Iterator<Item = (&'static str, &'static str, Score)> {
    let classifiers = [("words", "its words, by a classifier"), ("form", "how it is made, by a classifier")];
    let criteria = GROUPS.iter().map(|group| (group.name, group.about)).chain([PHRASES]);
    let of_criteria = criteria.map(|(name, about)| (name, about, weights::most(name)));
    of_criteria.chain(classifiers.map(|(name, about)| (name, about, weights::CLASSIFIER_MAX)))
}

/// Places in [`rules`] of those that hold, in ascending order.
#[must_use]
pub fn holding(facts: &Facts<'_>) -> Vec<usize> {
    let criteria = GROUPS.iter().flat_map(|group| group.criteria).map(|criterion| criterion.holds(facts));
    let phrases = phrases::hits(&facts.words).into_iter().flat_map(|hits| [hits >= 1, hits >= 2]);
    criteria.chain(phrases).enumerate().filter(|(_, holds)| *holds).map(|(at, _)| at).collect()
}
