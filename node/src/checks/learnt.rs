//! What the cluster's own model says of a message, and what a message teaches it.

use proto::{
    learning::{
        lesson::{Lesson, sampled},
        model::Model,
        trial::{POINTS_MAX, points},
    },
    score::Score,
    verdict::{Reason, Verdict},
};

use super::{classifier::Both, facts::Facts};
use crate::policy::score::reason;

/// The rules, with the most that they count.
pub const RULES: [(&str, Score, &str); 2] = [
    ("CLUSTER_LEARNT_BAD", POINTS_MAX, "mail like it was reported as spam here"),
    ("CLUSTER_LEARNT_GOOD", Score(-POINTS_MAX.0), "mail like it was released or reported as wanted here"),
];

/// What the model says of a message with these features.
#[must_use]
pub fn judge(model: &Model, features: &Both<Vec<u32>>) -> Option<Reason> {
    let points = points(model, &of_both(features));
    let (rule, _, text) = RULES[usize::from(points < Score::ZERO)];
    (points != Score::ZERO).then(|| reason(rule, points, text))
}

/// What a message teaches that was so far over the threshold; of no kind yet. One that says nothing teaches nothing.
#[must_use]
pub fn lesson(facts: &Facts<'_>, over: Score) -> Option<Lesson> {
    let lesson = Lesson::new(of_both(&super::classifier::features_of(facts)), false, over);
    lesson.check().is_ok().then_some(lesson)
}

/// How far a message was over a threshold, without what the cluster had learnt by then.
#[must_use]
pub fn over(verdict: &Verdict, threshold: Score) -> Score {
    let learnt = verdict.reasons.iter().filter(|reason| RULES.iter().any(|(rule, ..)| *rule == reason.rule));
    let learnt: Score = learnt.map(|reason| reason.score).sum();
    Score(verdict.score.0 - learnt.0 - threshold.0)
}

/// What both classifiers look at, as one.
fn of_both(features: &Both<Vec<u32>>) -> Vec<u32> {
    sampled(features.words.iter().chain(&features.form).copied())
}

#[cfg(test)]
mod tests {
    use proto::{
        learning::trial::learn,
        policy::PolicyLayer,
        score::Score,
        verdict::{Disposition, Verdict},
    };

    use super::{RULES, judge, lesson, over};
    use crate::{
        checks::{classifier::features_of, content, facts::Facts},
        policy::{
            samples::{message, transaction, view},
            score::reason,
        },
    };

    /// Does something with the facts of a letter.
    fn with<T>(text: &str, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let message = message(text);
        let transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
        look(&Facts::of(&message, &transaction))
    }

    fn wanted(number: usize) -> String {
        let word = ["oak", "ash", "elm", "fir", "yew", "box", "fig"][number % 7];
        format!(
            "From: Office <o@a.test>\nSubject: Your claim {word}\n\nDear colleague,\n\nthe funds for the transfer of {word} trees are \
             released, claim number {number} is paid out to the winners of the tender.\n{}\n",
            "Act now and send the bank details of the parks department. ".repeat(number % 3 + 1)
        )
    }

    fn bad(number: usize) -> String {
        let word = ["red", "tan", "teal", "blue", "gold", "grey", "pink"][number % 7];
        format!(
            "From: Printers <p@b.test>\nSubject: Toner {word}\n\nHello,\n\nwe saw your printer needs {word} toner cartridges. \
             Order {number} packs on account, our agent calls you tomorrow.\n{}\n",
            "Compatible with all makes of office machines. ".repeat(number % 4 + 1)
        )
    }

    #[test]
    fn letters_like_those_released_score_less_and_those_like_those_reported_more() {
        let taught = |letter: String, bad: bool, over: i32| {
            let mut taught = with(&letter, |facts| lesson(facts, Score(over)).expect("a lesson"));
            taught.bad = bad;
            taught
        };
        let lessons = (0..40).flat_map(|number| [taught(wanted(number), false, 150), taught(bad(number), true, -150)]);
        let (model, figures) = learn(lessons.collect(), None);
        assert_eq!(figures.objection(), None, "{figures:?}");
        let judged = |text: &str| with(text, |facts| judge(&model, &features_of(facts)));
        let good = judged(&wanted(99)).expect("a reason");
        assert!(good.rule == RULES[1].0 && good.score < Score(-100), "{good:?}");
        let bad = judged(&bad(99)).expect("a reason");
        assert!(bad.rule == RULES[0].0 && bad.score > Score(100), "{bad:?}");
        let other =
            judged("From: k@c.test\nSubject: Minutes\n\nThe minutes of Monday are attached, see you in June.\n");
        assert!(other.as_ref().is_none_or(|other| other.score.0.abs() < 60), "{other:?}");
        let told = with(&wanted(99), |facts| content::analyse(facts, Some(&model)).reasons);
        assert!(
            told.contains(&good) && !with(&wanted(99), |facts| content::analyse(facts, None).reasons).contains(&good)
        );
    }

    #[test]
    fn how_far_a_message_was_over_the_threshold_does_not_count_what_was_learnt() {
        let verdict = Verdict {
            disposition: Disposition::Accept,
            score: Score(550),
            tagged: false,
            reasons: vec![reason("WORDS_BAD", Score(700), "x"), reason(RULES[1].0, Score(-150), "y")],
            policy_version: 1,
        };
        assert_eq!(over(&verdict, Score(600)), Score(100));
    }

    #[test]
    fn a_message_that_says_nothing_teaches_nothing() {
        assert_eq!(
            with("\n\n", |facts| lesson(facts, Score::ZERO)).map(|lesson| lesson.features().len() < 5),
            Some(true)
        );
    }
}
