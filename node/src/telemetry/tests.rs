//! A collector on loopback sees what was emitted; one that never answers stops nobody.

use std::collections::BTreeMap;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::any_value::Value,
    metrics::v1::{metric::Data, number_data_point::Value as Number},
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::{ClamdSeen, Endpoints, observe_clamds, observe_openers, observe_scans, resource, subscriber};

struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(|_| Status::internal("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

struct Gauges(mpsc::Sender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Gauges {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(|_| Status::internal("the test is over"))?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn traces_to(listener: &TcpListener) -> Endpoints {
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    Endpoints { traces: Some(endpoint), ..Endpoints::default() }
}

#[tokio::test]
async fn a_collector_receives_a_transaction_with_its_stages() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoints = traces_to(&listener);
    let (sender, mut received) = mpsc::channel(8);
    let service = TraceServiceServer::new(Collector(sender));
    let server = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);

    let (subscriber, guard) = subscriber(resource("postern-node", "n1", "north"), &endpoints).expect("a start");
    tracing::subscriber::with_default(subscriber, || {
        let transaction = tracing::info_span!("transaction", id = "01J");
        let _entered = transaction.enter();
        for stage in ["parse", "gather"] {
            tracing::info_span!("stage", otel.name = stage).in_scope(|| tracing::debug!("not exported"));
        }
    });
    guard.shutdown().await;
    let request = received.recv().await.expect("an export");
    server.abort();

    let [spans] = request.resource_spans.as_slice() else { panic!("one resource: {request:?}") };
    let attributes: BTreeMap<&str, &str> = spans
        .resource
        .iter()
        .flat_map(|resource| &resource.attributes)
        .filter_map(|pair| {
            let Value::StringValue(text) = pair.value.as_ref()?.value.as_ref()? else { return None };
            Some((pair.key.as_str(), text.as_str()))
        })
        .collect();
    let own = ["service.name", "service.instance.id", "postern.site"].map(|key| attributes.get(key).copied());
    assert_eq!(own, [Some("postern-node"), Some("n1"), Some("north")]);
    let spans: Vec<&Span> = spans.scope_spans.iter().flat_map(|scope| &scope.spans).collect();
    let transaction = spans.iter().find(|span| span.name == "transaction").expect("the transaction");
    let mut children: Vec<&str> = Vec::new();
    for span in &spans {
        if span.parent_span_id == transaction.span_id && span.trace_id == transaction.trace_id {
            children.push(&span.name);
        }
    }
    assert_eq!(children, ["parse", "gather"]);
}

#[tokio::test]
async fn a_collector_receives_how_each_clamd_stands_and_what_openers_did() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoints = Endpoints { metrics: traces_to(&listener).traces, ..Endpoints::default() };
    let (sender, mut received) = mpsc::channel(8);
    let service = MetricsServiceServer::new(Gauges(sender));
    let server = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let (_, guard) = subscriber(resource("postern-node", "n1", "north"), &endpoints).expect("a start");
    let meter = guard.metrics.as_ref().expect("an export of metrics").meter("postern");
    let seen = |clamd: &str, in_service, database_age_s: Option<u64>| {
        let database = database_age_s.map(|_| 27_810);
        ClamdSeen { clamd: clamd.to_owned(), in_service, database, database_age_s }
    };
    observe_clamds(&meter, move || vec![seen("a", true, Some(700_000)), seen("b", false, None)]);
    observe_scans(&meter, || [("asked", 5), ("remembered", 4), ("broke_off", 3), ("given_up", 0)]);
    observe_openers(&meter, || vec![("opened", 9), ("late", 1)]);
    guard.shutdown().await;
    let request = received.recv().await.expect("an export");
    server.abort();

    let metrics = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
    let mut told = Vec::new();
    for metric in metrics {
        let points = match &metric.data {
            Some(Data::Gauge(gauge)) => &gauge.data_points,
            Some(Data::Sum(sum)) => &sum.data_points,
            other => panic!("{other:?}"),
        };
        for point in points {
            let of = point.attributes[0].value.as_ref().and_then(|value| value.value.clone());
            let (Some(Value::StringValue(of)), Some(Number::AsInt(number))) = (of, point.value) else {
                panic!("{point:?}")
            };
            told.push((metric.name.strip_prefix("postern.").expect("its name"), of, number));
        }
    }
    told.sort();
    let expected = [
        ("openers.messages", "late", 1),
        ("openers.messages", "opened", 9),
        ("virus.clamd.in_service", "a", 1),
        ("virus.clamd.in_service", "b", 0),
        ("virus.scans", "asked", 5),
        ("virus.scans", "broke_off", 3),
        ("virus.scans", "given_up", 0),
        ("virus.scans", "remembered", 4),
        ("virus.signatures", "a", 27_810),
        ("virus.signatures.age", "a", 700_000),
    ];
    assert_eq!(told, expected.map(|(name, of, number)| (name, of.to_owned(), number)));
}

#[tokio::test]
async fn a_collector_that_never_answers_stops_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = traces_to(&listener).traces;
    let endpoints = Endpoints { traces: endpoint.clone(), logs: endpoint, metrics: None };
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    let (subscriber, guard) = subscriber(resource("postern-node", "n1", "north"), &endpoints).expect("a start");
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..10_000 {
            tracing::info_span!("transaction", number).in_scope(|| {});
        }
    });
    guard.shutdown().await;
    silent.abort();
}

#[test]
fn telemetry_is_exported_only_where_a_variable_says_so() {
    let with = |variables: &'static [(&str, &str)]| {
        Endpoints::of(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    };
    assert_eq!(with(&[]), Endpoints::default());
    let all = with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://b")]);
    assert_eq!(all.traces.as_deref(), Some("http://a"));
    assert_eq!(all.logs.as_deref(), Some("http://b"));
    assert_eq!(
        with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_SDK_DISABLED", "TRUE")]),
        Endpoints::default()
    );
    let traces_only = with(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a")]);
    assert!(traces_only.traces.is_some() && traces_only.metrics.is_none() && traces_only.logs.is_none());
}
