//! The statistical classifiers, learnt from mail that people have sorted: one looks at what a message says, one at how it is made.
//! They are learnt as one, so that neither says again what the other knows, and judge apart, so that each has its bound and its reason.

pub mod form;
pub mod words;

use std::sync::LazyLock;

use proto::learning::model::Model;

use super::facts::Facts;

/// What `cargo fit` has learnt.
static WORDS: LazyLock<Option<Model>> = LazyLock::new(|| Model::read(include_bytes!("classifier/words.model")).ok());
static FORM: LazyLock<Option<Model>> = LazyLock::new(|| Model::read(include_bytes!("classifier/form.model")).ok());

/// One number for each of the two classifiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Both<T> {
    /// Of what is said.
    pub words: T,
    /// Of how it is made.
    pub form: T,
}

/// How much more likely a message with these features is bad than good, in hundredths of the natural logarithm of the odds. A model
/// that cannot be read says nothing; a test reads both.
#[must_use]
pub fn judge(features: &Both<Vec<u32>>) -> Both<i32> {
    let odds = |model: &Option<Model>, features: &[u32]| model.as_ref().map_or(0, |model| model.odds(features));
    Both { words: odds(&WORDS, &features.words), form: odds(&FORM, &features.form) }
}

/// The features of a message.
#[must_use]
pub fn features_of(facts: &Facts<'_>) -> Both<Vec<u32>> {
    Both { words: words::of(facts), form: form::of(facts) }
}

#[cfg(test)]
mod tests {
    use super::{FORM, WORDS};

    #[test]
    fn the_models_that_postern_comes_with_can_be_read_and_say_where_they_are_from() {
        for (model, known) in [(&WORDS, 10_000), (&FORM, 1_000)] {
            let model = model.as_ref().expect("a model");
            assert!(model.origin.contains("messages"), "{}", model.origin);
            assert!(model.weights.iter().filter(|weight| **weight != 0).count() > known);
        }
    }
}
