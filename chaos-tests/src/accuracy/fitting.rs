//! Fits what each rule is worth: logistic regression on the rules that hold and the odds of the classifier, with each weight held to
//! the sense of its rule and to a bound. The odds are those of classifiers that have not seen the message, and once more, for less,
//! those of classifiers that have not seen its collection: words must not be trusted more than they deserve on mail from elsewhere.

use std::collections::{BTreeSet, HashMap};

use node::checks::{
    classifier::{Both, features_of},
    criteria::{
        self, Rule, Sense,
        weights::{self, CLASSIFIER_MAX, ODDS_MAX},
    },
    facts::Facts,
};
use proto::learning::{
    model::Model,
    training::{ALONE, Example, train},
};

use super::{corpus::Sorted, curve::Curve};

/// Of the messages so many parts are set aside in turn.
const FOLDS: usize = 5;
/// Steps of the descent.
const STEPS: i32 = 1500;
/// Size of a step.
const STEP: f64 = 0.02;
/// How strongly weights are drawn to zero.
const DECAY: f64 = 0.0005;
/// Largest weight of a rule that speaks against a message, in natural logarithms of odds.
const BAD_MAX: f64 = 1.1;
/// The same of one that speaks for it: less, as anybody can write what speaks for a message.
const GOOD_MAX: f64 = 0.6;
/// The same of a rule that only hints.
const HINT_MAX: f64 = 0.4;
/// What a rule is worth of which the messages say nothing, as a part of its largest weight: somebody wrote it for a reason.
const PRIOR: f64 = 0.35;
/// Collections count by the root of this power of their size.
const BALANCE: f64 = 0.3;

/// A message that was read.
#[derive(Debug)]
pub struct Read {
    /// What people say of it.
    pub sorted: Sorted,
    /// Its features of what it says and of how it is made.
    pub example: Example<2>,
    /// Rules that hold, by place.
    pub holding: Vec<usize>,
}

/// Reads messages.
#[must_use]
pub fn read(sorted: Sorted) -> Read {
    let message = sorted.message();
    let transaction = sorted.transaction(&message);
    let facts = Facts::of(&message, &transaction);
    let (features, holding) = (features_of(&facts), criteria::holding(&facts));
    let example =
        Example { features: [features.words, features.form], bad: sorted.class.is_bad(), weight: 1.0, offset: 0.0 };
    Read { example, sorted, holding }
}

impl Read {
    /// How much it counts.
    fn counts(&self) -> f64 {
        f64::from(self.example.weight)
    }

    /// A number that depends on its name alone, which is a digest.
    fn lot(&self) -> u32 {
        self.sorted.name.bytes().fold(7, |lot: u32, byte| lot.wrapping_mul(31).wrapping_add(byte.into()).rotate_left(5))
    }
}

/// Has small collections count more than their size, and large ones less.
pub fn balance(all: &mut [Read]) {
    let mut sizes = std::collections::HashMap::new();
    for read in &*all {
        *sizes.entry((read.sorted.collection.clone(), read.sorted.class)).or_insert(0.0) += 1.0;
    }
    let mean = all.len() as f64 / sizes.len().max(1) as f64;
    for read in all {
        let size = sizes[&(read.sorted.collection.clone(), read.sorted.class)];
        read.example.weight = (mean / size).powf(BALANCE).clamp(0.3, 5.0) as f32;
    }
}

/// Classifiers of these messages.
#[must_use]
pub fn classifiers(all: &[&Read], origin: &str) -> Both<Model> {
    let mut order: Vec<&Read> = all.to_vec();
    order.sort_by_key(|read| read.lot());
    let [words, form] = train(&order.iter().map(|read| &read.example).collect::<Vec<_>>(), origin, ALONE);
    Both { words, form }
}

/// What classifiers say of a message.
#[must_use]
pub fn odds(models: &Both<Model>, read: &Read) -> Both<i32> {
    let [words, form] = &read.example.features;
    Both { words: models.words.odds(words), form: models.form.odds(form) }
}

/// Of each message the odds that classifiers of the others give it.
#[must_use]
pub fn unseen_odds(all: &[&Read]) -> Vec<Both<i32>> {
    odds_without(all, |read| (read.lot() >> 7) as usize % FOLDS)
}

/// Of each message the odds that classifiers of the other collections give it.
#[must_use]
pub fn strange_odds(all: &[&Read]) -> Vec<Both<i32>> {
    odds_without(all, |read| read.sorted.collection.as_str())
}

/// Of each message the odds that classifiers of all parts but its own give it.
fn odds_without<'r, P: Ord>(all: &[&'r Read], part: impl Fn(&'r Read) -> P) -> Vec<Both<i32>> {
    let mut all_odds = vec![Both::default(); all.len()];
    for left_out in all.iter().map(|read| part(read)).collect::<BTreeSet<P>>() {
        let others: Vec<&Read> = all.iter().copied().filter(|read| part(read) != left_out).collect();
        let models = classifiers(&others, "");
        for (place, read) in all_odds.iter_mut().zip(all).filter(|(_, read)| part(read) == left_out) {
            *place = odds(&models, read);
        }
    }
    all_odds
}

/// Weights in natural logarithms of odds.
#[derive(Debug)]
pub struct Fitted {
    /// Of each rule.
    pub rules: Vec<f64>,
    /// Of one unit of each classifier's odds that speaks against a message, and of one that speaks for it.
    pub classifiers: Both<[f64; 2]>,
}

