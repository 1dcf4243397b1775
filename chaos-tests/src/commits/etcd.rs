//! A single etcd, for comparison: `Put` over gRPC without TLS.

use std::path::Path;

use anyhow::Context as _;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{Ground, Store, work::Work};
use crate::{
    cluster::operator::until,
    ports,
    process::{Process, Program},
};

/// How many channels the clients share.
const CHANNELS: usize = 4;

/// `etcdserverpb.PutRequest`, as far as we need it.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`: that it comes is all that counts.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// etcd as a process.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    /// Its clients.
    pub puts: Puts,
}

/// Writes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Puts {
    channels: Vec<Channel>,
}

impl Etcd {
    /// Starts it and waits until it has taken a first write.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start(path: &Path, ground: &Ground) -> anyhow::Result<Self> {
        let folder = ground.fresh("etcd")?;
        let (client, peer) = (ports::reserve(None)?, ports::reserve(None)?);
        let (client_url, peer_url) = (format!("http://{}", client.address()), format!("http://{}", peer.address()));
        let data = folder.join("data");
        let arguments = [
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=default={peer_url}"),
            "--log-level=error".to_owned(),
        ];
        let program = Program {
            name: "etcd".into(),
            path: path.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            log: folder.join("etcd.log"),
        };
        drop((client, peer));
        let process = program.start_foreign(&ground.janitor)?;
        let endpoint = Endpoint::from_shared(client_url).context("make an endpoint")?.tcp_nodelay(true);
        let puts = Puts { channels: (0..CHANNELS).map(|_| endpoint.connect_lazy()).collect() };
        let answered = until("etcd answers", || async { puts.write(0, Work::Discard).await.ok() }).await;
        answered.with_context(|| program.log_end())?;
        Ok(Self { process, puts })
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }
}

impl Store for Puts {
    async fn write(&self, client: usize, work: Work) -> anyhow::Result<()> {
        let (key, value) = work.pair();
        let mut grpc = Grpc::new(self.channels[client % self.channels.len()].clone());
        grpc.ready().await.context("reach etcd")?;
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        grpc.unary(Request::new(PutRequest { key: key.into_bytes(), value }), path, codec).await.context("put")?;
        Ok(())
    }
}
