//! `cargo bench-snapshot`: what a group with a million held records pays for a snapshot, and how soon a new server votes.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use chaos_tests::{
    binaries::programs,
    command::{self, Form},
    commits::{Ground, voters::NAMES},
    janitor::Janitor,
    runtime,
    sizes::{self, Figures, Plan},
};
use clap::Parser;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

const MIB: f64 = 1024.0 * 1024.0;

/// Measures with real control servers: what commits take while snapshots are built, how long a third server takes to be
/// filled and to vote, and the memory and disk that the servers use.
#[derive(Parser)]
#[command(name = "snapshot_bench", bin_name = "cargo bench-snapshot")]
struct Arguments {
    /// Held records of the group.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    records: u64,
    /// Proposers at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Seconds that are measured without a snapshot.
    #[arg(long, default_value_t = 20)]
    seconds: u16,
    /// A folder on the disk to be measured; default: where temporary files are.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Keep what the servers have stored and logged, and say where.
    #[arg(long)]
    keep: bool,
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
    let programs = programs(&progress).await?.clone();
    let mut builder = tempfile::Builder::new();
    builder.prefix("postern-bench-");
    let made = arguments.folder.as_ref().map_or_else(|| builder.tempdir(), |folder| builder.tempdir_in(folder));
    let folder = made.context("make a folder")?.keep();
    if arguments.keep {
        eprintln!("everything stays in {}", folder.display());
    }
    let janitor = Janitor::start(&programs.peer, (!arguments.keep).then(|| folder.clone()))?;
    let ground = Ground { folder, programs, janitor };
    let plan = Plan {
        records: arguments.records,
        clients: arguments.clients.into(),
        quiet: Duration::from_secs(arguments.seconds.into()),
    };
    let figures = tokio::select! {
        figures = sizes::measure(&ground, plan, &progress) => figures?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("listen for Ctrl-C")?;
            bail!("interrupted");
        }
    };
    ground.janitor.finish();
    progress.finish_and_clear();
    match arguments.output {
        Form::Json => println!("{}", as_json(plan, &figures)),
        Form::Text => print_text(plan, &figures),
    }
    Ok(())
}

/// The machine's load average, as text.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn as_json(plan: Plan, figures: &Figures) -> Value {
    let phases = figures.phases.iter().map(|phase| {
        json!({
            "name": phase.name,
            "seconds": phase.lasted.as_secs_f64(),
            "commits": phase.took.count(),
            "failed": phase.failed,
            "p50_ms": phase.took.ms(50),
            "p99_ms": phase.took.ms(99),
            "longest_ms": phase.took.ms(100),
        })
    });
    let builds = figures.builds.iter().map(
        |build| json!({ "server": NAMES[build.server].0, "seconds": build.wrote.as_secs_f64(), "bytes": build.bytes }),
    );
    let members = figures.members.iter().map(|member| {
        json!({
            "name": member.name,
            "peak_bytes": member.peak_bytes,
            "log_bytes": member.log_bytes,
            "state_bytes": member.state_bytes,
            "snapshot_bytes": member.snapshot_bytes,
        })
    });
    json!({
        "records": plan.records,
        "clients": plan.clients,
        "prepared_s": figures.prepared.as_secs_f64(),
        "started_s": figures.started.as_secs_f64(),
        "phases": phases.collect::<Vec<_>>(),
        "snapshots": builds.collect::<Vec<_>>(),
        "filled_s": figures.filled.as_secs_f64(),
        "members": members.collect::<Vec<_>>(),
        "load_average": load(),
    })
}

fn print_text(plan: Plan, figures: &Figures) {
    let mut commits = Table::new();
    commits.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    commits.set_header(["commits", "seconds", "number", "p50 ms", "p99 ms", "longest ms", "failed"]);
    for phase in &figures.phases {
        let ms = |percent| format!("{:.1}", phase.took.ms(percent));
        let (seconds, number) = (format!("{:.0}", phase.lasted.as_secs_f64()), phase.took.count().to_string());
        commits.add_row([phase.name.into(), seconds, number, ms(50), ms(99), ms(100), phase.failed.to_string()]);
    }
    println!("{commits}");
    for build in &figures.builds {
        let (name, mib) = (NAMES[build.server].0, build.bytes as f64 / MIB);
        println!("{name} built a snapshot of {mib:.0} MiB in {:.1} s", build.wrote.as_secs_f64());
    }
    let mut members = Table::new();
    members.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    members.set_header(["server", "peak memory MiB", "log MiB", "state MiB", "snapshots MiB"]);
    for member in &figures.members {
        let bytes = [member.peak_bytes, member.log_bytes, member.state_bytes, member.snapshot_bytes];
        let mib = bytes.map(|bytes| format!("{:.0}", bytes as f64 / MIB));
        members.add_row([member.name.to_owned()].into_iter().chain(mib));
    }
    println!("{members}");
    let (filled, started) = (figures.filled.as_secs_f64(), figures.started.as_secs_f64());
    println!("an empty server was filled and voted after {filled:.1} s; one with all records starts in {started:.1} s");
    println!(
        "{} records, made in {:.0} s; {} proposers; load average {}",
        plan.records,
        figures.prepared.as_secs_f64(),
        plan.clients,
        load()
    );
}
