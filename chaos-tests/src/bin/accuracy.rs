//! `cargo bench-accuracy`: how well the content of mail is told apart, by the collection, and by what others take instead.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use chaos_tests::{
    accuracy::{
        corpus::{self, Sorted},
        curve::{Curve, interval},
        lessons,
        peers::{self, Ground, Peer, Rspamd, Said, SpamAssassin, Use},
    },
    command::{self, Form},
    edge::usage::own_cpu,
    janitor::Janitor,
};
use clap::Parser;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use indicatif::ProgressBar;
use node::{
    checks::{content, facts::Facts},
    policy::score::total,
};
use proto::{score::Score, verdict::Reason};
use serde_json::json;

/// Questions to a peer at a time: more than its two processes, as each waits a little for nothing.
const AT_ONCE: usize = 16;

/// Says of sorted mail how much of the bad is caught and how much of the wanted is touched by content and client: no DNS, no
/// reputation, no virus scan.
#[derive(Parser)]
#[command(name = "accuracy", bin_name = "cargo bench-accuracy")]
struct Arguments {
    /// A folder with `ham`, `spam` and `phish`.
    folder: PathBuf,
    /// Another such folder: Debian's Rspamd and SpamAssassin are taught by it and asked about the same messages. Needs root, the
    /// packages rspamd, redis-server, spamassassin and spamd, and a quarter of an hour.
    #[arg(long)]
    peers_learn: Option<PathBuf>,
    /// Says instead what a cluster gains that is taught with the mistakes made on one half, and tried on the other.
    #[arg(long)]
    teach: bool,
    /// Points at which the built-in policy quarantines.
    #[arg(long, default_value_t = 6.0)]
    quarantine_at: f64,
    /// Points at which it rejects.
    #[arg(long, default_value_t = 12.0)]
    reject_at: f64,
    /// How many of the worst are named, of either kind.
    #[arg(long, default_value_t = 5)]
    worst: usize,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// What a filter says of all messages.
struct Filter {
    name: &'static str,
    /// Points from which it keeps a message back, and rejects it.
    thresholds: (f64, f64),
    said: Said,
}

fn main() -> ExitCode {
    command::ended(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let all = corpus::read(&arguments.folder)?;
    if arguments.teach {
        println!("{}", lessons::gain(&all, Score((arguments.quarantine_at * 100.0) as i32)));
        return Ok(());
    }
    let progress = command::bar();
    let (ours, reasons) = judge(&all, &progress)?;
    let thresholds = (arguments.quarantine_at, arguments.reject_at);
    let mut filters = vec![Filter { name: "Postern", thresholds, said: ours }];
    if let Some(train) = &arguments.peers_learn {
        let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
        filters.extend(runtime.block_on(ask_peers(&all, train, &progress))?);
    }
    progress.finish_and_clear();
    match arguments.output {
        Form::Json => println!("{}", serde_json::Value::from_iter(filters.iter().map(|filter| as_json(filter, &all)))),
        Form::Text => {
            filters.iter().for_each(|filter| print(filter, &all));
            name_worst(arguments.worst, &all, &filters[0].said.points, &reasons);
        }
    }
    Ok(())
}

/// What we say, one message after the other.
fn judge(all: &[Sorted], progress: &ProgressBar) -> anyhow::Result<(Said, Vec<Vec<Reason>>)> {
    progress.set_length(all.len() as u64);
    progress.set_message("messages are judged");
    // What is worked out once in the life of a process is not of the first message.
    all.first().map(reasons_of);
    let (cpu, began) = (own_cpu()?, Instant::now());
    let reasons: Vec<Vec<Reason>> = all.iter().map(reasons_of).inspect(|_| progress.inc(1)).collect();
    let said = Said {
        points: reasons.iter().map(|reasons| f64::from(total(reasons).0) / 100.0).collect(),
        cpu: own_cpu()?.saturating_sub(cpu),
        took: began.elapsed(),
    };
    Ok((said, reasons))
}

fn reasons_of(sorted: &Sorted) -> Vec<Reason> {
    let message = sorted.message();
    content::analyse(&Facts::of(&message, &sorted.transaction(&message)), None).reasons
}

async fn ask_peers(all: &[Sorted], train: &Path, progress: &ProgressBar) -> anyhow::Result<Vec<Filter>> {
    let learnt = corpus::read(train)?;
    let me = std::env::current_exe().context("find the running program")?;
    let peer = me.with_file_name("peer");
    ensure!(
        peer.is_file(),
        "there is no {}: build it with cargo build --release --package chaos-tests --bin peer",
        peer.display()
    );
    let made = tempfile::Builder::new().prefix("postern-accuracy-").tempdir().context("make a folder")?;
    // Other users' processes live in it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(made.path(), open).context("open the folder to the peers")?;
    let folder = made.keep();
    let ground = Ground { janitor: Janitor::start(&peer, Some(folder.clone()))?, folder };
    let begin = |what: &'static str, length: usize| {
        progress.reset();
        progress.set_length(length as u64);
        progress.set_message(what);
    };
    begin("Rspamd learns", learnt.len());
    let rspamd = Rspamd::start(&ground, Use::Alone).await?;
    rspamd.learn(&learnt, progress).await?;
    begin("Rspamd judges", all.len());
    let by_rspamd = asked(&rspamd, all, progress).await?;
    rspamd.stop().await?;
    begin("SpamAssassin learns", 1);
    let spamassassin = SpamAssassin::start(&ground, &learnt).await?;
    begin("SpamAssassin judges", all.len());
    let by_spamassassin = asked(&spamassassin, all, progress).await?;
    spamassassin.stop().await?;
    ground.janitor.finish();
    Ok(vec![by_rspamd, by_spamassassin])
}

async fn asked(peer: &dyn Peer, all: &[Sorted], progress: &ProgressBar) -> anyhow::Result<Filter> {
    // The first one may have to be waited for.
    peers::ask(peer, &all[..AT_ONCE.min(all.len())], AT_ONCE, &ProgressBar::hidden()).await?;
    let said = peers::ask(peer, all, AT_ONCE, progress).await?;
    Ok(Filter { name: peer.name(), thresholds: peer.thresholds(), said })
}

/// Curves of all messages and of each collection.
fn curves<'a>(filter: &Filter, all: &'a [Sorted]) -> BTreeMap<&'a str, Curve> {
    let mut groups: BTreeMap<&str, Vec<(f64, bool)>> = BTreeMap::new();
    for (sorted, points) in all.iter().zip(&filter.said.points) {
        for name in ["all", &sorted.collection] {
            groups.entry(name).or_default().push((*points, sorted.class.is_bad()));
        }
    }
    groups.into_iter().map(|(name, of)| (name, Curve::of(of))).collect()
}

