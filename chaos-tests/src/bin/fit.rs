//! `cargo fit`: learns the classifier and fits the weights of the rules from sorted mail.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use chaos_tests::{
    accuracy::{
        corpus,
        curve::Curve,
        fitting::{self, Fitted, Read},
    },
    command,
};
use clap::Parser;
use node::checks::{
    classifier::Both,
    criteria::{
        self, Rule,
        weights::{FORM, WORDS},
    },
};
use proto::learning::model::Model;

/// This part of the wanted mail reaches the threshold of quarantine while the weights are fitted.
const TOUCHED: f64 = 0.0060;
/// What a message counts with the odds of classifiers that have not seen its collection, beside once with those of classifiers that
/// have seen others of it.
const STRANGE: f64 = 0.3;
/// Hundredths of points at which the built-in policy quarantines.
const QUARANTINE_AT: f64 = 600.0;

/// What the collections lack: letters to offices.
const LETTERS: &str = include_str!("../../../node/src/checks/letters.txt");

/// Learns the classifiers and fits the weights of the rules from sorted mail, and writes both into the sources of the node. With
/// `--without` nothing is written: what was learnt from the other collections is tried on these.
#[derive(Parser)]
#[command(name = "fit", bin_name = "cargo fit")]
struct Arguments {
    /// A folder with `ham`, `spam` and `phish` to learn from.
    train: PathBuf,
    /// Collections to leave out and to try on.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Another folder whose messages of those collections are tried, too.
    #[arg(long, requires = "without")]
    also: Option<PathBuf>,
}

fn main() -> ExitCode {
    command::ended(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let progress = command::bar();
    progress.set_message("messages are read");
    let mut all = read(&arguments.train, &progress)?;
    all.extend(corpus::letters(LETTERS).into_iter().map(fitting::read));
    fitting::balance(&mut all);
    let left_out = |read: &&Read| arguments.without.contains(&read.sorted.collection);
    let (tried, learnt): (Vec<&Read>, Vec<&Read>) = all.iter().partition(left_out);
    let rules = criteria::rules();
    progress.set_message("weights are fitted");
    let (odds, strange) = (fitting::unseen_odds(&learnt), fitting::strange_odds(&learnt));
    let fitted = fitting::fit(&learnt, &[(&odds, 1.0), (&strange, STRANGE)], rules);
    let unit = fitted.unit(rules, &learnt, &odds, QUARANTINE_AT, TOUCHED);
    let points = |read: &Read, odds| (fitted.points(unit, rules, &read.holding, odds), read.sorted.class.is_bad());
    let curve = Curve::of(learnt.iter().zip(&odds).map(|(read, odds)| points(read, *odds)));
    progress.set_message("the classifiers learn");
    let models = fitting::classifiers(&learnt, &origin(&learnt));
    if arguments.without.is_empty() {
        write(rules, &fitted, unit, &models)?;
    }
    progress.finish_and_clear();
    println!("learnt from {}: unseen, area {:.4}", models.words.origin, curve.area().unwrap_or_default());
    let also = arguments.also.as_ref().map(|folder| read(folder, &progress)).transpose()?.unwrap_or_default();
    for collection in &arguments.without {
        let of = tried.iter().copied().chain(&also).filter(|read| read.sorted.collection == *collection);
        let curve = Curve::of(of.map(|read| points(read, fitting::odds(&models, read))));
        let (touched, caught) = curve.reach(QUARANTINE_AT);
        println!(
            "{collection}: {} wanted, touched {:.1} %; {} bad, caught {:.1} %; area {:.4}",
            curve.good.len(),
            touched * 100.0,
            curve.bad.len(),
            caught * 100.0,
            curve.area().unwrap_or_default(),
        );
    }
    Ok(())
}

/// Puts weights and models into the sources of the node.
fn write(rules: &[Rule], fitted: &Fitted, unit: f64, models: &Both<Model>) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/src/checks");
    let files = [
        ("criteria/weights.tsv", table(rules, fitted, unit, &models.words).into_bytes()),
        ("classifier/words.model", models.words.bytes()),
        ("classifier/form.model", models.form.bytes()),
    ];
    files
        .into_iter()
        .try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).with_context(|| format!("write {name}")))
}

fn read(folder: &Path, progress: &indicatif::ProgressBar) -> anyhow::Result<Vec<Read>> {
    let all = corpus::read(folder)?;
    progress.set_length(all.len() as u64);
    Ok(all.into_iter().map(fitting::read).inspect(|_| progress.inc(1)).collect())
}

fn origin(all: &[&Read]) -> String {
    let collections: BTreeSet<&str> = all.iter().map(|read| read.sorted.collection.as_str()).collect();
    let bad = all.iter().filter(|read| read.sorted.class.is_bad()).count();
    let names: Vec<&str> = collections.into_iter().collect();
    format!("{} messages, {bad} of them bad, of {}", all.len(), names.join(", "))
}

/// The file of the weights: hundredths of points.
fn table(rules: &[Rule], fitted: &Fitted, unit: f64, model: &Model) -> String {
    let mut lines =
        format!("# What each rule is worth, in hundredths of a point; written by `cargo fit`.\n# {}\n", model.origin);
    let weights = rules.iter().map(|rule| rule.name).zip(&fitted.rules);
    let words = [WORDS.bad.0, WORDS.good.0].into_iter().zip(&fitted.classifiers.words);
    let form = [FORM.bad.0, FORM.good.0].into_iter().zip(&fitted.classifiers.form);
    for (name, weight) in weights.chain(words).chain(form) {
        // Writing to memory does not fail; zero is never written as -0.
        let _ = writeln!(lines, "{name}\t{:.0}", (weight * unit).round() + 0.0);
    }
    lines
}
