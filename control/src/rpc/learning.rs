//! What the cluster has learnt, as the `operator` service shows it, and reports as it takes them.

use std::collections::BTreeMap;

use proto::{
    codec,
    learning::{
        Attempt, LearningRules, REPORT_LESSONS_MAX,
        lesson::Lesson,
        trial::{Count, Errors, Figures},
    },
    wire::operator::{LearningAttempt, LearningErrors, LearningResponse, LessonCount, LessonSource},
};
use tonic::Status;

use crate::state::lessons::Learning;

/// The lessons of a report, of the kind that it says.
///
/// # Errors
/// `INVALID_ARGUMENT` when there are none or too many, or one is none.
pub fn lessons(encoded: &[Vec<u8>], bad: bool) -> Result<Vec<Lesson>, Status> {
    if encoded.is_empty() || encoded.len() > REPORT_LESSONS_MAX {
        return Err(Status::invalid_argument(format!("1 to {REPORT_LESSONS_MAX} messages are expected in a report")));
    }
    let lesson = |bytes: &Vec<u8>| {
        let mut lesson: Lesson = codec::decode("a lesson", bytes).map_err(|error| error.to_string())?;
        lesson.check().map_err(|error| error.to_string())?;
        lesson.bad = bad;
        Ok(lesson)
    };
    encoded.iter().map(lesson).collect::<Result<_, String>>().map_err(Status::invalid_argument)
}

/// All that there is to show.
#[must_use]
pub fn shown(rules: LearningRules, (learning, sources): (Learning, BTreeMap<String, Count>)) -> LearningResponse {
    let LearningRules { enabled, lessons_min, every_ms } = rules;
    let Learning { kept, learnt, taken, last, .. } = learning;
    let source = |(name, of_source)| LessonSource { name, count: Some(count(of_source)) };
    LearningResponse {
        enabled,
        lessons_min,
        every_ms,
        kept: Some(count(kept)),
        sources: sources.into_iter().map(source).collect(),
        version: learnt.version,
        digest: learnt.body.map(|body| body.digest).unwrap_or_default(),
        taken: taken.map(attempt),
        last: last.map(attempt),
    }
}

fn count(Count { wanted, bad }: Count) -> LessonCount {
    LessonCount { wanted, bad }
}

fn attempt(Attempt { at, by, figures }: Attempt) -> LearningAttempt {
    let objection = figures.objection().unwrap_or_default();
    let Figures { learnt, held_back, before, after, newly_over } = figures;
    let errors = |Errors { wanted_over, bad_missed, loss }| LearningErrors { wanted_over, bad_missed, loss };
    LearningAttempt {
        at_ms: at.0,
        by,
        learnt: Some(count(learnt)),
        held_back: Some(count(held_back)),
        before: Some(errors(before)),
        after: Some(errors(after)),
        newly_over,
        objection,
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        codec,
        learning::{REPORT_LESSONS_MAX, lesson::Lesson},
        score::Score,
    };

    use super::lessons;

    #[test]
    fn a_report_says_of_what_kind_its_lessons_are_and_has_only_what_is_one() {
        let one = codec::encode(&Lesson::new([1, 2, 3], false, Score(100)));
        let read = lessons(&[one.clone(), one.clone()], true).expect("lessons");
        assert!(read.len() == 2 && read.iter().all(|lesson| lesson.bad));
        let none = codec::encode(&Lesson::new([], false, Score::ZERO));
        for bad in [vec![], vec![b"x".to_vec()], vec![none], vec![one; REPORT_LESSONS_MAX + 1]] {
            assert!(lessons(&bad, true).is_err());
        }
    }
}
