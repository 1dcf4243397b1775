//! `cargo bench-commit`: committed mutations a second, with and without group commit, beside a single etcd, a single Redis and
//! the bare disk, in one run on one machine and one disk.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use chaos_tests::{
    binaries::programs,
    command::{self, Form},
    commits::{
        Ground, Load,
        rows::{self, Row, Target, ratio},
        work::Work,
    },
    janitor::Janitor,
    runtime,
};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::ProgressBar;
use serde_json::{Value, json};

/// Measures committed mutations a second: group commit against one mutation an entry, and Postern against a single etcd and a
/// single Redis on the same disk. Each row begins with an empty store; the median of the rounds counts.
#[derive(Parser)]
#[command(name = "bench_commit", bin_name = "cargo bench-commit")]
struct Arguments {
    /// Proposers at the same time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Seconds that count, a row and round.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// How often each row is measured, in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Only rows whose name or work contains this.
    #[arg(long)]
    only: Option<String>,
    /// A folder on the disk to be measured; default: where temporary files are.
    #[arg(long)]
    folder: Option<PathBuf>,
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
    let rows = tokio::select! {
        rows = measure(&arguments, &progress) => rows?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("listen for Ctrl-C")?;
            bail!("interrupted");
        }
    };
    progress.finish_and_clear();
    match arguments.output {
        Form::Json => println!("{}", as_json(&rows)),
        Form::Text => print_text(&rows, &arguments),
    }
    Ok(())
}

async fn measure(arguments: &Arguments, progress: &ProgressBar) -> anyhow::Result<Vec<Row>> {
    let seconds = |value: f64| Duration::try_from_secs_f64(value).context("seconds are a number from zero");
    let load = Load {
        clients: arguments.clients.into(),
        work: Work::Hold,
        warm_up: seconds(arguments.warm_up)?,
        lasting: seconds(arguments.seconds)?,
    };
    let programs = programs(progress).await?.clone();
    let mut builder = tempfile::Builder::new();
    builder.prefix("postern-bench-");
    let made = arguments.folder.as_ref().map_or_else(|| builder.tempdir(), |folder| builder.tempdir_in(folder));
    let folder = made.context("make a folder")?.keep();
    let janitor = Janitor::start(&programs.peer, Some(folder.clone()))?;
    let ground = Ground { folder, programs, janitor };
    let mut rows = rows::all();
    if let Some(only) = &arguments.only {
        rows.retain(|row| row.name().contains(only) || row.writes().contains(only));
    }
    progress.set_length(u64::from(arguments.rounds) * rows.len() as u64);
    for _ in 0..arguments.rounds {
        for row in &mut rows {
            progress.set_message(format!("{}: {}", row.name(), row.writes()));
            row.run(&ground, load).await.with_context(|| format!("{}: {}", row.name(), row.writes()))?;
            progress.inc(1);
        }
    }
    ground.janitor.finish();
    Ok(rows)
}

/// What is compared with what, and how many times as much the first is of the second.
fn ratios(rows: &[Row]) -> Vec<(String, Option<f64>)> {
    let mut found = Vec::new();
    for (work, noun) in [(Work::Discard, "discards"), (Work::Hold, "holds")] {
        for voters in [1, 3] {
            let name = format!("{noun}, {voters} voter(s): many mutations an entry / one");
            found.push((name, ratio(rows, work, Target::Batched { voters }, Target::Single { voters })));
        }
        for voters in [1, 3] {
            for (other, named) in [(Target::Etcd, "one etcd"), (Target::Redis, "one Redis")] {
                let name = format!("{noun}: postern-control, {voters} voter(s) / {named}");
                found.push((name, ratio(rows, work, Target::Edge { voters }, other)));
            }
        }
    }
    found
}

fn as_json(rows: &[Row]) -> Value {
    let ratios: serde_json::Map<String, Value> =
        ratios(rows).into_iter().map(|(name, ratio)| (name, json!(ratio))).collect();
    json!({ "rows": rows.iter().map(Row::json).collect::<Vec<_>>(), "ratios": ratios })
}

fn print_text(rows: &[Row], arguments: &Arguments) {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(["what", "a write", "a second", "p50 ms", "p99 ms", "rounds"]);
    for row in rows {
        let figures = row.median().map_or_else(
            || [row.missing.unwrap_or("not measured").to_owned(), String::new(), String::new()],
            |sample| {
                let (rate, latencies) = (sample.writes_per_s, &sample.latencies);
                [format!("{rate:.0}"), format!("{:.2}", latencies.ms(50)), format!("{:.2}", latencies.ms(99))]
            },
        );
        let rounds: Vec<String> = row.samples.iter().map(|sample| format!("{:.0}", sample.writes_per_s)).collect();
        table.add_row([row.name(), row.writes()].into_iter().chain(figures).chain([rounds.join(" ")]));
    }
    for at in 2..=4 {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    println!(
        "{} proposers; {} s a row after {} s of warm-up; median of {} round(s)",
        arguments.clients, arguments.seconds, arguments.warm_up, arguments.rounds
    );
    for (name, ratio) in ratios(rows) {
        if let Some(ratio) = ratio {
            println!("{name}: {ratio:.2}");
        }
    }
}
