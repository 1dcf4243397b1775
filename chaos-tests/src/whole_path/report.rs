//! The result for people and for programs: medians of the rounds, and the node's part of the aim.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::rows::{Row, Who};

/// So many times the messages a second of the others are aimed at.
pub const AIM: f64 = 5.0;

/// The middle one; of an even number the mean of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    (values.get(low).copied().unwrap_or_default() + values.get(high).copied().unwrap_or_default()) / 2.0
}

/// All rounds of one set by one server.
fn of<'r>(rows: &'r [Row], mails: &'r str, who: Who) -> impl Iterator<Item = &'r Row> {
    rows.iter().filter(move |row| row.mails == mails && row.who == who)
}

fn middle(rows: &[Row], mails: &str, who: Who, figure: impl Fn(&Row) -> f64) -> f64 {
    median(of(rows, mails, who).map(figure).collect())
}

/// The sets, in the order in which they were sent.
fn sets(rows: &[Row]) -> Vec<&'static str> {
    let mut sets: Vec<&'static str> = Vec::new();
    for row in rows {
        if !sets.contains(&row.mails) {
            sets.push(row.mails);
        }
    }
    sets
}

/// How many times the messages a second of the others the node passes on.
#[must_use]
pub fn ratio(rows: &[Row], mails: &str) -> f64 {
    let rate = |who| middle(rows, mails, who, |row| row.per_s);
    rate(Who::Ours) / rate(Who::Theirs)
}

/// CPU of a message without clamd and the name server.
fn own_cpu(row: &Row) -> f64 {
    row.cpu_ms.gateway + row.cpu_ms.control + row.cpu_ms.filter + row.cpu_ms.store
}

/// For people: medians.
#[must_use]
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header([
        "mail",
        "bytes",
        "by",
        "sent",
        "failed",
        "kept",
        "a second",
        "ratio",
        "CPU, ms",
        "of it gateway",
        "control",
        "filter",
        "redis",
        "clamd, ms",
        "its scans",
        "DNS, ms",
        "load, next hop, ms",
        "p50, ms",
        "p99",
    ]);
    for column in table.column_iter_mut().filter(|column| ![0, 2].contains(&column.index)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for mails in sets(rows) {
        for who in Who::ALL {
            let middle = |figure: fn(&Row) -> f64| middle(rows, mails, who, figure);
            let Some(first) = of(rows, mails, who).next() else { continue };
            let problem = first.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
            let ratio = if who == Who::Ours { format!("{:.2}", ratio(rows, mails)) } else { String::new() };
            table.add_row([
                mails.to_owned(),
                first.bytes_mean.to_string(),
                who.name().to_owned(),
                first.done.to_string(),
                format!("{}{problem}", first.failed),
                first.kept.to_string(),
                format!("{:.0}", middle(|row| row.per_s)),
                ratio,
                format!("{:.2}", middle(own_cpu)),
                format!("{:.2}", middle(|row| row.cpu_ms.gateway)),
                format!("{:.2}", middle(|row| row.cpu_ms.control)),
                format!("{:.2}", middle(|row| row.cpu_ms.filter)),
                format!("{:.2}", middle(|row| row.cpu_ms.store)),
                format!("{:.2}", middle(|row| row.cpu_ms.clamd)),
                format!("{:.2}", middle(|row| row.scans)),
                format!("{:.2}", middle(|row| row.cpu_ms.dns)),
                format!("{:.2}", middle(|row| row.generator_ms + row.cpu_ms.next_hop)),
                format!("{:.0}", middle(|row| row.latency_ms[0])),
                format!("{:.0}", middle(|row| row.latency_ms[1])),
            ]);
        }
    }
    table
}

/// For people: the aim.
#[must_use]
pub fn aims(rows: &[Row]) -> Vec<String> {
    let aim = |mails: &str| {
        let ratio = ratio(rows, mails);
        let met = if ratio >= AIM { "reached" } else { "missed" };
        format!("{mails}: {ratio:.2} times the messages a second, at least {AIM} are aimed at: {met}")
    };
    sets(rows).into_iter().map(aim).collect()
}

/// For programs: each round.
#[must_use]
pub fn as_json(rows: &[Row]) -> Value {
    let ratios: Vec<Value> = sets(rows)
        .into_iter()
        .map(|mails| json!({ "mails": mails, "ratio": ratio(rows, mails), "aim": AIM }))
        .collect();
    json!({ "rows": rows, "ratios": ratios })
}

#[cfg(test)]
mod tests {
    use super::{aims, as_json, table};
    use crate::whole_path::rows::{Parts, Row, Who};

    fn row(mails: &'static str, who: Who, per_s: f64) -> Row {
        let cpu_ms = Parts { gateway: 1.0, filter: 7.5, clamd: 2.5, ..Parts::default() };
        Row {
            mails,
            who,
            bytes_mean: 9_000,
            done: 10,
            failed: 0,
            kept: 0,
            problem: None,
            per_s,
            cpu_ms,
            generator_ms: 0.1,
            scans: 1.0,
            latency_ms: [20.0, 90.0],
        }
    }

    #[test]
    fn medians_of_the_rounds_are_compared_set_by_set() {
        let mut rows = Vec::new();
        for rate in [100.0, 900.0, 110.0] {
            rows.push(row("real", Who::Theirs, rate));
            rows.push(row("real", Who::Ours, 6.0 * rate));
            rows.push(row("made", Who::Theirs, rate));
            rows.push(row("made", Who::Ours, 2.0 * rate));
        }
        let said = aims(&rows);
        assert!(said[0].starts_with("real: 6.00 ") && said[0].ends_with("reached"), "{said:?}");
        assert!(said[1].starts_with("made: 2.00 ") && said[1].ends_with("missed"), "{said:?}");
        assert_eq!(as_json(&rows)["ratios"][1]["ratio"], 2.0);
        let text = table(&rows).to_string();
        assert!(text.contains("660") && text.contains("8.50"), "clamd is no part of the own CPU: {text}");
    }
}
