//! A restore into a new cluster, as an operator sends it: the steps that go through the log, and the bodies.

use std::time::Duration;

use futures::StreamExt as _;
use proto::{
    archive::{ArchiveAct, Origin},
    held::is_digest,
    mutation::{Change, Grounds},
    time::UnixMs,
    wire::operator::{BodyPart, BodyRestored, RestoreStepRequest, restore_step_request::Step},
};
use tonic::{Status, Streaming};

use super::{Shared, operator::grounds};
use crate::{
    bodies::{Sender, chunks::Chunk, copies::CopyError},
    state::store::StateStore,
};

/// How long a body may take from its first part until it is durable in two sites.
const BODY_TIMEOUT: Duration = Duration::from_secs(50);

/// What a step means for the state.
pub(super) fn step(request: RestoreStepRequest) -> Result<Change, Status> {
    let step = request.step.ok_or_else(|| Status::invalid_argument("a step is needed"))?;
    let (act, grounds) = match step {
        Step::Begin(it) => {
            if !is_digest(&it.archive) {
                return Err(Status::invalid_argument("an archive's SHA-256 has 64 lower-case hex digits"));
            }
            let at = UnixMs(it.at_ms);
            let origin = Origin { archive: it.archive, cluster: it.cluster, index: it.index, at, pieces: it.pieces };
            (ArchiveAct::Begin(origin), grounds(&it.why, &it.ticket)?)
        }
        Step::Keys(it) => {
            (ArchiveAct::Keys { archive: it.archive, piece: it.piece, pairs: it.pairs }, Grounds::default())
        }
        Step::End(it) => (ArchiveAct::End { archive: it.archive, numbers: it.numbers }, grounds(&it.why, &it.ticket)?),
    };
    Ok(Change::Archive { act, grounds })
}

impl From<BodyPart> for Chunk {
    fn from(BodyPart { digest, size_bytes, data }: BodyPart) -> Self {
        Self { digest, size_bytes, data }
    }
}

/// Takes a body that the state being restored needs, and makes it durable in two sites.
pub(super) async fn body(shared: &Shared, parts: Streaming<BodyPart>) -> Result<BodyRestored, Status> {
    if shared.read(StateStore::restoring).await?.is_none() {
        // The server may be a little behind.
        shared.group.linearize().await?;
        if shared.read(StateStore::restoring).await?.is_none() {
            return Err(Status::failed_precondition("no restore is under way: bodies come with one"));
        }
    }
    let put = async {
        let body = shared.bodies().receive(Sender::Node, parts.boxed()).await.map_err(CopyError::Here)?;
        shared.copies.store(&body, &shared.keepers()).await
    };
    let servers = tokio::time::timeout(BODY_TIMEOUT, put)
        .await
        .map_err(|_| Status::deadline_exceeded("the body was not durable in two sites in time"))??;
    Ok(BodyRestored { servers })
}
