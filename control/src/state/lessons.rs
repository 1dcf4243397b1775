//! Keeps what messages teach, and names the model that the cluster has learnt from them.
//!
//! Lessons come from releases and reports. Those of one mailbox, of one department or operator, and all of either kind have a quota
//! each, beyond which the oldest go: nobody can fill them. The same message counts once.

use std::collections::BTreeMap;

use proto::{
    codec,
    department::DepartmentId,
    held::{BodyRef, HeldId, HeldKind, HeldStatus},
    learning::{
        Attempt, Learnt, MODEL_BYTES_MAX, REPORT_LESSONS_MAX,
        lesson::Lesson,
        trial::{Count, Figures},
    },
    mutation::{Grounds, Mutation, Outcome, Refused},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Step,
    archive::Unreadable,
    audit::check_grounds,
    held::{check_body, record},
    keys::{Keys, Kind, behind, key, read, stored},
    policy::full,
    query,
};

/// How many lessons of either kind are kept.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Of the releases of one mailbox.
    pub mailbox: usize,
    /// Of the releases of one department, or the reports of one operator.
    pub source: usize,
    /// Of all.
    pub all: usize,
}

/// What production runs with.
pub const QUOTAS: Quotas = Quotas { mailbox: 25, source: 250, all: 2_000 };

/// Who has taught.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    /// A message for a mailbox, which is kept as a hash, of a department was released.
    Release { held: HeldId, department: DepartmentId, mailbox: [u8; 16] },
    /// An operator has reported it.
    Report { by: String },
}

impl Source {
    /// For people.
    fn name(&self) -> String {
        match self {
            Self::Release { department, .. } => format!("department/{department}"),
            Self::Report { by } => by.clone(),
        }
    }
}

/// What the lesson of a held message is counted with.
fn of_held(held: HeldId) -> [u8; 16] {
    hashed(&format!("held {held}"))
}

/// A lesson with who has taught it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Counts all lessons that ever were.
    number: u64,
    source: Source,
    lesson: Lesson,
}

impl Kept {
    /// What it is counted with, and how many of that may be kept.
    fn groups(&self, quotas: Quotas) -> Vec<([u8; 16], usize)> {
        let kind = if self.lesson.bad { "bad" } else { "wanted" };
        let mut groups =
            vec![(hashed(&format!("{kind} {}", self.source.name())), quotas.source), (hashed(kind), quotas.all)];
        if let Source::Release { held, mailbox, .. } = &self.source {
            groups.push((hashed(&format!("{kind} mailbox {}", hex::encode(mailbox))), quotas.mailbox));
            groups.push((of_held(*held), 1));
        }
        groups
    }
}

/// Numbers of all lessons, the model, and what came of learning last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learning {
    /// Lessons that ever were.
    pub lessons: u64,
    /// Those that are kept.
    pub kept: Count,
    /// How many there were when a server last learnt.
    pub seen: u64,
    /// The model in use.
    pub learnt: Learnt,
    /// How it came to be.
    pub taken: Option<Attempt>,
    /// What a server has learnt last, taken into use or not.
    pub last: Option<Attempt>,
}

/// What a server has learnt.
pub(super) struct Trained<'m> {
    pub(super) lessons: u64,
    pub(super) version: u64,
    pub(super) figures: &'m Figures,
    pub(super) model: Option<&'m BodyRef>,
}

fn hashed(text: &str) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    head
}

fn lesson_place(lesson: &Lesson) -> Vec<u8> {
    key(Kind::Lesson, &[&lesson.key()])
}

fn numbers_place() -> Vec<u8> {
    key(Kind::Learning, &[])
}

/// All numbers.
pub fn learning(keys: &impl Keys) -> Learning {
    read(keys, "the numbers of lessons", &numbers_place()).unwrap_or_default()
}

/// The model in use.
pub(super) fn learnt(keys: &impl Keys) -> Learnt {
    learning(keys).learnt
}

/// The model's file, out of a pair of an archive.
pub(super) fn body_in(found: &[u8], value: &[u8]) -> Result<Option<BodyRef>, Unreadable> {
    if found != numbers_place() {
        return Ok(None);
    }
    let learning: Learning = codec::decode("the numbers of lessons", value).map_err(|_| Unreadable)?;
    Ok(learning.learnt.body)
}

