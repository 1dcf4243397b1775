//! The node's side of the edge service: the view as it moves, proposals, bodies, and work that is due.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::{
    held::{BodyRef, Held},
    mutation::{Change, Outcome},
    view::View,
};
use tokio::sync::watch;

/// Why the cluster did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No control server answered in time, or none has a leader.
    #[error("no control server can answer: {0}")]
    Away(String),
    /// It answered something that cannot be understood.
    #[error("a control server answered nonsense: {0}")]
    Nonsense(String),
}

/// A handle on the cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cluster {}

impl Cluster {
    /// The view, which only moves forward.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        todo!()
    }

    /// Since a control server in touch with its quorum last confirmed the view.
    #[must_use]
    pub fn view_age(&self) -> Duration {
        todo!()
    }

    /// Proposes a change under a fresh mutation id, at one server after the other under the same id, until one answers.
    ///
    /// # Errors
    /// When none did: the change may or may not come to be.
    pub async fn propose(&self, _change: Change) -> Result<Outcome, ClusterError> {
        todo!()
    }

    /// Makes a body durable in two sites.
    ///
    /// # Errors
    /// When it is not known to be.
    pub async fn put_body(&self, _body: Bytes) -> Result<BodyRef, ClusterError> {
        todo!()
    }

    /// Fetches a body and checks its length and digest.
    ///
    /// # Errors
    /// When no server has it right.
    pub async fn body(&self, _body: &BodyRef) -> Result<Bytes, ClusterError> {
        todo!()
    }

    /// Held messages that are due; waits for the first at most `wait`.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn due(&self, _max: u32, _wait: Duration) -> Result<Vec<Held>, ClusterError> {
        todo!()
    }
}
