//! What runs came to, counted and shown.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use crate::{invariants::Violation, schedule::FaultKind};

/// How a cluster came to be well after a fault.
#[derive(Clone, Copy, Debug)]
pub struct Healed {
    /// From the end of the fault until all had caught up.
    pub took: Duration,
    /// Leaders that were elected after the fault had ended, though there was one.
    pub extra_elections: usize,
}

/// A violation, and how to see it again.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of the run.
    pub seed: u64,
    /// The windows up to it.
    pub schedule: String,
    /// What was seen.
    pub violation: Violation,
}

/// What runs came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Clusters that were started.
    pub runs: u64,
    /// Faults that were brought about, with clients at work.
    pub windows: u64,
    /// Operations of clients.
    pub operations: usize,
    /// Of those, how many got an answer; the others are unknown.
    pub answered: usize,
    /// Histories that were checked for linearizability.
    pub histories: u64,
    /// Of those, how many had an operation under way during a fault.
    pub overlapped: u64,
    /// By kind of fault.
    pub healed: BTreeMap<FaultKind, Vec<Healed>>,
    /// What must not be.
    pub found: Vec<Found>,
}

/// The value below which this share of the sorted values lies; zero of none.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

impl Tally {
    /// Notes how a cluster healed.
    pub fn healed(&mut self, kind: FaultKind, healed: Healed) {
        self.healed.entry(kind).or_default().push(healed);
    }

    /// In a few words, while it goes on.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { operations, answered, overlapped, found, .. } = self;
        let unknown = operations - answered;
        format!(
            "{operations} operations, {unknown} unknown, {overlapped} histories under faults, {} violations",
            found.len()
        )
    }

    fn rows(&self) -> Vec<(FaultKind, usize, [Duration; 3], usize)> {
        let row = |(kind, healed): (&FaultKind, &Vec<Healed>)| {
            let mut took: Vec<Duration> = healed.iter().map(|healed| healed.took).collect();
            took.sort();
            let times = [50, 99, 100].map(|percent| percentile(&took, percent));
            let elections = healed.iter().map(|healed| healed.extra_elections).max().unwrap_or_default();
            (*kind, healed.len(), times, elections)
        };
        self.healed.iter().map(row).collect()
    }

    /// As a table and, below it, what was found.
    #[must_use]
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(["fault", "times", "heal p50", "heal p99", "longest", "extra elections a heal, at most"]);
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        for (kind, times, [p50, p99, longest], elections) in self.rows() {
            table.add_row([
                kind.to_string(),
                times.to_string(),
                seconds(p50),
                seconds(p99),
                seconds(longest),
                elections.to_string(),
            ]);
        }
        let mut text = format!(
            "{table}\n{} runs, {} windows; {}; {} histories in all\n",
            self.runs,
            self.windows,
            self.line(),
            self.histories
        );
        for Found { seed, schedule, violation } in &self.found {
            text += &format!(
                "\nVIOLATION of \"{}\" (--runs 1 --seed {seed}):\n{}\n{schedule}",
                violation.invariant, violation.seen
            );
        }
        text
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let fault = |(kind, times, [p50, p99, longest], elections): (FaultKind, usize, [Duration; 3], usize)| {
            json!({
                "fault": kind.to_string(), "times": times, "heal_p50_ms": millis(p50), "heal_p99_ms": millis(p99),
                "heal_longest_ms": millis(longest), "extra_elections_max": elections,
            })
        };
        let found = |Found { seed, schedule, violation }: &Found| json!({"seed": seed, "invariant": violation.invariant, "seen": violation.seen, "schedule": schedule});
        json!({
            "runs": self.runs,
            "windows": self.windows,
            "operations": self.operations,
            "unknown": self.operations - self.answered,
            "histories": self.histories,
            "histories_under_faults": self.overlapped,
            "faults": self.rows().into_iter().map(fault).collect::<Vec<_>>(),
            "violations": self.found.iter().map(found).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::percentile;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values, 100), Duration::from_millis(200));
        assert_eq!(percentile(&values[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
