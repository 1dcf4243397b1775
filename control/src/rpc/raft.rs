//! The `raft` service: what control servers say to each other.

use proto::{
    codec,
    wire::raft::{BodyChunk, CopyRequest, CopyStored, Payload, raft_server::Raft},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, edge::BODY_TIMEOUT};
use crate::{
    bodies::{Sender, chunks},
    raft::RaftCall,
};

/// Answers peers.
#[derive(Clone, Debug)]
pub struct RaftService {
    shared: Shared,
}

impl RaftService {
    /// Over the group.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self { shared }
    }

    async fn answer(&self, call: RaftCall, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let from = caller(&request)?;
        let payload = request.into_inner();
        check(&payload, &self.shared.cluster).inspect_err(|status| {
            tracing::warn!(%from, ?call, refused = status.message(), "a Raft message was turned away");
        })?;
        let answer = self.shared.group.answer(call, &payload.data).await;
        let data = answer.map_err(|error| Status::internal(format!("{error:#}")))?;
        Ok(Response::new(Payload { cluster: payload.cluster, version: codec::VERSION, data }))
    }
}

/// A message of another cluster or another encoding never reaches Raft.
fn check(payload: &Payload, cluster: &str) -> Result<(), Status> {
    if payload.cluster != cluster {
        return Err(Status::failed_precondition("the message is of another cluster"));
    }
    if payload.version != codec::VERSION {
        return Err(Status::failed_precondition(format!(
            "the message has encoding version {}, this server reads {}",
            payload.version,
            codec::VERSION
        )));
    }
    Ok(())
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn append_entries(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::AppendEntries, request).await
    }

    async fn vote(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::Vote, request).await
    }

    async fn install_snapshot(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::InstallSnapshot, request).await
    }

    async fn forward(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::Forward, request).await
    }

    async fn put_copy(&self, request: Request<Streaming<BodyChunk>>) -> Result<Response<CopyStored>, Status> {
        let put = async {
            let body = self.shared.bodies.receive(Sender::Peer, request.into_inner()).await?;
            self.shared.bodies.put(&body).await
        };
        tokio::time::timeout(BODY_TIMEOUT, put)
            .await
            .map_err(|_| Status::deadline_exceeded("the copy did not come in time"))??;
        let (_, me) = self.shared.group.me();
        Ok(Response::new(CopyStored { server: me.name.clone(), site: me.site.clone() }))
    }

    type GetCopyStream = ReceiverStream<Result<BodyChunk, Status>>;

    async fn get_copy(&self, request: Request<CopyRequest>) -> Result<Response<Self::GetCopyStream>, Status> {
        let CopyRequest { digest, size_bytes } = request.into_inner();
        let body = self.shared.bodies.read(Sender::Peer, &digest, size_bytes).await?;
        Ok(Response::new(chunks::send(body)))
    }
}

#[cfg(test)]
mod tests {
    use proto::{codec, wire::raft::Payload};

    use super::check;

    #[test]
    fn a_message_of_another_cluster_or_encoding_is_refused() {
        let payload = |cluster: &str, version| Payload { cluster: cluster.into(), version, data: Vec::new() };
        assert!(check(&payload("c1", codec::VERSION), "c1").is_ok());
        assert!(check(&payload("c2", codec::VERSION), "c1").is_err());
        assert!(check(&payload("", codec::VERSION), "c1").is_err());
        assert!(check(&payload("c1", codec::VERSION + 1), "c1").is_err());
        assert!(check(&payload("c1", 0), "c1").is_err());
    }
}
