//! Kinds of letters, made of features: one that is wanted and scores badly, one that is bad and passes, and what is common to both.

use super::{Figures, POINTS_MAX, learn, points};
use crate::{
    learning::{lesson::Lesson, model::Model},
    score::Score,
};

/// A letter of a kind: words that all of it have, words of the language, and some of its own.
fn features(kind: u32, number: u32) -> impl Iterator<Item = u32> {
    let common = (0..60).filter(move |word| !(word * 7 + number * 13).is_multiple_of(3));
    let of_kind = (1_000 * kind..1_000 * kind + 60).filter(move |word| !(word + number).is_multiple_of(5));
    common.chain(of_kind).chain((0..10).map(move |word| 100_000 + kind * 20_000 + number * 40 + word))
}

fn lesson(kind: u32, number: u32, bad: bool, over: i32) -> Lesson {
    Lesson::new(features(kind, number), bad, Score(over))
}

/// Letters of kind 1 are wanted and are kept away, those of kind 2 are bad and pass.
fn lessons(each: u32) -> Vec<Lesson> {
    let wanted = (0..each).map(|number| lesson(1, number, false, 120));
    wanted.chain((0..each).map(|number| lesson(2, number, true, -130))).collect()
}

fn features_of(kind: u32, number: u32) -> Vec<u32> {
    lesson(kind, number, true, 0).features()
}

#[test]
fn what_was_released_passes_and_what_was_reported_scores_and_nothing_else_moves() {
    let (model, figures) = learn(lessons(40), None);
    assert_eq!(figures.objection(), None, "{figures:?}");
    assert!(figures.before.wanted_over > 3 && figures.after.wanted_over == 0, "{figures:?}");
    assert!(figures.before.bad_missed > 3 && figures.after.bad_missed == 0, "{figures:?}");
    assert!(points(&model, &features_of(1, 999)) < Score(-120));
    assert!(points(&model, &features_of(2, 999)) > Score(130));
    let others = points(&model, &features_of(3, 1));
    assert!(others.0.abs() < 30, "{others}");
    assert_eq!(points(&model, &[]), Score::ZERO);
}

#[test]
fn learning_depends_on_the_lessons_alone() {
    let first = learn(lessons(30), None);
    let mut turned = lessons(30);
    turned.reverse();
    turned.swap(3, 40);
    assert_eq!(learn(turned, None), first);
}

#[test]
fn what_is_learnt_counts_two_points_at_most() {
    let (model, _) = learn((0..200).map(|number| lesson(1, number, number % 2 == 0, -1_000)).collect(), None);
    let strong = Model::new(String::new(), model.weights, 100.0, 0.0);
    for number in 0..50 {
        assert!(points(&strong, &features_of(1, number)).0.abs() <= POINTS_MAX.0);
    }
}

#[test]
fn too_few_lessons_tell_nothing() {
    let (_, figures) = learn(lessons(2), None);
    assert!(figures.objection().is_some_and(|why| why.contains("held back")), "{figures:?}");
    assert!(learn(Vec::new(), None).1.objection().is_some());
    let one_kind = learn((0..50).map(|number| lesson(1, number, false, 120)).collect(), None).1;
    assert!(one_kind.objection().is_some(), "{one_kind:?}");
}

#[test]
fn what_would_keep_wanted_mail_away_is_not_taken_however_many_say_that_it_is_bad() {
    let (in_use, _) = learn(lessons(40), None);
    // Somebody reports what others have released.
    let poison = (100..220).map(|number| lesson(1, number, true, 0));
    let (_, figures) = learn(lessons(40).into_iter().chain(poison).collect(), Some(&in_use));
    assert!(figures.newly_over > 0, "{figures:?}");
    assert!(figures.objection().is_some_and(|why| why.contains("kept away")), "{figures:?}");
}

#[test]
fn what_would_let_bad_mail_pass_is_not_taken_however_many_have_released_it() {
    let (in_use, _) = learn(lessons(40), None);
    let poison = (100..220).map(|number| lesson(2, number, false, 10));
    let (_, figures) = learn(lessons(40).into_iter().chain(poison).collect(), Some(&in_use));
    assert!(figures.objection().is_some(), "{figures:?}");
}

#[test]
fn labels_without_sense_are_not_taken() {
    let mixed = |number: u32| lesson(1 + number % 2, number, number.wrapping_mul(2_654_435_761) >> 31 == 0, 50);
    let (_, figures) = learn((0..200).map(mixed).collect(), None);
    assert!(figures.objection().is_some(), "{figures:?}");
}

#[test]
fn each_objection_is_told() {
    let good = Figures {
        held_back: super::Count { wanted: 5, bad: 5 },
        before: super::Errors { wanted_over: 3, bad_missed: 3, loss: 700 },
        after: super::Errors { wanted_over: 1, bad_missed: 1, loss: 400 },
        ..Figures::default()
    };
    assert_eq!(good.objection(), None);
    assert_eq!(Figures { after: good.before, ..good }.objection(), None, "as good is not worse");
    let worse = |change: fn(&mut Figures)| {
        let mut figures = good;
        change(&mut figures);
        figures.objection().expect("an objection")
    };
    assert!(worse(|figures| figures.held_back.wanted = 1).contains("held back"));
    assert!(worse(|figures| figures.newly_over = 1).contains("kept away"));
    assert!(worse(|figures| figures.after.bad_missed = 4).contains("would pass"));
    assert!(worse(|figures| figures.after.loss = 701).contains("loss"));
}