/// CPU time of a message, in seconds, and messages a second.
fn speed(said: &Said) -> (f64, f64) {
    let count = said.points.len().max(1) as f64;
    (said.cpu.as_secs_f64() / count, count / said.took.max(Duration::from_micros(1)).as_secs_f64())
}

fn print(filter: &Filter, all: &[Sorted]) {
    let curves = curves(filter, all);
    let (keeps_back, rejects) = filter.thresholds;
    let rejects = if rejects.is_finite() { format!("rejects from {rejects}") } else { "rejects nothing".to_owned() };
    println!("{}, keeps back from {keeps_back} points, {rejects}\n", filter.name);
    println!("{}\n", table(filter.thresholds, &curves));
    for touched in [0.001, 0.003] {
        let whole = &curves["all"];
        let at = whole.threshold(touched);
        println!(
            "at most {} % touched: from {at:.2} points, {:.1} % caught",
            touched * 100.0,
            whole.reach(at).1 * 100.0
        );
    }
    let (cpu, rate) = speed(&filter.said);
    println!("{} messages, {:.2} ms of CPU each, {rate:.0} a second\n", all.len(), cpu * 1e3);
}

fn table(thresholds: (f64, f64), curves: &BTreeMap<&str, Curve>) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_header(["collection", "wanted", "touched", "rejected", "bad", "caught", "rejected", "area"]);
    for (name, curve) in curves {
        let (touched, caught) = curve.reach(thresholds.0);
        let (good_rejected, bad_rejected) = curve.reach(thresholds.1);
        let part = |part: f64, of: &[f64]| {
            let (low, high) = interval(part, of.len());
            if of.is_empty() {
                "-".to_owned()
            } else {
                format!("{:.1} % ({:.1}-{:.1})", part * 100.0, low * 100.0, high * 100.0)
            }
        };
        table.add_row([
            (*name).to_owned(),
            curve.good.len().to_string(),
            part(touched, &curve.good),
            part(good_rejected, &curve.good),
            curve.bad.len().to_string(),
            part(caught, &curve.bad),
            part(bad_rejected, &curve.bad),
            curve.area().map_or_else(|| "-".to_owned(), |area| format!("{area:.4}")),
        ]);
    }
    table
}

fn as_json(filter: &Filter, all: &[Sorted]) -> serde_json::Value {
    let rows = curves(filter, all).into_iter().map(|(name, curve)| {
        let (touched, caught) = curve.reach(filter.thresholds.0);
        let (good_rejected, bad_rejected) = curve.reach(filter.thresholds.1);
        json!({
            "collection": name, "wanted": curve.good.len(), "bad": curve.bad.len(), "touched": touched, "caught": caught,
            "wanted_rejected": good_rejected, "bad_rejected": bad_rejected, "area": curve.area(),
        })
    });
    let (cpu, rate) = speed(&filter.said);
    json!({
        "filter": filter.name, "cpu_seconds_each": cpu, "messages_per_s": rate, "collections": rows.collect::<Vec<_>>(),
    })
}

/// The wanted messages with the most points and the bad ones with the fewest, and why.
fn name_worst(count: usize, all: &[Sorted], points: &[f64], reasons: &[Vec<Reason>]) {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|one, other| points[*other].total_cmp(&points[*one]));
    let wanted = order.iter().filter(|at| !all[**at].class.is_bad()).take(count);
    let bad = order.iter().rev().filter(|at| all[**at].class.is_bad()).take(count);
    for (what, at) in wanted.map(|at| ("wanted", *at)).chain(bad.map(|at| ("bad", *at))) {
        let reasons: Vec<String> =
            reasons[at].iter().map(|reason| format!("{} {}", reason.rule, reason.score)).collect();
        println!("{what} {:.2} {}/{}: {}", points[at], all[at].class.as_str(), all[at].name, reasons.join(", "));
    }
}
