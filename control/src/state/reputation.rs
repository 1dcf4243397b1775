//! Counts what nodes report of senders, and keeps what operators say of them.
//!
//! A count fades by log time and is brought up to date when it is touched; what nodes were told of it moves only in steps
//! that matter, so that not each report moves each value. Beyond the cap those go that were heard of longest ago; what an
//! operator says is kept apart and never goes for want of room.

use proto::{
    mutation::{Grounds, Mutation, Outcome, Refused},
    reputation::{Heard, Levels, Manual, REPORT_SUBJECTS_MAX, Stance, Subject, SubjectKey, Tally, tick},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

use super::{
    Step,
    audit::check_grounds,
    keys::{Keys, Kind, behind, key, read, stored},
    policy::full,
};

/// Furthest end of what an operator says, in milliseconds from log time: ten years.
const UNTIL_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1000;
/// When there are too many subjects, one of so many goes beside those that are too many: a look for the oldest ones is
/// worth its while then.
const EVICTED_PART: u64 = 1_000;

/// A subject's counts. Short names: there are a million of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Counted {
    #[serde(rename = "g")]
    good: u64,
    #[serde(rename = "b")]
    bad: u64,
    /// Tick of the last report that named it.
    #[serde(rename = "t")]
    tick: u32,
    /// What nodes were told.
    #[serde(rename = "l")]
    told: Levels,
}

impl Counted {
    fn tally(self) -> Tally {
        Tally { good: self.good, bad: self.bad, tick: self.tick }
    }
}

/// What an operator said of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Of whom.
    pub subject: Subject,
    /// What holds.
    pub stance: Stance,
    /// Until when.
    pub until: UnixMs,
    /// `operator/NAME`.
    pub by: String,
    /// Log time.
    pub at: UnixMs,
    /// Why and ticket.
    pub grounds: Grounds,
}

/// Numbers of all subjects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    subjects: u64,
    said: u64,
}

impl Numbers {
    fn of(keys: &impl Keys) -> Self {
        read(keys, "the numbers of reputation", &key(Kind::Reputed, &[])).unwrap_or_default()
    }
}

fn subject_key(subject: SubjectKey) -> Vec<u8> {
    key(Kind::Subject, &[&subject.0])
}

fn manual_key(subject: SubjectKey) -> Vec<u8> {
    key(Kind::Manual, &[&subject.0])
}

/// Those of one tick are in the order of their keys.
fn heard_key(tick: u32, subject: SubjectKey) -> Vec<u8> {
    key(Kind::ByHeard, &[&tick.to_be_bytes(), &subject.0])
}

/// The subject at the end of a key.
fn subject_of(key: &[u8]) -> Option<SubjectKey> {
    key.last_chunk().map(|bytes| SubjectKey(*bytes))
}

/// What nodes were told, out of a pair of the state.
pub(super) fn told_of(key: &[u8], value: &[u8]) -> Option<(SubjectKey, Levels)> {
    let counted: Counted = stored("the counts of a subject", value);
    Some((subject_of(key)?, counted.told))
}

/// What holds by hand, out of a pair of the state.
pub(super) fn manual_of(key: &[u8], value: &[u8]) -> Option<(SubjectKey, Manual)> {
    let Said { stance, until, .. } = stored("what was said of a subject", value);
    Some((subject_of(key)?, Manual { stance, until }))
}

/// All that is known of a subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// Its counts, as they were at their tick.
    pub tally: Option<Tally>,
    /// What an operator said, though its end may have come.
    pub said: Option<Said>,
}

/// All that is known of a subject.
pub fn shown(keys: &impl Keys, subject: SubjectKey) -> Shown {
    let tally = read::<Counted>(keys, "the counts of a subject", &subject_key(subject)).map(Counted::tally);
    Shown { tally, said: read(keys, "what was said of a subject", &manual_key(subject)) }
}

/// How many subjects are counted.
pub fn subjects(keys: &impl Keys) -> u64 {
    Numbers::of(keys).subjects
}

