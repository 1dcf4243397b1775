//! What operators do, from any site: release, policy, and who may not.

use std::{ffi::OsString, path::Path};

use anyhow::Context as _;
use chaos_tests::{
    cases,
    cluster::{Cluster, Side, operator, text},
    fate::{self, Account, Fate},
    letters::{self, Letter},
    runtime::run,
    shared,
    sink::field,
    smtp_client::Envelope,
    zones,
};
use proto::{
    identity::{Credentials, Role},
    wire::{
        edge::{WatchRequest, edge_client::EdgeClient},
        operator::{ApplyRequest, StatusRequest, operator_client::OperatorClient},
    },
};
use tonic::Code;

async fn quarantined(cluster: &Cluster, node: usize) -> anyhow::Result<Account> {
    let case = cases::disguised_program(cluster)?;
    let accounts = fate::send_and_follow(cluster, &case, node).await?;
    let account = accounts.into_iter().next().context("one recipient")?;
    anyhow::ensure!(account.fate == Fate::Quarantined, "{account:?}");
    Ok(account)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

fn copy(policy: &Path) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for file in operator::policy_files(policy)?.files {
        std::fs::write(folder.path().join(file.name), file.text)?;
    }
    Ok(folder)
}

#[test]
fn a_release_from_another_site_delivers_once_and_a_second_one_says_who_was_first() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let id = quarantined(&cluster, 0).await?.held.context("it is held")?;
        let shown = cluster.operator.show("beta", &id).await?;
        let transaction = shown.summary.context("a summary")?.transaction;
        assert!(!shown.reasons.is_empty(), "it says why");
        let sites: std::collections::BTreeSet<_> = shown.copies.iter().collect();
        assert!(sites.len() >= 2, "the body is on two servers: {:?}", shown.copies);
        let released = cluster.operator.release("gamma", &id, "it is the new installer").await?;
        assert!(released.done, "{released:?}");
        cluster.interior.received.first("the released message", |seen| seen.transaction == transaction).await?;
        let again = cluster.operator.release("alpha", &id, "me too").await?;
        assert!(!again.done && again.refused.contains("already released by") && again.refused.contains("anna"));
        let output = cluster.posternctl(words(["quarantine", "release", &id, "--why", "third"])).await?;
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains("already released by"), "{}", text(&output.stderr));
        let all = cluster.interior.received.all();
        assert_eq!(all.iter().filter(|seen| seen.transaction == transaction).count(), 1);
        let records = cluster.operator.held_at("beta").await?;
        let records: Vec<_> = records.iter().filter(|record| record.transaction == transaction).collect();
        assert_eq!(records.len(), 1, "released mail is not caught again: {records:?}");
        Ok(())
    })
}

#[test]
fn two_releases_at_the_same_time_at_two_sites_have_one_winner() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        for node in 0..5 {
            let id = quarantined(&cluster, node).await?.held.context("it is held")?;
            let (one, other, third) = tokio::join!(
                cluster.operator.release("alpha", &id, "race"),
                cluster.operator.release("beta", &id, "race"),
                cluster.operator.release("gamma", &id, "race")
            );
            let done = [one?.done, other?.done, third?.done].into_iter().filter(|done| *done).count();
            assert_eq!(done, 1);
        }
        Ok(())
    })
}

#[test]
fn a_deleted_message_is_never_delivered() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let id = quarantined(&cluster, 1).await?.held.context("it is held")?;
        cluster.posternctl_ok(words(["quarantine", "delete", &id, "--why", "malicious"])).await?;
        let late = cluster.operator.release("beta", &id, "oh").await?;
        assert!(!late.done && late.refused.contains("already deleted by"), "{late:?}");
        let listed = cluster.posternctl_ok(words(["quarantine", "list", "-o", "json"])).await?;
        assert!(!listed.contains(&id), "it is no longer in the list");
        let audit = cluster.posternctl_ok(words(["audit"])).await?;
        assert!(audit.contains("anna") && audit.contains("malicious"), "{audit}");
        Ok(())
    })
}

