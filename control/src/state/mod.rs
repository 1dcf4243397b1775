//! The replicated state: a pure function from keys, a batch and its log time to writes and outcomes.
//!
//! Same log, same state on every replica: no clock, randomness, float, hash order or I/O in here (`store` is the edge that
//! keeps the keys on disk). Time is log time: the largest that a batch was stamped with.

pub mod archive;
pub mod audit;
mod delivery;
pub mod digest;
pub mod feed;
mod greylist;
mod held;
pub mod keys;
pub mod lessons;
pub mod members;
pub mod nodes;
mod policy;
pub mod query;
pub mod reputation;
pub mod snapshot;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use proto::{
    greylist::TRIES_MAX,
    held::{HeldId, MutationId},
    mutation::{Batch, Change, Mutation, Outcome, Refused},
    reputation::{MANUAL_MAX, Manual, SUBJECTS_MAX},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

use self::keys::{Keys, Kind, Overlay, Writes, key, read};

/// How much the state may hold of each. What is evicted, and in which order, follows from the log alone. The audit log
/// has no cap: a trace is never thrown away.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Held records; those that ended first go first, and when none has ended a hold is refused.
    pub held: u64,
    /// Outcomes remembered by mutation id; the oldest goes first.
    pub remembered: u64,
    /// Policy versions in the history; the oldest goes first.
    pub versions: u64,
    /// Subjects of reputation; those heard of longest ago go first.
    pub subjects: u64,
    /// What operators say of subjects; when nothing of it has ended, more is refused.
    pub said: u64,
    /// First tries of greylisting; the oldest go first.
    pub tries: u64,
    /// Lessons; beyond each of them the oldest go first.
    pub lessons: lessons::Quotas,
    /// Items of the journal for nodes; the oldest records go first, and who needs them gets everything.
    pub journal: u64,
}

/// What production runs with.
pub const CAPS: Caps = Caps {
    held: 1_000_000,
    remembered: 100_000,
    versions: 1_000,
    subjects: SUBJECTS_MAX,
    said: MANUAL_MAX,
    tries: TRIES_MAX,
    lessons: lessons::QUOTAS,
    journal: 500_000,
};

/// Numbers that belong to the state as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Log time.
    now: UnixMs,
    policy_version: u64,
    /// Records of any status.
    held: u64,
    /// Records that are waiting or due.
    open: u64,
    /// Sequence numbers of remembered outcomes: first kept, next free.
    remembered: (u64, u64),
    /// Last audit record.
    audit_seq: u64,
    audit_hash: String,
    /// While a restore is under way.
    #[serde(default)]
    restoring: Option<archive::Restoring>,
}

impl Meta {
    fn of(keys: &impl Keys) -> Self {
        read(keys, "the state's numbers", &key(Kind::Meta, &[])).unwrap_or_default()
    }
}

/// The state machine. It has no fields: all it knows is in the keys.
#[derive(Clone, Copy, Debug)]
pub struct State;

impl State {
    /// Applies a batch that was committed at `index`: what is to be written, and one outcome a mutation, in order.
    #[must_use]
    pub fn apply(reader: &impl Keys, index: u64, batch: &Batch) -> (Writes, Vec<Outcome>) {
        Self::apply_within(CAPS, reader, index, batch)
    }

    /// The same under other caps.
    #[must_use]
    pub fn apply_within(caps: Caps, reader: &impl Keys, index: u64, batch: &Batch) -> (Writes, Vec<Outcome>) {
        let mut meta = Meta::of(reader);
        meta.now = meta.now.max(batch.at);
        let mut step = Step { keys: Overlay::over(reader), meta, index, caps, moved: feed::Moved::default() };
        let outcomes = batch.mutations.iter().map(|mutation| step.once(mutation)).collect();
        step.write_journal();
        let Step { mut keys, meta, .. } = step;
        keys.put(key(Kind::Meta, &[]), &meta);
        (keys.into_writes(), outcomes)
    }
}

/// One batch being applied.
struct Step<'k, K> {
    keys: Overlay<'k, K>,
    meta: Meta,
    index: u64,
    caps: Caps,
    /// What nodes must hear of.
    moved: feed::Moved,
}

/// What is kept of an outcome. A lease is kept as the id of its record, which may be large and may have moved on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kept {
    Outcome(Outcome),
    Lease(HeldId),
}

/// What became of a mutation id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Remembered {
    by: String,
    kept: Kept,
}