fn all(keys: &impl Keys) -> Vec<Kept> {
    let prefix = key(Kind::Lesson, &[]);
    keys.range(&prefix, &behind(&prefix)).map(|(_, value)| stored("a lesson", &value)).collect()
}

/// How many lessons each source has taught.
pub fn sources(keys: &impl Keys) -> BTreeMap<String, Count> {
    let mut sources: BTreeMap<String, Count> = BTreeMap::new();
    for kept in all(keys) {
        sources.entry(kept.source.name()).or_default().add(kept.lesson.bad);
    }
    sources
}

/// What there is to learn from, if anything is to be learnt now.
pub fn curriculum(keys: &impl Keys, now: UnixMs) -> Option<(Learning, Vec<Lesson>)> {
    let learning = learning(keys);
    if learning.lessons == learning.seen {
        return None;
    }
    let rules = query::settings(keys).learning();
    let is_enough = learning.kept.wanted.min(learning.kept.bad) >= rules.lessons_min;
    let is_time = learning.last.as_ref().is_none_or(|last| now.since_ms(last.at) >= rules.every_ms);
    (rules.enabled && is_enough && is_time).then(|| (learning, all(keys).into_iter().map(|kept| kept.lesson).collect()))
}

fn invalid<T>(text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Invalid(text.into()))
}

