//! Changes to the replicated state, and what became of each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    address::Address,
    archive::ArchiveAct,
    department::Department,
    held::{BodyRef, Held, HeldId, MutationId, TransactionId},
    identity::Role,
    learning::{lesson::Lesson, trial::Figures},
    member::MemberAct,
    policy::PolicyLayer,
    reputation::{Heard, Stance, Subject, SubjectKey},
    time::UnixMs,
    verdict::Verdict,
    view::StateSettings,
};

/// One change proposed, with who proposes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mutation {
    /// Chosen by the proposer; a second one with the same id changes nothing and gets the first one's outcome.
    pub id: MutationId,
    /// Out of the certificate, never out of the request.
    pub by: Principal,
    /// What changes.
    pub change: Change,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Role of the certificate.
    pub role: Role,
    /// Name of the certificate.
    pub name: String,
}

/// `operator/anna`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

/// What an operator gives with a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds {
    /// In words; 1 to 500 characters.
    pub why: String,
    /// Number in the operator's ticket system, or empty.
    pub ticket: String,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A whole new policy: one version.
    ApplyPolicy {
        /// The version it was planned against.
        base_version: u64,
        /// The state's file.
        settings: Box<StateSettings>,
        /// All departments.
        departments: Vec<Department>,
        /// The plan's lines, for the history.
        changes: Vec<String>,
        /// Why.
        grounds: Grounds,
    },
    /// Keeps a message: all records of one transaction, or none.
    Hold {
        /// One for each department and disposition.
        records: Vec<Held>,
    },
    /// A message thrown away by policy leaves its trace.
    Discard {
        /// The transaction.
        transaction: TransactionId,
        /// How many recipients.
        recipients: u32,
        /// Why.
        verdict: Verdict,
    },
    /// The proposing node wants to deliver, alone, for a while.
    Lease {
        /// Which.
        held: HeldId,
        /// How long from log time, in milliseconds; at most ten minutes.
        for_ms: u64,
    },
    /// The proposing node, which has the lease, says what came of it.
    Attempted {
        /// Which.
        held: HeldId,
        /// Recipients that the next hop accepted.
        delivered: Vec<Address>,
        /// Recipients that it refused for good.
        refused: Vec<Address>,
        /// When to try the others again.
        next_attempt: UnixMs,
        /// What the next hop said, for the operator.
        problem: String,
    },
    /// Compare-and-set from waiting to due.
    Release {
        /// Which.
        held: HeldId,
        /// Why.
        grounds: Grounds,
    },
    /// Compare-and-set from waiting or undeliverable to deleted.
    Delete {
        /// Which.
        held: HeldId,
        /// Why.
        grounds: Grounds,
    },
    /// What an operator does to the membership: its trace, and the ids and names that may not come again. Raft is asked after it.
    Member {
        /// What.
        act: MemberAct,
        /// Why.
        grounds: Grounds,
    },
    /// A backup of the whole state, or a step of a restore.
    Archive {
        /// What.
        act: ArchiveAct,
        /// Why; not needed in the middle of a restore.
        grounds: Grounds,
    },
    /// A node takes no new mail, or takes it again.
    DrainNode {
        /// Name in its certificate.
        node: String,
        /// True: drain; false: undrain.
        drained: bool,
        /// Why.
        grounds: Grounds,
    },
    /// What the proposing node has seen of senders since its last report.
    Report {
        /// At most `reputation::REPORT_SUBJECTS_MAX`.
        outcomes: Vec<Heard>,
    },
    /// Those whom the proposing node has put off for the first time since it last said so.
    PutOff {
        /// At most `greylist::REPORT_TRIES_MAX`, of `greylist::try_key`.
        tries: Vec<SubjectKey>,
    },
    /// Says by hand what holds for a subject, whatever is counted; takes the place of what was said before.
    SetReputation {
        /// For whom.
        subject: Subject,
        /// What holds.
        stance: Stance,
        /// Until when; at most ten years from log time.
        until: UnixMs,
        /// Why.
        grounds: Grounds,
    },
    /// Forgets what was said by hand and what was counted.
    ForgetReputation {
        /// Of whom.
        subject: Subject,
        /// Why.
        grounds: Grounds,
    },
    /// What a held message teaches that somebody has released and the proposing node has delivered: it was wanted.
    Learn {
        /// Which.
        held: HeldId,
        /// What it teaches.
        lesson: Lesson,
    },
    /// What messages teach that people say are wanted, or bad.
    ReportMail {
        /// At most `learning::REPORT_LESSONS_MAX`.
        lessons: Vec<Lesson>,
        /// Why.
        grounds: Grounds,
    },
    /// What the proposing control server has learnt from all lessons.
    Learnt {
        /// How many lessons there had ever been when it began.
        lessons: u64,
        /// Version of the model that was in use.
        version: u64,
        /// What the trial came to.
        figures: Figures,
        /// The model's file, unless there is an objection.
        model: Option<BodyRef>,
    },
    /// Forgets all lessons and the model.
    ForgetLearning {
        /// Why.
        grounds: Grounds,
    },
}

