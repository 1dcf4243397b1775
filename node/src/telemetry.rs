//! Logs, traces and metrics: JSON lines on stderr always, and OTLP over gRPC where the `OTEL_*` variables name a collector.
//! A collector that is away or hangs costs telemetry, never mail: what its bounded queues cannot take is dropped.

mod instruments;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Context;
use opentelemetry::{KeyValue, global, metrics::Meter, trace::TracerProvider};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, logs::SdkLoggerProvider, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use tracing::{Instrument as _, Span, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, Layer, Registry, filter::Targets, layer::SubscriberExt};

pub use self::instruments::{
    ClamdSeen, Metrics, metrics, observe_clamds, observe_lifetimes, observe_openers, observe_rules, observe_scans,
    observe_view_age,
};

/// How long the end of the process waits for what is still queued.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);
/// Their events would beget new ones when they are exported, or tell of telemetry alone.
const INTERNALS: [&str; 7] =
    ["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp", "h2", "hyper", "tonic", "tower"];

/// Where each signal goes; nowhere when none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Endpoints {
    traces: Option<String>,
    metrics: Option<String>,
    logs: Option<String>,
}

/// Keeps the exporters; give it back with [`Guard::shutdown`] at the end of the process.
#[derive(Debug)]
#[must_use = "without it the last seconds of telemetry are lost"]
pub struct Guard {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    logs: Option<SdkLoggerProvider>,
}

/// Starts logs, traces and metrics of this process. `service_name` is for when `OTEL_SERVICE_NAME` names none; `node` is
/// the name of this instance and `site` where it stands. Needs a tokio runtime; once a process, before [`metrics`].
///
/// Exports when `OTEL_EXPORTER_OTLP_ENDPOINT` or the variable of a signal is set and `OTEL_SDK_DISABLED` is not `true`.
///
/// # Errors
/// When an endpoint is not a URL, or logs were started before.
pub fn init(service_name: &str, node: &str, site: &str) -> anyhow::Result<Guard> {
    let endpoints = Endpoints::of(variable);
    let (subscriber, guard) = subscriber(resource(service_name, node, site), &endpoints)?;
    tracing::subscriber::set_global_default(subscriber).context("start logs")?;
    if let Some(provider) = &guard.metrics {
        global::set_meter_provider(provider.clone());
    }
    Ok(guard)
}

/// The meter of all instruments of the node; to be asked for after [`init`].
#[must_use]
pub fn meter() -> Meter {
    global::meter("postern")
}

/// One stage of a message's trip: in a span of its own, with its duration as a metric.
pub async fn stage<T>(name: &'static str, span: Span, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.instrument(span).await;
    metrics().stage(name, began.elapsed());
    done
}

#[expect(clippy::disallowed_methods, reason = "OpenTelemetry is configured by its own standard variables")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Endpoints {
    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::default();
        }
        let signal = |name: &str| variable(name).or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        Self {
            traces: signal("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            metrics: signal("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
            logs: signal("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        }
    }
}

fn resource(service_name: &str, node: &str, site: &str) -> Resource {
    let own = [
        KeyValue::new("service.instance.id", node.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("postern.site", site.to_owned()),
    ];
    // The SDK has read OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES by now.
    let named = Resource::builder().build().get(&"service.name".into());
    let builder = Resource::builder().with_attributes(own);
    if named.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        builder.build()
    } else {
        builder.with_service_name(service_name.to_owned()).build()
    }
}

fn subscriber(
    resource: Resource,
    endpoints: &Endpoints,
) -> anyhow::Result<(impl Subscriber + Send + Sync + use<>, Guard)> {
    let guard = Guard::start(resource, endpoints)?;
    let stderr = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_filter(stderr_filter()?);
    let traces = guard.traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer().with_tracer(provider.tracer("postern")).with_filter(export_filter())
    });
    let logs =
        guard.logs.as_ref().map(|provider| OpenTelemetryTracingBridge::new(provider).with_filter(export_filter()));
    let subscriber = Registry::default().with(stderr).with(traces).with(logs);
    Ok((subscriber, guard))
}

/// What `RUST_LOG` says, from `info` on when it says nothing.
fn stderr_filter() -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    INTERNALS[..3].iter().try_fold(filter, |filter, internal| {
        Ok(filter.add_directive(format!("{internal}=off").parse().context("filter the exporter's own events")?))
    })
}

fn export_filter() -> Targets {
    let off = INTERNALS.map(|internal| (internal, LevelFilter::OFF));
    Targets::new().with_default(LevelFilter::INFO).with_targets(off)
}

impl Guard {
    /// Exporters with bounded queues (2048 spans, 2048 log records), each emptied by a thread of its own; a full queue drops.
    fn start(resource: Resource, endpoints: &Endpoints) -> anyhow::Result<Self> {
        let traces = endpoints.traces.as_ref().map(|endpoint| {
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
            let builder = SdkTracerProvider::builder().with_resource(resource.clone());
            anyhow::Ok(builder.with_batch_exporter(exporter).build())
        });
        let metrics = endpoints.metrics.as_ref().map(|endpoint| {
            let exporter = MetricExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
            let builder = SdkMeterProvider::builder().with_resource(resource.clone());
            anyhow::Ok(builder.with_periodic_exporter(exporter).build())
        });
        let logs = endpoints.logs.as_ref().map(|endpoint| {
            let exporter = LogExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
            let builder = SdkLoggerProvider::builder().with_resource(resource.clone());
            anyhow::Ok(builder.with_batch_exporter(exporter).build())
        });
        Ok(Self {
            traces: traces.transpose().context("start the export of traces")?,
            metrics: metrics.transpose().context("start the export of metrics")?,
            logs: logs.transpose().context("start the export of logs")?,
        })
    }

    /// Sends what is queued and ends the export; after two seconds without it.
    pub async fn shutdown(self) {
        let (done, ended) = tokio::sync::oneshot::channel();
        // A thread that nobody joins: neither a hanging collector nor the runtime's end waits for it.
        let flush = move || {
            let Self { traces, metrics, logs } = self;
            let (traces_end, logs_end) = (
                traces.map(|provider| std::thread::spawn(move || provider.shutdown_with_timeout(FLUSH_TIME_MAX))),
                logs.map(|provider| std::thread::spawn(move || provider.shutdown_with_timeout(FLUSH_TIME_MAX))),
            );
            let metrics_end = metrics.map(|provider| provider.shutdown_with_timeout(FLUSH_TIME_MAX));
            let failed = [traces_end, logs_end].into_iter().flatten().any(|end| !matches!(end.join(), Ok(Ok(()))))
                || metrics_end.is_some_and(|end| end.is_err());
            // Nobody listens any more when the time was up.
            done.send(failed).unwrap_or_default();
        };
        let flushed = std::thread::Builder::new().name("telemetry-flush".to_owned()).spawn(flush).is_ok()
            && matches!(tokio::time::timeout(FLUSH_TIME_MAX, ended).await, Ok(Ok(false)));
        if !flushed {
            tracing::warn!("the last telemetry could not be exported");
        }
    }
}
