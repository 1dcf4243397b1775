//! A lesson: what one message teaches that somebody has released or reported. Hashed features and what people say of it; no text
//! and no addresses.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::features::{FEATURES, mix};
use crate::score::Score;

/// Features of one lesson, and of a message that is judged by what was learnt.
pub const LESSON_FEATURES_MAX: usize = 1_000;
/// Further over a threshold, or below it, nothing can be learnt: what is learnt counts two points.
const OVER_MAX: Score = Score(2_000);
/// Of so many lessons one is held back.
const HELD_BACK_OF: u8 = 5;

/// Why something is no lesson.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LessonError {
    /// It teaches nothing, or too much.
    #[error("a lesson has 1 to {LESSON_FEATURES_MAX} features")]
    Count,
    /// Some are no features, or are there twice.
    #[error("a lesson names each of its features once, in ascending order")]
    Order,
    /// Nobody scores so.
    #[error("a lesson is at most 20 points from the threshold")]
    Far,
}

/// What one message teaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lesson {
    /// From each feature to the next one, in ascending order: small numbers, which are encoded in a byte or two.
    #[serde(rename = "g")]
    gaps: Vec<u32>,
    /// Whether people say that it is spam or worse.
    #[serde(rename = "b")]
    pub bad: bool,
    /// How far it was over the threshold of its recipient's quarantine, without what the cluster had learnt; below zero: it passed.
    #[serde(rename = "o")]
    pub over: Score,
}

impl Lesson {
    /// Of a message with these features, which may be too many and in any order.
    #[must_use]
    pub fn new(features: impl IntoIterator<Item = u32>, bad: bool, over: Score) -> Self {
        let mut before = 0;
        let gap = |feature: u32| feature - std::mem::replace(&mut before, feature);
        let gaps = sampled(features).into_iter().map(gap).collect();
        Self { gaps, bad, over: over.clamp(Score(-OVER_MAX.0), OVER_MAX) }
    }

    /// Its features, in ascending order.
    #[must_use]
    pub fn features(&self) -> Vec<u32> {
        let sum = |before: &mut u32, gap: &u32| {
            *before = before.saturating_add(*gap);
            Some(*before)
        };
        self.gaps.iter().scan(0, sum).collect()
    }

    /// Whether it keeps its bounds.
    ///
    /// # Errors
    /// When it comes from somebody who does not.
    pub fn check(&self) -> Result<(), LessonError> {
        if self.gaps.is_empty() || self.gaps.len() > LESSON_FEATURES_MAX {
            return Err(LessonError::Count);
        }
        let is_last_known = self.features().last().is_some_and(|last| (*last as usize) < FEATURES);
        if !is_last_known || self.gaps.iter().skip(1).any(|gap| *gap == 0) {
            return Err(LessonError::Order);
        }
        if self.over.0.abs() > OVER_MAX.0 {
            return Err(LessonError::Far);
        }
        Ok(())
    }

    /// Names it by its features alone: the same message counts once, whoever hands it in.
    #[must_use]
    pub fn key(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        self.gaps.iter().for_each(|gap| hash.update(gap.to_be_bytes()));
        let digest: [u8; 32] = hash.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        key
    }

    /// Whether it is never learnt from, and what was learnt is tried on it: a fifth of all, always the same.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.key()[0].is_multiple_of(HELD_BACK_OF)
    }
}

/// In ascending order, each once; of too many the least by their hashes, so that of two messages that are alike the same are taken.
#[must_use]
pub fn sampled(features: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut sampled: Vec<u32> = features.into_iter().collect();
    sampled.sort_unstable();
    sampled.dedup();
    if sampled.len() > LESSON_FEATURES_MAX {
        sampled.select_nth_unstable_by_key(LESSON_FEATURES_MAX, |feature| mix(u64::from(*feature)));
        sampled.truncate(LESSON_FEATURES_MAX);
        sampled.sort_unstable();
    }
    sampled
}

#[cfg(test)]
mod tests {
    use super::{LESSON_FEATURES_MAX, Lesson, LessonError, sampled};
    use crate::{codec, learning::features::FEATURES, score::Score};

    #[test]
    fn a_lesson_is_its_features_once_each_in_order_and_small() {
        let all = (0..LESSON_FEATURES_MAX as u32).map(|feature| feature * 250);
        let lesson = Lesson::new(all.clone().rev().chain([0, 250]), true, Score(-300));
        assert_eq!(lesson.features(), all.collect::<Vec<_>>());
        assert_eq!(lesson.check(), Ok(()));
        let bytes = codec::encode(&lesson);
        assert!(bytes.len() < 2 * LESSON_FEATURES_MAX + 100, "{}", bytes.len());
        assert_eq!(codec::decode::<Lesson>("a lesson", &bytes).expect("it decodes"), lesson);
        let other = Lesson { bad: false, over: Score(7), ..lesson.clone() };
        assert_eq!(lesson.key(), other.key(), "the same message, whatever is said of it");
        assert_ne!(lesson.key(), Lesson::new([1, 2], true, Score::ZERO).key());
    }

    #[test]
    fn of_messages_that_are_alike_the_same_features_are_taken() {
        let many = sampled(0..5_000);
        assert_eq!(many.len(), LESSON_FEATURES_MAX);
        assert!(many.is_sorted() && many.last() > Some(&4_000), "from all over it");
        let others = sampled(500..5_500);
        let shared = many.iter().filter(|feature| others.contains(feature)).count();
        assert!(shared > 750, "{shared}");
    }

    #[test]
    fn what_breaks_the_bounds_of_a_lesson_is_none() {
        let lesson = |gaps: &[u32], over| Lesson { gaps: gaps.to_vec(), bad: true, over: Score(over) };
        assert_eq!(lesson(&[0, 1, 7], 0).check(), Ok(()));
        assert_eq!(lesson(&[], 0).check(), Err(LessonError::Count));
        assert_eq!(lesson(&[1; LESSON_FEATURES_MAX + 1], 0).check(), Err(LessonError::Count));
        assert_eq!(lesson(&[1, 0], 0).check(), Err(LessonError::Order));
        assert_eq!(lesson(&[FEATURES as u32], 0).check(), Err(LessonError::Order));
        assert_eq!(lesson(&[u32::MAX, u32::MAX], 0).check(), Err(LessonError::Order));
        assert_eq!(lesson(&[1], 2_001).check(), Err(LessonError::Far));
        assert_eq!(lesson(&[1], i32::MIN + 1).check(), Err(LessonError::Far));
    }

    #[test]
    fn a_fifth_is_held_back() {
        let held_back = (0..1_000).filter(|feature| Lesson::new([*feature], true, Score::ZERO).is_held_back()).count();
        assert!((150..250).contains(&held_back), "{held_back}");
    }
}
