//! A collector on loopback sees the metrics; one that never answers stops nobody.

use std::collections::BTreeMap;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    metrics::v1::{NumberDataPoint, metric::Data, number_data_point::Value},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::{Endpoints, Guard, Observed, instruments::observe_with, resource};

struct Collector(mpsc::Sender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(|_| Status::internal("the test is over"))?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Metric or metric/reason, and its number.
fn flat(request: &ExportMetricsServiceRequest) -> BTreeMap<String, i64> {
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let named = |name: &str, point: &NumberDataPoint| {
        let Some(Value::AsInt(value)) = point.value else { return None };
        let reason = point.attributes.first().and_then(|pair| pair.value.as_ref()?.value.clone());
        Some((reason.map_or_else(|| name.to_owned(), |reason| format!("{name} {reason:?}")), value))
    };
    let mut found = BTreeMap::new();
    for metric in scopes.flat_map(|scope| &scope.metrics) {
        let points = match &metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.as_slice(),
            Some(Data::Sum(sum)) => sum.data_points.as_slice(),
            Some(Data::Histogram(_) | Data::ExponentialHistogram(_) | Data::Summary(_)) | None => &[],
        };
        found.extend(points.iter().filter_map(|point| named(&metric.name, point)));
    }
    found
}

#[tokio::test]
async fn a_collector_receives_what_the_server_is_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, mut received) = mpsc::channel(8);
    let service = MetricsServiceServer::new(Collector(sender));
    let server =
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let endpoints = Endpoints { metrics: Some(endpoint), ..Endpoints::default() };
    let guard = Guard::start(resource("alpha", "north"), &endpoints).expect("a start");
    let meter = guard.metrics.as_ref().expect("metrics").meter("postern");
    observe_with(&meter, || Observed {
        applied_index: 17,
        leads: true,
        held: 3,
        refused: vec![("expired", 2), ("role", 5)],
    });
    guard.shutdown().await;
    let found = flat(&received.recv().await.expect("an export"));
    server.abort();
    let numbers: Vec<i64> = found.values().copied().collect();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(numbers, [17, 3, 1, 2, 5], "{names:?}");
    assert!(names[3].contains("postern.control.refused") && names[3].contains("expired"), "{names:?}");
}

#[tokio::test]
async fn a_collector_that_never_answers_stops_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = Some(format!("http://{}", listener.local_addr().expect("an address")));
    let endpoints = Endpoints { traces: endpoint.clone(), metrics: endpoint.clone(), logs: endpoint };
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    let guard = Guard::start(resource("alpha", "north"), &endpoints).expect("a start");
    observe_with(&guard.metrics.as_ref().expect("metrics").meter("postern"), Observed::default);
    guard.shutdown().await;
    silent.abort();
}

#[test]
fn telemetry_is_exported_only_where_a_variable_says_so() {
    let with = |variables: &'static [(&str, &str)]| {
        Endpoints::of(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    };
    assert_eq!(with(&[]), Endpoints::default());
    let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_SDK_DISABLED", "TRUE")];
    assert_eq!(
        Endpoints::of(|name| off.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned())),
        Endpoints::default()
    );
    let all = with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://b")]);
    assert_eq!((all.traces.as_deref(), all.logs.as_deref()), (Some("http://a"), Some("http://b")));
}
