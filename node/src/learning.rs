//! The cluster's own model at this node: fetched when the view names another one, verified, and used. What cannot be had is left out
//! with a warning, and mail goes on.

use std::{sync::Arc, time::Duration};

use proto::{
    held::BodyRef,
    learning::{Learnt, MODEL_BYTES_MAX, model::Model},
    view::View,
};
use tokio::{sync::watch, time::timeout};

use crate::cluster::Cluster;

/// From one failed try to the next.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What a node has of the model that the view names.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// As the view counts it.
    pub version: u64,
    /// It, if there is one and this node has it.
    pub model: Option<Arc<Model>>,
    /// Why this node has it not.
    pub problem: Option<String>,
}

impl InUse {
    /// For whoever looks after the node.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let problem = self.problem.as_ref()?;
        Some(format!("version {} of the learnt model is not in use at this node: {problem}", self.version))
    }
}

/// What the policy of a view lets a node use.
fn named(view: &View) -> Arc<Learnt> {
    if view.settings.learning().enabled {
        Arc::clone(&view.learnt)
    } else {
        Arc::new(Learnt { body: None, ..Learnt::clone(&view.learnt) })
    }
}

/// Keeps what is in use up to date until nobody wants to know it any more.
pub async fn follow(cluster: Cluster, in_use: watch::Sender<InUse>) {
    let mut views = cluster.view();
    loop {
        let wanted = named(&views.borrow_and_update());
        let next = match &wanted.body {
            None => InUse { version: wanted.version, ..InUse::default() },
            Some(body) => match fetch(&cluster, body).await {
                Ok(model) => InUse { version: wanted.version, model: Some(Arc::new(model)), problem: None },
                Err(problem) => InUse { version: wanted.version, model: None, problem: Some(problem) },
            },
        };
        let waits = if next.problem.is_some() { AGAIN_AFTER } else { Duration::MAX };
        if let Some(warning) = next.warning() {
            tracing::warn!("{warning}");
        } else {
            tracing::info!(
                version = next.version,
                used = next.model.is_some(),
                "what the cluster has learnt is in use"
            );
        }
        in_use.send_replace(next);
        let moved = async { views.wait_for(|view| named(view) != wanted).await.is_err() };
        tokio::select! {
            // A view that names another one, or the next try.
            ended = timeout(waits, moved) => if ended == Ok(true) { return },
            () = in_use.closed() => return,
        }
    }
}

async fn fetch(cluster: &Cluster, body: &BodyRef) -> Result<Model, String> {
    if body.size_bytes > MODEL_BYTES_MAX {
        return Err("it is larger than any model".to_owned());
    }
    let bytes = cluster.body(body).await.map_err(|error| error.to_string())?;
    Model::read(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "learning_tests.rs"]
mod tests;
