//! What operators do to members and nodes, with real processes: a lost control server is replaced, a node is drained.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Context as _;
use chaos_tests::{
    binaries::programs,
    cases,
    cluster::{Cluster, Side, operator, text},
    fate::{self, Fate},
    janitor::Janitor,
    ports,
    process::{Process, Program},
    runtime::run,
    shared,
    smtp_client::Conversation,
};
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::sync::mpsc;

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.into_iter().map(OsString::from).collect()
}

/// What `cluster status` says, also when the quorum is lost.
async fn status(cluster: &Cluster) -> anyhow::Result<Value> {
    let output = cluster.posternctl(words(["cluster", "status", "-o", "json"])).await?;
    serde_json::from_slice(&output.stdout).with_context(|| text(&output.stderr))
}

fn members(status: &Value) -> Vec<(String, String, bool)> {
    let field =
        |member: &Value, path: &str| member.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let member = |it: &Value| (field(it, "/server/name"), field(it, "/role"), it["answers"] == true);
    status["members"].as_array().into_iter().flatten().map(member).collect()
}

/// A fourth control server as an operator sets it up: a certificate, six lines of settings, an empty data folder.
async fn set_up(cluster: &Cluster) -> anyhow::Result<(Program, String)> {
    let port = ports::reserve(None)?;
    let address = port.address().to_string();
    let folder: PathBuf = cluster.root.join("delta");
    let mut issue: Vec<OsString> = words(["cluster", "issue", "--role", "control", "--name", "delta", "--ca"]);
    issue.extend([cluster.directory.join("ca").into(), folder.clone().into()]);
    cluster.posternctl_ok(issue).await?;
    let settings = folder.join("control.yaml");
    let text = format!("id: 4\nname: delta\nsite: west\ndata: data\nlisten: \"{address}\"\ncredentials: .\n");
    std::fs::write(&settings, text).context("write control.yaml")?;
    let program = Program {
        name: "delta".into(),
        path: programs(&ProgressBar::hidden()).await?.control.clone(),
        arguments: vec!["--config".into(), settings.into()],
        environment: Vec::new(),
        log: cluster.root.join("logs/delta.log"),
    };
    Ok((program, address))
}

async fn start(program: &Program, janitor: &Janitor) -> anyhow::Result<Process> {
    let (lines, _) = mpsc::channel(1);
    Ok(program.start(janitor, lines).await?.0)
}

#[test]
fn a_lost_control_server_is_replaced_by_the_commands_of_the_readme() -> anyhow::Result<()> {
    run(async {
        let cluster = Cluster::start(chaos_tests::cluster::Options::default()).await?;
        let janitor = Janitor::start(&programs(&ProgressBar::hidden()).await?.peer, None)?;
        cluster.kill9("gamma").await?;
        cluster.leader().await?;
        let down = status(&cluster).await?;
        assert!(down["quorum"] == true, "{down:#}");
        let gamma = members(&down).into_iter().find(|(name, ..)| name == "gamma").context("a member")?;
        assert_eq!((gamma.1.as_str(), gamma.2), ("voter", false), "{down:#}");

        let (program, address) = set_up(&cluster).await?;
        let delta = start(&program, &janitor).await?;
        let server = format!("delta=west@{address}");
        let grounds = ["--why", "gamma is lost", "--ticket", "CHG-131"];
        let with = |command: &[&str]| command.iter().chain(&grounds).map(OsString::from).collect::<Vec<_>>();
        cluster.posternctl_ok(with(&["cluster", "add", &server, "--id", "4"])).await?;
        cluster.posternctl_ok(with(&["cluster", "promote", "delta", "--wait"])).await?;
        cluster.posternctl_ok(with(&["cluster", "remove", "gamma"])).await?;
        let names: Vec<String> = members(&status(&cluster).await?).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["alpha", "beta", "delta"]);

        // The new one starts again and leads; then one of the old ones may be down.
        delta.kill9().await?;
        let delta = start(&program, &janitor).await?;
        operator::until("delta leads", || async {
            cluster.posternctl_ok(words(["cluster", "transfer-leader", "delta"])).await.ok()
        })
        .await?;
        operator::until("delta says so", || async {
            let status = status(&cluster).await.ok()?;
            members(&status).contains(&("delta".into(), "leader".into(), true)).then_some(())
        })
        .await?;
        cluster.kill9("beta").await?;
        let accounts = fate::send_and_follow(&cluster, &cases::disguised_program(&cluster)?, 0).await?;
        assert!(accounts.iter().all(|account| account.fate == Fate::Quarantined), "{accounts:?}");

        let audit = cluster.posternctl_ok(words(["audit", "-o", "json"])).await?;
        for what in
            ["formed the cluster", "add control server delta", "control server delta", "remove control server gamma"]
        {
            assert!(audit.contains(what), "{what}: {audit}");
        }
        assert!(audit.contains("CHG-131") && audit.contains("operator/anna"), "{audit}");
        delta.stop().await?;
        cluster.stop().await?;
        janitor.finish();
        Ok(())
    })
}

#[test]
fn a_drained_node_sends_clients_elsewhere_while_the_other_goes_on() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let drained = |wanted: bool| {
            let cluster = &cluster;
            async move {
                operator::until("the node knows", || async {
                    let mut view = words(["node", "view", "-o", "json", "--node"]);
                    view.push(cluster.nodes[0].inspect.to_string().into());
                    let view: Value = serde_json::from_str(&cluster.posternctl_ok(view).await.ok()?).ok()?;
                    (view["drained"] == wanted).then_some(())
                })
                .await
            }
        };
        cluster.posternctl_ok(words(["node", "drain", "mx1", "--why", "a new kernel"])).await?;
        drained(true).await?;
        let client = chaos_tests::zones::GOOD;
        let refused = Conversation::open(cluster.smtp(0, Side::Internet), Some(client), "mail.test").await;
        let said = format!("{:#}", refused.err().context("a drained node greets nobody")?);
        assert!(said.contains("421") && said.contains("4.3.2"), "{said}");
        let case = cases::disguised_program(&cluster)?;
        let accounts = fate::send_and_follow(&cluster, &case, 1).await?;
        assert!(accounts.iter().all(|account| account.fate == Fate::Quarantined), "{accounts:?}");
        let list: Value = serde_json::from_str(&cluster.posternctl_ok(words(["node", "list", "-o", "json"])).await?)?;
        let nodes = list["nodes"].as_array().context("nodes")?;
        let state = |name: &str| {
            nodes.iter().find(|node| node["name"] == name).map(|node| (node["drained"].clone(), node["site"].clone()))
        };
        assert_eq!(state("mx1"), Some((true.into(), "north".into())), "{list:#}");
        assert_eq!(state("mx2"), Some((false.into(), "south".into())), "{list:#}");

        cluster.posternctl_ok(words(["node", "undrain", "mx1", "--why", "it is done"])).await?;
        drained(false).await?;
        let accounts = fate::send_and_follow(&cluster, &case, 0).await?;
        assert!(accounts.iter().all(|account| account.fate == Fate::Quarantined), "{accounts:?}");
        let log = std::fs::read_to_string(cluster.log("mx1")?)?;
        assert!(log.contains("this node is drained") && log.contains("no longer drained"), "its own log says so");
        Ok(())
    })
}
