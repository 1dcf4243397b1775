//! The metrics of a control server. They count nothing until `init` has started an export.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue, global,
    metrics::{Histogram, Meter},
};

/// Upper bounds in seconds.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What a server is asked for at each export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Log index up to which it has applied.
    pub applied_index: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Messages held.
    pub held: u64,
    /// Whom it turned away since its start, by reason.
    pub refused: Vec<(&'static str, u64)>,
}

/// `postern.control.applied_index`, `.leader` (0 or 1), `.held` and `.refused` (by reason), asked for at each export. To be
/// called once, after `init`.
pub fn observe(of: impl Fn() -> Observed + Clone + Send + Sync + 'static) {
    observe_with(&global::meter("postern"), of);
}

pub(super) fn observe_with(meter: &Meter, of: impl Fn() -> Observed + Clone + Send + Sync + 'static) {
    let gauge = |name, text, value: fn(&Observed) -> u64| {
        let of = of.clone();
        let builder = meter.u64_observable_gauge(name).with_description(text);
        builder.with_callback(move |gauge| gauge.observe(value(&of()), &[])).build();
    };
    gauge("postern.control.applied_index", "Log index that is applied here.", |seen| seen.applied_index);
    gauge("postern.control.leader", "1 on the server that leads.", |seen| u64::from(seen.leads));
    gauge("postern.control.held", "Messages held.", |seen| seen.held);
    meter
        .u64_observable_counter("postern.control.refused")
        .with_unit("{caller}")
        .with_description("Callers, connections and messages of peers that were turned away.")
        .with_callback(move |counter| {
            for (reason, count) in of().refused {
                counter.observe(count, &[KeyValue::new("reason", reason)]);
            }
        })
        .build();
}

/// `postern.control.commit.duration`: a change from its arrival here until its outcome was known (`outcome`: `done`,
/// `refused`, `failed`).
pub fn committed(outcome: &'static str, took: Duration) {
    static COMMITS: OnceLock<Histogram<f64>> = OnceLock::new();
    let commits = COMMITS.get_or_init(|| {
        let meter = global::meter("postern");
        let histogram = meter.f64_histogram("postern.control.commit.duration").with_unit("s");
        histogram.with_description("A change until its outcome was known.").with_boundaries(SECONDS.to_vec()).build()
    });
    commits.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
}
