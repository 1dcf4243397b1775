//! `policy plan`, `policy apply` and `policy history`.

use std::{fs, io::Read, path::Path, time::Instant};

use anyhow::{Context, anyhow, bail};
use proto::{
    wire::operator::{
        ApplyRequest, Fault, HistoryEntry, HistoryRequest, HistoryResponse, Plan, PolicyFile, PolicyFiles,
    },
    yaml,
};
use serde_json::{Value, json};

use super::{
    Ended,
    args::Apply,
    connect::{Control, Reach, explain},
    escape, node,
    output::{self, Cell, Output, table, time},
};

/// Shows what the files of a folder would change, or their faults.
///
/// # Errors
/// When the folder cannot be read or no server answers.
pub async fn plan(reach: &Reach, output: Output, dir: &Path) -> anyhow::Result<Ended> {
    let plan = planned(&mut reach.control().await?, files_of(dir)?).await?;
    output.print(
        || json!({"base_version": plan.base_version, "changes": plan.changes, "faults": faults_json(&plan.faults)}),
        || match (plan.faults.is_empty(), plan.changes.is_empty()) {
            (false, _) => faults_text(&plan.faults),
            (true, true) => format!("No change: version {} says the same.", plan.base_version),
            (true, false) => lines(&plan.changes),
        },
    )?;
    Ok(ended(&plan.faults))
}

/// Puts the files of a folder in force against the version that is in force now.
///
/// # Errors
/// When the folder cannot be read, no server or waited-for node answers, or another policy came in between.
pub async fn apply(reach: &Reach, output: Output, apply: &Apply) -> anyhow::Result<Ended> {
    let files = files_of(&apply.dir)?;
    let mut control = reach.control().await?;
    let plan = planned(&mut control, files.clone()).await?;
    // Before anything changes: whoever waits for a node wants one that is there.
    let mut nodes = Vec::new();
    for address in &apply.wait {
        let node = reach.node(address).await.context("nothing was applied: --wait")?;
        nodes.push((address.clone(), node));
    }
    let begun = Instant::now();
    let (version, changes, faults) = if !plan.faults.is_empty() || plan.changes.is_empty() {
        (plan.base_version, plan.changes, plan.faults)
    } else {
        let request = ApplyRequest {
            files: Some(files),
            base_version: plan.base_version,
            why: apply.why.clone(),
            ticket: apply.ticket.clone(),
        };
        let applied = control.policy_apply(request).await.map_err(|status| explain(&status));
        let applied = applied.context("apply the policy")?.into_inner();
        (applied.version, applied.changes, applied.faults)
    };
    let waited = if faults.is_empty() { node::wait_all(nodes, version, begun).await? } else { Vec::new() };
    output.print(
        || {
            let nodes: Vec<Value> = waited.iter().map(node::InUse::as_json).collect();
            json!({"version": version, "changes": changes, "faults": faults_json(&faults), "nodes": nodes})
        },
        || {
            let head = match (faults.is_empty(), changes.is_empty()) {
                (false, _) => return format!("{}\nNothing was applied.", faults_text(&faults)),
                (true, true) => format!("No change: version {version} is in force already."),
                (true, false) => format!("{}\nVersion {version} is in force.", lines(&changes)),
            };
            waited.iter().fold(head, |text, node| format!("{text}\n{}", node.as_text(version)))
        },
    )?;
    Ok(ended(&faults))
}

/// Shows the versions.
///
/// # Errors
/// When no server answers.
pub async fn history(reach: &Reach, output: Output, max: u32) -> anyhow::Result<Ended> {
    let mut control = reach.control().await?;
    let answer = control.policy_history(HistoryRequest { max }).await.map_err(|status| explain(&status))?;
    let HistoryResponse { entries, more } = answer.into_inner();
    let as_json = |entry: &HistoryEntry| {
        json!({
            "version": entry.version, "index": entry.index, "at": time(entry.at_ms), "by": entry.by, "why": entry.why,
            "ticket": entry.ticket, "digest": entry.digest, "changes": entry.changes,
        })
    };
    let as_row = |entry: &HistoryEntry| {
        vec![
            entry.version.to_string().into(),
            time(entry.at_ms).into(),
            (&entry.by).into(),
            (&entry.why).into(),
            (&entry.ticket).into(),
            Cell::lines(&entry.changes),
        ]
    };
    output.print(
        || entries.iter().map(as_json).collect(),
        || match entries.is_empty() {
            true => "No policy yet: `posternctl policy apply DIR --why TEXT`".into(),
            false => table(&["VERSION", "WHEN", "WHO", "WHY", "TICKET", "CHANGES"], entries.iter().map(as_row)),
        },
    )?;
    if more {
        output::cut("versions", entries.len(), "--max N (at most 1000) shows more");
    }
    Ok(Ended::Well)
}

