//! Policies as the `operator` service answers with them: plans, versions and faults.

use proto::{
    department::Department,
    mutation::{Change, Grounds, Outcome, Refused},
    view::ViewChange,
    wire::operator::{ApplyResponse, Fault, HistoryEntry, Plan, PolicyFiles},
    yaml,
};
use tonic::Status;

use crate::{
    policy_files::{self, PolicySet},
    state::query::PolicyRecord,
};

/// What an apply comes to, before anything is proposed.
#[derive(Clone, Debug, PartialEq)]
pub enum Apply {
    /// Nothing is to be proposed: faults, or nothing changes.
    Answer(ApplyResponse),
    /// A new version.
    Propose {
        /// For the log.
        change: Box<Change>,
        /// The plan's lines.
        changes: Vec<String>,
    },
}

fn read(files: PolicyFiles) -> Result<PolicySet, Vec<Fault>> {
    let files: Vec<(String, String)> = files.files.into_iter().map(|file| (file.name, file.text)).collect();
    policy_files::read(&files).map_err(|faults| faults.into_iter().map(fault).collect())
}

fn fault(fault: yaml::Fault) -> Fault {
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let (line, column) = (number(fault.line), number(fault.column));
    Fault { file: fault.file, line, column, key: fault.key, problem: fault.problem }
}

fn in_force(current: ViewChange) -> PolicySet {
    PolicySet { settings: current.settings.unwrap_or_default(), departments: current.departments }
}

/// What the files would change.
#[must_use]
pub fn plan(files: PolicyFiles, current: ViewChange) -> Plan {
    let base_version = current.policy_version;
    match read(files) {
        Ok(wanted) => {
            let changes = policy_files::changes(&in_force(current), &wanted);
            Plan { base_version, changes, faults: Vec::new() }
        }
        Err(faults) => Plan { base_version, changes: Vec::new(), faults },
    }
}

/// What is to be proposed for the files, planned against `base_version`.
///
/// # Errors
/// `FAILED_PRECONDITION` when another version is in force.
pub fn apply(files: PolicyFiles, base_version: u64, current: ViewChange, grounds: Grounds) -> Result<Apply, Status> {
    match read(files) {
        Ok(wanted) => against(base_version, current, wanted, grounds),
        Err(faults) => Ok(Apply::Answer(ApplyResponse { faults, ..ApplyResponse::default() })),
    }
}

fn against(base_version: u64, current: ViewChange, wanted: PolicySet, grounds: Grounds) -> Result<Apply, Status> {
    let version = current.policy_version;
    if base_version != version {
        let moved = Refused::VersionMoved { planned: base_version, current: version };
        return Err(Status::failed_precondition(moved.to_string()));
    }
    let old = in_force(current);
    let same = old.settings == wanted.settings && by_id(&old.departments) == by_id(&wanted.departments);
    if version > 0 && same {
        return Ok(Apply::Answer(ApplyResponse { version, ..ApplyResponse::default() }));
    }
    let changes = policy_files::changes(&old, &wanted);
    let PolicySet { settings, departments } = wanted;
    let settings = Box::new(settings);
    let change = Change::ApplyPolicy { base_version, settings, departments, changes: changes.clone(), grounds };
    Ok(Apply::Propose { change: Box::new(change), changes })
}

fn by_id(departments: &[Department]) -> Vec<&Department> {
    let mut sorted: Vec<&Department> = departments.iter().collect();
    sorted.sort_by_key(|department| &department.id);
    sorted
}

/// The version that came of a proposal.
///
/// # Errors
/// What the state refused.
pub fn applied(outcome: Outcome) -> Result<u64, Status> {
    match outcome {
        Outcome::PolicyApplied { version } => Ok(version),
        Outcome::Refused(refused) => {
            let text = refused.to_string();
            Err(match refused {
                Refused::Full { .. } => Status::resource_exhausted(text),
                Refused::Invalid(_) => Status::invalid_argument(text),
                Refused::Role { .. } => Status::permission_denied(text),
                Refused::VersionMoved { .. }
                | Refused::AlreadyReleased { .. }
                | Refused::AlreadyDeleted { .. }
                | Refused::NotWaiting { .. }
                | Refused::Leased { .. }
                | Refused::LeaseLost
                | Refused::NotDue
                | Refused::Version { .. }
                | Refused::NoSuch => Status::failed_precondition(text),
            })
        }
        Outcome::Done | Outcome::Leased(_) => Err(Status::internal("the state answered something else than was asked")),
    }
}

/// A version of the history.
#[must_use]
pub fn entry(record: PolicyRecord) -> HistoryEntry {
    HistoryEntry {
        version: record.version,
        index: record.index,
        at_ms: record.at.0,
        by: record.by,
        why: record.grounds.why,
        ticket: record.grounds.ticket,
        digest: record.digest,
        changes: record.changes,
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        mutation::{Grounds, Outcome, Refused},
        view::{StateSettings, ViewChange},
        wire::operator::ApplyResponse,
    };
    use tonic::Code;

    use super::{Apply, against, applied};
    use crate::policy_files::PolicySet;

    fn in_force(version: u64) -> ViewChange {
        let settings = Some(StateSettings::default());
        ViewChange { index: 9, policy_version: version, whole: true, settings, ..ViewChange::default() }
    }

    fn same() -> PolicySet {
        PolicySet { settings: StateSettings::default(), departments: Vec::new() }
    }

    #[test]
    fn a_plan_against_another_version_is_refused() {
        for base in [0, 2, 4] {
            let refused = against(base, in_force(3), same(), Grounds::default()).expect_err("another version");
            assert_eq!(refused.code(), Code::FailedPrecondition);
            assert!(refused.message().contains("version 3 is in force: plan again"), "{}", refused.message());
        }
    }

    #[test]
    fn a_policy_that_is_in_force_already_makes_no_version() {
        let answer = against(3, in_force(3), same(), Grounds::default()).expect("an answer");
        assert_eq!(answer, Apply::Answer(ApplyResponse { version: 3, ..ApplyResponse::default() }));
    }

    #[test]
    fn what_the_state_refuses_is_never_a_version() {
        assert_eq!(applied(Outcome::PolicyApplied { version: 4 }).expect("a version"), 4);
        let moved = applied(Outcome::Refused(Refused::VersionMoved { planned: 3, current: 4 })).expect_err("refused");
        assert_eq!(moved.code(), Code::FailedPrecondition);
        assert_eq!(applied(Outcome::Done).expect_err("nonsense").code(), Code::Internal);
    }
}
