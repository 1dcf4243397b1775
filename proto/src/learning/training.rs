//! Learns the weights: logistic regression by stochastic gradients with a rate of its own for each feature (AdaGrad). The result
//! depends on the messages and their order alone. Models whose odds are added up are learnt together, so that none learns again what
//! another one knows.

use super::{
    features::{FEATURES, share},
    model::Model,
};

/// How often all messages are gone through.
const ROUNDS: usize = 12;
/// Of the first step.
const RATE: f32 = 0.5;
/// Features of fewer messages are left out.
const MESSAGES_MIN: u16 = 3;
/// Weights beyond what all but one of so many have are cut off, so that the others keep their differences.
const HEAVIEST_OF: usize = 2000;

/// How it is learnt.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How strongly a weight is drawn to zero at each step that touches it.
    decay: f32,
    /// Whether there is something to say of a message without features.
    biased: bool,
}

/// A model that judges by itself.
pub const ALONE: Settings = Settings { decay: 1e-5, biased: true };
/// A model that corrects what is known without it, learnt from few messages.
pub const CORRECTION: Settings = Settings { decay: 1e-2, biased: false };

/// A message that somebody has sorted, for so many models.
#[derive(Clone, Debug)]
pub struct Example<const MODELS: usize> {
    /// Its features for each model.
    pub features: [Vec<u32>; MODELS],
    /// Whether it is spam or worse.
    pub bad: bool,
    /// How much it counts.
    pub weight: f32,
    /// The odds that are known without the model, as a natural logarithm.
    pub offset: f32,
}

/// Weights that are being learnt.
struct Learning {
    weights: Vec<f32>,
    squares: Vec<f32>,
    bias: f32,
    bias_square: f32,
}

/// Learns from the messages models whose odds are added up; `origin` says in words which messages they are.
#[must_use]
pub fn train<const MODELS: usize>(examples: &[&Example<MODELS>], origin: &str, settings: Settings) -> [Model; MODELS] {
    let known = known(examples);
    let places = MODELS * FEATURES;
    let mut learning =
        Learning { weights: vec![0.0; places], squares: vec![1e-3; places], bias: 0.0, bias_square: 1e-3 };
    let count = examples.len();
    for round in 0..ROUNDS {
        let stride = stride(count, round);
        for at in (0..count).map(|step| step * stride % count) {
            learning.step(examples[at], &known[at], settings);
        }
    }
    std::array::from_fn(|model| {
        let weights = &learning.weights[model * FEATURES..(model + 1) * FEATURES];
        quantized(weights, learning.bias / MODELS as f32, origin)
    })
}

impl Learning {
    fn step<const MODELS: usize>(&mut self, example: &Example<MODELS>, known: &[Known], settings: Settings) {
        let sum: f32 = known.iter().map(|known| self.weights[known.place] * known.share).sum();
        let odds = example.offset + self.bias + sum;
        let target = if example.bad { 1.0 } else { 0.0 };
        let error = (1.0 / (1.0 + (-odds).exp()) - target) * example.weight;
        for Known { place, share } in known {
            let gradient = error * share + settings.decay * self.weights[*place];
            self.squares[*place] += gradient * gradient;
            self.weights[*place] -= RATE * gradient / self.squares[*place].sqrt();
        }
        if settings.biased {
            self.bias_square += error * error;
            self.bias -= RATE * error / self.bias_square.sqrt() / 10.0;
        }
    }
}

/// A feature that enough messages have.
struct Known {
    /// The place of its weight.
    place: usize,
    /// What it counts in its message.
    share: f32,
}

/// Of each message the features that enough messages have.
fn known<const MODELS: usize>(examples: &[&Example<MODELS>]) -> Vec<Vec<Known>> {
    let placed = |example: &Example<MODELS>| -> Vec<Known> {
        let of_model = |(model, features): (usize, &Vec<u32>)| {
            let share = share(features.len());
            features.iter().map(move |feature| Known { place: model * FEATURES + *feature as usize, share }).collect()
        };
        example.features.iter().enumerate().flat_map(|each| -> Vec<Known> { of_model(each) }).collect()
    };
    let mut all: Vec<Vec<Known>> = examples.iter().map(|example| placed(example)).collect();
    let mut seen = vec![0_u16; MODELS * FEATURES];
    for known in all.iter().flatten() {
        seen[known.place] = seen[known.place].saturating_add(1);
    }
    all.iter_mut().for_each(|known| known.retain(|known| seen[known.place] >= MESSAGES_MIN));
    all
}

/// A stride that has no factor in common with the number of messages goes through all of them, each round in another order.
fn stride(count: usize, round: usize) -> usize {
    const PRIMES: [usize; 8] = [7919, 6101, 5003, 9973, 8161, 7001, 9311, 5651];
    let prime = PRIMES[round % PRIMES.len()];
    if count.is_multiple_of(prime) { 1 } else { prime }
}

fn quantized(weights: &[f32], bias: f32, origin: &str) -> Model {
    let mut sizes: Vec<f32> = weights.iter().map(|weight| weight.abs()).filter(|size| *size > 0.0).collect();
    sizes.sort_by(f32::total_cmp);
    let largest = sizes.len().checked_sub(1 + sizes.len() / HEAVIEST_OF).and_then(|at| sizes.get(at));
    let unit = largest.copied().unwrap_or(1.0) / 127.0;
    let weights = weights.iter().map(|weight| (weight / unit).round().clamp(-127.0, 127.0) as i8).collect();
    Model::new(origin.to_owned(), weights, unit, bias)
}

#[cfg(test)]
mod tests {
    use super::{ALONE, Example, train};

    fn example(features: &[u32], bad: bool) -> Example<1> {
        Example { features: [features.to_vec()], bad, weight: 1.0, offset: 0.0 }
    }

    #[test]
    fn words_of_bad_messages_speak_against_and_those_of_both_say_nothing() {
        let bad: Vec<Example<1>> = (0..20).map(|n| example(&[1, 2, 3, 100 + n], true)).collect();
        let good: Vec<Example<1>> = (0..20).map(|n| example(&[3, 4, 5, 200 + n], false)).collect();
        let all: Vec<&Example<1>> = bad.iter().zip(&good).flat_map(|(bad, good)| [bad, good]).collect();
        let [model] = train(&all, "forty messages", ALONE);
        assert!(model.odds(&[1, 2]) > 100 && model.odds(&[4, 5]) < -100);
        assert!(model.odds(&[3]).abs() < 50, "{}", model.odds(&[3]));
        assert_eq!(model.weights[100], 0, "one message is not enough");
        assert_eq!(train(&all, "forty messages", ALONE), [model], "the same each time");
    }
}
