//! Learns the weights: logistic regression by stochastic gradients with a rate of its own for each feature (AdaGrad). The result
//! depends on the messages and their order alone.

use super::{
    features::{FEATURES, share},
    model::Model,
};

/// How often all messages are gone through.
const ROUNDS: usize = 12;
/// Of the first step.
const RATE: f32 = 0.5;
/// How strongly a weight is drawn to zero at each step that touches it.
const DECAY: f32 = 1e-5;
/// Features of fewer messages are left out.
const MESSAGES_MIN: u16 = 3;
/// Weights beyond what all but one of so many have are cut off, so that the others keep their differences.
const HEAVIEST_OF: usize = 2000;

/// A message that somebody has sorted.
#[derive(Clone, Debug)]
pub struct Example {
    /// Its features.
    pub features: Vec<u32>,
    /// Whether it is spam or worse.
    pub bad: bool,
    /// How much it counts.
    pub weight: f32,
}

/// Weights that are being learnt.
struct Learning {
    weights: Vec<f32>,
    squares: Vec<f32>,
    bias: f32,
    bias_square: f32,
}

/// Learns from the messages; `origin` says in words which ones they are.
#[must_use]
pub fn train(examples: &[&Example], origin: &str) -> Model {
    let known = known(examples);
    let mut learning =
        Learning { weights: vec![0.0; FEATURES], squares: vec![1e-3; FEATURES], bias: 0.0, bias_square: 1e-3 };
    let count = examples.len();
    for round in 0..ROUNDS {
        let stride = stride(count, round);
        for at in (0..count).map(|step| step * stride % count) {
            learning.step(examples[at], &known[at]);
        }
    }
    quantized(&learning, origin)
}

impl Learning {
    fn step(&mut self, example: &Example, known: &[u32]) {
        let each = share(example.features.len());
        let sum: f32 = known.iter().map(|feature| self.weights[*feature as usize]).sum();
        let odds = self.bias + sum * each;
        let target = if example.bad { 1.0 } else { 0.0 };
        let error = (1.0 / (1.0 + (-odds).exp()) - target) * example.weight;
        for feature in known {
            let feature = *feature as usize;
            let gradient = error * each + DECAY * self.weights[feature];
            self.squares[feature] += gradient * gradient;
            self.weights[feature] -= RATE * gradient / self.squares[feature].sqrt();
        }
        self.bias_square += error * error;
        self.bias -= RATE * error / self.bias_square.sqrt() / 10.0;
    }
}

/// Of each message the features that enough messages have.
fn known(examples: &[&Example]) -> Vec<Vec<u32>> {
    let mut seen = vec![0_u16; FEATURES];
    for feature in examples.iter().flat_map(|example| &example.features) {
        let seen = &mut seen[*feature as usize];
        *seen = seen.saturating_add(1);
    }
    let is_known = |feature: &u32| seen[*feature as usize] >= MESSAGES_MIN;
    examples.iter().map(|example| example.features.iter().copied().filter(is_known).collect()).collect()
}

/// A stride that has no factor in common with the number of messages goes through all of them, each round in another order.
fn stride(count: usize, round: usize) -> usize {
    const PRIMES: [usize; 8] = [7919, 6101, 5003, 9973, 8161, 7001, 9311, 5651];
    let prime = PRIMES[round % PRIMES.len()];
    if count.is_multiple_of(prime) { 1 } else { prime }
}

fn quantized(learning: &Learning, origin: &str) -> Model {
    let mut sizes: Vec<f32> = learning.weights.iter().map(|weight| weight.abs()).filter(|size| *size > 0.0).collect();
    sizes.sort_by(f32::total_cmp);
    let largest = sizes.len().checked_sub(1 + sizes.len() / HEAVIEST_OF).and_then(|at| sizes.get(at));
    let unit = largest.copied().unwrap_or(1.0) / 127.0;
    let weights = learning.weights.iter().map(|weight| (weight / unit).round().clamp(-127.0, 127.0) as i8).collect();
    Model::new(origin.to_owned(), weights, unit, learning.bias)
}

#[cfg(test)]
mod tests {
    use super::{Example, train};

    fn example(features: &[u32], bad: bool) -> Example {
        Example { features: features.to_vec(), bad, weight: 1.0 }
    }

    #[test]
    fn words_of_bad_messages_speak_against_and_those_of_both_say_nothing() {
        let bad: Vec<Example> = (0..20).map(|n| example(&[1, 2, 3, 100 + n], true)).collect();
        let good: Vec<Example> = (0..20).map(|n| example(&[3, 4, 5, 200 + n], false)).collect();
        let all: Vec<&Example> = bad.iter().zip(&good).flat_map(|(bad, good)| [bad, good]).collect();
        let model = train(&all, "forty messages");
        assert!(model.odds(&[1, 2]) > 100 && model.odds(&[4, 5]) < -100);
        assert!(model.odds(&[3]).abs() < 50, "{}", model.odds(&[3]));
        assert_eq!(model.weights[100], 0, "one message is not enough");
        assert_eq!(train(&all, "forty messages"), model, "the same each time");
    }
}
