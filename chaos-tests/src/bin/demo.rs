//! `cargo demo`: a three-site cluster on this machine, mail through it, and what became of each message.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use chaos_tests::{
    cases::{self, Case},
    cluster::{Cluster, Options, Side, clamd},
    fate::{self, Account},
    runtime,
};
use clap::{Parser, ValueEnum};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

/// Starts a Postern cluster on this machine: three control servers in three sites, two nodes, mail servers of two
/// departments and of "the Internet", and a test DNS, all as real processes on 127.0.0.1. Sends about a dozen messages,
/// shows what became of each, and stays up for you to try more. Ctrl-C ends everything and leaves nothing behind.
#[derive(Parser)]
#[command(name = "demo", bin_name = "cargo demo")]
struct Arguments {
    /// End after the table; with exit code 1 if any message met another fate than expected.
    #[arg(long)]
    once: bool,
    /// Whether mail is scanned for malware.
    #[arg(long, value_enum, default_value_t = Scan::Auto)]
    clamd: Scan,
    /// Keep certificates, logs, mail and data in this folder, which must not exist yet.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// First of four ports for SMTP (mx1 Internet, mx1 departments, mx2 Internet, mx2 departments); others are taken
    /// where these are not free.
    #[arg(long, default_value_t = 2525)]
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scan {
    /// By clamd if it is installed.
    Auto,
    /// Not at all.
    Off,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match runtime::run(demo(arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn demo(arguments: Arguments) -> anyhow::Result<bool> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let signal = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(signal);
    let (cluster, good) = tokio::select! {
        shown = show(&arguments) => shown?,
        // What was started goes with the future: its processes are killed and its folder is removed.
        () = &mut signal => return Ok(false),
    };
    if !arguments.once {
        signal.await;
        eprintln!("\nstopping");
    }
    cluster.stop().await?;
    Ok(good || !arguments.once)
}

fn spinner() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {wide_msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}

/// Starts the cluster, sends the messages, and shows what became of them and whether that was expected.
async fn show(arguments: &Arguments) -> anyhow::Result<(Cluster, bool)> {
    let progress = spinner();
    let options = Options {
        clamd: arguments.clamd == Scan::Auto,
        keep: arguments.keep.clone(),
        smtp_port: Some(arguments.port),
        progress: progress.clone(),
        ..Options::default()
    };
    let cluster = Cluster::start(options).await?;
    let cases = cases::all(&cluster)?;
    let mut results = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        progress.set_message(format!("sending {} of {}: {}", at + 1, cases.len(), case.title));
        let accounts = fate::send_and_follow(&cluster, case, at).await;
        results.push((case, accounts.with_context(|| format!("send {:?}", case.title))?));
    }
    progress.finish_and_clear();
    println!("{}", table(&results));
    if cluster.clamd.is_none() {
        let why = if clamd::installed().is_some() { "--clamd off" } else { "no clamd (Debian: clamav-daemon)" };
        println!("virus scan off: {why}");
    }
    let wrong = results.iter().filter(|(case, accounts)| !as_expected(case, accounts)).count();
    println!("{} of {} messages met the expected fate.", results.len() - wrong, results.len());
    if !arguments.once {
        explain(&cluster, arguments.keep.as_deref(), &results);
    }
    Ok((cluster, wrong == 0))
}

fn as_expected(case: &Case, accounts: &[Account]) -> bool {
    case.expected.iter().eq(accounts.iter().map(|account| &account.fate))
}

fn table(results: &[(&Case, Vec<Account>)]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(160);
    }
    table.set_header(["message", "verdict", "reasons", "where it went"]);
    for (case, accounts) in results {
        for (at, (account, expected)) in accounts.iter().zip(&case.expected).enumerate() {
            let title = if at == 0 { case.title } else { "" };
            let person = account.recipient.split('@').next().unwrap_or_default();
            let went = if account.fate == *expected {
                Cell::new(format!("{person}: {}", account.fate)).fg(Color::Green)
            } else {
                Cell::new(format!("{person}: {}, but expected: {expected}", account.fate)).fg(Color::Red)
            };
            table.add_row([Cell::new(title), Cell::new(&account.verdict), Cell::new(shown(&account.reasons)), went]);
        }
    }
    table
}

fn shown(reasons: &str) -> String {
    if reasons.chars().count() <= 120 {
        return reasons.to_owned();
    }
    reasons.chars().take(119).chain(['…']).collect()
}

fn explain(cluster: &Cluster, keep: Option<&Path>, results: &[(&Case, Vec<Account>)]) {
    let words = cluster.posternctl_prefix();
    let ctl = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let held = results.iter().flat_map(|(_, accounts)| accounts).find_map(|account| account.held.as_deref());
    let held = held.unwrap_or("ID");
    println!("\nThe cluster is up. Try:\n");
    println!("  ctl='{ctl}'");
    println!("  $ctl cluster status");
    println!("  $ctl quarantine list");
    println!("  $ctl quarantine show {held}");
    println!("  $ctl quarantine release {held} --why 'looked at it'");
    println!("  $ctl policy history");
    println!("  $ctl policy apply {} --why 'a change'      (edit a file there first)", cluster.policy.display());
    println!("  $ctl audit\n");
    let (internet, departments) = (cluster.smtp(0, Side::Internet), cluster.smtp(0, Side::Departments));
    println!("Send with any SMTP client: the Internet's side is {internet}, the departments' side {departments}");
    println!("(there 127.0.1.x is the interior department and 127.0.2.x the health department). With swaks:\n");
    let to = "--to anna@interior.gov.test";
    println!("  swaks --server {internet} --local-interface 127.0.10.1 --from friend@good.example {to}");
    println!(
        "  swaks --server {departments} --local-interface 127.0.1.25 --from anna@interior.gov.test --to carl@health.gov.test\n"
    );
    println!("  $ctl scan MESSAGE.eml --node {}", cluster.nodes[0].inspect);
    println!("  kill -9 any postern-control or postern-node, and send again\n");
    println!("Logs: {}/logs/*.log   Delivered mail: {0}/mail/", cluster.root.display());
    println!("Traces, metrics and logs go by OTLP/gRPC when the demo is started with");
    println!("  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 cargo demo");
    match keep {
        Some(folder) => println!("Ctrl-C stops everything and keeps {}.", folder.display()),
        None => println!("Ctrl-C stops everything and removes it. (--keep FOLDER keeps it.)"),
    }
}
