//! Logs, traces and metrics of a control server: JSON lines on stderr always, and OTLP over gRPC where the `OTEL_*` variables name
//! a collector. A collector that is away or hangs costs telemetry, never a commit: what its bounded queues cannot take is dropped.

mod instruments;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, logs::SdkLoggerProvider, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, Layer as _, Registry, filter::Targets, layer::SubscriberExt as _};

pub use self::instruments::{Observed, committed, observe};

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

/// Starts logs, traces and metrics of this process. `filter` is for stderr. Needs a tokio runtime; once a process.
///
/// Exports when `OTEL_EXPORTER_OTLP_ENDPOINT` or the variable of a signal is set and `OTEL_SDK_DISABLED` is not `true`.
///
/// # Errors
/// When an endpoint is not a URL, or logs were started before.
pub fn init(name: &str, site: &str, filter: EnvFilter) -> anyhow::Result<Guard> {
    let (subscriber, guard) = subscriber(resource(name, site), &Endpoints::of(variable), filter)?;
    tracing::subscriber::set_global_default(subscriber).context("start logs")?;
    if let Some(provider) = &guard.metrics {
        global::set_meter_provider(provider.clone());
    }
    Ok(guard)
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

fn resource(name: &str, site: &str) -> Resource {
    let own = [
        KeyValue::new("service.instance.id", name.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("postern.site", site.to_owned()),
    ];
    // The SDK has read OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES by now.
    let named = Resource::builder().build().get(&"service.name".into());
    let builder = Resource::builder().with_attributes(own);
    if named.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        builder.build()
    } else {
        builder.with_service_name("postern-control").build()
    }
}

fn subscriber(
    resource: Resource,
    endpoints: &Endpoints,
    filter: EnvFilter,
) -> anyhow::Result<(impl Subscriber + Send + Sync + use<>, Guard)> {
    let guard = Guard::start(resource, endpoints)?;
    let filter = INTERNALS[..3].iter().try_fold(filter, |filter, internal| {
        anyhow::Ok(filter.add_directive(format!("{internal}=off").parse().context("filter the exporter's own events")?))
    })?;
    let stderr = tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).with_filter(filter);
    let traces = guard.traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer().with_tracer(provider.tracer("postern")).with_filter(export_filter())
    });
    let logs =
        guard.logs.as_ref().map(|provider| OpenTelemetryTracingBridge::new(provider).with_filter(export_filter()));
    Ok((Registry::default().with(stderr).with(traces).with(logs), guard))
}

fn export_filter() -> Targets {
    let off = INTERNALS.map(|internal| (internal, LevelFilter::OFF));
    // Raft and the database tell their own story for debugging, span by span.
    let quiet = ["openraft", "sled"].map(|noisy| (noisy, LevelFilter::WARN));
    Targets::new().with_default(LevelFilter::INFO).with_targets(off).with_targets(quiet)
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
        // Threads that nobody joins: neither a hanging collector nor the runtime's end waits for them.
        let flush = move || {
            let Self { traces, metrics, logs } = self;
            let others = std::thread::spawn(move || {
                let traces = traces.is_none_or(|provider| provider.shutdown_with_timeout(FLUSH_TIME_MAX).is_ok());
                logs.is_none_or(|provider| provider.shutdown_with_timeout(FLUSH_TIME_MAX).is_ok()) && traces
            });
            let metrics = metrics.is_none_or(|provider| provider.shutdown_with_timeout(FLUSH_TIME_MAX).is_ok());
            // Nobody listens any more when the time was up.
            done.send(metrics && matches!(others.join(), Ok(true))).unwrap_or_default();
        };
        let flushed = std::thread::Builder::new().name("telemetry-flush".to_owned()).spawn(flush).is_ok()
            && matches!(tokio::time::timeout(FLUSH_TIME_MAX, ended).await, Ok(Ok(true)));
        if !flushed {
            tracing::warn!("the last telemetry could not be exported");
        }
    }
}