impl Change {
    /// Version of log entries from which on servers know this kind, at least 1. A kind or a field whose absence would change
    /// the meaning gets the next version; the leader proposes it only once all members know that version.
    #[must_use]
    pub fn version(&self) -> u32 {
        let is_new = |policy: &PolicyLayer| policy.scans_again() || policy.looks_into_documents();
        let is_newest = |policy: &PolicyLayer| policy.judges_attachments();
        match self {
            Self::ApplyPolicy { settings, departments, .. }
                if is_newest(&settings.policy)
                    || departments.iter().any(|one| is_newest(&one.policy))
                    || settings.content.as_ref().is_some_and(|content| content.learning.is_some()) =>
            {
                9
            }
            Self::ApplyPolicy { settings, .. } if settings.rules.is_some() || settings.content.is_some() => 8,
            Self::ApplyPolicy { settings, departments, .. }
                if is_new(&settings.policy) || departments.iter().any(|department| is_new(&department.policy)) =>
            {
                7
            }
            Self::ApplyPolicy { settings, departments, .. }
                if settings.clients.is_some()
                    || settings.policy.judges_clients()
                    || departments
                        .iter()
                        .any(|department| department.policy.judges_clients() || !department.verification.is_none()) =>
            {
                5
            }
            Self::ApplyPolicy { settings, .. } if settings.client_score_max.is_some() => 4,
            Self::Hold { records } if !records.iter().all(Held::is_plain) => 6,
            Self::Attempted { delivered, refused, .. } if !delivered.iter().chain(refused).all(Address::is_ascii) => 6,
            Self::ApplyPolicy { .. }
            | Self::Hold { .. }
            | Self::Discard { .. }
            | Self::Lease { .. }
            | Self::Attempted { .. }
            | Self::Release { .. }
            | Self::Delete { .. } => 1,
            Self::SetReputation { subject: Subject::Campaign(_), .. }
            | Self::ForgetReputation { subject: Subject::Campaign(_), .. } => 8,
            Self::Member { .. }
            | Self::DrainNode { .. }
            | Self::Report { .. }
            | Self::SetReputation { .. }
            | Self::ForgetReputation { .. } => 2,
            Self::Archive { .. } => 3,
            Self::PutOff { .. } => 5,
            Self::Learn { .. } | Self::ReportMail { .. } | Self::Learnt { .. } | Self::ForgetLearning { .. } => 9,
        }
    }

    /// The right that a role needs to propose this; the whole matrix is here.
    #[must_use]
    pub fn allowed_for(&self, role: Role) -> bool {
        match self {
            Self::ApplyPolicy { .. }
            | Self::Release { .. }
            | Self::Delete { .. }
            | Self::Member { .. }
            | Self::Archive { .. }
            | Self::DrainNode { .. }
            | Self::SetReputation { .. }
            | Self::ForgetReputation { .. }
            | Self::ReportMail { .. }
            | Self::ForgetLearning { .. } => role == Role::Operator,
            Self::Hold { .. } | Self::Discard { .. } | Self::Lease { .. } | Self::Attempted { .. } => {
                role == Role::Node
            }
            Self::Report { .. } | Self::PutOff { .. } | Self::Learn { .. } => role == Role::Node,
            Self::Learnt { .. } => role == Role::Control,
        }
    }
}

/// What became of a mutation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is in force.
    Done,
    /// A policy is in force under this version.
    PolicyApplied {
        /// Its number.
        version: u64,
    },
    /// The lease is given; the record as it stands.
    Leased(Box<Held>),
    /// Nothing changed, and why.
    Refused(Refused),
}

/// Why a mutation changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// Somebody was first.
    #[error("already released by {by} at {at}")]
    AlreadyReleased {
        /// Who.
        by: String,
        /// When.
        at: UnixMs,
    },
    /// Somebody was first.
    #[error("already deleted by {by} at {at}")]
    AlreadyDeleted {
        /// Who.
        by: String,
        /// When.
        at: UnixMs,
    },
    /// A deferred message needs no release, for it is delivered by itself; and what is on its way is not deleted.
    #[error("it is {status}: only what waits or is undeliverable can be released or deleted")]
    NotWaiting {
        /// Where it stands.
        status: String,
    },
    /// It is on its way; wait for the end of the attempt.
    #[error("{node} is delivering it until {until}")]
    Leased {
        /// Who.
        node: String,
        /// Until when.
        until: UnixMs,
    },
    /// Another node has it by now.
    #[error("the lease is gone")]
    LeaseLost,
    /// Its next attempt is later.
    #[error("not due yet")]
    NotDue,
    /// There is none of that id.
    #[error("no such held message")]
    NoSuch,
    /// Another policy came in between.
    #[error("planned against version {planned}, but version {current} is in force: plan again")]
    VersionMoved {
        /// The plan's.
        planned: u64,
        /// Now.
        current: u64,
    },
    /// The certificate's role may not.
    #[error("a {role} may not do this")]
    Role {
        /// The role.
        role: Role,
    },
    /// A cap is reached.
    #[error("full: {what} may not exceed {cap}")]
    Full {
        /// Of what.
        what: String,
        /// How many.
        cap: u64,
    },
    /// A member runs an earlier version of Postern and could not apply this.
    #[error(
        "a change of version {version} waits until all control servers know it: update {server}, or remove it if it is \
         gone for good"
    )]
    Version {
        /// That servers must know.
        version: u32,
        /// Name of the first server that does not, or has not told yet.
        server: String,
    },
    /// The mutation contradicts itself or breaks a bound.
    #[error("not valid: {0}")]
    Invalid(String),
}

/// What one Raft entry carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's wall clock; log time is the largest seen.
    pub at: UnixMs,
    /// In this order.
    pub mutations: Vec<Mutation>,
}
