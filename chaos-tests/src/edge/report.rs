//! The result for people and for programs, and what it says of the aims.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    idle::IdleRow,
    rows::{Row, Who},
};

/// What came of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Each load on each server, as often as there were rounds.
    pub rows: Vec<Row>,
    /// Idle connections.
    pub idle: Vec<IdleRow>,
}

/// A figure of the node as a part of Postfix's, and how much it may be.
#[derive(Clone, Debug, Serialize)]
pub struct Aim {
    /// What of what.
    pub what: String,
    /// The part.
    pub ratio: f64,
    /// What it may be at most.
    pub at_most: f64,
}

impl Aim {
    fn of(what: String, ours: Option<f64>, theirs: Option<f64>, at_most: f64) -> Option<Self> {
        Some(Self { what, ratio: ours? / theirs?, at_most })
    }

    /// Whether it is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.ratio <= self.at_most
    }
}

/// The middle one; of an even number the larger of the two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Which loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loop {
    Closed,
    Open,
}

impl Figures {
    fn median(&self, what: &str, who: Who, pace: Loop, of: impl Fn(&Row) -> f64) -> Option<f64> {
        let open = |row: &Row| row.pace.ends_with("/s") == (pace == Loop::Open);
        let rows = self.rows.iter().filter(|row| row.what == what && row.who == who && open(row));
        median(rows.map(of).collect())
    }

    /// What can be said of the aims.
    #[must_use]
    pub fn aims(&self) -> Vec<Aim> {
        let mut relays: Vec<&str> =
            self.rows.iter().filter(|row| row.what.starts_with("relay")).map(|row| row.what.as_str()).collect();
        relays.dedup();
        let mut seen = Vec::new();
        relays.retain(|what| {
            !seen.contains(what) && {
                seen.push(what);
                true
            }
        });
        let cpu = |what: &str, who| self.median(what, who, Loop::Closed, |row| row.cpu_us);
        let p99 = |what: &str, who| self.median(what, who, Loop::Open, |row| row.latency_ms[2]);
        let mut aims = Vec::new();
        for what in relays {
            for ours in [Who::Departments, Who::Internet] {
                for (theirs, at_most) in [(Who::Queue, 1.0 / 6.0), (Who::Proxy, 0.5)] {
                    let named = format!("CPU, {what}: {} / {}", ours.name(), theirs.name());
                    aims.extend(Aim::of(named, cpu(what, ours), cpu(what, theirs), at_most));
                }
                let named = format!("p99 at equal load, {what}: {} / {}", ours.name(), Who::Queue.name());
                aims.extend(Aim::of(named, p99(what, ours), p99(what, Who::Queue), 1.0));
            }
        }
        for (what, theirs, at_most) in
            [("refusal at RCPT", Who::Queue, 0.2), ("refusal at connect", Who::Postscreen, 0.5)]
        {
            let named = format!("CPU, {what}: {} / {}", Who::Internet.name(), theirs.name());
            aims.extend(Aim::of(named, cpu(what, Who::Internet), cpu(what, theirs), at_most));
        }
        let most = |who| self.idle.iter().rfind(|row: &&IdleRow| row.who == who);
        let each = |who| most(who).map(|row| row.each);
        let named = "memory of an idle connection: node / Postfix".to_owned();
        aims.extend(Aim::of(named, each(Who::Internet), each(Who::Smtpd), 1.0 / 150.0));
        let kib = |who| each(who).map(|bytes| bytes / 1024.0);
        aims.extend(Aim::of("memory of an idle connection, KiB".to_owned(), kib(Who::Internet), Some(1.0), 8.0));
        let whole = most(Who::Internet).map(|row| row.rss as f64 / f64::from(1 << 20));
        aims.extend(Aim::of("memory of the node with all of them, MiB".to_owned(), whole, Some(1.0), 512.0));
        aims
    }

    /// For programs.
    #[must_use]
    pub fn as_json(&self) -> Value {
        json!({ "rows": self.rows, "idle": self.idle, "aims": self.aims() })
    }

    /// For people.
    #[must_use]
    pub fn tables(&self) -> [Table; 3] {
        [self.loads(), self.memory(), self.of_aims()]
    }

