//! `cargo bench-view`: what a view of government size costs a node, measured against real control servers.
//!
//! The node is a process of its own with the node's own client of the cluster, in which a task looks up without end; so its
//! memory and the longest time that the task had to wait are the node's.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use chaos_tests::{
    cluster::{Cluster, Options},
    command::{self, Form},
    runtime,
};
use clap::Parser;
use comfy_table::{Table, presets};
use node::{cluster::Cluster as Client, limits::Limits};
use proto::{
    identity::Credentials,
    mutation::{Change, Outcome},
    reputation::{Heard, REPORT_SUBJECTS_MAX, Subject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

mod lookups;

/// Measures a view of government size: memory of a node, time to fill it, and the longest wait of a task that looks up
/// without end while it is filled and while it changes.
#[derive(Clone, Parser)]
#[command(name = "bench-view", bin_name = "cargo bench-view")]
struct Arguments {
    /// Departments.
    #[arg(long, default_value_t = 10_000)]
    departments: usize,
    /// Known recipients of each department; all policy together may have 8 MiB.
    #[arg(long, default_value_t = 20)]
    recipients: usize,
    /// Subjects of reputation.
    #[arg(long, default_value_t = 1_000_000)]
    subjects: u32,
    /// Seconds of ten changes a second.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Subjects of each change.
    #[arg(long, default_value_t = 1_000)]
    changed: u32,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Be the node, with the credentials of this folder.
    #[arg(long, hide = true)]
    node: Option<PathBuf>,
    /// Control servers of the node.
    #[arg(long, hide = true)]
    control: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    command::ended(runtime::run(async move {
        match arguments.node.clone() {
            Some(folder) => lookups::node(&folder, &arguments).await,
            None => measure(&arguments).await,
        }
    }))
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let cluster = Cluster::start(Options { clamd: false, store_mail: false, ..Options::default() }).await?;
    let figures = with(&cluster, arguments).await;
    cluster.stop().await?;
    let figures = figures?;
    if arguments.output == Form::Json {
        println!("{figures:#}");
        return Ok(());
    }
    println!("{}", table(&figures));
    Ok(())
}

/// For people: a row a figure, and of the waits what counts.
fn table(figures: &Value) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(["what", "figure", "aim"]);
    for (what, value) in figures.as_object().into_iter().flatten() {
        let shown = match value.as_object() {
            None => value.to_string(),
            Some(waits) => format!(
                "longest {}, {} over 5 ms of {}; without the queue for a core: longest {}, {} over 5 ms",
                waits["longest"],
                waits["over_5_ms"],
                waits["rounds"],
                waits["longest_without_queue_for_a_core"],
                waits["over_5_ms_without_queue"],
            ),
        };
        let aim = match what.as_str() {
            "node's memory at its most, MiB" => "< 256",
            "whole load, wait of the task, ms" | "changes, wait of the task, ms" => "longest <= 5",
            _ => "",
        };
        table.add_row([what.as_str(), &shown, aim]);
    }
    table
}

async fn with(cluster: &Cluster, arguments: &Arguments) -> anyhow::Result<Value> {
    let begun = Instant::now();
    write_departments(&cluster.policy, arguments)?;
    let leader = cluster.leader().await?;
    let applied = cluster.operator.apply(&leader, &cluster.policy, "a large policy").await?;
    if let Some(fault) = applied.faults.first() {
        bail!("the policy was refused: {fault:?}");
    }
    let policy_ms = begun.elapsed().as_millis();

    let folder = cluster.directory.join("nodes/mx1");
    let servers: Vec<String> = cluster.servers.iter().map(|server| server.address.to_string()).collect();
    let credentials = Credentials::load(&folder).context("load the node's credentials")?;
    let client = Client::connect(credentials, servers.clone(), "north", &Limits::default())?;
    let begun = Instant::now();
    fill(&client, arguments.subjects).await?;
    let reports_ms = begun.elapsed().as_millis();

    // The control servers and the other nodes share this machine's cores with the measured node: it comes first, as on a machine
    // of its own. Who may not do so is told by `nice` and measured all the same.
    let mut command = Command::new("nice");
    command.args(["-n", "-15"]).arg(std::env::current_exe().context("find the running program")?);
    command.arg("--node").arg(&folder).args(servers.iter().flat_map(|server| ["--control", server]));
    for (flag, value) in [
        ("--departments", arguments.departments.to_string()),
        ("--subjects", arguments.subjects.to_string()),
        ("--seconds", arguments.seconds.to_string()),
    ] {
        command.args([flag, &value]);
    }
    let mut node = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("start the measured node")?;
    let mut lines = BufReader::new(node.stdout.take().context("the node has an output")?).lines();
    let mut next = async || -> anyhow::Result<Value> {
        let line = lines.next_line().await?.context("the measured node ended")?;
        Ok(serde_json::from_str(&line)?)
    };
    let filled = next().await?;
    let sent = changes(&client, arguments).await?;
    let changing = next().await?;
    node.wait().await?;
    Ok(json!({
        "departments": arguments.departments,
        "subjects": arguments.subjects,
        "policy applied, ms": u64::try_from(policy_ms)?,
        "subjects reported and committed, ms": u64::try_from(reports_ms)?,
        "node filled, ms": filled["ms"],
        "node's memory when filled, MiB": filled["rss_mib"],
        "node's memory at its most, MiB": changing["peak_mib"],
        "node's memory before the view, MiB": filled["before_mib"],
        "postern-node mx1, MiB": process_mib(&folder.join("node.yaml"))?,
        "whole load, wait of the task, ms": filled["waits"],
        "idle, wait of the task, ms": filled["idle"],
        "changes sent": sent,
        "changes, wait of the task, ms": changing["waits"],
        "views used while changing": changing["views"],
    }))
}

/// As many as make the number asked for with those that the cluster has already.
fn write_departments(folder: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let files = std::fs::read_dir(folder).context("list the policy")?.count();
    // All files but state.yaml are departments.
    for n in files - 1..arguments.departments {
        let people: Vec<String> = (0..arguments.recipients).map(|who| format!("person.{who:05}")).collect();
        let text = format!(
            "department: d{n}\nname: Department number {n}\ndomains: [d{n}.gov.test]\n\
             next_hops: [{{host: \"mail.d{n}.gov.test\", port: 25, tls: opportunistic}}]\n\
             sources: [10.{}.{}.0/24]\nrecipients: [{}]\n",
            n / 256,
            n % 256,
            people.join(", ")
        );
        std::fs::write(folder.join(format!("d{n}.yaml")), text).context("write a department")?;
    }
    Ok(())
}

fn heard(number: u32, bad: u32) -> Heard {
    Heard { subject: subject(number).key(), good: 1, bad }
}

fn subject(number: u32) -> Subject {
    Subject::Ip(Ipv4Addr::from(number).into())
}

/// Some reports at a time, as from several nodes.
async fn fill(client: &Client, subjects: u32) -> anyhow::Result<()> {
    let mut under_way = JoinSet::new();
    for first in (0..subjects).step_by(REPORT_SUBJECTS_MAX) {
        let last = subjects.min(first + u32::try_from(REPORT_SUBJECTS_MAX)?);
        let outcomes: Vec<Heard> = (first..last).map(|number| heard(number, number % 7)).collect();
        let client = client.clone();
        under_way.spawn(async move { client.propose(Change::Report { outcomes }).await });
        if under_way.len() >= 4 {
            under_way.join_next().await.context("one is under way")??.map(done)??;
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ended?.map(done)??;
    }
    Ok(())
}

fn done(outcome: Outcome) -> anyhow::Result<()> {
    if outcome == Outcome::Done { Ok(()) } else { bail!("a report was not taken: {outcome:?}") }
}

/// Ten a second, each of which moves all the subjects that it names.
async fn changes(client: &Client, arguments: &Arguments) -> anyhow::Result<u64> {
    let mut beat = interval(Duration::from_millis(100));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    let (mut sent, mut first) = (0, 0_u32);
    while begun.elapsed() < Duration::from_secs(arguments.seconds) {
        beat.tick().await;
        // Far apart, so that most arrays of the view are touched.
        let all = (0..arguments.changed).map(|n| first.wrapping_add(n).wrapping_mul(7919) % arguments.subjects.max(1));
        let outcomes = all.map(|number| heard(number, 1000)).collect();
        first = first.wrapping_add(arguments.changed);
        client.propose(Change::Report { outcomes }).await.map(done)??;
        sent += 1;
    }
    Ok(sent)
}

/// Memory of the process that was started with these settings.
fn process_mib(settings: &Path) -> anyhow::Result<u64> {
    for entry in std::fs::read_dir("/proc").context("list the processes")? {
        let folder = entry?.path();
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&*settings.to_string_lossy()) {
            return lookups::status_mib(&folder.join("status"), "VmRSS:");
        }
    }
    bail!("no process has {}", settings.display())
}
