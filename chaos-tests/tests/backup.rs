//! A backup of one cluster brought into another, bodies that repair themselves, and a doctor that finds what was planted.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use chaos_tests::{
    cases,
    cluster::{Cluster, Options, operator::until, text},
    fate::{self, Fate},
    runtime::run,
};
use proto::wire::operator::{AuditRequest, HeldDetail, HistoryRequest};
use serde_json::Value;
use tokio::sync::OnceCell;

/// Held messages in the first cluster.
const HELD: usize = 50;

/// The cluster that is backed up. Its world outlives it: the restored policy names its mail servers.
async fn old() -> anyhow::Result<&'static Cluster> {
    static OLD: OnceCell<Result<Cluster, String>> = OnceCell::const_new();
    let started = OLD.get_or_init(|| async {
        Cluster::start(Options { clamd: false, ..Options::default() }).await.map_err(|error| format!("{error:#}"))
    });
    started.await.as_ref().map_err(|problem| anyhow::anyhow!("the cluster did not start: {problem}"))
}

async fn quarantine(cluster: &Cluster, count: usize) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for number in 0..count {
        // Not spam, which after some messages is not even let in.
        let accounts = fate::send_and_follow(cluster, &cases::disguised_program(cluster)?, number).await?;
        let account = accounts.into_iter().next().context("one recipient")?;
        anyhow::ensure!(account.fate == Fate::Quarantined, "{account:?}");
        ids.push(account.held.context("it is held")?);
    }
    Ok(ids)
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}

async fn records(cluster: &Cluster, server: &str) -> anyhow::Result<BTreeMap<String, HeldDetail>> {
    let mut records = BTreeMap::new();
    for held in cluster.operator.held_at(server).await? {
        records.insert(held.id.clone(), cluster.operator.show(server, &held.id).await?);
    }
    Ok(records)
}

fn body_file(cluster: &Cluster, server: &str, digest: &str) -> PathBuf {
    cluster.directory.join("servers").join(server).join("data/bodies").join(digest)
}

/// Servers that have the body's file, with that length.
fn holders(cluster: &Cluster, detail: &HeldDetail) -> Vec<&'static str> {
    let size = detail.summary.as_ref().map_or(0, |summary| summary.size_bytes);
    let has =
        |name: &str| std::fs::metadata(body_file(cluster, name, &detail.digest)).is_ok_and(|meta| meta.len() == size);
    cluster.servers.iter().map(|server| server.name).filter(|name| has(name)).collect()
}

#[test]
fn a_backup_comes_back_in_a_wholly_new_cluster_and_a_damaged_one_changes_nothing() -> anyhow::Result<()> {
    run(async {
        let old = old().await?;
        let ids = quarantine(old, HELD).await?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("backup.tar");
        let said = old.posternctl_ok(words(&["-o", "json", "backup", path(&file)?, "--why", "nightly"])).await?;
        let said: Value = serde_json::from_str(&said)?;
        anyhow::ensure!(said["manifest"]["missing"] == serde_json::json!([]), "{said}");
        old.posternctl_ok(words(&["backup", "verify", path(&file)?])).await?;
        let (records_then, audit_then, history_then) =
            (records(old, "alpha").await?, audit(old).await?, history(old).await?);
        anyhow::ensure!(records_then.len() >= HELD && audit_then[0].0.contains("backup"), "{audit_then:?}");

        let new = Cluster::start(Options { clamd: false, first_policy: false, ..Options::default() }).await?;
        let damaged = folder.path().join("damaged.tar");
        let mut bytes = std::fs::read(&file)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&damaged, &bytes)?;
        std::fs::write(folder.path().join("cut.tar"), &std::fs::read(&file)?[..middle])?;
        for bad in [&damaged, &folder.path().join("cut.tar")] {
            let output = new.posternctl(words(&["restore", path(bad)?, "--why", "a fire"])).await?;
            let said = text(&output.stderr);
            anyhow::ensure!(!output.status.success() && said.contains("damaged or cut short"), "{said}");
        }
        anyhow::ensure!(
            records(&new, "beta").await?.is_empty() && audit(&new).await?.len() == 1,
            "nothing was changed"
        );
        let into_old = old.posternctl(words(&["restore", path(&file)?, "--why", "by mistake"])).await?;
        anyhow::ensure!(text(&into_old.stderr).contains("new cluster"), "{}", text(&into_old.stderr));

        new.posternctl_ok(words(&["restore", path(&file)?, "--why", "a fire", "--ticket", "T-1"])).await?;
        for server in ["alpha", "beta", "gamma"] {
            new.operator.caught_up(server).await?;
            anyhow::ensure!(records(&new, server).await? == records_then, "the records at {server} differ");
        }
        anyhow::ensure!(history(&new).await? == history_then, "the history of the policy differs");
        let audit_now = audit(&new).await?;
        anyhow::ensure!(audit_now[1..] == audit_then, "the audit log goes on where it was");
        anyhow::ensure!(
            audit_now[0].0.contains("restored cluster") && audit_now[0].1 == "a fire",
            "{:?}",
            audit_now[0]
        );
        new.posternctl_ok(words(&["audit"])).await?;
        for detail in records_then.values() {
            anyhow::ensure!(holders(&new, detail).len() >= 2, "the body {} is in two sites", detail.digest);
        }
        let version = new.operator.status("alpha").await?.policy_version;
        for node in ["mx1", "mx2"] {
            new.operator.in_use(node, version).await?;
        }
        let transaction = records_then[&ids[0]].summary.clone().context("a summary")?.transaction;
        let released = new.operator.release("gamma", &ids[0], "it is no spam").await?;
        anyhow::ensure!(released.done, "{released:?}");
        old.interior.received.first("the released message", |seen| seen.transaction == transaction).await?;
        new.stop().await
    })
}