    fn loads(&self) -> Table {
        let mut table = table(&[
            "what",
            "server",
            "pace",
            "done",
            "failed",
            "missing",
            "a second",
            "server CPU, us",
            "of it control",
            "DNS",
            "generator, us",
            "% of a core",
            "next hop, us",
            "its connections",
            "p50, ms",
            "p95",
            "p99",
        ]);
        for row in &self.rows {
            let [p50, p95, p99] = row.latency_ms;
            table.add_row([
                row.what.clone(),
                row.who.name().to_owned(),
                row.pace.clone(),
                row.done.to_string(),
                row.problem.as_ref().map_or("0".into(), |problem| format!("{}: {problem}", row.failed)),
                row.missing.to_string(),
                format!("{:.0}", row.per_s),
                format!("{:.1}", row.cpu_us),
                format!("{:.1}", row.control_us),
                format!("{:.1}", row.dns_us),
                format!("{:.1}", row.generator_us),
                format!("{:.0}", row.generator_percent),
                format!("{:.1}", row.next_hop_us),
                format!("{:.3}", row.next_hop_connections),
                format!("{p50:.2}"),
                format!("{p95:.2}"),
                format!("{p99:.2}"),
            ]);
        }
        table
    }

    fn memory(&self) -> Table {
        let mut table =
            table(&["idle connections", "server", "held", "processes", "RSS, MiB", "PSS, MiB", "each, KiB"]);
        for row in &self.idle {
            let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
            table.add_row([
                row.wanted.to_string(),
                row.who.name().to_owned(),
                row.held.to_string(),
                row.processes.to_string(),
                mib(row.rss),
                mib(row.pss),
                format!("{:.2}", row.each / 1024.0),
            ]);
        }
        table
    }

    fn of_aims(&self) -> Table {
        let mut table = table(&["aim", "measured", "at most", "met"]);
        for aim in self.aims() {
            let met = if aim.is_met() { "yes" } else { "no" };
            table.add_row([aim.what.clone(), format!("{:.4}", aim.ratio), format!("{:.4}", aim.at_most), met.into()]);
        }
        table
    }
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(head);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::Figures;
    use crate::edge::{
        idle::IdleRow,
        rows::{Row, Who},
    };

    fn row(what: &str, who: Who, pace: &str, cpu_us: f64, p99: f64) -> Row {
        Row {
            what: what.into(),
            who,
            pace: pace.into(),
            done: 1,
            failed: 0,
            missing: 0,
            problem: None,
            per_s: 1.0,
            cpu_us,
            control_us: 0.0,
            dns_us: 0.0,
            generator_us: 0.0,
            next_hop_us: 0.0,
            generator_percent: 0.0,
            next_hop_connections: 0.0,
            latency_ms: [0.0, 0.0, p99],
        }
    }

    #[test]
    fn aims_compare_medians_of_the_same_load() {
        let mut rows = Vec::new();
        for cpu in [100.0, 900.0, 120.0] {
            rows.push(row("relay, 2 KB", Who::Departments, "20 connections", cpu, 7.0));
            rows.push(row("relay, 2 KB", Who::Departments, "300/s", 1.0, 3.0));
            rows.push(row("relay, 2 KB", Who::Queue, "20 connections", 10.0 * cpu, 9.0));
            rows.push(row("relay, 2 KB", Who::Queue, "300/s", 1.0, 2.0));
        }
        let idle = |who, held, each| IdleRow { who, wanted: held, held, rss: 1 << 29, pss: 0, processes: 1, each };
        let idle = vec![idle(Who::Smtpd, 10, 1.5e6), idle(Who::Internet, 10, 9e3), idle(Who::Internet, 50, 4e3)];
        let figures = Figures { rows, idle };
        let aims: Vec<(String, bool)> =
            figures.aims().into_iter().map(|aim| (aim.what.clone(), aim.is_met())).collect();
        let expected = [
            ("CPU, relay, 2 KB: node, departments / Postfix, queue", true),
            ("p99 at equal load, relay, 2 KB: node, departments / Postfix, queue", false),
            ("memory of an idle connection: node / Postfix", true),
            ("memory of an idle connection, KiB", true),
            ("memory of the node with all of them, MiB", true),
        ];
        assert_eq!(aims, expected.map(|(what, met)| (what.to_owned(), met)));
        assert!((figures.aims()[0].ratio - 0.1).abs() < 1e-9);
        assert_eq!(figures.as_json()["aims"].as_array().map(Vec::len), Some(5));
    }
}