async fn planned(control: &mut Control, files: PolicyFiles) -> anyhow::Result<Plan> {
    let plan = control.policy_plan(files).await.map_err(|status| explain(&status)).context("plan the policy")?;
    Ok(plan.into_inner())
}

/// The `*.yaml` files of a folder, by name.
fn files_of(dir: &Path) -> anyhow::Result<PolicyFiles> {
    let entries = fs::read_dir(dir).with_context(|| format!("look into the policy folder {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.starts_with('.') || !path.is_file() {
            continue;
        }
        if name.ends_with(".yml") {
            bail!("{}: policy files end in .yaml; rename it, or it would be left out", path.display());
        }
        if name.ends_with(".yaml") {
            files.push(PolicyFile { text: text_of(&path)?, name });
        }
    }
    if files.is_empty() {
        bail!("{} holds no policy: state.yaml and a file for each department are expected", dir.display());
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(PolicyFiles { files })
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let limit = yaml::DOCUMENT_BYTES_MAX as u64;
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("read {}", path.display()))?;
    if bytes.len() > yaml::DOCUMENT_BYTES_MAX {
        bail!("{}: longer than {limit} bytes", path.display());
    }
    String::from_utf8(bytes)
        .map_err(|error| anyhow!("{}: byte {} is not UTF-8", path.display(), error.utf8_error().valid_up_to()))
}

fn ended(faults: &[Fault]) -> Ended {
    if faults.is_empty() { Ended::Well } else { Ended::WithFaults }
}

fn lines(changes: &[String]) -> String {
    changes.iter().map(|change| escape::lines(change)).collect::<Vec<_>>().join("\n")
}

fn faults_json(faults: &[Fault]) -> Vec<Value> {
    let fault = |it: &Fault| json!({"file": it.file, "line": it.line, "column": it.column, "key": it.key, "problem": it.problem});
    faults.iter().map(fault).collect()
}

/// `file:line:column: key: problem`, as editors understand it.
fn faults_text(faults: &[Fault]) -> String {
    let fault = |it: &Fault| {
        yaml::Fault {
            file: it.file.clone(),
            line: it.line as usize,
            column: it.column as usize,
            key: it.key.clone(),
            problem: it.problem.clone(),
        }
        .to_string()
    };
    faults.iter().map(|it| escape::lines(&fault(it))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Fault, faults_text, files_of};

    #[test]
    fn the_example_policy_is_read_by_name() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy");
        let names: Vec<String> = files_of(&dir).expect("files").files.into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["health.yaml", "interior.yaml", "state.yaml"]);
    }

    #[test]
    fn a_file_that_would_be_overlooked_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(files_of(folder.path()).is_err(), "no policy at all");
        fs::write(folder.path().join("state.yaml"), "state: S\n").expect("written");
        fs::write(folder.path().join("README.md"), "x").expect("written");
        assert_eq!(files_of(folder.path()).expect("files").files.len(), 1);
        fs::write(folder.path().join("health.yml"), "x").expect("written");
        assert!(files_of(folder.path()).expect_err("refused").to_string().contains("health.yml"));
        fs::rename(folder.path().join("health.yml"), folder.path().join("health.yaml")).expect("renamed");
        fs::write(folder.path().join("health.yaml"), b"a: \xff").expect("written");
        assert!(files_of(folder.path()).expect_err("refused").to_string().contains("byte 3 is not UTF-8"));
    }

    #[test]
    fn a_fault_has_its_place_in_front() {
        let fault =
            Fault { file: "a.yaml".into(), line: 3, column: 7, key: "name".into(), problem: "is \u{1b}".into() };
        assert_eq!(faults_text(&[fault]), "a.yaml:3:7: name: is \\u{1b}");
    }
}