#[test]
fn a_policy_moves_both_nodes_and_the_next_verdict_names_its_version() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let folder = copy(&cluster.policy)?;
        let file = folder.path().join("interior.yaml");
        let stricter = std::fs::read_to_string(&file)? + "policy:\n  blocked_types: [executable, script, archive]\n";
        std::fs::write(&file, stricter)?;
        cluster.apply_policy(folder.path(), "no archives").await?;
        let version = cluster.operator.status("alpha").await?.policy_version;
        let cases = cases::all(&cluster)?;
        let zip = cases.iter().find(|case| case.title.starts_with("ZIP")).context("there is a ZIP")?;
        for node in 0..2 {
            let accounts = fate::send_and_follow(&cluster, zip, node).await?;
            assert!(accounts.iter().all(|account| account.fate == Fate::Quarantined), "{accounts:?}");
            let id = accounts[0].held.clone().context("held")?;
            let record = cluster.operator.show("gamma", &id).await?.summary.context("a summary")?;
            assert_eq!(record.policy_version, version);
        }
        let history = cluster.posternctl_ok(words(["policy", "history"])).await?;
        assert!(history.contains("no archives") && history.contains("anna"), "{history}");
        cluster.apply_policy(&cluster.policy, "as before").await?;
        Ok(())
    })
}

/// What the header of a letter through this node says of why.
async fn reasons(cluster: &Cluster, node: usize) -> anyhow::Result<String> {
    let letter = Letter::new("A Friend <friend@good.example>", "anna@interior.gov.test", "Our summer tombola");
    let letter = letter.text(letters::MINUTES);
    let (signed, to) = (cluster.signing.sign(&letter.bytes())?, vec!["anna@interior.gov.test".to_owned()]);
    let envelope = Envelope { from: "friend@good.example".into(), to };
    let answers = cluster.send(cluster.smtp(node, Side::Internet), zones::GOOD, &envelope, &signed).await?;
    let transaction = answers.transaction().with_context(|| format!("{answers:?}"))?.to_owned();
    let seen = cluster.interior.received.first("the letter", |seen| seen.transaction == transaction).await?;
    Ok(field(&std::fs::read(&seen.file)?, "X-Postern-Reasons").unwrap_or_default())
}

#[test]
fn a_rule_that_people_write_gives_its_reason_at_both_nodes_until_another_policy_changes_it() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let folder = copy(&cluster.policy)?;
        let file = folder.path().join("rules.yaml");
        let rule = |score: &str, sample: &str| {
            format!(
                "rules:\n- name: OWN_TOMBOLA\n  score: {score}\n  text: it is about a tombola\n  all: [{{subject: '\\btombola\\b'}}, \
                 {{spf: pass}}]\n  match: [{{subject: {sample}, spf: pass}}]\n"
            )
        };
        for (score, expected) in
            [("1.5", "OWN_TOMBOLA=1.50 (it is about a tombola)"), ("0.25", "OWN_TOMBOLA=0.25 (it is about a tombola)")]
        {
            std::fs::write(&file, rule(score, "A Tombola!"))?;
            let applied = cluster.apply_policy(folder.path(), "a wave of tombolas").await?;
            assert!(applied.contains("rule OWN_TOMBOLA"), "{applied}");
            for node in 0..2 {
                let reasons = reasons(&cluster, node).await?;
                assert!(reasons.contains(expected), "{reasons}");
            }
        }
        let node = cluster.nodes[0].inspect.to_string();
        let listed = cluster.posternctl_ok(words(["rules", "list", "--node", &node, "--group", "own"])).await?;
        assert!(listed.contains("OWN_TOMBOLA") && listed.contains("policy"), "{listed}");
        let history = cluster.posternctl_ok(words(["policy", "history"])).await?;
        assert!(history.contains("~ rule OWN_TOMBOLA: score 1.50 -> 0.25"), "{history}");

        let before = cluster.operator.status("alpha").await?.policy_version;
        std::fs::write(&file, rule("9", "a raffle"))?;
        let files = Some(operator::policy_files(folder.path())?);
        let request = ApplyRequest { files, base_version: before, why: "by hand".into(), ticket: String::new() };
        let answer = cluster.operator.at("beta")?.policy_apply(request).await?.into_inner();
        assert!(
            answer.faults.iter().any(|fault| fault.problem.contains("does not hold for this sample")),
            "{answer:?}"
        );
        assert_eq!(
            cluster.operator.status("alpha").await?.policy_version,
            before,
            "whoever asks, a bad rule stays out"
        );

        cluster.apply_policy(&cluster.policy, "as before").await?;
        assert!(!reasons(&cluster, 0).await?.contains("OWN_TOMBOLA"));
        Ok(())
    })
}

