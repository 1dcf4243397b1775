//! Fits what each rule is worth: logistic regression on the rules that hold and the odds of the classifier, with each weight held to
//! the sense of its rule and to a bound. The odds are those of classifiers that have not seen the message.

use node::{
    checks::{
        classifier::{
            features,
            model::Model,
            training::{self, Example},
        },
        criteria::{self, Rule, Sense, weights::ODDS_MAX},
        facts::Facts,
    },
    limits::Limits,
    message::Message,
};

use super::corpus::{self, Sorted};

/// Of the messages so many parts are set aside in turn.
const FOLDS: usize = 5;
/// Steps of the descent.
const STEPS: i32 = 1500;
/// Size of a step.
const STEP: f64 = 0.02;
/// How strongly weights are drawn to zero.
const DECAY: f64 = 0.0005;
/// Largest weight of a rule that speaks against a message, in natural logarithms of odds.
const BAD_MAX: f64 = 0.8;
/// The same of one that speaks for it: less, as anybody can write what speaks for a message.
const GOOD_MAX: f64 = 0.6;
/// Collections count by the root of this power of their size.
const BALANCE: f64 = 0.3;

/// A message that was read.
#[derive(Debug)]
pub struct Read {
    /// What people say of it.
    pub sorted: Sorted,
    /// Its features.
    pub example: Example,
    /// Rules that hold, by place.
    pub holding: Vec<usize>,
}

/// Reads messages.
#[must_use]
pub fn read(sorted: Sorted) -> Read {
    let message = Message::parse(sorted.bytes.clone().into(), &Limits::default());
    let transaction = corpus::transaction(&message);
    let facts = Facts::of(&message, &transaction);
    let (features, holding) = (features::of(&facts), criteria::holding(&facts));
    Read { example: Example { features, bad: sorted.class.is_bad(), weight: 1.0 }, sorted, holding }
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

/// A number that depends on the message alone.
fn lot(read: &Read) -> u32 {
    read.example.features.iter().fold(7, |lot: u32, feature| lot.wrapping_mul(31).wrapping_add(*feature).rotate_left(5))
}

/// A classifier of these messages.
#[must_use]
pub fn classifier(all: &[&Read], origin: &str) -> Model {
    let mut order: Vec<&Read> = all.to_vec();
    order.sort_by_key(|read| lot(read));
    training::train(&order.into_iter().map(|read| &read.example).collect::<Vec<_>>(), origin)
}

/// Of each message the odds that a classifier of the others gives it.
#[must_use]
pub fn unseen_odds(all: &[&Read]) -> Vec<i32> {
    let mut odds = vec![0; all.len()];
    for fold in 0..FOLDS {
        let is_in = |read: &Read| (lot(read) >> 7) as usize % FOLDS == fold;
        let others: Vec<&Read> = all.iter().copied().filter(|read| !is_in(read)).collect();
        let model = classifier(&others, "");
        for (odds, read) in odds.iter_mut().zip(all).filter(|(_, read)| is_in(read)) {
            *odds = model.odds(&read.example.features);
        }
    }
    odds
}

/// Weights in natural logarithms of odds.
#[derive(Debug)]
pub struct Fitted {
    /// Of each rule.
    pub rules: Vec<f64>,
    /// Of one unit of the classifier's odds that speaks against a message, and of one that speaks for it.
    pub words: [f64; 2],
    /// Of a message of which nothing holds.
    pub bias: f64,
}

impl Fitted {
    /// What a message is worth, without the bias.
    #[must_use]
    pub fn score(&self, holding: &[usize], odds: i32) -> f64 {
        let rules: f64 = holding.iter().map(|at| self.rules[*at]).sum();
        let odds = units(odds);
        rules + odds * self.words[usize::from(odds <= 0.0)]
    }
}

fn units(odds: i32) -> f64 {
    f64::from(odds.clamp(-ODDS_MAX, ODDS_MAX)) / 100.0
}

/// Fits the weights of these rules to messages with their unseen odds.
#[must_use]
pub fn fit(all: &[&Read], odds: &[i32], rules: &[Rule]) -> Fitted {
    let count = rules.len();
    let rows: Vec<(Vec<(usize, f64)>, f64, f64)> =
        all.iter().zip(odds).map(|(read, odds)| row(read, *odds, count)).collect();
    let bounds: Vec<(f64, f64)> = rules
        .iter()
        .map(|rule| if rule.sense == Sense::Bad { (0.0, BAD_MAX) } else { (-GOOD_MAX, 0.0) })
        .chain([(0.0, f64::MAX), (0.0, f64::MAX), (f64::MIN, f64::MAX)])
        .collect();
    let weights = descend(&rows, &bounds);
    Fitted { rules: weights[..count].to_vec(), words: [weights[count], weights[count + 1]], bias: weights[count + 2] }
}

/// What holds of a message, whether it is bad, and how much it counts. The last three places are the words' and the bias's.
fn row(read: &Read, odds: i32, rules: usize) -> (Vec<(usize, f64)>, f64, f64) {
    let units = units(odds);
    let holding = read.holding.iter().map(|at| (*at, 1.0));
    let words = (rules + usize::from(units <= 0.0), units);
    let target = if read.example.bad { 1.0 } else { 0.0 };
    (holding.chain([words, (rules + 2, 1.0)]).collect(), target, f64::from(read.example.weight))
}

/// Adam (Kingma and Ba 2015) on all rows at once, each weight put back between its bounds after each step.
fn descend(rows: &[(Vec<(usize, f64)>, f64, f64)], bounds: &[(f64, f64)]) -> Vec<f64> {
    let places = bounds.len();
    let (mut weights, mut first, mut second) = (vec![0.0; places], vec![0.0; places], vec![0.0; places]);
    for step in 1..=STEPS {
        let mut gradient: Vec<f64> = weights.iter().map(|weight| DECAY * weight).collect();
        gradient[places - 1] = 0.0;
        for (row, target, counts) in rows {
            let odds: f64 = row.iter().map(|(at, value)| weights[*at] * value).sum();
            let error = (1.0 / (1.0 + (-odds).exp()) - target) * counts / rows.len() as f64;
            row.iter().for_each(|(at, value)| gradient[*at] += error * value);
        }
        for at in 0..places {
            first[at] = 0.9 * first[at] + 0.1 * gradient[at];
            second[at] = 0.999 * second[at] + 0.001 * gradient[at] * gradient[at];
            let mean = first[at] / (1.0 - 0.9_f64.powi(step));
            let spread = (second[at] / (1.0 - 0.999_f64.powi(step))).sqrt();
            weights[at] = (weights[at] - STEP * mean / (spread + 1e-9)).clamp(bounds[at].0, bounds[at].1);
        }
    }
    weights
}
