//! What a cluster gains by learning: taught with the mistakes that were made on one half of sorted mail, tried on the other half.

use std::fmt;

use node::{
    checks::{content, facts::Facts, learnt},
    policy::score::total,
};
use proto::{
    learning::{
        lesson::Lesson,
        trial::{Figures, learn, points},
    },
    score::Score,
};

use super::corpus::Sorted;

/// Wanted ones that are kept away and bad ones that pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    touched: u32,
    missed: u32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Gain {
    /// What the cluster itself would have found before it took the model into use.
    pub figures: Figures,
    /// Messages that it was tried on, wanted and bad.
    pub tried: (u32, u32),
    /// Mistakes on them without the model.
    pub before: Mistakes,
    /// The same with it.
    pub after: Mistakes,
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { figures, tried: (wanted, bad), before, after } = self;
        writeln!(
            f,
            "taught with {} wanted messages that were kept away and {} bad ones that passed",
            figures.learnt.wanted + figures.held_back.wanted,
            figures.learnt.bad + figures.held_back.bad
        )?;
        writeln!(
            f,
            "the cluster would {}",
            figures.objection().map_or("use it".into(), |why| format!("not use it: {why}"))
        )?;
        writeln!(f, "of {wanted} other wanted messages {} were kept away, now {}", before.touched, after.touched)?;
        write!(f, "of {bad} other bad messages {} passed, now {}", before.missed, after.missed)
    }
}

/// Teaches with one half and tries the other.
#[must_use]
pub fn gain(all: &[Sorted], threshold: Score) -> Gain {
    let (teach, try_on): (Vec<&Sorted>, Vec<&Sorted>) = all.iter().partition(|sorted| lot(sorted).is_multiple_of(2));
    // People tell of mistakes only.
    let is_mistake = |lesson: &Lesson| (lesson.over >= Score::ZERO) != lesson.bad;
    let lessons = teach.into_iter().filter_map(|sorted| lesson(sorted, threshold)).filter(is_mistake);
    let (model, figures) = learn(lessons.collect(), None);
    let mut gain = Gain { figures, tried: (0, 0), before: Mistakes::default(), after: Mistakes::default() };
    for lesson in try_on.into_iter().filter_map(|sorted| lesson(sorted, threshold)) {
        *(if lesson.bad { &mut gain.tried.1 } else { &mut gain.tried.0 }) += 1;
        let learnt = points(&model, &lesson.features());
        gain.before.count(lesson.bad, lesson.over >= Score::ZERO);
        gain.after.count(lesson.bad, lesson.over.0 + learnt.0 >= 0);
    }
    gain
}

/// A number that depends on its name alone, which is a digest.
fn lot(sorted: &Sorted) -> u32 {
    sorted.name.bytes().fold(0_u32, |lot, byte| lot.wrapping_mul(31).wrapping_add(byte.into())) >> 5
}

impl Mistakes {
    fn count(&mut self, bad: bool, is_over: bool) {
        match (bad, is_over) {
            (false, true) => self.touched += 1,
            (true, false) => self.missed += 1,
            (false, false) | (true, true) => {}
        }
    }
}

/// What people would say of it, if it is a mistake; and what there is to know of any.
fn lesson(sorted: &Sorted, threshold: Score) -> Option<Lesson> {
    let message = sorted.message();
    let transaction = sorted.transaction(&message);
    let facts = Facts::of(&message, &transaction);
    let over = Score(total(&content::analyse(&facts, None).reasons).0 - threshold.0);
    let mut lesson = learnt::lesson(&facts, over)?;
    lesson.bad = sorted.class.is_bad();
    Some(lesson)
}
