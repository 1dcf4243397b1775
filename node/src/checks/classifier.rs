//! The statistical classifier: what the words of a message say of it, learnt from mail that people have sorted.

pub mod features;
pub mod model;
pub mod training;

use std::sync::LazyLock;

use self::model::Model;
use super::facts::Facts;

/// What `cargo fit` has learnt.
const TRAINED: &[u8] = include_bytes!("classifier/trained.model");

static MODEL: LazyLock<Option<Model>> = LazyLock::new(|| Model::read(TRAINED).ok());

/// The one that Postern comes with. There always is one: a test reads it.
#[must_use]
pub fn model() -> Option<&'static Model> {
    MODEL.as_ref()
}

/// How much more likely it is bad than good by its words alone, in hundredths of the natural logarithm of the odds; nothing when
/// it has too few words to say.
#[must_use]
pub fn judge(model: &Model, facts: &Facts<'_>) -> Option<i32> {
    let features = features::of(facts);
    (features.len() >= features::FEATURES_MIN).then(|| model.odds(&features))
}

#[cfg(test)]
mod tests {
    use super::{TRAINED, model::Model};

    #[test]
    fn the_model_that_postern_comes_with_can_be_read_and_says_where_it_is_from() {
        let model = Model::read(TRAINED).expect("a model");
        assert!(model.origin.contains("messages"), "{}", model.origin);
        assert!(model.weights.iter().filter(|weight| **weight != 0).count() > 10_000);
    }
}
