//! `cargo chaos`: real control servers far apart, clients that compete, and everything that goes wrong.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use chaos_tests::{
    campaign::{self, Plan},
    command::Form,
    failovers,
    planted::{self, Planted},
    schedule::FaultKind,
    sites::Options,
};
use clap::Parser;
use indicatif::ProgressBar;

/// Starts a cluster of real control servers in network namespaces, 10 to 40 ms apart, lets clients compete for held messages and
/// the policy while things go wrong, and checks every invariant, linearizability among them. Exit code 1: something was violated.
/// Needs the rights of root, iproute2 and, for slowdisk, eio and clock, a C compiler.
#[derive(Parser)]
struct Arguments {
    /// Runs, each with a cluster of its own.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Of the first run; the same seed gives the same schedule and the same choices of the clients [default: a random one].
    #[arg(long)]
    seed: Option<u64>,
    /// What may go wrong.
    #[arg(long, value_delimiter = ',', default_value = "kill,pause,cut,oneway,flap,diskfull,slowdisk,clock")]
    faults: Vec<FaultKind>,
    /// How long each run lasts.
    #[arg(long, value_name = "T", default_value_t = 60)]
    seconds: u64,
    /// Control servers: 3 or 5, one a site.
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// Keeps schedule, logs, data and violations of each run below this folder.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Plants a fault in a copy of the sources, builds it and runs until it is found: ack (before the commit), read (without a
    /// majority), release (twice).
    #[arg(long, value_name = "FAULT", num_args = 0..=1, default_missing_value = "ack")]
    planted: Option<Planted>,
    /// Only measures: kills, stops and cuts off the leader N times each, and how long nobody can write then.
    #[arg(long, value_name = "N", conflicts_with = "planted")]
    failovers: Option<usize>,
    /// How the result is shown.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

fn show(output: Form, text: String, json: &serde_json::Value) {
    let shown = if output == Form::Json { format!("{json:#}\n") } else { text };
    // Nobody reads any more: the exit code still tells.
    let _ = std::io::stdout().write_all(shown.as_bytes());
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let progress = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    progress.enable_steady_tick(Duration::from_millis(100));
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let servers = arguments.servers;
    if let Some(times) = arguments.failovers {
        let options = Options { servers, seed, keep: arguments.keep, progress, ..Options::default() };
        let figures = failovers::measure(&options, times).await?;
        show(arguments.output, figures.text(), &figures.json());
        return Ok(ExitCode::SUCCESS);
    }
    let programs = match arguments.planted {
        Some(Planted::Gate | Planted::Log) => {
            anyhow::bail!(
                "that fault shows itself when a server starts again: look for it with cargo durability --planted"
            )
        }
        Some(fault) => Some(planted::build(fault, &["peer"], &progress).await?),
        None => None,
    };
    let plan = Plan {
        runs: arguments.runs,
        seed,
        kinds: arguments.faults,
        lasts: Duration::from_secs(arguments.seconds),
        servers,
        programs,
        keep: arguments.keep,
        until_found: arguments.planted.is_some(),
        progress: progress.clone(),
    };
    let tally = campaign::run(&plan).await?;
    progress.finish_and_clear();
    show(arguments.output, tally.text(), &tally.json());
    if let Some(fault) = arguments.planted {
        let (runs, windows) = (tally.runs, tally.windows);
        let said = if tally.found.is_empty() { "NOT found" } else { "found" };
        eprintln!("the planted fault ({fault}) was {said} in {runs} runs and {windows} windows");
    }
    // With a planted fault it is finding nothing that is wrong.
    Ok(if tally.found.is_empty() == arguments.planted.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
