//! Reads the policy of a state out of its YAML files: `state.yaml`, rules, and a file for each department. All faults of all
//! files are found in one reading; with any of them there is no policy.

mod changes;
mod check;
mod clients;
mod content;
mod fields;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use proto::{
    department::Department,
    rules::file::{self, Drafts},
    view::StateSettings,
    yaml::{self, Fault},
};

pub use changes::changes;
use fields::{DepartmentDraft, StateDraft};

/// Name of the state's own file. `rules.yaml` and `rules-….yaml` are rules; every other file is a department's.
pub const STATE_FILE: &str = "state.yaml";

/// Files in one policy at most: as many departments as a policy may have, and the state.
pub const FILES_MAX: usize = 10_001;

/// A whole policy: what `policy apply` puts in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// The state's file.
    pub settings: StateSettings,
    /// All departments in the order of their ids.
    pub departments: Vec<Department>,
}

/// Reads a policy out of `(name, text)` pairs. Only the last component of a name tells the state's file.
///
/// # Errors
/// All faults, in the order of the files and their lines.
pub fn read(files: &[(String, String)]) -> Result<PolicySet, Vec<Fault>> {
    if files.len() > FILES_MAX {
        return Err(vec![whole(STATE_FILE, format!("{} files; at most {FILES_MAX} make a policy", files.len()))]);
    }
    let mut faults = Vec::new();
    let mut state: Option<StateDraft> = None;
    let mut departments: Vec<DepartmentDraft> = Vec::new();
    let mut rules: Option<Drafts> = None;
    let mut state_files = 0;
    for (name, text) in files {
        if !is_yaml(name) {
            faults.push(whole(name, "a policy file's name ends in .yaml"));
        } else if is_state(name) {
            state_files += 1;
            let draft = document(name, text, &mut faults, fields::state);
            if state_files > 1 {
                faults.push(whole(name, "there may be only one state.yaml"));
            } else {
                state = draft;
            }
        } else if is_rules(name) {
            let drafts = document(name, text, &mut faults, file::file);
            rules.get_or_insert_default().add(drafts.unwrap_or_default());
        } else {
            departments.extend(document(name, text, &mut faults, fields::department));
        }
    }
    if state_files == 0 {
        faults.push(whole(STATE_FILE, "is missing: each policy has one, with at least `state: NAME`"));
    }
    faults.extend(check::across_files(state.as_ref(), &departments));
    let rules = rules.and_then(|drafts| drafts.checked().map_err(|more| faults.extend(more)).ok());
    let rules = rules.filter(|set| !set.rules.is_empty()).map(Arc::new);
    let policy = state.and_then(|state| state.settings).map(|settings| PolicySet {
        settings: StateSettings { rules, ..settings },
        departments: departments.into_iter().filter_map(|draft| draft.department).collect(),
    });
    match policy {
        Some(mut policy) if faults.is_empty() => {
            policy.departments.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(policy)
        }
        _ => {
            let position = |fault: &Fault| files.iter().position(|(name, _)| *name == fault.file);
            faults.sort_by_key(|fault| (position(fault), fault.line, fault.column));
            Err(faults)
        }
    }
}

/// Reads what can be read of one document, so that the checks across files see it in spite of its faults.
fn document<T>(
    name: &str,
    text: &str,
    faults: &mut Vec<Fault>,
    read: impl FnOnce(&mut yaml::Map<'_, '_>) -> T,
) -> Option<T> {
    let mut draft = None;
    if let Err(yaml::Faults(more)) = yaml::read(name, text, |map| draft = Some(read(map))) {
        faults.extend(more);
    }
    draft
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") && !name.contains(char::is_control)
}

fn is_state(name: &str) -> bool {
    name.rsplit('/').next() == Some(STATE_FILE)
}

fn is_rules(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default();
    name == "rules.yaml" || name.starts_with("rules-")
}

/// A fault of a file as a whole.
fn whole(file: &str, problem: impl Into<String>) -> Fault {
    Fault { file: file.to_owned(), line: 1, column: 1, key: String::new(), problem: problem.into() }
}
