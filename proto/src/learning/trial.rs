//! Learns from lessons, and tries what was learnt on those that were held back: it is taken into use only if it is not worse there
//! than what is in use.
//!
//! A model learns what is left to say where the rules have said what they know: their points are the odds that it begins with. It
//! has no bias, so that it says nothing of mail of which it knows nothing.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    lesson::Lesson,
    model::Model,
    training::{CORRECTION, Example, train},
};
use crate::score::Score;

/// What a cluster's own model counts, at most, either way: less than a third of what is kept away from a mailbox.
pub const POINTS_MAX: Score = Score(200);
/// Of a message of which no more than half is known it says nothing: the lessons are mistakes, and so unlike other mail.
const KNOWN: Range<f32> = 0.5..0.9;
/// Fewer held-back lessons of either kind tell nothing.
const HELD_BACK_MIN: u32 = 2;

/// How many lessons of either kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Somebody wanted them.
    pub wanted: u32,
    /// People say that they are spam or worse.
    pub bad: u32,
}

impl Count {
    /// One more of a kind.
    pub fn add(&mut self, bad: bool) {
        let count = self.of(bad);
        *count = count.saturating_add(1);
    }

    /// One less of a kind.
    pub fn take(&mut self, bad: bool) {
        let count = self.of(bad);
        *count = count.saturating_sub(1);
    }

    fn of(&mut self, bad: bool) -> &mut u32 {
        if bad { &mut self.bad } else { &mut self.wanted }
    }
}

/// What is wrong with the held-back lessons under some model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Wanted ones over the threshold.
    pub wanted_over: u32,
    /// Bad ones below it.
    pub bad_missed: u32,
    /// Thousandths of the mean logarithmic loss, both kinds alike.
    pub loss: u32,
}

/// What a trial came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Lessons that it has learnt from.
    pub learnt: Count,
    /// Those that it was tried on.
    pub held_back: Count,
    /// With what is in use.
    pub before: Errors,
    /// With what was learnt.
    pub after: Errors,
    /// Wanted ones that only what was learnt puts over the threshold.
    pub newly_over: u32,
}

impl Figures {
    /// Why it must not be taken into use.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        let Self { held_back, before, after, newly_over, .. } = self;
        let fewest = held_back.wanted.min(held_back.bad);
        if fewest < HELD_BACK_MIN {
            return Some(format!(
                "{} wanted and {} bad messages are held back, {HELD_BACK_MIN} of each are needed",
                held_back.wanted, held_back.bad
            ));
        }
        if *newly_over > 0 {
            return Some(format!("{newly_over} wanted messages that pass now would be kept away"));
        }
        if after.bad_missed > before.bad_missed {
            return Some(format!("{} bad messages would pass, now {} do", after.bad_missed, before.bad_missed));
        }
        if after.loss > before.loss {
            return Some(format!("its loss is {}, that of what is in use {}", after.loss, before.loss));
        }
        None
    }
}

/// What a model adds to the points of a message with these features.
#[must_use]
pub fn points(model: &Model, features: &[u32]) -> Score {
    Score(model.odds_known(KNOWN, features)).clamp(Score(-POINTS_MAX.0), POINTS_MAX)
}

/// Learns from all lessons that are not held back and tries the model on the others, beside the one in use. Depends on the lessons
/// alone, not on their order.
#[must_use]
pub fn learn(mut lessons: Vec<Lesson>, in_use: Option<&Model>) -> (Model, Figures) {
    lessons.sort_by_cached_key(Lesson::key);
    let (held_back, learnt): (Vec<_>, Vec<_>) = lessons.iter().partition(|lesson| lesson.is_held_back());
    let mut figures = Figures { learnt: count(&learnt), held_back: count(&held_back), ..Figures::default() };
    let origin = format!("{} wanted and {} bad messages of this cluster", figures.learnt.wanted, figures.learnt.bad);
    let examples: Vec<Example<1>> = learnt.iter().map(|lesson| example(lesson, figures.learnt)).collect();
    let [model] = train(&examples.iter().collect::<Vec<_>>(), &origin, CORRECTION);
    let before = |features: &[u32]| in_use.map_or(Score::ZERO, |model| points(model, features));
    let after = |features: &[u32]| points(&model, features);
    for lesson in held_back.iter().filter(|lesson| !lesson.bad) {
        let features = lesson.features();
        let newly_over = is_over(lesson, after(&features)) && !is_over(lesson, before(&features));
        figures.newly_over += u32::from(newly_over);
    }
    (figures.before, figures.after) = (errors(&held_back, before), errors(&held_back, after));
    (model, figures)
}

fn count(lessons: &[&Lesson]) -> Count {
    let mut count = Count::default();
    lessons.iter().for_each(|lesson| count.add(lesson.bad));
    count
}

/// Both kinds together count alike, however many there are of each.
fn example(lesson: &Lesson, all: Count) -> Example<1> {
    let of_kind = if lesson.bad { all.bad } else { all.wanted };
    let weight = (all.wanted + all.bad) as f32 / (2 * of_kind.max(1)) as f32;
    Example { features: [lesson.features()], bad: lesson.bad, weight, offset: odds(lesson.over) }
}

/// A point is reckoned as one unit of odds, which are even at the threshold.
fn odds(over: Score) -> f32 {
    over.0 as f32 / 100.0
}

fn is_over(lesson: &Lesson, points: Score) -> bool {
    lesson.over.0 + points.0 >= 0
}

fn errors(lessons: &[&Lesson], points: impl Fn(&[u32]) -> Score) -> Errors {
    let (mut errors, mut losses) = (Errors::default(), [Vec::new(), Vec::new()]);
    for lesson in lessons {
        let points = points(&lesson.features());
        match (lesson.bad, is_over(lesson, points)) {
            (false, true) => errors.wanted_over += 1,
            (true, false) => errors.bad_missed += 1,
            (false, false) | (true, true) => {}
        }
        let against = odds(Score(lesson.over.0 + points.0)) * if lesson.bad { -1.0 } else { 1.0 };
        losses[usize::from(lesson.bad)].push(f64::from(against.exp().ln_1p()));
    }
    let mean = |losses: &Vec<f64>| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
    errors.loss = (losses.iter().map(mean).sum::<f64>() * 500.0) as u32;
    errors
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