impl Fitted {
    /// Hundredths of points of a message, with the bounds of the groups, where one unit of weight is worth so many.
    #[must_use]
    pub fn points(&self, unit: f64, rules: &[Rule], holding: &[usize], odds: Both<i32>) -> f64 {
        let mut groups: HashMap<&str, f64> = HashMap::new();
        for at in holding {
            let most = f64::from(weights::most(rules[*at].group).0);
            let group = groups.entry(rules[*at].group).or_default();
            *group = (*group + self.rules[*at] * unit).clamp(-most, most);
        }
        let most = f64::from(CLASSIFIER_MAX.0);
        let of =
            |odds: i32, weights: [f64; 2]| (units(odds) * weights[usize::from(odds <= 0)] * unit).clamp(-most, most);
        let by_odds = of(odds.words, self.classifiers.words) + of(odds.form, self.classifiers.form);
        groups.values().sum::<f64>() + by_odds
    }

    /// What one unit of weight is worth so that this part of the wanted mail reaches a threshold, by bisection.
    #[must_use]
    pub fn unit(&self, rules: &[Rule], all: &[&Read], odds: &[Both<i32>], threshold: f64, touched: f64) -> f64 {
        let (mut low, mut high) = (1.0, 10_000.0);
        for _ in 0..40 {
            let unit = (low + high) / 2.0;
            let points = |(read, odds): (&&Read, &Both<i32>)| {
                (self.points(unit, rules, &read.holding, *odds), read.sorted.class.is_bad())
            };
            let curve = Curve::of(all.iter().zip(odds).map(points));
            if curve.quantile(touched) > threshold { high = unit } else { low = unit }
        }
        low
    }
}

fn units(odds: i32) -> f64 {
    f64::from(odds.clamp(-ODDS_MAX, ODDS_MAX)) / 100.0
}

/// Fits the weights of these rules to messages with their odds; each message comes once with each of its odds, which count so much.
#[must_use]
pub fn fit(all: &[&Read], odds: &[(&[Both<i32>], f64)], rules: &[Rule]) -> Fitted {
    let count = rules.len();
    let with = |(odds, counts): &(&[Both<i32>], f64)| -> Vec<_> {
        all.iter().zip(*odds).map(|(read, odds)| row(read, *odds, *counts, count)).collect()
    };
    let rows: Vec<Row> = odds.iter().flat_map(with).collect();
    let of_rule = |rule: &Rule| match rule.sense {
        Sense::Bad => Bounds { lowest: 0.0, highest: BAD_MAX, prior: BAD_MAX * PRIOR },
        Sense::Hint => Bounds { lowest: 0.0, highest: HINT_MAX, prior: 0.0 },
        Sense::Good => Bounds { lowest: -GOOD_MAX, highest: 0.0, prior: 0.0 },
    };
    let words = Bounds { lowest: 0.0, highest: f64::MAX, prior: 0.0 };
    let bias = Bounds { lowest: f64::MIN, highest: f64::MAX, prior: 0.0 };
    let bounds: Vec<Bounds> = rules.iter().map(of_rule).chain([words, words, words, words, bias]).collect();
    let weights = descend(&rows, &bounds);
    let two = |at: usize| [weights[at], weights[at + 1]];
    Fitted { rules: weights[..count].to_vec(), classifiers: Both { words: two(count), form: two(count + 2) } }
}

/// Where a weight must lie, and where it is drawn to.
#[derive(Clone, Copy)]
struct Bounds {
    lowest: f64,
    highest: f64,
    prior: f64,
}

/// A message, as the descent sees it.
struct Row {
    /// Places of weights, and what they are multiplied with.
    holding: Vec<(usize, f64)>,
    target: f64,
    counts: f64,
}

/// The last five places are the classifiers' and the bias's.
fn row(read: &Read, odds: Both<i32>, counts: f64, rules: usize) -> Row {
    let of = |at: usize, odds: i32| (at + usize::from(odds <= 0), units(odds));
    let others = [of(rules, odds.words), of(rules + 2, odds.form), (rules + 4, 1.0)];
    let holding = read.holding.iter().map(|at| (*at, 1.0));
    let target = if read.sorted.class.is_bad() { 1.0 } else { 0.0 };
    Row { holding: holding.chain(others).collect(), target, counts: read.counts() * counts }
}

/// Adam (Kingma and Ba 2015) on all rows at once, each weight put back between its bounds after each step.
fn descend(rows: &[Row], bounds: &[Bounds]) -> Vec<f64> {
    let places = bounds.len();
    let mut weights: Vec<f64> = bounds.iter().map(|bounds| bounds.prior).collect();
    let (mut first, mut second) = (vec![0.0; places], vec![0.0; places]);
    for step in 1..=STEPS {
        let drawn = weights.iter().zip(bounds).map(|(weight, bounds)| DECAY * (weight - bounds.prior));
        let mut gradient: Vec<f64> = drawn.collect();
        gradient[places - 1] = 0.0;
        for row in rows {
            let odds: f64 = row.holding.iter().map(|(at, value)| weights[*at] * value).sum();
            let error = (1.0 / (1.0 + (-odds).exp()) - row.target) * row.counts / rows.len() as f64;
            row.holding.iter().for_each(|(at, value)| gradient[*at] += error * value);
        }
        for at in 0..places {
            first[at] = 0.9 * first[at] + 0.1 * gradient[at];
            second[at] = 0.999 * second[at] + 0.001 * gradient[at] * gradient[at];
            let mean = first[at] / (1.0 - 0.9_f64.powi(step));
            let spread = (second[at] / (1.0 - 0.999_f64.powi(step))).sqrt();
            weights[at] = (weights[at] - STEP * mean / (spread + 1e-9)).clamp(bounds[at].lowest, bounds[at].highest);
        }
    }
    weights
}
