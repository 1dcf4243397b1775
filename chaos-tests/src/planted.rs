//! Faults that we plant ourselves, to see that they are found. The change is made in a copy of the sources, never in the tree.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use indicatif::ProgressBar;
use tokio::process::Command;

use crate::binaries::profile;

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Planted {
    /// A leader acknowledges what it keeps before it is committed.
    Ack,
    /// A leader names the index for a linearizable read without asking a majority.
    Read,
    /// What is released can be released once more.
    Release,
    /// The start-up gate lets every folder pass.
    Gate,
    /// The log stays in memory.
    Log,
}

/// Where a fault is planted: behind a text that must be in the file exactly once.
struct Place {
    file: &'static str,
    behind: &'static str,
    fault: &'static str,
}

const ACK: Place = Place {
    file: "control/src/raft/leader.rs",
    behind: "    pub(super) async fn commit(&self, mutations: Vec<Mutation>, deadline: Instant) -> Answer {\n",
    fault:
        "        if mutations.iter().all(|mutation| matches!(mutation.change, proto::mutation::Change::Hold { .. })) {
            let answer = Answer::Outcomes(vec![Outcome::Done; mutations.len()]);
            let (leader, batch) = (self.clone(), Contents::Batch(Batch { at: UnixMs::now(), mutations }));
            tokio::spawn(async move { leader.write(&batch, deadline).await });
            return answer;
        }
",
};

const READ: Place = Place {
    file: "control/src/raft/leader.rs",
    behind: "    async fn answer_within(&self, ask: Ask, deadline: Instant) -> Answer {\n",
    fault: "        if matches!(ask, Ask::ReadIndex) {
            return Answer::ReadIndex(self.raft.metrics().borrow().last_applied.map_or(0, |id| id.index));
        }
",
};

const RELEASE: Place = Place {
    file: "control/src/state/delivery.rs",
    behind: "        let held = &old.held;
        match held.status {
            HeldStatus::Waiting | HeldStatus::Undeliverable { .. } => {}
",
    fault: "            HeldStatus::Due { .. } => {}
",
};

const GATE: Place = Place {
    file: "control/src/raft/gate.rs",
    behind: "pub fn judge(facts: &Facts) -> Result<Start, Refusal> {\n",
    fault: "    if facts.identity.is_some() {
        return Ok(Start::Resume);
    }
",
};

const LOG: Place = Place {
    file: "control/src/raft/log_file.rs",
    behind: "        transaction.set_durability(Durability::Immediate)?;\n",
    fault: "        transaction.set_durability(Durability::None)?;\n",
};

impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ack => "acknowledged before it is committed",
            Self::Read => "read without a majority",
            Self::Release => "released twice",
            Self::Gate => "no start-up gate",
            Self::Log => "a log that stays in memory",
        })
    }
}

impl Planted {
    fn place(self) -> Place {
        match self {
            Self::Ack => ACK,
            Self::Read => READ,
            Self::Release => RELEASE,
            Self::Gate => GATE,
            Self::Log => LOG,
        }
    }
}

/// What is copied.
const PARTS: [&str; 7] = ["Cargo.toml", "Cargo.lock", ".cargo", "proto", "node", "control", "chaos-tests"];

/// The text with the fault in it.
fn planted(text: &str, place: &Place) -> anyhow::Result<String> {
    let Place { file, behind, fault } = place;
    let count = text.matches(behind).count();
    if count != 1 {
        bail!(
            "{file} has the place for the fault {count} times, not once: write planted.rs anew for what it has become"
        );
    }
    Ok(text.replacen(behind, &format!("{behind}{fault}"), 1))
}

/// Copies a file or folder, but for one file whose text is given.
fn copy(from: &Path, to: &Path, other: (&Path, &str)) -> anyhow::Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    if !from.is_dir() {
        // What has not changed keeps its time, so that cargo builds only what is new.
        let bytes = if from == other.0 { other.1.into() } else { std::fs::read(from).with_context(what)? };
        if std::fs::read(to).ok().as_ref() != Some(&bytes) {
            std::fs::write(to, bytes).with_context(what)?;
        }
        return Ok(());
    }
    std::fs::create_dir_all(to).with_context(what)?;
    for entry in std::fs::read_dir(from).with_context(what)? {
        let entry = entry.with_context(what)?;
        copy(&entry.path(), &to.join(entry.file_name()), other)?;
    }
    Ok(())
}

/// Builds `programs` with the fault in them, in the profile of the running program and below the workspace's target folder, and
/// gives the folder where they are. Takes minutes.
///
/// # Errors
/// When the place for the fault is not there exactly once, or cargo fails, with what it said.
pub async fn build(fault: Planted, programs: &[&str], progress: &ProgressBar) -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in the workspace")?;
    let folder = workspace.join("target/planted");
    let sources = folder.join("sources");
    let place = fault.place();
    let file = workspace.join(place.file);
    let with_fault = planted(&std::fs::read_to_string(&file).with_context(|| format!("read {}", place.file))?, &place)?;
    progress.set_message("copying the sources");
    for part in PARTS {
        std::fs::create_dir_all(&sources).context("make a folder for the copy")?;
        copy(&workspace.join(part), &sources.join(part), (&file, &with_fault))?;
    }
    progress.set_message("building with the fault; this takes minutes");
    let target = folder.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let (built, profile) = profile()?;
    command.current_dir(&sources).args(["build", "--workspace", "--profile", &profile]);
    command.args(programs.iter().flat_map(|program| ["--bin", program]));
    command.arg("--target-dir").arg(&target).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("start cargo")?;
    if !output.status.success() {
        bail!("cargo could not build the copy:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(target.join(built.file_name().context("a profile's folder has a name")?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::ValueEnum as _;

    use super::{ACK, Planted, planted};

    #[test]
    fn the_fault_is_planted_in_one_place_or_not_at_all() {
        let text = format!("one\n{}two\n", ACK.behind);
        assert_eq!(planted(&text, &ACK).expect("planted"), format!("one\n{}{}two\n", ACK.behind, ACK.fault));
        assert!(planted("one\n", &ACK).is_err() && planted(&text.repeat(2), &ACK).is_err());
    }

    #[test]
    fn the_places_are_there_today() {
        for fault in Planted::value_variants() {
            let place = fault.place();
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join(place.file);
            planted(&std::fs::read_to_string(file).expect("readable"), &place).expect("the place is there");
        }
    }
}
