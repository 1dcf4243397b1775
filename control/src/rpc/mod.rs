//! The three gRPC services of a control server, on one mTLS listener: `raft` for its peers, `edge` for nodes,
//! `operator` for people.

pub mod admission;
mod again;
pub mod backup;
pub mod due;
pub mod edge;
pub mod gate;
pub mod learning;
pub mod listener;
pub mod members;
pub mod nodes;
pub mod operator;
pub mod policy;
pub mod quarantine;
pub mod raft;
pub mod refusals;
pub mod reputation;
pub mod restore;
pub mod touch;
pub mod watch;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    identity::{Identity, Role},
    mutation::{Change, Mutation, Outcome, Principal},
    wire,
};
use tokio::sync::watch as channel;
use tonic::{
    Request, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::{Server as GrpcServer, server::Router},
};

use self::gate::{Gate, Guard};
use crate::{
    bodies::{Bodies, BodyError, copies::Copies, peers::Keeper},
    raft::{Group, ProposeError, Server},
    state::store::StateStore,
    telemetry,
};

/// Largest message of a control server or an operator, in bytes: a batch of entries, or a policy with each known recipient.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest message of a node, in bytes: a record to hold with its recipients, a batch of what it has counted, or a chunk.
pub const NODE_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Largest headers of a request, in bytes; HTTP/2 gives up on a header block that goes on for longer.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// Requests that a connection may have reset before they were looked at; with more it is ended (CVE-2023-44487).
const RESETS_MAX: usize = 20;
/// Requests that one connection may have under way.
const REQUESTS_MAX: usize = 256;
/// No request may take longer; streams are only held to it until they begin.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A peer that does not answer a ping within twice this time is gone.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What the services share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The Raft group.
    pub group: Group,
    /// The cluster's id.
    pub cluster: Arc<str>,
    /// By what callers are judged.
    pub guard: Guard,
    /// Bodies on this disk and on those of the other members.
    pub copies: Copies,
    /// Becomes true when the server is to end: long polls and watches end then.
    pub stopping: channel::Receiver<bool>,
}

impl Shared {
    /// Proposes a change in the name of the caller's certificate.
    ///
    /// # Errors
    /// `ProposeError`.
    pub async fn propose(
        &self,
        id: proto::held::MutationId,
        caller: &Identity,
        change: Change,
    ) -> Result<Outcome, ProposeError> {
        let by = Principal { role: caller.role, name: caller.name.clone() };
        let began = Instant::now();
        let outcome = self.group.propose(Mutation { id, by, change }).await;
        let word = match &outcome {
            Ok(Outcome::Refused(_)) => "refused",
            Ok(_) => "done",
            Err(_) => "failed",
        };
        telemetry::committed(word, began.elapsed());
        outcome
    }

    /// Reads the state as applied here, off the runtime's threads: a read waits while a snapshot is written.
    ///
    /// # Errors
    /// When the read panics.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&StateStore) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let group = self.group.clone();
        let done = tokio::task::spawn_blocking(move || read(group.state())).await;
        done.map_err(|error| Status::internal(format!("read the state: {error}")))
    }

    /// Bodies on this disk.
    #[must_use]
    pub fn bodies(&self) -> &Bodies {
        &self.copies.bodies
    }

    /// The members that may keep copies of bodies for this server.
    #[must_use]
    pub fn keepers(&self) -> Vec<Keeper> {
        self.group.status().members.into_values().map(Keeper::from).collect()
    }
}

/// Which role may call which service: the whole matrix. A service that is not in it admits nobody.
#[must_use]
pub fn admitted(service: &str) -> Option<Role> {
    match service {
        wire::raft::raft_server::SERVICE_NAME => Some(Role::Control),
        wire::edge::edge_server::SERVICE_NAME => Some(Role::Node),
        wire::operator::operator_server::SERVICE_NAME => Some(Role::Operator),
        _ => None,
    }
}

/// A gRPC service as the generated code makes it.
pub trait Grpc:
    Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send + 'static>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Grpc for S where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send + 'static>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The three services, each behind its gate, with the limits of a connection.
#[must_use]
pub fn router(guard: &Guard, raft: impl Grpc, edge: impl Grpc, operator: impl Grpc) -> Router {
    GrpcServer::builder()
        .concurrency_limit_per_connection(REQUESTS_MAX)
        .max_concurrent_streams(u32::try_from(REQUESTS_MAX * 2).ok())
        .timeout(REQUEST_TIMEOUT)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        // A body of 50 MiB between sites 40 ms apart would crawl through the default window of 64 KiB.
        .initial_stream_window_size(Some(1024 * 1024))
        .initial_connection_window_size(Some(8 * 1024 * 1024))
        .add_service(Gate::new(raft, guard))
        .add_service(Gate::new(edge, guard))
        .add_service(Gate::new(operator, guard))
}

/// The three services of a server that takes part in a group.
#[must_use]
pub fn services(shared: &Shared) -> Router {
    let raft = wire::raft::raft_server::RaftServer::new(raft::RaftService::new(shared.clone()));
    let edge = wire::edge::edge_server::EdgeServer::new(edge::EdgeService::new(shared.clone()));
    let operator = wire::operator::operator_server::OperatorServer::new(operator::OperatorService::new(shared.clone()));
    router(
        &shared.guard,
        raft.max_decoding_message_size(MESSAGE_BYTES_MAX),
        edge.max_decoding_message_size(NODE_MESSAGE_BYTES_MAX),
        operator.max_decoding_message_size(MESSAGE_BYTES_MAX),
    )
}

/// Who calls, as the gate found it. Fails closed when a service is reached around the gate.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Identity, Status> {
    request.extensions().get::<Identity>().cloned().ok_or_else(|| Status::unauthenticated("nobody was identified"))
}

impl From<Server> for Keeper {
    fn from(Server { name, site, address }: Server) -> Self {
        Self { name, site, address }
    }
}

impl From<ProposeError> for Status {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader | ProposeError::Stopped(_) => Self::unavailable(error.to_string()),
            ProposeError::Unknown => Self::deadline_exceeded(error.to_string()),
        }
    }
}

impl From<BodyError> for Status {
    fn from(error: BodyError) -> Self {
        let text = error.to_string();
        match error {
            BodyError::Name | BodyError::Length { .. } | BodyError::Digest => Self::invalid_argument(text),
            BodyError::TooLarge => Self::resource_exhausted(text),
            BodyError::Missing => Self::not_found(text),
            BodyError::BrokenOff(_) => Self::aborted(text),
            BodyError::Store(_) => Self::unavailable(text),
        }
    }
}

/// What a long poll or a watch ends with when the server ends.
pub(crate) fn ending() -> Status {
    Status::unavailable("this control server is ending; ask another one")
}