#[test]
fn bad_yaml_is_refused_with_all_its_faults_and_changes_nothing() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let before = cluster.operator.status("alpha").await?.policy_version;
        let folder = copy(&cluster.policy)?;
        let file = folder.path().join("state.yaml");
        let bad = std::fs::read_to_string(&file)?.replace("reject_at: 12", "reject_at: twelve\n  quarantin_at: 3");
        std::fs::write(&file, bad)?;
        let mut arguments = words(["policy", "apply"]);
        arguments.extend([folder.path().into(), "--why".into(), "a mistake".into()]);
        let output = cluster.posternctl(arguments).await?;
        assert!(!output.status.success());
        let said = text(&output.stderr) + &text(&output.stdout);
        for part in ["state.yaml:", "reject_at", "quarantin_at"] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        assert_eq!(cluster.operator.status("alpha").await?.policy_version, before);
        Ok(())
    })
}

#[test]
fn a_plan_against_an_older_version_is_refused() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        cluster.apply_policy(&cluster.policy, "somebody else was faster").await?;
        let version = cluster.operator.status("beta").await?.policy_version;
        let files = Some(operator::policy_files(&cluster.policy)?);
        let stale = ApplyRequest { files, base_version: version - 1, why: "late".into(), ticket: String::new() };
        let answer = cluster.operator.at("beta")?.policy_apply(stale).await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.into_inner().version == 0));
        assert_eq!(cluster.operator.status("beta").await?.policy_version, version);
        Ok(())
    })
}

#[test]
fn a_certificate_of_another_role_or_cluster_opens_nothing() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let server = cluster.servers[0].address;
        let node = Credentials::load(&cluster.directory.join("nodes/mx1"))?;
        let anna = Credentials::load(&cluster.directory.join("operators/anna"))?;

        let channel = operator::channel(&node, Role::Control, server)?;
        let refused = OperatorClient::new(channel).status(StatusRequest {}).await.expect_err("a node is no operator");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

        let channel = operator::channel(&anna, Role::Control, server)?;
        let refused = EdgeClient::new(channel).watch(WatchRequest::default()).await.expect_err("nor the reverse");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

        let folder = tempfile::tempdir()?;
        let other = folder.path().join("other");
        let mut arguments = words(["cluster", "init"]);
        arguments.push(other.clone().into());
        arguments.extend(words(["--server", "alpha=north@127.0.0.1:1", "--operator", "anna"]));
        cluster.posternctl_ok(arguments).await?;
        let stranger = Credentials::load(&other.join("operators/anna"))?;
        let channel = operator::channel(&stranger, Role::Control, server)?;
        OperatorClient::new(channel).status(StatusRequest {}).await.expect_err("another cluster's anna is nobody here");

        let plain = tonic::transport::Endpoint::from_shared(format!("http://{server}"))?.connect_lazy();
        OperatorClient::new(plain).status(StatusRequest {}).await.expect_err("no certificate, no answer");
        Ok(())
    })
}

#[test]
fn each_site_shows_the_same_quarantine() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let id = quarantined(&cluster, 0).await?.held.context("it is held")?;
        for server in ["alpha", "beta", "gamma"] {
            let held = cluster.operator.held_at(server).await?;
            assert!(held.iter().any(|record| record.id == id), "{server} does not show it");
        }
        Ok(())
    })
}
