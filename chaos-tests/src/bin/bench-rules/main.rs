//! `cargo bench-rules`: what a message costs under ten rules that people have written, and under a thousand.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use chaos_tests::{
    accuracy::{arrival, corpus},
    command::{self, Form},
};
use clap::Parser;
use comfy_table::{Table, presets};
use node::{
    checks::{content, facts::Facts, own_rules},
    limits::Limits,
    message::Message,
    policy::evidence::Authentication,
    smtp::transaction::Transaction,
};
use proto::rules::engine::Engine;
use serde_json::{Value, json};

mod made;

/// Of so many messages one is looked through by each rule alone.
const ALONE_EACH: usize = 20;
/// A thousand rules must cost less than so many times ten.
const RATIO_MAX: f64 = 3.0;

/// Measures what rules cost of a message, beside what is done for each message anyway: ten and a thousand, which look at the same
/// fields, take turns on the same messages. The exit code is 1 when a thousand cost three times as much as ten.
#[derive(Parser)]
#[command(name = "bench-rules", bin_name = "cargo bench-rules")]
struct Arguments {
    /// A folder with `ham`, `spam` or `phish`; made-up mail when there is none.
    folder: Option<PathBuf>,
    /// Rules of the larger set.
    #[arg(long, default_value_t = 1_000)]
    rules: usize,
    /// How often each message is looked through.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// What the made-up rules and mail begin from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// One set of rules and what it has cost.
struct Row {
    rules: usize,
    engines: Vec<Engine>,
    compiled: Duration,
    looks: u32,
    took: Duration,
    tried: usize,
    held: usize,
}

fn main() -> ExitCode {
    command::ended(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mail = match &arguments.folder {
        Some(folder) => corpus::read(folder)?.into_iter().map(|sorted| sorted.bytes).collect(),
        None => made::mail(200, arguments.seed),
    };
    let mail: Vec<(Message, Transaction)> = mail.into_iter().map(read).collect();
    let all = made::rules(arguments.rules, arguments.seed);
    // Ten from all over the larger set: each field is looked at by both.
    let ten = all.iter().step_by((all.len() / 10).max(1)).take(10).cloned().collect();
    let alone: Vec<_> = all.iter().map(|rule| vec![rule.clone()]).collect();
    let mut rows = [row(vec![ten])?, row(vec![all])?, row(alone)?];
    let [ten, all, alone] = &mut rows;
    let mut anyway = Duration::ZERO;
    for (at, (message, transaction)) in mail.iter().enumerate() {
        let began = Instant::now();
        let facts = Facts::of(message, transaction);
        drop(content::analyse(&facts, None));
        anyway += began.elapsed();
        for _ in 0..arguments.rounds {
            ten.look(&facts);
            all.look(&facts);
        }
        // Which takes a hundred times as long.
        if at.is_multiple_of(ALONE_EACH) {
            alone.look(&facts);
        }
    }
    let anyway = anyway.as_secs_f64() * 1e6 / mail.len() as f64;
    let ratio = rows[1].took.as_secs_f64() / rows[0].took.as_secs_f64();
    match arguments.output {
        Form::Json => {
            let rows = rows.map(|row| row.json());
            println!("{:#}", json!({"rows": rows, "ratio": ratio, "aim": RATIO_MAX, "built_in_us_a_message": anyway}));
        }
        Form::Text => {
            println!("{}", table(&rows));
            println!("{} rules cost {ratio:.2} times ten (aim: less than {RATIO_MAX})", arguments.rules);
            println!("the built-in criteria and classifiers: {anyway:.1} µs a message");
        }
    }
    ensure!(ratio < RATIO_MAX, "too slow");
    Ok(())
}

fn read(bytes: Vec<u8>) -> (Message, Transaction) {
    let message = Message::parse(bytes.into(), &Limits::default());
    let transaction = corpus::transaction(&message, arrival::nobody());
    (message, transaction)
}

fn row(sets: Vec<Vec<proto::rules::Rule>>) -> anyhow::Result<Row> {
    let began = Instant::now();
    let rules = sets.iter().map(Vec::len).sum();
    let set = |rules| Arc::new(proto::rules::RuleSet { rules, ..proto::rules::RuleSet::default() });
    let engines: Vec<Engine> = sets.into_iter().map(|rules| Engine::new(set(rules))).collect();
    let compiled = began.elapsed();
    let problem = engines.iter().find_map(Engine::warning);
    ensure!(problem.is_none(), "{problem:?}");
    Ok(Row { rules, engines, compiled, looks: 0, took: Duration::ZERO, tried: 0, held: 0 })
}

impl Row {
    fn look(&mut self, facts: &Facts<'_>) {
        let began = Instant::now();
        let (mut tried, mut held) = (0, 0);
        for engine in &self.engines {
            let found = own_rules::search(engine, facts);
            held += own_rules::reasons(engine, &found, &Authentication::default(), &facts.transaction.client).len();
            tried += found.tried;
        }
        self.took += began.elapsed();
        self.looks += 1;
        self.tried += tried;
        self.held += held;
    }

    /// How it looks through a message.
    fn way(&self) -> &'static str {
        if self.engines.len() == 1 { "together" } else { "one by one" }
    }

    fn figures(&self) -> [f64; 3] {
        let looks = f64::from(self.looks);
        [self.took.as_secs_f64() * 1e6 / looks, self.tried as f64 / looks, self.held as f64 / looks]
    }

    fn json(&self) -> Value {
        let [took, tried, held] = self.figures();
        let compiled = self.compiled.as_secs_f64() * 1e3;
        json!({"rules": self.rules, "way": self.way(), "us_a_message": took, "patterns_tried": tried, "rules_held": held, "compile_ms": compiled})
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "rules",
        "looked for",
        "µs a message",
        "patterns tried",
        "rules that held",
        "compiled in ms",
    ]);
    for row in rows {
        let [took, tried, held] = row.figures();
        table.add_row([
            row.rules.to_string(),
            row.way().to_owned(),
            format!("{took:.1}"),
            format!("{tried:.2}"),
            format!("{held:.2}"),
            format!("{:.0}", row.compiled.as_secs_f64() * 1e3),
        ]);
    }
    table
}
