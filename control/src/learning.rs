//! Learns the cluster's own model: the server that leads, when there are new lessons and the time has come. What is not worse than the
//! model in use is made durable in two sites and proposed; the state checks it once more and names it.
//!
//! A control server learns and not a node: nodes read hostile bytes, and what all of them shall use must not come from one of them.

use std::time::Duration;

use anyhow::Context as _;
use proto::{
    held::{BodyRef, MutationId},
    identity::Role,
    learning::{
        lesson::Lesson,
        model::Model,
        trial::{self, Figures},
    },
    mutation::{Change, Mutation, Outcome, Principal},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::{
    bodies::{
        Sender, chunks,
        copies::{Copies, LoadError},
        peers::Keeper,
    },
    raft::Group,
    state::lessons::Learning,
};

/// Time between two looks for new lessons.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same after one that came to nothing, as while not all servers know of learning.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Looks and learns until the server ends.
pub async fn run(copies: Copies, group: Group, mut stopping: watch::Receiver<bool>) {
    let ended = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
    let looks = async {
        loop {
            let pause = match look(&copies, &group).await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    tracing::warn!(problem = format!("{error:#}"), "learn from releases and reports");
                    AGAIN_AFTER
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = ended => {}
        () = looks => {}
    }
}

/// Learns once, if there is something to learn and this server leads.
async fn look(copies: &Copies, group: &Group) -> anyhow::Result<()> {
    if group.status().leader != Some(group.me().0) {
        return Ok(());
    }
    let (reading, now) = (group.clone(), group.time());
    let found = tokio::task::spawn_blocking(move || reading.state().curriculum(now)).await?;
    let Some((learning, lessons)) = found else { return Ok(()) };
    let members: Vec<Keeper> = group.status().members.into_values().map(Keeper::from).collect();
    let in_use = model_in_use(copies, &members, &learning).await?;
    let (model, figures) = learn(lessons, in_use).await?;
    let body = match figures.objection() {
        Some(objection) => {
            tracing::warn!(objection, "what was learnt is not taken into use");
            None
        }
        None => Some(store(copies, &members, &model).await?),
    };
    let change = Change::Learnt { lessons: learning.lessons, version: learning.learnt.version, figures, model: body };
    let by = Principal { role: Role::Control, name: group.me().1.name.clone() };
    match group.propose(Mutation { id: MutationId::fresh(), by, change }).await? {
        Outcome::Refused(refused) => Err(refused.into()),
        Outcome::Done | Outcome::PolicyApplied { .. } | Outcome::Leased(_) => Ok(()),
    }
}

/// The model in use; none also when it is lost or is no model, for then no new node can use it. One that cannot be had at the moment
/// is waited for: nodes use it, so a new one must be compared with it.
async fn model_in_use(copies: &Copies, members: &[Keeper], learning: &Learning) -> anyhow::Result<Option<Model>> {
    let Some(named) = learning.learnt.body.as_ref() else { return Ok(None) };
    let body = match copies.load(&named.digest, named.size_bytes, members).await {
        Err(LoadError::Nowhere) => {
            tracing::warn!(digest = named.digest, "the learnt model is lost");
            return Ok(None);
        }
        loaded => loaded.context("load the model in use")?,
    };
    let model = Model::read(body.bytes());
    Ok(model.inspect_err(|error| tracing::warn!(%error, "the learnt model cannot be read")).ok())
}

/// Some thousand lessons take a processor for seconds: beside the threads that carry heartbeats.
async fn learn(lessons: Vec<Lesson>, in_use: Option<Model>) -> anyhow::Result<(Model, Figures)> {
    Ok(tokio::task::spawn_blocking(move || trial::learn(lessons, in_use.as_ref())).await?)
}

async fn store(copies: &Copies, members: &[Keeper], model: &Model) -> anyhow::Result<BodyRef> {
    let bytes = bytes::Bytes::from(model.bytes());
    let digest = hex::encode(Sha256::digest(&bytes));
    let chunks = chunks::cut(digest.clone(), bytes.clone()).map(Ok::<_, tonic::Status>);
    let body = copies.bodies.receive(Sender::Peer, tokio_stream::iter(chunks)).await?;
    let servers = copies.store(&body, members).await?;
    Ok(BodyRef { digest, size_bytes: bytes.len() as u64, servers })
}
