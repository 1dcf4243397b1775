//! `cargo bench-path`: the whole path of mail through this node and clamd beside Postfix, Rspamd and clamd.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use chaos_tests::{
    accuracy::corpus,
    binaries::{Programs, programs},
    command::{self, Form},
    commits::Ground,
    janitor::Janitor,
    runtime,
    whole_path::{
        World,
        mails::Set,
        report,
        rows::{Row, Who},
    },
};
use clap::Parser;
use indicatif::ProgressBar;

/// Sends the same mail by this node with clamd, and by Debian's Postfix with Rspamd (milter, Bayes) and clamd, to the same next hop:
/// messages a second, CPU time of each part, and latency. Both relay all of it, both ask one name server, which knows nobody but the
/// made sender, and both have a clamd of their own with the same settings, a few signatures and no cache. No message is sent twice
/// as it is. Needs root and the packages postfix, rspamd, redis-server and clamav-daemon; the machine should have nothing else to do.
#[derive(Parser)]
#[command(name = "bench_path", bin_name = "cargo bench-path")]
struct Arguments {
    /// A folder with `ham`, `spam` and `phish`, of which some messages are sent.
    folder: PathBuf,
    /// Another such folder, by which Rspamd's Bayes is taught; without one it knows nothing and is not asked.
    #[arg(long)]
    peers_learn: Option<PathBuf>,
    /// Messages of a row.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    /// Messages before each row, which do not count.
    #[arg(long, default_value_t = 200)]
    warm_up: u32,
    /// How often each row is measured, in turn; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Connections at a time.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    connections: u16,
    /// Measures the programs of this folder, which were built before, instead of building them.
    #[arg(long)]
    programs: Option<PathBuf>,
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
    let (rows, left_out) = tokio::select! {
        measured = run(&arguments, &progress) => measured?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("listen for Ctrl-C")?;
            bail!("interrupted");
        }
    };
    progress.finish_and_clear();
    match arguments.output {
        Form::Json => println!("{}", report::as_json(&rows)),
        Form::Text => {
            println!("{}\n", report::table(&rows));
            report::aims(&rows).iter().for_each(|aim| println!("{aim}"));
            println!("{left_out} real messages were left out, because no gateway that reads them would pass them on");
        }
    }
    Ok(())
}

async fn run(arguments: &Arguments, progress: &ProgressBar) -> anyhow::Result<(Vec<Row>, usize)> {
    let count = usize::try_from(arguments.messages).context("a number of messages")?;
    progress.set_message("reading mail");
    let real = Set::of_folder(&arguments.folder, count)?;
    let learnt = arguments.peers_learn.as_deref().map(corpus::read).transpose()?.unwrap_or_default();
    let programs = match &arguments.programs {
        Some(folder) => Programs::of_folder(folder)?,
        None => programs(progress).await?.clone(),
    };
    let made = tempfile::Builder::new().prefix("postern-path-").tempdir().context("make a folder")?;
    let folder = made.keep();
    let janitor = Janitor::start(&programs.peer, Some(folder.clone()))?;
    let ground = Ground { folder, programs, janitor };
    let world = World::start(&ground, &learnt, progress).await?;
    let left_out = real.left_out;
    let sets = [real, Set::made(count, world.signing())];
    let rows = measure(&world, &sets, arguments, progress).await;
    world.stop().await?;
    ground.janitor.finish();
    Ok((rows?, left_out))
}

/// Each set by each server, and that so many times: what the machine does besides falls on both.
async fn measure(
    world: &World,
    sets: &[Set],
    arguments: &Arguments,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let (mut rows, mut mark) = (Vec::new(), 0);
    let warm_up = usize::try_from(arguments.warm_up).context("a number of messages")?;
    progress.reset();
    progress.set_length(u64::from(arguments.rounds) * (sets.len() * Who::ALL.len()) as u64);
    for round in 1..=arguments.rounds {
        for set in sets {
            for who in Who::ALL {
                mark += 1;
                progress.set_message(format!("round {round}, {}: {}", set.name, who.name()));
                rows.push(world.measure(who, set, mark, arguments.connections.into(), warm_up).await?);
                progress.inc(1);
            }
        }
    }
    Ok(rows)
}
