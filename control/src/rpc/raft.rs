//! The `raft` service: what control servers say to each other.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use proto::{
    codec,
    identity::Identity,
    wire::raft::{BodyChunk, CopyRequest, CopyStored, Payload, SnapshotChunk, raft_server::Raft},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, caller, edge::BODY_TIMEOUT};
use crate::{
    bodies::{Bodies, Sender, chunks, peers::Keeper},
    raft::{Group, RaftCall},
};

/// How long a snapshot's first chunk may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

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
        self.admit(call, &from, &payload)?;
        let answer = self.shared.group.answer(call, &payload.data).await;
        let data = answer.map_err(|error| Status::internal(format!("{error:#}")))?;
        Ok(Response::new(Payload {
            cluster: payload.cluster,
            version: codec::VERSION,
            data,
            knows: self.shared.group.knows(),
        }))
    }

    /// What speaks for another cluster or another server never reaches Raft.
    fn admit(&self, call: RaftCall, from: &Identity, payload: &Payload) -> Result<(), Status> {
        check(payload, &self.shared.cluster).map_err(|status| self.turned_away("raft-cluster", from, status))?;
        let heard = self.shared.group.hear(&from.name, call, &payload.data);
        heard.map_err(|abuse| self.turned_away(abuse.reason(), from, Status::permission_denied(abuse.to_string())))
    }

    /// Bodies are for members.
    fn check_peer<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let from = caller(request)?;
        self.shared
            .group
            .admit_peer(&from.name)
            .map_err(|abuse| self.turned_away(abuse.reason(), &from, Status::permission_denied(abuse.to_string())))
    }

    fn turned_away(&self, reason: &'static str, from: &Identity, status: Status) -> Status {
        if let Some(unlogged) = self.shared.guard.refusals.count(reason) {
            tracing::warn!(%from, reason, unlogged, refused = status.message(), "a message of a peer was turned away");
        }
        status
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

/// Receives a copy and makes it durable here.
async fn store_copy(
    bodies: &Bodies,
    me: &Keeper,
    chunks: impl Stream<Item = Result<BodyChunk, Status>> + Unpin,
) -> Result<CopyStored, Status> {
    let put = async {
        let body = bodies.receive(Sender::Peer, chunks).await?;
        bodies.put(&body).await
    };
    tokio::time::timeout(BODY_TIMEOUT, put)
        .await
        .map_err(|_| Status::deadline_exceeded("the copy did not come in time"))??;
    Ok(CopyStored { server: me.name.clone(), site: me.site.clone() })
}

/// Reads a copy that is here and right.
async fn send_copy(bodies: &Bodies, request: CopyRequest) -> Result<ReceiverStream<Result<BodyChunk, Status>>, Status> {
    Ok(chunks::send(bodies.read(Sender::Peer, &request.digest, request.size_bytes).await?))
}

/// The one answer to a snapshot.
pub type SnapshotAnswer = Pin<Box<dyn Stream<Item = Result<Payload, Status>> + Send>>;

/// What the first chunk of a snapshot says.
pub(crate) async fn snapshot_head(
    chunks: &mut (impl Stream<Item = Result<SnapshotChunk, Status>> + Unpin),
) -> Result<Payload, Status> {
    let first = tokio::time::timeout(HEAD_TIMEOUT, chunks.next()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("nothing came"))?;
    let head = first.transpose()?.and_then(|chunk| chunk.head);
    head.ok_or_else(|| Status::invalid_argument("the first chunk of a snapshot has its head"))
}

/// Receives the rest when the answer is asked for; a sender who goes away takes all of it with him.
pub(crate) fn snapshot_answer(
    group: Group,
    head: Payload,
    chunks: impl Stream<Item = Result<SnapshotChunk, Status>> + Unpin + Send + 'static,
) -> SnapshotAnswer {
    Box::pin(futures::stream::once(async move {
        let data = group.receive_snapshot(&head.data, chunks).await;
        let data = data.map_err(|error| Status::aborted(format!("{error:#}")))?;
        Ok(Payload { cluster: head.cluster, version: codec::VERSION, data, knows: group.knows() })
    }))
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn append_entries(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::AppendEntries, request).await
    }

    async fn vote(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::Vote, request).await
    }

    type SnapshotStream = SnapshotAnswer;

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotAnswer>, Status> {
        let from = caller(&request)?;
        let mut chunks = request.into_inner();
        let head = snapshot_head(&mut chunks).await?;
        self.admit(RaftCall::Snapshot, &from, &head)?;
        let group = self.shared.group.clone();
        Ok(Response::new(snapshot_answer(group, head, chunks)))
    }

    async fn forward(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        self.answer(RaftCall::Forward, request).await
    }

    async fn put_copy(&self, request: Request<Streaming<BodyChunk>>) -> Result<Response<CopyStored>, Status> {
        self.check_peer(&request)?;
        Ok(Response::new(store_copy(self.shared.bodies(), &self.shared.copies.me, request.into_inner()).await?))
    }

    type GetCopyStream = ReceiverStream<Result<BodyChunk, Status>>;

    async fn get_copy(&self, request: Request<CopyRequest>) -> Result<Response<Self::GetCopyStream>, Status> {
        self.check_peer(&request)?;
        Ok(Response::new(send_copy(self.shared.bodies(), request.into_inner()).await?))
    }
}

#[cfg(test)]
mod tests;
