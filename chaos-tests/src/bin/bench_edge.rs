//! `cargo bench-edge`: what mail costs this node and what it costs Debian's Postfix, in one run on one machine.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use chaos_tests::{
    binaries::{Programs, programs},
    command::{self, Form},
    commits::Ground,
    edge::{Plan, World, report::Figures, rows::Who},
    janitor::Janitor,
    runtime,
};
use clap::Parser;
use indicatif::ProgressBar;

/// Measures this node beside Debian's Postfix under the same load with the same next hop: CPU time and latency of relayed mail, of
/// refusals and of TLS handshakes, and memory of idle connections. Nothing is scanned for viruses. Needs root and the package
/// postfix; the machine should have nothing else to do.
#[derive(Parser)]
#[command(name = "bench_edge", bin_name = "cargo bench-edge")]
struct Arguments {
    /// Connections of a closed loop.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Seconds that count, a row and round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// How often each row is measured, in turn; the median counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    threads: u16,
    /// Idle connections, from the least to the most.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 50_000])]
    idle: Vec<usize>,
    /// A folder of messages to be relayed besides those that are built.
    #[arg(long)]
    messages: Option<PathBuf>,
    /// Only rows whose name contains this: `relay`, `2 KB`, `RCPT`, `connect`, `TLS`, `idle`, `generator`.
    #[arg(long)]
    only: Option<String>,
    /// Measures the programs of this folder, which were built before, instead of building them.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Only the node's rows.
    #[arg(long)]
    node_only: bool,
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
    let figures = tokio::select! {
        figures = run(&arguments, &progress) => figures?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("listen for Ctrl-C")?;
            bail!("interrupted");
        }
    };
    progress.finish_and_clear();
    match arguments.output {
        Form::Json => println!("{}", figures.as_json()),
        Form::Text => figures.tables().iter().for_each(|table| println!("{table}\n")),
    }
    Ok(())
}

async fn run(arguments: &Arguments, progress: &ProgressBar) -> anyhow::Result<Figures> {
    let seconds = |value: f64| Duration::try_from_secs_f64(value).context("seconds are a number from zero");
    let plan = Plan {
        connections: arguments.connections.into(),
        lasting: seconds(arguments.seconds)?,
        warm_up: seconds(arguments.warm_up)?,
        threads: arguments.threads.into(),
        idle: arguments.idle.clone(),
        messages: arguments.messages.clone(),
    };
    let programs = match &arguments.programs {
        Some(folder) => Programs::of_folder(folder)?,
        None => programs(progress).await?.clone(),
    };
    let made = tempfile::Builder::new().prefix("postern-bench-").tempdir().context("make a folder")?;
    let folder = made.keep();
    let janitor = Janitor::start(&programs.peer, Some(folder.clone()))?;
    let ground = Ground { folder, programs, janitor };
    let mut bench = Bench { world: World::start(&ground, plan, progress).await?, arguments, progress };
    let figures = bench.all().await;
    bench.world.stop().await?;
    ground.janitor.finish();
    figures
}

struct Bench<'a> {
    world: World,
    arguments: &'a Arguments,
    progress: &'a ProgressBar,
}

impl Bench<'_> {
    fn wanted(&self, what: &str, who: Who) -> bool {
        let named = self.arguments.only.as_ref().is_none_or(|only| what.contains(only));
        let wanted = named && (who.is_ours() || !self.arguments.node_only);
        if wanted {
            self.progress.set_message(format!("{what}: {}", who.name()));
        }
        wanted
    }

    async fn all(&mut self) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        for _ in 0..self.arguments.rounds {
            self.relays(&mut figures).await?;
            self.refusals(&mut figures).await?;
        }
        self.handshakes(&mut figures).await?;
        if self.wanted("generator", Who::Queue) {
            figures.rows.extend(self.world.against_smtp_source().await?);
        }
        for who in [Who::Internet, Who::Smtpd] {
            if self.wanted("idle", who) {
                figures.idle.extend(self.world.idle(who).await?);
            }
        }
        Ok(figures)
    }

    /// Each size by each server as fast as it can, and then all at the rate that half of Postfix's best is.
    async fn relays(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let ways = [Who::Queue, Who::Proxy, Who::Departments, Who::Internet];
        let sizes = self.world.mails(chaos_tests::edge::Network::Department)?;
        for (at, mails) in sizes.iter().enumerate() {
            let what = format!("relay, {}", mails.name);
            let mut rate = None;
            for who in ways {
                if self.wanted(&what, who) {
                    let row = self.world.relay(at, who, None).await?;
                    rate = rate.or(Some(row.per_s).filter(|_| who == Who::Queue));
                    figures.rows.push(row);
                }
            }
            let Some(rate) = rate else { continue };
            for who in ways {
                if self.wanted(&what, who) {
                    figures.rows.push(self.world.relay(at, who, Some(rate)).await?);
                }
            }
        }
        Ok(())
    }

    async fn refusals(&self, figures: &mut Figures) -> anyhow::Result<()> {
        for who in [Who::Queue, Who::Internet] {
            if self.wanted("refusal at RCPT", who) {
                figures.rows.push(self.world.unknown_recipient(who).await?);
            }
        }
        for who in [Who::Postscreen, Who::Internet] {
            if self.wanted("refusal at connect", who) {
                figures.rows.push(self.world.turned_away(who).await?);
            }
        }
        Ok(())
    }

    async fn handshakes(&mut self, figures: &mut Figures) -> anyhow::Result<()> {
        for (at, key) in self.world.keys.clone().iter().enumerate() {
            let what = format!("TLS handshake, {}", key.name);
            if self.wanted(&what, Who::Smtpd) {
                figures.rows.push(self.world.handshake(Who::Smtpd, at).await?);
            }
            if self.wanted(&what, Who::Internet) {
                self.world.ours.restart(key).await?;
                figures.rows.push(self.world.handshake(Who::Internet, at).await?);
            }
        }
        Ok(())
    }
}
