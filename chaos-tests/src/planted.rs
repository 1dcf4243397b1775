//! A fault that we plant ourselves, to see that it is found: a leader that acknowledges what it keeps before it is committed. The
//! change is made in a copy of the sources, never in the tree.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use tokio::process::Command;

/// The file in which the fault is planted.
const FILE: &str = "control/src/raft/leader.rs";
/// Where in it; the text must be there exactly once.
const PLACE: &str = "    async fn commit(&self, mutations: Vec<Mutation>, deadline: Instant) -> Answer {\n";
/// What is written behind it.
const FAULT: &str =
    "        if mutations.iter().all(|mutation| matches!(mutation.change, proto::mutation::Change::Hold { .. })) {
            let answer = Answer::Outcomes(vec![Outcome::Done; mutations.len()]);
            let batch = Batch { at: UnixMs::now(), mutations };
            let raft = self.raft.clone();
            tokio::spawn(async move { drop(raft.client_write(Proposal { version: PROPOSAL_VERSION, batch }).await) });
            return answer;
        }
";
/// What is copied.
const PARTS: [&str; 7] = ["Cargo.toml", "Cargo.lock", ".cargo", "proto", "node", "control", "chaos-tests"];

/// The text with the fault in it.
fn planted(text: &str) -> anyhow::Result<String> {
    let count = text.matches(PLACE).count();
    if count != 1 {
        bail!(
            "{FILE} has the place for the fault {count} times, not once: write planted.rs anew for what it has become"
        );
    }
    Ok(text.replacen(PLACE, &format!("{PLACE}{FAULT}"), 1))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    if !from.is_dir() {
        // What has not changed keeps its time, so that cargo builds only what is new.
        let same = std::fs::read(from).with_context(what)?;
        if std::fs::read(to).ok().as_ref() != Some(&same) {
            std::fs::write(to, same).with_context(what)?;
        }
        return Ok(());
    }
    std::fs::create_dir_all(to).with_context(what)?;
    for entry in std::fs::read_dir(from).with_context(what)? {
        let entry = entry.with_context(what)?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Builds `postern-control` with the fault in it, below the workspace's target folder, and gives its path. Takes minutes.
///
/// # Errors
/// When the place for the fault is not there exactly once, or cargo fails, with what it said.
pub async fn build(progress: &ProgressBar) -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in the workspace")?;
    let folder = workspace.join("target/planted");
    let sources = folder.join("sources");
    let with_fault = planted(&std::fs::read_to_string(workspace.join(FILE)).with_context(|| format!("read {FILE}"))?)?;
    progress.set_message("copying the sources");
    for part in PARTS {
        std::fs::create_dir_all(&sources).context("make a folder for the copy")?;
        copy(&workspace.join(part), &sources.join(part))?;
    }
    std::fs::write(sources.join(FILE), with_fault).context("plant the fault")?;
    progress.set_message("building postern-control with the fault; this takes minutes");
    let target = folder.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(&sources).args(["build", "--release", "--package", "control", "--bin", "postern-control"]);
    command.arg("--target-dir").arg(&target).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("start cargo")?;
    if !output.status.success() {
        bail!("cargo could not build the copy:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(target.join("release/postern-control"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{FAULT, FILE, PLACE, planted};

    #[test]
    fn the_fault_is_planted_in_one_place_or_not_at_all() {
        let text = format!("one\n{PLACE}two\n");
        assert_eq!(planted(&text).expect("planted"), format!("one\n{PLACE}{FAULT}two\n"));
        assert!(planted("one\n").is_err() && planted(&text.repeat(2)).is_err());
    }

    #[test]
    fn the_place_is_there_today() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join(FILE);
        planted(&std::fs::read_to_string(file).expect("readable")).expect("the place is there");
    }
}
