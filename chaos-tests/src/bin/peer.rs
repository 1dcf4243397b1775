//! `peer`: what stands around the cluster in tests and in the demo, each as a process of its own.

use std::{
    io::{BufReader, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use chaos_tests::{
    dns::{self, Record},
    durability::corruption::judge,
    janitor,
    quick_dns::{self, Names},
    sink::{self, Order, Sink},
};
use clap::{Parser, Subcommand};
use control::{
    config::Config,
    raft::{Group, Piece, Rules},
    server,
};
use serde::Serialize;
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// What stands around the cluster in tests and in the demo. Each prints a JSON line when it is ready and one for each
/// event, and ends with its standard input.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Subcommand)]
enum Peer {
    /// A mail server that stores what it gets. Orders on standard input: {"refuse":["full",452]}, {"accept":"full"},
    /// {"away":true}.
    Sink {
        /// What it calls itself.
        #[arg(long)]
        name: String,
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where messages are stored; without it they are only counted.
        #[arg(long)]
        folder: Option<PathBuf>,
        /// LOCAL=CODE: refuses recipients with this local part; may be given several times.
        #[arg(long, value_parser = refusal)]
        refuse: Vec<(String, u16)>,
        /// Offers STARTTLS with a certificate made for the name, written to this folder.
        #[arg(long)]
        tls: Option<PathBuf>,
    },
    /// An authoritative DNS server.
    Dns {
        /// Where it listens, UDP and TCP.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// A JSON file with [{"name", "kind", "value"}].
        #[arg(long)]
        records: PathBuf,
        /// As little work as can be: over UDP alone, without a word of questions; what is not in its records does not exist.
        #[arg(long)]
        for_load: bool,
    },
    /// A control server that keeps only a short log, as one with much to do would; ends in order on SIGTERM.
    Control {
        /// The server's settings.
        #[arg(long)]
        config: PathBuf,
        /// The log is purged behind a snapshot when it has grown by so many bytes.
        #[arg(long)]
        log_bytes_max: u64,
        /// Entries that stay in the log then.
        #[arg(long)]
        logs_kept: u64,
        /// Entries that are removed from the log in one transaction [default: as postern-control].
        #[arg(long)]
        purged_at_once: Option<usize>,
        /// Entries from one comparison of the servers' states to the next [default: as postern-control].
        #[arg(long)]
        compare_every: Option<u64>,
    },
    /// Runs a control server on a data folder until it leads, and prints what is in it: one JSON line. Exit code 1: refused, and
    /// why.
    Judge {
        /// The server's settings.
        #[arg(long)]
        config: PathBuf,
    },
    /// Reads "+PID", "-PID", "mount FOLDER" and "netns NAME" lines until its input ends; then kills these process groups,
    /// takes mounts and namespaces away and removes the folder.
    Janitor {
        /// Removed at the end.
        folder: Option<PathBuf>,
    },
}

fn refusal(text: &str) -> Result<(String, u16), String> {
    let (local, code) = text.split_once('=').ok_or("LOCAL=CODE is expected")?;
    match code.parse() {
        Ok(code @ 400..600) => Ok((local.to_owned(), code)),
        _ => Err(format!("{code:?} is no code from 400 to 599")),
    }
}

/// One line, whole: several tasks print.
fn print(event: &impl Serialize) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: standard input is about to end, too.
    let _ = serde_json::to_writer(&mut out, event).map(|()| writeln!(out).and_then(|()| out.flush()));
}

/// Reads standard input to its end; meanwhile the other threads serve. SIGTERM ends the process as it does by default.
fn until_input_ends(each: impl Fn(&str)) {
    tokio::task::block_in_place(|| std::io::stdin().lines().map_while(Result::ok).for_each(|line| each(&line)));
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().peer {
        Peer::Sink { name, listen, folder, refuse, tls } => {
            let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
            let at = listener.local_addr().context("a listener has an address")?;
            let tls = tls.map(|folder| sink::self_made_tls(&name, at, &folder)).transpose()?;
            let sink = Arc::new(Sink::new(&name, folder, tls, |message| print(&message)));
            refuse.into_iter().for_each(|(local, code)| sink.obey(Order::Refuse(local, code)));
            tokio::spawn(sink.clone().serve(listener));
            print(&json!({"ready": {"smtp": at}}));
            until_input_ends(|line| match serde_json::from_str(line) {
                Ok(order) => {
                    sink.obey(order);
                    print(&json!({"obeyed": line}));
                }
                Err(error) => eprintln!("order {line:?}: {error}"),
            });
        }
        Peer::Dns { listen, records, for_load } => {
            let text = std::fs::read(&records).with_context(|| format!("read {}", records.display()))?;
            let records: Vec<Record> = serde_json::from_slice(&text).context("read the records")?;
            let at = if for_load {
                let names = Names::new(&records)?;
                let (at, socket) = quick_dns::listen(listen)?;
                tokio::task::spawn_blocking(move || names.serve(&socket));
                at
            } else {
                let (at, serving) = dns::serve(listen, &records, |question| print(&question)).await?;
                tokio::spawn(serving);
                at
            };
            print(&json!({"ready": {"dns": at}}));
            until_input_ends(|_| {});
        }
        Peer::Control { config, log_bytes_max, logs_kept, purged_at_once, compare_every } => {
            let usual = Piece::default();
            let purge_piece = Piece { entries: purged_at_once.unwrap_or(usual.entries), ..usual };
            let usual = Rules::default();
            let compare_every = compare_every.unwrap_or(usual.compare_every);
            let rules = Rules { log_bytes_max, logs_kept, purge_piece, compare_every, ..usual };
            let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
            let end = async move { terminate.recv().await.map_or((), drop) };
            let ready = |address: SocketAddr, _: &Group| print(&json!({"ready": {"grpc": address}}));
            server::run_with(Config::load(&config)?, rules, end, ready).await?;
        }
        Peer::Judge { config } => print(&judge::run(Config::load(&config)?).await?),
        Peer::Janitor { folder } => {
            let input = BufReader::new(std::io::stdin());
            tokio::task::block_in_place(|| janitor::serve(input, folder.as_deref()))?;
        }
    }
    Ok(())
}
