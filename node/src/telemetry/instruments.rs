//! The metrics of a node. They count nothing until `init` has started an export.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::{
    KeyValue, global,
    metrics::{AsyncInstrument, Counter, Histogram, Meter},
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

/// `postern.rules`: rules that people have written, those that are in force and those that the node had to leave out (`state`);
/// asked at each export.
pub fn observe_rules(counts: impl Fn() -> [(&'static str, u64); 2] + Send + Sync + 'static) {
    global::meter("postern")
        .u64_observable_gauge("postern.rules")
        .with_unit("{rule}")
        .with_description("Rules of the policy.")
        .with_callback(move |gauge| {
            for (state, count) in counts() {
                gauge.observe(count, &[KeyValue::new("state", state)]);
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

/// What is measured of one clamd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClamdSeen {
    /// Its address as the settings write it.
    pub clamd: String,
    /// Whether it gets mail.
    pub in_service: bool,
    /// Number of its database of signatures, where it tells one.
    pub database: Option<u64>,
    /// The database's age in seconds, where it is known.
    pub database_age_s: Option<u64>,
}

/// `postern.virus.clamd.in_service` (1 or 0), `postern.virus.signatures` (the database's number) and
/// `postern.virus.signatures.age` in seconds, each with the attribute `clamd`; asked at each export. What is not known is
/// not exported.
pub fn observe_clamds(meter: &Meter, seen: impl Fn() -> Vec<ClamdSeen> + Send + Sync + 'static) {
    let seen = Arc::new(seen);
    let gauge = |name, unit, text, value: fn(&ClamdSeen) -> Option<u64>| {
        let seen = Arc::clone(&seen);
        let gauge = meter.u64_observable_gauge(name).with_unit(unit).with_description(text);
        let observed = move |gauge: &dyn AsyncInstrument<u64>| {
            for one in seen() {
                if let Some(value) = value(&one) {
                    gauge.observe(value, &[KeyValue::new("clamd", one.clamd)]);
                }
            }
        };
        gauge.with_callback(observed).build();
    };
    let (service, number) = ("postern.virus.clamd.in_service", "postern.virus.signatures");
    gauge(service, "1", "Whether a clamd gets mail.", |one| Some(u64::from(one.in_service)));
    gauge(number, "1", "Number of the signatures that a clamd has loaded.", |one| one.database);
    gauge("postern.virus.signatures.age", "s", "Age of the signatures that a clamd has loaded.", |one| {
        one.database_age_s
    });
}

/// `postern.virus.scans`: scans since the start by `result`; asked at each export.
pub fn observe_scans(meter: &Meter, counts: impl Fn() -> [(&'static str, u64); 4] + Send + Sync + 'static) {
    meter
        .u64_observable_counter("postern.virus.scans")
        .with_unit("{scan}")
        .with_description("Scans for malware.")
        .with_callback(move |counter| {
            for (result, count) in counts() {
                counter.observe(count, &[KeyValue::new("result", result)]);
            }
        })
        .build();
}

/// `postern.openers.messages`: messages since the start whose attachments were to be opened, by `result`; asked at each export.
pub fn observe_openers(meter: &Meter, counts: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static) {
    meter
        .u64_observable_counter("postern.openers.messages")
        .with_unit("{message}")
        .with_description("Messages whose attachments were opened, put off, or cost the process that opened them.")
        .with_callback(move |counter| {
            for (result, count) in counts() {
                counter.observe(count, &[KeyValue::new("result", result)]);
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
