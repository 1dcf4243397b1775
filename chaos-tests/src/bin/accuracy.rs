//! `cargo bench-accuracy`: how well the content of mail is told apart, by the collection.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use chaos_tests::{
    accuracy::{
        corpus::{self, Sorted},
        curve::{Curve, interval},
    },
    command::{self, Form},
};
use clap::Parser;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use node::{checks::content, limits::Limits, message::Message, policy::score::total};
use serde_json::json;

/// Says of sorted mail how much of the bad is caught and how much of the wanted is touched by the content alone: no DNS, no
/// reputation, no virus scan.
#[derive(Parser)]
#[command(name = "accuracy", bin_name = "cargo bench-accuracy")]
struct Arguments {
    /// A folder with `ham`, `spam` and `phish`.
    folder: PathBuf,
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

fn main() -> ExitCode {
    command::ended(run(&Arguments::parse()))
}

/// A message with its points and why.
struct Judged {
    sorted: Sorted,
    points: f64,
    reasons: Vec<String>,
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let all = corpus::read(&arguments.folder)?;
    let progress = command::bar();
    progress.set_length(all.len() as u64);
    progress.set_message("messages are judged");
    let mut took = Duration::ZERO;
    let judged: Vec<Judged> =
        all.into_iter().map(|sorted| judge(sorted, &mut took)).inspect(|_| progress.inc(1)).collect();
    progress.finish_and_clear();
    let mut groups: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
    for one in &judged {
        groups.entry(&one.sorted.collection).or_default().push(one);
        groups.entry("all").or_default().push(one);
    }
    let curves: Vec<(&str, Curve)> = groups.into_iter().map(|(name, of)| (name, curve(&of))).collect();
    let each = took.as_secs_f64() / judged.len().max(1) as f64;
    match arguments.output {
        Form::Json => println!("{}", as_json(arguments, &curves, each)),
        Form::Text => {
            println!("{}\n", table(arguments, &curves));
            for touched in [0.001, 0.003] {
                let all = curve(&judged.iter().collect::<Vec<_>>());
                let at = all.threshold(touched);
                println!(
                    "at most {} % touched: from {at:.2} points, {:.1} % caught",
                    touched * 100.0,
                    all.reach(at).1 * 100.0
                );
            }
            println!("{} messages, {:.2} ms each to read and judge", judged.len(), each * 1e3);
            name_worst(arguments, judged);
        }
    }
    Ok(())
}

fn judge(sorted: Sorted, took: &mut Duration) -> Judged {
    let began = Instant::now();
    let message = Message::parse(sorted.bytes.clone().into(), &Limits::default());
    let reasons = content::analyse(&message, &corpus::transaction(&message));
    let points = f64::from(total(&reasons).0) / 100.0;
    *took += began.elapsed();
    let reasons = reasons.into_iter().map(|reason| format!("{} {}", reason.rule, reason.score)).collect();
    Judged { sorted, points, reasons }
}

fn curve(of: &[&Judged]) -> Curve {
    Curve::of(of.iter().map(|one| (one.points, one.sorted.class.is_bad())))
}

fn table(arguments: &Arguments, curves: &[(&str, Curve)]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_header(["collection", "wanted", "touched", "rejected", "bad", "caught", "rejected", "area"]);
    for (name, curve) in curves {
        let (touched, caught) = curve.reach(arguments.quarantine_at);
        let (good_rejected, bad_rejected) = curve.reach(arguments.reject_at);
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

fn as_json(arguments: &Arguments, curves: &[(&str, Curve)], each: f64) -> serde_json::Value {
    let rows = curves.iter().map(|(name, curve)| {
        let (touched, caught) = curve.reach(arguments.quarantine_at);
        let (good_rejected, bad_rejected) = curve.reach(arguments.reject_at);
        json!({
            "collection": name, "wanted": curve.good.len(), "bad": curve.bad.len(), "touched": touched, "caught": caught,
            "wanted_rejected": good_rejected, "bad_rejected": bad_rejected, "area": curve.area(),
        })
    });
    json!({"seconds_each": each, "collections": rows.collect::<Vec<_>>()})
}

fn name_worst(arguments: &Arguments, mut judged: Vec<Judged>) {
    judged.sort_by(|one, other| other.points.total_cmp(&one.points));
    let wanted = judged.iter().filter(|one| !one.sorted.class.is_bad()).take(arguments.worst);
    let bad = judged.iter().rev().filter(|one| one.sorted.class.is_bad()).take(arguments.worst);
    for (what, one) in wanted.map(|one| ("wanted", one)).chain(bad.map(|one| ("bad", one))) {
        println!(
            "{what} {:.2} {}/{}: {}",
            one.points,
            one.sorted.class.as_str(),
            one.sorted.name,
            one.reasons.join(", ")
        );
    }
}