impl<K: Keys> Step<'_, K> {
    /// Applies a mutation unless its id has been seen.
    fn once(&mut self, mutation: &Mutation) -> Outcome {
        if let Some(remembered) = self.remembered(mutation.id) {
            return self.again(mutation, remembered);
        }
        let outcome = self.first(mutation).unwrap_or_else(Outcome::Refused);
        self.remember(mutation, &outcome);
        outcome
    }

    fn first(&mut self, mutation: &Mutation) -> Result<Outcome, Refused> {
        let role = mutation.by.role;
        if !mutation.change.allowed_for(role) {
            return Err(Refused::Role { role });
        }
        self.check_restoring(&mutation.change)?;
        match &mutation.change {
            Change::ApplyPolicy { base_version, settings, departments, changes, grounds } => {
                let plan = policy::Plan { base_version: *base_version, settings, departments, changes };
                self.apply_policy(mutation, &plan, grounds)
            }
            Change::Hold { records } => self.hold(records),
            Change::Discard { transaction, recipients, verdict } => {
                self.audit_discard(mutation, *transaction, *recipients, verdict);
                Ok(Outcome::Done)
            }
            Change::Lease { held, for_ms } => self.lease(*held, &mutation.by.name, *for_ms),
            Change::Attempted { held, delivered, refused, next_attempt, problem } => {
                let attempt = delivery::Attempt { delivered, refused, next_attempt: *next_attempt, problem };
                self.attempted(*held, &mutation.by.name, &attempt)
            }
            Change::Release { held, grounds } => self.release(mutation, *held, grounds),
            Change::Delete { held, grounds } => self.delete(mutation, *held, grounds),
            Change::Member { act, grounds } => self.member(mutation, act, grounds),
            Change::Archive { act, grounds } => self.archive(mutation, act, grounds),
            Change::DrainNode { node, drained, grounds } => self.drain_node(mutation, node, *drained, grounds),
            Change::Report { outcomes } => self.report(outcomes),
            Change::PutOff { tries } => self.put_off(tries),
            Change::SetReputation { subject, stance, until, grounds } => {
                let manual = Manual { stance: *stance, until: *until };
                self.set_reputation(mutation, (subject, manual), grounds)
            }
            Change::ForgetReputation { subject, grounds } => self.forget_reputation(mutation, subject, grounds),
            Change::Learn { held, lesson } => self.learn_released(*held, &mutation.by.name, lesson),
            Change::ReportMail { lessons, grounds } => self.learn_reported(mutation, lessons, grounds),
            Change::Learnt { lessons, version, figures, model } => {
                let trained = lessons::Trained { lessons: *lessons, version: *version, figures, model: model.as_ref() };
                self.take_model(mutation, &trained)
            }
            Change::ForgetLearning { grounds } => self.forget_learning(mutation, grounds),
        }
    }

    fn again(&self, mutation: &Mutation, remembered: Remembered) -> Outcome {
        if remembered.by != mutation.by.to_string() {
            return Outcome::Refused(Refused::Invalid("the mutation id was used by somebody else".into()));
        }
        match remembered.kept {
            Kept::Outcome(outcome) => outcome,
            Kept::Lease(held) => self.lease_again(held, &mutation.by.name),
        }
    }

    fn remembered(&self, id: MutationId) -> Option<Remembered> {
        read(&self.keys, "a remembered outcome", &key(Kind::Remembered, &[&id.0.to_bytes()]))
    }

    fn remember(&mut self, mutation: &Mutation, outcome: &Outcome) {
        let kept = match outcome {
            Outcome::Leased(held) => Kept::Lease(held.id),
            Outcome::Done | Outcome::PolicyApplied { .. } | Outcome::Refused(_) => Kept::Outcome(outcome.clone()),
        };
        let id = mutation.id.0.to_bytes();
        self.keys.put(key(Kind::Remembered, &[&id]), &Remembered { by: mutation.by.to_string(), kept });
        let (mut first, next) = self.meta.remembered;
        self.keys.put_bytes(key(Kind::RememberedAt, &[&next.to_be_bytes()]), id.to_vec());
        let next = next + 1;
        while next - first > self.caps.remembered {
            let place = key(Kind::RememberedAt, &[&first.to_be_bytes()]);
            if let Some(id) = self.keys.value(&place) {
                self.keys.remove(key(Kind::Remembered, &[&id]));
            }
            self.keys.remove(place);
            first += 1;
        }
        self.meta.remembered = (first, next);
    }
}
