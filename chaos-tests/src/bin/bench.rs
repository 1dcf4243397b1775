//! `cargo bench-mail`: the three figures of the README, measured on a cluster of real processes on this machine.

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::{Context as _, bail};
use chaos_tests::{
    cluster::{Cluster, Options, Side, operator::until},
    command::{self, Form},
    letters::{self, Letter},
    load::{Load, Parcel, Percentiles},
    runtime,
    smtp_client::Envelope,
    zones,
};
use clap::Parser;
use indicatif::ProgressBar;
use serde_json::{Value, json};

/// Measures, on a cluster of real processes on this machine: messages a second through one node, the time from `policy
/// apply` to the last node using it, and the time from the leader's death to the next committed change.
#[derive(Parser)]
#[command(name = "bench", bin_name = "cargo bench-mail")]
struct Arguments {
    /// Messages through one node.
    #[arg(long, default_value_t = 5000)]
    messages: u64,
    /// Their size in bytes.
    #[arg(long, default_value_t = 10_000)]
    bytes: usize,
    /// Connections at once.
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// Policy changes.
    #[arg(long, default_value_t = 20)]
    changes: usize,
    /// Leaders to be killed.
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Have each message scanned by clamd.
    #[arg(long)]
    clamd: bool,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    command::ended(runtime::run(bench(arguments)))
}

async fn bench(arguments: Arguments) -> anyhow::Result<()> {
    let progress = command::bar();
    let measuring = measure(&arguments, &progress);
    let figures = tokio::select! {
        figures = measuring => figures?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("listen for Ctrl-C")?;
            bail!("interrupted");
        }
    };
    progress.finish_and_clear();
    match arguments.output {
        Form::Json => println!("{figures}"),
        Form::Text => print_text(&figures),
    }
    Ok(())
}

async fn measure(arguments: &Arguments, progress: &ProgressBar) -> anyhow::Result<Value> {
    let options =
        Options { clamd: arguments.clamd, store_mail: false, progress: progress.clone(), ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let mail = throughput(&cluster, arguments, progress).await?;
    let policy = policy_changes(&cluster, arguments.changes, progress).await?;
    let leader = leader_deaths(&cluster, arguments.kills, progress).await?;
    cluster.stop().await?;
    Ok(json!({ "mail": mail, "policy_apply_to_last_node_ms": policy, "leader_death_to_commit_ms": leader }))
}

async fn throughput(cluster: &Cluster, arguments: &Arguments, progress: &ProgressBar) -> anyhow::Result<Value> {
    progress.set_message("messages through one node");
    progress.set_length(arguments.messages);
    progress.set_position(0);
    let (from, to) = ("friend@good.example", "anna@interior.gov.test");
    let letter = Letter::new(from, to, "Load").text(&letters::text_of(arguments.bytes)).bytes();
    let message = cluster.signing.sign(&letter)?;
    let bytes = message.len();
    let parcel = Parcel { kind: "ham", envelope: Envelope { from: from.into(), to: vec![to.into()] }, message };
    let load = Load {
        connections: arguments.connections,
        servers: vec![cluster.smtp(0, Side::Internet)],
        client: zones::GOOD,
        messages: arguments.messages,
    };
    let mut running = load.start(move |_| parcel.clone());
    while running.next().await.is_some() {
        progress.inc(1);
    }
    let ledger = running.end().await;
    let latencies = ledger.latencies();
    let delivered = cluster.interior.received.all().len();
    if delivered < latencies.count() {
        bail!("{} messages got 250, but {delivered} are at the sink", latencies.count());
    }
    let counts: Vec<Value> =
        ledger.counts().into_iter().map(|((_, code), count)| json!({ "code": code, "count": count })).collect();
    Ok(json!({
        "messages_per_s": latencies.count() as f64 / ledger.took.as_secs_f64(),
        "message_bytes": bytes,
        "connections": arguments.connections,
        "virus_scan": cluster.clamd.is_some(),
        "replies": counts,
        "latency_ms": percentiles(&latencies),
    }))
}

fn percentiles(sample: &Percentiles) -> Value {
    json!({ "n": sample.count(), "p50": sample.ms(50), "p90": sample.ms(90), "p99": sample.ms(99), "max": sample.ms(100) })
}

/// Writes the state's file anew with another value, so that there is something to apply.
fn change_policy(folder: &Path, tag_at: usize) -> anyhow::Result<()> {
    let file = folder.join("state.yaml");
    let text = std::fs::read_to_string(&file).context("read the state's file")?;
    let kept: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("tag_at:")).collect();
    std::fs::write(&file, format!("{}\n  tag_at: 4.{:02}\n", kept.join("\n"), tag_at % 100)).context("write it")
}

