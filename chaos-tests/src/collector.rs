//! A fake OTLP collector: keeps the spans that it gets, or takes connections and never answers.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, async_trait, transport::Server};

/// A span, reduced to what tests look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Of its trace.
    pub trace_id: Vec<u8>,
    /// Its own id.
    pub span_id: Vec<u8>,
    /// Of the span above; empty for a root.
    pub parent: Vec<u8>,
    /// Text attributes.
    pub attributes: Vec<(String, String)>,
}

/// A collector that runs until it is dropped.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens, for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub address: SocketAddr,
    /// All spans so far.
    pub spans: watch::Receiver<Vec<Seen>>,
    serving: JoinHandle<()>,
}

struct Traces {
    spans: Arc<watch::Sender<Vec<Seen>>>,
}

fn seen(span: Span) -> Seen {
    let attributes = span.attributes.into_iter().filter_map(|attribute| {
        let Some(Value::StringValue(value)) = attribute.value.and_then(|value| value.value) else { return None };
        Some((attribute.key, value))
    });
    let attributes = attributes.collect();
    Seen { name: span.name, trace_id: span.trace_id, span_id: span.span_id, parent: span.parent_span_id, attributes }
}

#[async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.spans.send_modify(|all| all.extend(spans.map(seen)));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// One that answers.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> anyhow::Result<Self> {
        let (listener, address) = listener().await?;
        let (sender, spans) = watch::channel(Vec::new());
        let traces = TraceServiceServer::new(Traces { spans: Arc::new(sender) });
        let server = Server::builder().add_service(traces).serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(async move {
            if let Err(error) = server.await {
                eprintln!("the collector ended: {error}");
            }
        });
        Ok(Self { address, spans, serving })
    }

    /// One that takes connections and says nothing.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn hanging() -> anyhow::Result<Self> {
        let (listener, address) = listener().await?;
        let (sender, spans) = watch::channel(Vec::new());
        let serving = tokio::spawn(async move {
            let _sender = sender;
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
            }
        });
        Ok(Self { address, spans, serving })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn listener() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for OTLP")?;
    let address = listener.local_addr().context("a listener has an address")?;
    Ok((listener, address))
}
