//! `cargo durability`: kills, losses of power and damaged files, by the count and by a seed.

use std::{
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use chaos_tests::{
    command::Form,
    durability::{
        Bench, Figures,
        corruption::{self, Corruptions, Damage, Verdict},
        life::End,
    },
    planted::{self, Planted},
    runtime,
};
use clap::Parser;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Violations that are shown in full.
const SHOWN_MAX: usize = 10;

/// Kills a control server under load, takes its power away, damages its files, and looks each time whether everything is
/// there that was acknowledged. Exit code 1: something was lost, or came back that never was, or a check was not made; with
/// --planted: nothing was found.
#[derive(Parser)]
#[command(name = "durability", bin_name = "cargo durability")]
struct Arguments {
    /// SIGKILLs, from outside and at chosen operations on the disk.
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// Losses of power: what was not fsynced is gone, or torn in pieces of 512 bytes.
    #[arg(long, default_value_t = 100)]
    power_cuts: u64,
    /// Damages of one file each: bit flips, zeroed pages, truncations, files emptied, removed or older.
    #[arg(long, default_value_t = 100)]
    corruptions: u64,
    /// Decides about everything that is random [default: a new one].
    #[arg(long)]
    seed: Option<u64>,
    /// Servers at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Negative control: fsync does nothing and says that it worked. The run must fail then.
    #[arg(long)]
    lie_fsync: bool,
    /// Negative control: plants a fault in a copy of the sources, builds it, and must find it: ack and log by kills, gate by corruptions.
    #[arg(long, value_name = "FAULT", conflicts_with = "lie_fsync")]
    planted: Option<Planted>,
    /// Keeps all data folders in this folder, which must not exist yet.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

fn main() -> ExitCode {
    match runtime::run(run(Arguments::parse())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let progress = ProgressBar::new(arguments.kills + arguments.power_cuts + arguments.corruptions);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {bar:30} {pos}/{len} {eta} {msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(200));
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(1..1_000_000_000));
    let end = Arc::new(AtomicBool::new(false));
    let mut faults = pin!(faults(&arguments, seed, &end, &progress));
    let found = loop {
        tokio::select! {
            found = &mut faults => break found?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("listen for Ctrl-C")?;
                if end.swap(true, Ordering::Relaxed) {
                    bail!("interrupted (seed {seed})");
                }
                progress.println("ending with the faults under way; Ctrl-C once more ends at once, without a result");
            }
        }
    };
    progress.finish_and_clear();
    let well = found.violations().next().is_none() == arguments.planted.is_none();
    match arguments.output {
        Form::Text => print_text(seed, &found),
        Form::Json => println!("{}", as_json(seed, &found)),
    }
    Ok(well)
}

struct Found {
    faults: Vec<(&'static str, Figures)>,
    corruptions: Corruptions,
}

impl Found {
    fn violations(&self) -> impl Iterator<Item = &String> {
        let faults = self.faults.iter().flat_map(|(_, figures)| &figures.violations);
        faults.chain(&self.corruptions.violations)
    }
}

async fn faults(
    arguments: &Arguments,
    seed: u64,
    end: &Arc<AtomicBool>,
    progress: &ProgressBar,
) -> anyhow::Result<Found> {
    let mut bench = Bench::new(seed, arguments.keep.clone(), progress).await?;
    bench.end = Arc::clone(end);
    bench.lie_fsync = arguments.lie_fsync;
    if let Some(fault) = arguments.planted {
        if matches!(fault, Planted::Read | Planted::Release) {
            bail!("that fault shows itself between servers: look for it with cargo chaos --planted");
        }
        let built = planted::build(fault, &["postern-control", "peer"], progress).await?;
        (bench.programs.control, bench.programs.peer) = (built.join("postern-control"), built.join("peer"));
    }
    let bench = Arc::new(bench);
    let mut faults = Vec::new();
    for (name, end, count) in
        [("kill -9", End::Kill, arguments.kills), ("power cut", End::PowerCut, arguments.power_cuts)]
    {
        progress.set_message(format!("{name} (seed {seed})"));
        faults.push((name, bench.faults(end, count, arguments.jobs, progress).await?));
    }
    let mut corruptions = Corruptions::default();
    if arguments.corruptions > 0 {
        progress.set_message(format!("corruption (seed {seed})"));
        corruptions = corruption::run(&bench, arguments.corruptions, arguments.jobs, progress).await?;
    }
    bench.janitor.finish();
    Ok(Found { faults, corruptions })
}

/// The value that this share of all is not above, in per cent.
fn percentile(figures: &Figures, percent: usize) -> u64 {
    let mut all = figures.restarts.clone();
    all.sort_unstable();
    all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn print_text(seed: u64, found: &Found) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "FAULT",
        "RUN",
        "ACKNOWLEDGED",
        "REFUSED",
        "ASKED AGAIN",
        "TAKEN BACK",
        "RESTART P50/P99",
        "VIOLATIONS",
    ]);
    for (name, figures) in &found.faults {
        table.add_row([
            (*name).to_owned(),
            figures.faults.to_string(),
            figures.acknowledged.to_string(),
            figures.refused.to_string(),
            figures.asked_again.to_string(),
            figures.taken_back.to_string(),
            format!("{}/{} ms", percentile(figures, 50), percentile(figures, 99)),
            figures.violations.len().to_string(),
        ]);
    }
    println!("{table}");
    if !found.corruptions.counts.is_empty() {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(["DAMAGED FILE", "DAMAGE", "RESULT", "TIMES"]);
        for ((file, damage, verdict), times) in &found.corruptions.counts {
            table.add_row([file.clone(), format!("{damage:?}"), format!("{verdict:?}"), times.to_string()]);
        }
        println!("{table}\n{} of the folders were damaged", found.corruptions.damaged);
    }
    println!("seed {seed}");
    for violation in found.violations().take(SHOWN_MAX) {
        println!("VIOLATION {violation}");
    }
}

fn as_json(seed: u64, found: &Found) -> Value {
    let one = |(name, figures): &(&str, Figures)| {
        json!({
            "fault": name,
            "run": figures.faults,
            "acknowledged": figures.acknowledged,
            "refused": figures.refused,
            "asked_again": figures.asked_again,
            "taken_back": figures.taken_back,
            "restart_ms_p50": percentile(figures, 50),
            "restart_ms_p99": percentile(figures, 99),
            "violations": figures.violations,
        })
    };
    let corruption = |((file, damage, verdict), times): (&(String, Damage, Verdict), &u64)| json!({ "file": file, "damage": format!("{damage:?}"), "result": format!("{verdict:?}"), "times": times });
    json!({
        "seed": seed,
        "faults": found.faults.iter().map(one).collect::<Vec<_>>(),
        "damaged": found.corruptions.damaged,
        "corruptions": found.corruptions.counts.iter().map(corruption).collect::<Vec<_>>(),
        "violations": found.violations().collect::<Vec<_>>(),
    })
}