async fn policy_changes(cluster: &Cluster, changes: usize, progress: &ProgressBar) -> anyhow::Result<Value> {
    progress.set_message("policy changes");
    progress.set_length(changes as u64);
    progress.set_position(0);
    let mut sample = Vec::new();
    for n in 0..changes {
        change_policy(&cluster.policy, n + 1)?;
        let start = Instant::now();
        let server = cluster.servers[n % cluster.servers.len()].name;
        let applied = cluster.operator.apply(server, &cluster.policy, "measurement").await?;
        if applied.version == 0 {
            bail!("the change was refused: {:?}", applied.faults);
        }
        let (one, other) = (cluster.nodes[0].name, cluster.nodes[1].name);
        let both = tokio::join!(
            cluster.operator.in_use(one, applied.version),
            cluster.operator.in_use(other, applied.version)
        );
        both.0.and(both.1)?;
        sample.push(start.elapsed());
        progress.inc(1);
    }
    Ok(percentiles(&Percentiles::of(sample)))
}

async fn leader_deaths(cluster: &Cluster, kills: usize, progress: &ProgressBar) -> anyhow::Result<Value> {
    progress.set_message("dead leaders");
    progress.set_length(kills as u64);
    progress.set_position(0);
    let mut sample = Vec::new();
    for n in 0..kills {
        let leader = cluster.leader().await?;
        let living: Vec<&str> =
            cluster.servers.iter().map(|server| server.name).filter(|name| *name != leader).collect();
        change_policy(&cluster.policy, 50 + n)?;
        let start = Instant::now();
        cluster.kill9(&leader).await?;
        let mut turn = 0;
        until("a change is committed", || {
            turn += 1;
            let server = living[turn % living.len()];
            async move {
                let applied = cluster.operator.apply(server, &cluster.policy, "after the leader's death").await;
                applied.ok().filter(|applied| applied.version > 0)
            }
        })
        .await?;
        sample.push(start.elapsed());
        cluster.restart(&leader).await?;
        cluster.operator.caught_up(&leader).await?;
        progress.inc(1);
    }
    Ok(percentiles(&Percentiles::of(sample)))
}

fn print_text(figures: &Value) {
    let line = |what: &str, sample: &Value| {
        let ms = |key: &str| sample[key].as_f64().unwrap_or_default();
        println!(
            "{what}: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms (n = {})",
            ms("p50"),
            ms("p90"),
            ms("p99"),
            ms("max"),
            sample["n"]
        );
    };
    let mail = &figures["mail"];
    println!(
        "through one node to a sink, {} bytes, {} connections, virus scan {}: {:.0} messages/s",
        mail["message_bytes"],
        mail["connections"],
        if mail["virus_scan"] == true { "on" } else { "off" },
        mail["messages_per_s"].as_f64().unwrap_or_default()
    );
    line("  time for a message", &mail["latency_ms"]);
    println!("  replies: {}", mail["replies"]);
    line("from policy apply to the last node using it", &figures["policy_apply_to_last_node_ms"]);
    line("from the leader's death to the next committed change", &figures["leader_death_to_commit_ms"]);
}