/// What and why, newest first.
async fn audit(cluster: &Cluster) -> anyhow::Result<Vec<(String, String, String)>> {
    let answer = cluster.operator.at("alpha")?.audit(AuditRequest { max: 1000, before_seq: 0 }).await?.into_inner();
    Ok(answer.entries.into_iter().map(|entry| (entry.what, entry.why, entry.hash)).collect())
}

async fn history(cluster: &Cluster) -> anyhow::Result<Vec<(u64, String, String)>> {
    let answer = cluster.operator.at("alpha")?.policy_history(HistoryRequest { max: 100 }).await?.into_inner();
    Ok(answer.entries.into_iter().map(|entry| (entry.version, entry.digest, entry.why)).collect())
}

/// Findings that are not well: what, and the exit code.
async fn doctor(cluster: &Cluster) -> anyhow::Result<(Vec<String>, Option<i32>)> {
    let output = cluster.posternctl(words(&["-o", "json", "doctor"])).await?;
    let said: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output.stderr))?;
    let findings = said["findings"].as_array().context("findings")?.iter();
    let faults = findings.filter(|it| it["level"] != "ok").map(|it| format!("{} {}", it["level"], it["what"]));
    // How full the disk of this machine is does not matter here.
    Ok((faults.filter(|fault| !fault.contains("of its disk")).collect(), output.status.code()))
}

#[test]
fn a_missing_and_a_damaged_body_are_repaired_and_the_doctor_finds_what_was_planted() -> anyhow::Result<()> {
    run(async {
        let cluster = Cluster::start(Options { clamd: false, ..Options::default() }).await?;
        let ids = quarantine(&cluster, 3).await?;
        let (faults, _) = doctor(&cluster).await?;
        anyhow::ensure!(faults.is_empty(), "{faults:?}");

        // One copy of two is lost, of another message one is damaged.
        let mut details = Vec::new();
        for id in &ids {
            details.push(cluster.operator.show("alpha", id).await?);
        }
        let (lost, bent) = (&details[0], &details[1]);
        let (lost_at, bent_at) = (lost.copies[0].clone(), bent.copies[0].clone());
        for name in [&lost_at, &bent_at] {
            // The same server may have to keep both.
            drop(cluster.kill9(name).await);
        }
        let (lost_file, bent_file) =
            (body_file(&cluster, &lost_at, &lost.digest), body_file(&cluster, &bent_at, &bent.digest));
        std::fs::remove_file(&lost_file)?;
        let whole = std::fs::read(&bent_file)?;
        let mut bytes = whole.clone();
        bytes[7] ^= 1;
        std::fs::write(&bent_file, bytes)?;
        cluster.restart(&lost_at).await?;
        if bent_at != lost_at {
            cluster.restart(&bent_at).await?;
        }
        until("the missing copy is there again", async || lost_file.exists().then_some(())).await?;
        until("the damaged copy is right again", async || (std::fs::read(&bent_file).ok()? == whole).then_some(()))
            .await?;

        // A body that no server has, a server that is down, and a certificate that ends soon.
        let gone = &details[2];
        for name in ["alpha", "beta", "gamma"] {
            drop(std::fs::remove_file(body_file(&cluster, name, &gone.digest)));
        }
        let keeper = gone.copies.iter().find(|name| *name != "gamma").context("a keeper that is not gamma")?;
        cluster.kill9(keeper).await?;
        cluster.restart(keeper).await?;
        let nowhere = |faults: &[String]| faults.iter().any(|fault| fault.contains("bodies are on no server"));
        until("the missing body is found", async || nowhere(&doctor(&cluster).await.ok()?.0).then_some(())).await?;
        cluster.kill9("gamma").await?;
        let (ca, anna) = (cluster.directory.join("ca"), cluster.directory.join("operators/anna"));
        let renew = ["cluster", "issue", "--ca", path(&ca)?, "--renew", path(&anna)?, "--days", "3"];
        cluster.posternctl_ok(words(&renew)).await?;
        let (faults, code) = doctor(&cluster).await?;
        anyhow::ensure!(code == Some(1), "{code:?}");
        for planted in ["gamma does not answer", "your own certificate (spiffe://"] {
            anyhow::ensure!(faults.iter().any(|fault| fault.contains(planted)), "{planted}: {faults:?}");
        }
        cluster.stop().await
    })
}
