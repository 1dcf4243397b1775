//! The `edge` service: all that a node may do.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use proto::{
    codec,
    held::MutationId,
    mutation::Change,
    time::UnixMs,
    wire::edge::{
        BodyChunk, BodyRequest, BodyStored, DueRequest, DueResponse, ProposeRequest, ProposeResponse, ViewUpdate,
        WatchRequest, edge_server::Edge,
    },
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Shared, caller,
    due::due,
    listener::Peer,
    touch::Touch,
    watch::{Feed, updates},
};
use crate::{
    bodies::{
        Sender, chunks,
        copies::{CopyError, LoadError},
    },
    raft::about::Seen,
};

/// How long a body may take from its first chunk until it is durable in two sites, or until it is found.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest word of a node about itself, in characters.
const SAID_CHARS_MAX: usize = 64;

/// Answers nodes.
#[derive(Clone, Debug)]
pub struct EdgeService {
    shared: Shared,
    touch: Touch,
}

impl EdgeService {
    /// Over the group.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self { shared, touch: Touch::default() }
    }
}

/// What a node says of itself, in bounds: it goes to other servers and to operators' screens.
fn said(text: String) -> String {
    text.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect()
}

/// Whether the view here is the quorum's: a leader may have lost it, and a follower may follow such a leader or lag behind, so
/// the quorum is asked what is committed.
async fn in_touch(shared: Shared, touch: Touch) -> bool {
    shared.group.in_touch() && touch.is_fresh(async { shared.group.linearize().await.is_ok() }).await
}

impl From<CopyError> for Status {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::OneSite { .. } | CopyError::NoneTook(_) => Self::unavailable(error.to_string()),
            CopyError::Here(error) => error.into(),
        }
    }
}

impl From<LoadError> for Status {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Asked(error) => error.into(),
            LoadError::Nowhere => Self::not_found(error.to_string()),
            LoadError::NotNow(_) => Self::unavailable(error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Edge for EdgeService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<ViewUpdate, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (viewing, touching, touch) = (self.shared.clone(), self.shared.clone(), self.touch.clone());
        let feed = Feed {
            applied: self.shared.group.applied(),
            stopping: self.shared.stopping.clone(),
            part: Arc::new(move |cursor| {
                let shared = viewing.clone();
                Box::pin(async move { shared.read(move |state| state.view_part(&cursor)).await })
            }),
            in_touch: Arc::new(move || Box::pin(in_touch(touching.clone(), touch.clone()))),
        };
        let name = caller(&request)?.name;
        let leaf = request.extensions().get::<Peer>().and_then(|peer| peer.leaf.as_ref().as_ref().ok().cloned());
        let certificate_until = leaf.map_or(UnixMs(0), |leaf| leaf.not_after);
        let WatchRequest { from_index, site, version } = request.into_inner();
        let seen =
            Seen { name, site: said(site), version: said(version), since: UnixMs::now(), index: 0, certificate_until };
        let watching = self.shared.group.watchers().begin(seen);
        let updates = updates(feed, from_index).inspect(move |update| {
            if let Ok(update) = update {
                watching.sent(update.index);
            }
        });
        Ok(Response::new(Box::pin(updates)))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let caller = caller(&request)?;
        let (id, change): (MutationId, Change) = codec::decode("proposal", &request.into_inner().proposal)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !change.allowed_for(caller.role) {
            tracing::warn!(%caller, "a node proposed what only an operator may");
            return Err(Status::permission_denied(format!("a {} may not propose this", caller.role)));
        }
        let outcome = self.shared.propose(id, &caller, change).await?;
        Ok(Response::new(ProposeResponse { outcome: codec::encode(&outcome) }))
    }

    async fn put_body(&self, request: Request<Streaming<BodyChunk>>) -> Result<Response<BodyStored>, Status> {
        let (copies, caller) = (&self.shared.copies, caller(&request)?);
        let put = async {
            let (name, chunks) = (Some(caller.name.as_str()), request.into_inner());
            let body = copies.bodies.receive_from(Sender::Node, name, chunks).await.map_err(CopyError::Here)?;
            copies.store(&body, &self.shared.keepers()).await
        };
        let servers = tokio::time::timeout(BODY_TIMEOUT, put)
            .await
            .map_err(|_| Status::deadline_exceeded("the body was not durable in two sites in time"))??;
        Ok(Response::new(BodyStored { servers }))
    }

    type GetBodyStream = ReceiverStream<Result<BodyChunk, Status>>;

    async fn get_body(&self, request: Request<BodyRequest>) -> Result<Response<Self::GetBodyStream>, Status> {
        let BodyRequest { digest, size_bytes } = request.into_inner();
        let members = self.shared.keepers();
        let load = self.shared.copies.load(&digest, size_bytes, &members);
        let body = tokio::time::timeout(BODY_TIMEOUT, load)
            .await
            .map_err(|_| Status::deadline_exceeded("no server had the body in time"))??;
        Ok(Response::new(chunks::send(body)))
    }

    async fn due(&self, request: Request<DueRequest>) -> Result<Response<DueResponse>, Status> {
        let DueRequest { max, wait_ms } = request.into_inner();
        let held = due(
            self.shared.group.applied(),
            self.shared.stopping.clone(),
            // A lease is given by log time: what is due by a wrong clock only would be refused, again and again.
            || self.shared.group.time(),
            |now, max| self.shared.read(move |state| (state.due(now, max), state.next_due(now))),
            max,
            wait_ms,
        )
        .await?;
        Ok(Response::new(DueResponse { held: held.iter().map(codec::encode).collect() }))
    }
}