impl<K: Keys> Step<'_, K> {
    pub(super) fn learn_released(&mut self, id: HeldId, node: &str, lesson: &Lesson) -> Result<Outcome, Refused> {
        let held = record(&self.keys, id).ok_or(Refused::NoSuch)?.shown();
        let is_released = matches!(held.status, HeldStatus::Delivered { released: Some(_), .. });
        let (Some(department), Some(mailbox)) = (held.department, held.recipients.first()) else {
            return invalid("nothing is learnt from mail to the Internet");
        };
        if !is_released || held.kind != HeldKind::Quarantined || lesson.bad {
            return invalid(format!(
                "{node} may teach only that what somebody has released, and it has delivered, was wanted"
            ));
        }
        // The first one stays: a node that somebody has broken into must not put its own in the place of an honest one.
        let taught = key(Kind::LessonOf, &[&of_held(id)]);
        if self.keys.range(&taught, &behind(&taught)).next().is_some() {
            return Ok(Outcome::Done);
        }
        let mailbox = hashed(&format!("mailbox:{}", mailbox.key()));
        self.learn(std::slice::from_ref(lesson), &Source::Release { held: id, department, mailbox })?;
        Ok(Outcome::Done)
    }

    pub(super) fn learn_reported(
        &mut self,
        mutation: &Mutation,
        lessons: &[Lesson],
        grounds: &Grounds,
    ) -> Result<Outcome, Refused> {
        check_grounds(grounds)?;
        full("lessons of a report", lessons.len(), REPORT_LESSONS_MAX)?;
        let new = self.learn(lessons, &Source::Report { by: mutation.by.to_string() })?;
        let bad = lessons.iter().filter(|lesson| lesson.bad).count();
        let what = format!("reported {bad} messages as spam and {} as wanted: {new} new", lessons.len() - bad);
        self.audit(mutation, what, grounds);
        Ok(Outcome::Done)
    }

    /// Keeps lessons; how many are new.
    fn learn(&mut self, lessons: &[Lesson], source: &Source) -> Result<usize, Refused> {
        if !query::settings(&self.keys).learning().enabled {
            return invalid("content.learning of the policy is not enabled");
        }
        for lesson in lessons {
            lesson.check().map_err(|error| Refused::Invalid(error.to_string()))?;
        }
        let mut numbers = learning(&self.keys);
        let mut new = 0;
        for lesson in lessons {
            if let Some(old) = read::<Kept>(&self.keys, "a lesson", &lesson_place(lesson)) {
                // An operator may correct what was said before, a release what another release said.
                let is_corrected =
                    matches!((&old.source, source), (Source::Release { .. }, _) | (_, Source::Report { .. }));
                if old.lesson.bad == lesson.bad || !is_corrected {
                    continue;
                }
                self.unlearn(&old, &mut numbers);
            }
            numbers.lessons += 1;
            let kept = Kept { number: numbers.lessons, source: source.clone(), lesson: lesson.clone() };
            self.keep_lesson(&kept, &mut numbers);
            new += 1;
        }
        self.keys.put(numbers_place(), &numbers);
        Ok(new)
    }

    /// Stores a lesson, and takes out the oldest ones beyond its quotas.
    fn keep_lesson(&mut self, kept: &Kept, numbers: &mut Learning) {
        for (group, cap) in kept.groups(self.caps.lessons) {
            let prefix = key(Kind::LessonOf, &[&group]);
            let of_group: Vec<Vec<u8>> = self.keys.range(&prefix, &behind(&prefix)).map(|(_, lesson)| lesson).collect();
            let over = (of_group.len() + 1).saturating_sub(cap);
            for oldest in of_group.iter().take(over) {
                if let Some(old) = read::<Kept>(&self.keys, "a lesson", &key(Kind::Lesson, &[oldest])) {
                    self.unlearn(&old, numbers);
                }
            }
        }
        let place = kept.lesson.key();
        for (group, _) in kept.groups(self.caps.lessons) {
            self.keys.put_bytes(key(Kind::LessonOf, &[&group, &kept.number.to_be_bytes()]), place.to_vec());
        }
        self.keys.put(lesson_place(&kept.lesson), kept);
        numbers.kept.add(kept.lesson.bad);
    }

    fn unlearn(&mut self, kept: &Kept, numbers: &mut Learning) {
        for (group, _) in kept.groups(self.caps.lessons) {
            self.keys.remove(key(Kind::LessonOf, &[&group, &kept.number.to_be_bytes()]));
        }
        self.keys.remove(lesson_place(&kept.lesson));
        numbers.kept.take(kept.lesson.bad);
    }

    pub(super) fn take_model(&mut self, mutation: &Mutation, trained: &Trained<'_>) -> Result<Outcome, Refused> {
        let mut numbers = learning(&self.keys);
        let Trained { lessons, version, figures, model } = trained;
        // Somebody else was first, or all was forgotten meanwhile.
        if *version != numbers.learnt.version || *lessons <= numbers.seen || *lessons > numbers.lessons {
            return invalid("the lessons or the model in use have changed since it began to learn");
        }
        if !query::settings(&self.keys).learning().enabled {
            return invalid("content.learning of the policy is not enabled");
        }
        let attempt = Attempt { at: self.meta.now, by: mutation.by.to_string(), figures: **figures };
        if let Some(body) = model {
            if let Some(objection) = figures.objection() {
                return invalid(format!("the model is worse than what is in use: {objection}"));
            }
            check_body(body, MODEL_BYTES_MAX)?;
            numbers.learnt = Learnt { version: numbers.learnt.version + 1, body: Some((*body).clone()) };
            numbers.taken = Some(attempt.clone());
            self.moved.learnt = true;
            let Count { wanted, bad } = figures.learnt;
            let why = format!("learnt from {wanted} wanted and {bad} bad messages, and not worse on those held back");
            let what = format!("took version {} of the learnt model into use", numbers.learnt.version);
            self.audit(mutation, what, &Grounds { why, ticket: String::new() });
        }
        (numbers.seen, numbers.last) = (*lessons, Some(attempt));
        self.keys.put(numbers_place(), &numbers);
        Ok(Outcome::Done)
    }

    pub(super) fn forget_learning(&mut self, mutation: &Mutation, grounds: &Grounds) -> Result<Outcome, Refused> {
        check_grounds(grounds)?;
        let Learning { lessons, kept, learnt, .. } = learning(&self.keys);
        if kept == Count::default() && learnt.body.is_none() {
            return invalid("nothing is learnt");
        }
        for kind in [Kind::Lesson, Kind::LessonOf] {
            let prefix = key(kind, &[]);
            let gone: Vec<Vec<u8>> = self.keys.range(&prefix, &behind(&prefix)).map(|(key, _)| key).collect();
            gone.into_iter().for_each(|key| self.keys.remove(key));
        }
        let learnt = Learnt { version: learnt.version + 1, body: None };
        self.keys.put(numbers_place(), &Learning { lessons, seen: lessons, learnt, ..Learning::default() });
        self.moved.learnt = true;
        let what = format!("forgot {} wanted and {} bad lessons and the learnt model", kept.wanted, kept.bad);
        self.audit(mutation, what, grounds);
        Ok(Outcome::Done)
    }
}
