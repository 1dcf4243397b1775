//! The node's side of the edge service: the view as it moves, proposals, bodies, and work that is due.

mod bodies;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
mod watching;

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use proto::{
    codec,
    held::{BodyRef, Held, MutationId},
    identity::{Channels, Credentials, Role},
    mutation::{Change, Outcome},
    view::View,
    wire::edge::{DueRequest, ProposeRequest, WatchRequest, edge_client::EdgeClient},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::{Code, Status, transport::Channel};

use crate::limits::Limits;

/// The largest message that a control server may send: a part of a view that is one department with all that a policy may
/// hold (8 MiB).
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Between two rounds over all servers, doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why the cluster did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No control server answered in time, or none has a leader.
    #[error("no control server can answer: {0}")]
    Away(String),
    /// It answered something that cannot be understood.
    #[error("a control server answered nonsense: {0}")]
    Nonsense(String),
    /// The list of control servers cannot be used.
    #[error("control server {server:?}: {problem}")]
    Server {
        /// As configured.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// One control server and the way to it.
#[derive(Clone)]
struct Server {
    name: String,
    channels: Arc<Channels>,
}

impl Server {
    /// A client on the channel that the credentials in use have made. It connects when it is used.
    fn client(&self) -> Result<EdgeClient<Channel>, Status> {
        let channel = self.channels.to(&self.name).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(EdgeClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }
}

/// A handle on the cluster. Cheap to clone. The watch ends when the last handle and the last receiver of the view are gone.
#[derive(Clone)]
pub struct Cluster {
    servers: Arc<[Server]>,
    /// Index of the server that answered last.
    preferred: Arc<AtomicUsize>,
    view: watch::Receiver<Arc<View>>,
    /// When a server in touch with its quorum last confirmed the view; nothing before the first time.
    confirmed: watch::Receiver<Option<Instant>>,
    control_timeout: Duration,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<&str> = self.servers.iter().map(|server| server.name.as_str()).collect();
        f.debug_struct("Cluster").field("servers", &servers).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A handle on the cluster behind these servers (`host:port`), which are tried in order; starts the watch. They are told
    /// the node's site. Channels
    /// connect when they are first used. Needs a tokio runtime.
    ///
    /// # Errors
    /// When there is no server or one is not `host:port`.
    pub fn connect(
        credentials: Credentials,
        servers: Vec<String>,
        site: &str,
        limits: &Limits,
    ) -> Result<Self, ClusterError> {
        let fault = |server: &str, problem: String| ClusterError::Server { server: server.to_owned(), problem };
        if servers.is_empty() {
            return Err(fault("", "at least one is needed".to_owned()));
        }
        let channels = Arc::new(channels(credentials, limits));
        let servers: Arc<[Server]> = servers
            .into_iter()
            .map(|name| {
                let server = Server { name, channels: Arc::clone(&channels) };
                match server.client() {
                    Ok(_) => Ok(server),
                    Err(status) => Err(fault(&server.name, format!("{}: write host:port", status.message()))),
                }
            })
            .collect::<Result<_, ClusterError>>()?;
        let (view_to, view) = watch::channel(Arc::new(View::empty()));
        let (confirmed_to, confirmed) = watch::channel(None);
        let request = WatchRequest { site: site.to_owned(), version: env!("CARGO_PKG_VERSION").into(), from_index: 0 };
        tokio::spawn(watching::follow(Arc::clone(&servers), request, view_to, confirmed_to, limits.watch_quiet_max));
        let preferred = Arc::new(AtomicUsize::new(0));
        Ok(Self { servers, preferred, view, confirmed, control_timeout: limits.control_timeout })
    }

    /// The view, which only moves forward.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Waits, however long it takes, for the first whole view that a server in touch with its quorum confirms. Its policy version is zero when no policy was applied yet.
    pub async fn first_view(&self) -> Arc<View> {
        let mut confirmed = self.confirmed.clone();
        if confirmed.wait_for(Option::is_some).await.is_err() {
            // The watch only ends with its last handle, and `self` is one.
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.view.borrow())
    }

    /// Since a control server in touch with its quorum last confirmed the view; `Duration::MAX` before the first.
    #[must_use]
    pub fn view_age(&self) -> Duration {
        let confirmed = *self.confirmed.borrow();
        confirmed.map_or(Duration::MAX, |at| at.elapsed())
    }

    /// Proposes a change under a fresh mutation id, at one server after the other under the same id, until one answers or
    /// three times `Limits::control_timeout` have passed.
    ///
    /// # Errors
    /// When none did: the change may or may not come to be.
    pub async fn propose(&self, change: Change) -> Result<Outcome, ClusterError> {
        let proposal = codec::encode(&(MutationId::fresh(), change));
        let answer = self
            .ask(self.control_timeout, 3 * self.control_timeout, |mut client| {
                let request = ProposeRequest { proposal: proposal.clone() };
                async move { client.propose(request).await }
            })
            .await?;
        codec::decode("outcome", &answer.into_inner().outcome)
            .map_err(|error| ClusterError::Nonsense(error.to_string()))
    }

    /// Makes a body durable in two sites.
    ///
    /// # Errors
    /// When it is not known to be.
    pub async fn put_body(&self, body: Bytes) -> Result<BodyRef, ClusterError> {
        bodies::put(self, body).await
    }

    /// Fetches a body and checks its length and digest.
    ///
    /// # Errors
    /// When no server has it right.
    pub async fn body(&self, body: &BodyRef) -> Result<Bytes, ClusterError> {
        bodies::fetch(self, body).await
    }

    /// Held messages that are due; waits for the first at most `wait`.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn due(&self, max: u32, wait: Duration) -> Result<Vec<Held>, ClusterError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let patience = self.control_timeout.saturating_add(wait);
        let answer = self
            .ask(patience, patience, |mut client| async move { client.due(DueRequest { max, wait_ms }).await })
            .await?;
        let records = answer.into_inner().held;
        if records.len() > usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(ClusterError::Nonsense(format!("{} records are due, {max} were asked for", records.len())));
        }
        let decode = |bytes: &Vec<u8>| codec::decode("held record", bytes);
        records.iter().map(decode).collect::<Result<_, _>>().map_err(|error| ClusterError::Nonsense(error.to_string()))
    }

    /// Asks the servers in turn, the one that answered last first, each for at most `each`, round after round until one
    /// answers or `total` has passed. A refusal that no other try can cure ends it after one round.
    async fn ask<T, F, A>(&self, each: Duration, total: Duration, call: F) -> Result<T, ClusterError>
    where
        F: Fn(EdgeClient<Channel>) -> A,
        A: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + total;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut problem = String::new();
        for round in 0.. {
            let mut curable = false;
            for step in 0..self.servers.len() {
                let at = (first + step) % self.servers.len();
                let server = &self.servers[at];
                let left = deadline.saturating_duration_since(Instant::now()).min(each);
                let called = async { call(server.client()?).await };
                match timeout(left, called).await {
                    Ok(Ok(answer)) => {
                        self.preferred.store(at, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Ok(Err(status)) => {
                        curable |= is_curable(status.code());
                        problem = format!("{}: {}: {}", server.name, status.code(), status.message());
                    }
                    Err(_) => {
                        curable = true;
                        // The last try may have been cut short; what was said before tells more.
                        if problem.is_empty() || left == each {
                            problem = format!("{}: no answer in {} ms", server.name, left.as_millis());
                        }
                    }
                }
                tracing::debug!(problem, "a control server did not answer a call");
                if Instant::now() >= deadline {
                    return Err(ClusterError::Away(problem));
                }
            }
            if !curable {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(pause(round).min(left)).await;
        }
        Err(ClusterError::Away(problem))
    }
}

fn channels(credentials: Credentials, limits: &Limits) -> Channels {
    let (control_timeout, watch_quiet_max) = (limits.control_timeout, limits.watch_quiet_max);
    Channels::new(credentials, Role::Control, move |endpoint| {
        endpoint
            .connect_timeout(control_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(watch_quiet_max)
            .keep_alive_timeout(control_timeout)
            .keep_alive_while_idle(true)
    })
}

/// Whether a later try may be answered otherwise: not when it is about who we are or what we ask.
fn is_curable(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::DataLoss
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

/// Before the next round: doubled each time up to two seconds, and between half and all of it, so that nodes which lost
/// the same server do not come back at the same moment.
fn pause(round: u32) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(round)).min(PAUSE_MAX);
    let share = u32::try_from(ulid::Ulid::new().random() % 512).unwrap_or_default() + 512;
    longest * share / 1024
}
