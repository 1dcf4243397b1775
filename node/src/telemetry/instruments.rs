//! The metrics of a node. They count nothing until `init` has started an export.

use std::{sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, Meter},
};
use proto::verdict::Disposition;

/// Upper bounds in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The instruments. Attributes have few values: no address, domain or subject is ever one.
#[derive(Debug)]
pub struct Metrics {
    connections: Counter<u64>,
    turned_away: Counter<u64>,
    refused: Counter<u64>,
    handshakes: Counter<u64>,
    transactions: Counter<u64>,
    stage_duration: Histogram<f64>,
    relay_duration: Histogram<f64>,
    held: Counter<u64>,
}

/// The node's instruments; to be asked for after `init`.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::of(&global::meter("postern")))
}

/// `postern.view.age` in seconds: asked from `age` at each export. Nothing is exported before the first view.
pub fn observe_view_age(age: impl Fn() -> Duration + Send + Sync + 'static) {
    global::meter("postern")
        .f64_observable_gauge("postern.view.age")
        .with_unit("s")
        .with_description("Since a control server last confirmed the view.")
        .with_callback(move |gauge| {
            let age = age();
            if age < Duration::MAX {
                gauge.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
}

/// `postern.certificate.lifetime` in seconds: how long a certificate in use (`listeners`, `cluster`) is still valid, below zero
/// when its time is over; asked at each export.
pub fn observe_lifetimes(left_s: impl Fn() -> Vec<(&'static str, i64)> + Send + Sync + 'static) {
    global::meter("postern")
        .i64_observable_gauge("postern.certificate.lifetime")
        .with_unit("s")
        .with_description("Until a certificate in use ends.")
        .with_callback(move |gauge| {
            for (certificate, seconds) in left_s() {
                gauge.observe(seconds, &[KeyValue::new("certificate", certificate)]);
            }
        })
        .build();
}

impl Metrics {
    fn of(meter: &Meter) -> Self {
        let counter = |name, unit, text| meter.u64_counter(name).with_unit(unit).with_description(text).build();
        let seconds = |name, text| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(text);
            histogram.with_boundaries(SECONDS.to_vec()).build()
        };
        Self {
            connections: counter("postern.connections", "{connection}", "SMTP connections that were accepted."),
            turned_away: counter(
                "postern.connections.turned_away",
                "{connection}",
                "Clients that were sent away instead of greeted.",
            ),
            refused: counter(
                "postern.clients.refused",
                "{reason}",
                "Reasons for which clients were refused or put off, and limits of SMTP that were reached.",
            ),
            handshakes: counter("postern.tls.handshakes", "{handshake}", "TLS handshakes with clients."),
            transactions: counter("postern.transactions", "{verdict}", "Verdicts on messages."),
            stage_duration: seconds("postern.stage.duration", "One stage of a message's trip."),
            relay_duration: seconds("postern.relay.duration", "Handing a message to the next hops of one route."),
            held: counter("postern.held", "{record}", "Messages held."),
        }
    }

    /// `postern.connections`: one more at a listener (`internet`, `departments`).
    pub fn connection(&self, listener: &'static str) {
        self.connections.add(1, &[KeyValue::new("listener", listener)]);
    }

    /// `postern.connections.turned_away`: one more, with this reply code instead of 220.
    pub fn turned_away(&self, code: u16) {
        self.turned_away.add(1, &[KeyValue::new("code", i64::from(code))]);
    }

    /// `postern.clients.refused`: one more reason at a stage (`connect`, `mail`, `rcpt`), or one more limit of SMTP that
    /// was reached (`session`); rules are few.
    pub fn refused(&self, stage: &'static str, rule: &str) {
        self.refused.add(1, &[KeyValue::new("stage", stage), KeyValue::new("rule", rule.to_owned())]);
    }

    /// `postern.tls.handshakes`: one more at a listener, with its result (`done`, `failed`, `late`, `no_place`) and the
    /// version that was agreed on (`1.2`, `1.3`, `none`).
    pub fn handshake(&self, listener: &'static str, result: &'static str, version: &'static str) {
        let listener = KeyValue::new("listener", listener);
        self.handshakes.add(1, &[listener, KeyValue::new("result", result), KeyValue::new("version", version)]);
    }

    /// `postern.transactions`: one more verdict for recipients of one policy and route.
    pub fn transaction(&self, disposition: Disposition, class: &'static str) {
        let disposition = KeyValue::new("disposition", disposition.to_string());
        self.transactions.add(1, &[disposition, KeyValue::new("class", class)]);
    }

    /// `postern.stage.duration`: how long a stage took.
    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.stage_duration.record(took.as_secs_f64(), &[KeyValue::new("stage", stage)]);
    }

    /// `postern.relay.duration`: how long the next hops took, and with what result (`accepted`, `refused`, `deferred`,
    /// `mixed`).
    pub fn relayed(&self, outcome: &'static str, took: Duration) {
        self.relay_duration.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
    }

    /// `postern.held`: one more record of a kind (`quarantined`, `deferred`).
    pub fn held(&self, kind: &'static str) {
        self.held.add(1, &[KeyValue::new("kind", kind)]);
    }
}