impl<K: Keys> Step<'_, K> {
    pub(super) fn report(&mut self, outcomes: &[Heard]) -> Result<Outcome, Refused> {
        full("subjects of a report", outcomes.len(), REPORT_SUBJECTS_MAX)?;
        let tick = tick(self.meta.now);
        let mut numbers = Numbers::of(&self.keys);
        for heard in outcomes.iter().filter(|heard| heard.good > 0 || heard.bad > 0) {
            self.count(heard, tick, &mut numbers);
        }
        self.evict(&mut numbers);
        self.keys.put(key(Kind::Reputed, &[]), &numbers);
        Ok(Outcome::Done)
    }

    fn count(&mut self, heard: &Heard, tick: u32, numbers: &mut Numbers) {
        let place = subject_key(heard.subject);
        let old: Option<Counted> = read(&self.keys, "the counts of a subject", &place);
        let tally = old.map(Counted::tally).unwrap_or_default().with(heard, tick);
        let mut told = old.map(|old| old.told).unwrap_or_default();
        if told.moved(tally.levels()) {
            told = tally.levels();
            self.moved.subjects.insert(heard.subject, Some(told));
        }
        if old.is_none_or(|old| old.tick != tally.tick) {
            if let Some(old) = old {
                self.keys.remove(heard_key(old.tick, heard.subject));
            }
            self.keys.put_bytes(heard_key(tally.tick, heard.subject), Vec::new());
        }
        numbers.subjects += u64::from(old.is_none());
        self.keys.put(place, &Counted { good: tally.good, bad: tally.bad, tick: tally.tick, told });
    }

    /// Takes out those that were heard of longest ago.
    fn evict(&mut self, numbers: &mut Numbers) {
        let cap = self.caps.subjects;
        let Some(over) = numbers.subjects.checked_sub(cap).filter(|over| *over > 0) else { return };
        let wanted = usize::try_from(over + cap / EVICTED_PART).unwrap_or(usize::MAX);
        let all = key(Kind::ByHeard, &[]);
        let oldest: Vec<_> = self.keys.range(&all, &behind(&all)).map(|(key, _)| key).take(wanted).collect();
        for heard in oldest {
            if let Some(subject) = subject_of(&heard) {
                self.keys.remove(subject_key(subject));
                self.moved.subjects.insert(subject, None);
                numbers.subjects = numbers.subjects.saturating_sub(1);
            }
            self.keys.remove(heard);
        }
    }

    pub(super) fn set_reputation(
        &mut self,
        mutation: &Mutation,
        (subject, manual): (&Subject, Manual),
        grounds: &Grounds,
    ) -> Result<Outcome, Refused> {
        check_grounds(grounds)?;
        let now = self.meta.now;
        let Manual { stance, until } = manual;
        if until <= now {
            return Err(Refused::Invalid(format!("until: {until} is not later than the cluster's time, {now}")));
        }
        if until.since_ms(now) > UNTIL_MS_MAX {
            return Err(Refused::Invalid("until: at most ten years from now".into()));
        }
        let place = manual_key(subject.key());
        if self.keys.value(&place).is_none() {
            let mut numbers = Numbers::of(&self.keys);
            if numbers.said >= self.caps.said {
                self.forget_ended(&mut numbers);
            }
            if numbers.said >= self.caps.said {
                return Err(Refused::Full { what: "manual entries of reputation".into(), cap: self.caps.said });
            }
            numbers.said += 1;
            self.keys.put(key(Kind::Reputed, &[]), &numbers);
        }
        let said = Said {
            subject: subject.clone(),
            stance,
            until,
            by: mutation.by.to_string(),
            at: now,
            grounds: grounds.clone(),
        };
        self.keys.put(place, &said);
        self.moved.manual.insert(subject.key(), Some(manual));
        self.audit(mutation, format!("set reputation of {subject} to {stance} until {until}"), grounds);
        Ok(Outcome::Done)
    }

    /// Takes out what operators said and what has come to its end.
    fn forget_ended(&mut self, numbers: &mut Numbers) {
        let all = key(Kind::Manual, &[]);
        let to = behind(&all);
        let ended: Vec<_> = self
            .keys
            .range(&all, &to)
            .filter(|(key, value)| manual_of(key, value).is_some_and(|(_, manual)| manual.until <= self.meta.now))
            .map(|(key, _)| key)
            .collect();
        for place in ended {
            if let Some(subject) = subject_of(&place) {
                self.moved.manual.insert(subject, None);
            }
            self.keys.remove(place);
            numbers.said = numbers.said.saturating_sub(1);
        }
    }

    pub(super) fn forget_reputation(
        &mut self,
        mutation: &Mutation,
        subject: &Subject,
        grounds: &Grounds,
    ) -> Result<Outcome, Refused> {
        check_grounds(grounds)?;
        let place = subject.key();
        let Shown { tally, said } = shown(&self.keys, place);
        if tally.is_none() && said.is_none() {
            return Err(Refused::Invalid(format!("nothing is known of {subject}")));
        }
        let mut numbers = Numbers::of(&self.keys);
        if let Some(tally) = tally {
            self.keys.remove(subject_key(place));
            self.keys.remove(heard_key(tally.tick, place));
            self.moved.subjects.insert(place, None);
            numbers.subjects = numbers.subjects.saturating_sub(1);
        }
        if said.is_some() {
            self.keys.remove(manual_key(place));
            self.moved.manual.insert(place, None);
            numbers.said = numbers.said.saturating_sub(1);
        }
        self.keys.put(key(Kind::Reputed, &[]), &numbers);
        self.audit(mutation, format!("forgot the reputation of {subject}"), grounds);
        Ok(Outcome::Done)
    }
}
