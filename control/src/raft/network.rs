//! Calls to other control servers: gRPC over mTLS, one lazily connected channel a server.

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    OptionalSend, Snapshot,
    error::{Fatal, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use proto::{
    codec,
    identity::{Channels, Credentials, Role},
    wire::raft::{Payload, raft_client::RaftClient},
};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use tonic::transport::Channel;

use super::{
    RaftCall, Server,
    appends::UnderWay,
    transfer,
    types::{LogId, TypeConfig, Vote},
};

/// Largest message in either direction, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that is silent for longer has its connection replaced.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Pause before calling a server again that could not be reached: about a heartbeat.
const RETRY_PAUSE: Duration = Duration::from_millis(150);

/// A question larger than this goes by the bulk line, in bytes.
const BULK_BYTES: usize = 64 * 1024;

/// Two connections to each server, so that what is large and slow does not stand in the way of heartbeats and votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Line {
    Prompt,
    Bulk,
}

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
#[error("call control server {address}: {problem}")]
pub struct CallError {
    address: String,
    problem: String,
    /// The innermost cause alone.
    reason: String,
    /// Whether the request may have reached the other server all the same.
    pub maybe_arrived: bool,
}

impl CallError {
    /// Why, in a few words for operators: the innermost cause.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Of a task that ended without an answer.
    pub(super) fn broken(last: &LogId, error: &dyn Error) -> Self {
        let (address, problem) = (format!("(entries up to {last})"), error.to_string());
        Self { address, reason: problem.clone(), problem, maybe_arrived: true }
    }
}

/// Channels to the other servers, shared by all who call them.
#[derive(Debug)]
pub struct Peers {
    /// For what must not wait.
    prompt: Channels,
    /// For what takes long on the line.
    bulk: Channels,
    /// Latest version of entries that this server knows, which it tells the others.
    knows: u32,
    /// The same of the others, by node id, as told with their last answer.
    told: Mutex<BTreeMap<u64, u32>>,
}

impl Peers {
    /// Calls in the name of these credentials, and tells that this server knows entries up to a version.
    #[must_use]
    pub fn new(credentials: Credentials, knows: u32) -> Self {
        let channels = |credentials| {
            Channels::new(credentials, Role::Control, |endpoint| {
                endpoint
                    .connect_timeout(CONNECT_TIMEOUT)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(KEEP_ALIVE)
                    .keep_alive_timeout(KEEP_ALIVE)
                    .keep_alive_while_idle(true)
            })
        };
        let (prompt, bulk) = (channels(credentials.clone()), channels(credentials));
        Self { prompt, bulk, knows, told: Mutex::default() }
    }

    /// Latest version of entries that a server knows; `None` when it has not answered since this server started.
    #[must_use]
    pub fn knows(&self, id: u64) -> Option<u32> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// Asks a server and decodes its answer. The request names the node that it is meant for.
    ///
    /// # Errors
    /// When there is no answer within `limit`, or none that can be understood.
    pub async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        (to, server): (u64, &Server),
        call: RaftCall,
        question: &Q,
        limit: Duration,
    ) -> Result<A, CallError> {
        let failed = |problem: String, maybe_arrived| {
            let address = server.address.clone();
            CallError { address, reason: problem.clone(), problem, maybe_arrived }
        };
        let data = codec::encode(&(to, question));
        let line = if data.len() > BULK_BYTES { Line::Bulk } else { Line::Prompt };
        let mut client = self.client(server, line).map_err(|error| failed(describe(&error), false))?;
        let cluster = self.prompt.cluster().to_owned();
        let payload = Payload { cluster, version: codec::VERSION, data, knows: self.knows };
        let answering = async {
            match call {
                RaftCall::AppendEntries => client.append_entries(payload).await,
                RaftCall::Vote => client.vote(payload).await,
                RaftCall::Snapshot => Err(tonic::Status::unimplemented("a snapshot goes as a stream")),
                RaftCall::Forward => client.forward(payload).await,
            }
        };
        let answer = match tokio::time::timeout(limit, answering).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                let error = failed(describe(&status), !was_refused(&status));
                return Err(CallError { reason: innermost(&status), ..error });
            }
            Err(_) => return Err(failed(format!("no answer within {limit:?}"), true)),
        };
        if answer.version != codec::VERSION {
            return Err(failed(format!("its encoding is version {}, not {}", answer.version, codec::VERSION), true));
        }
        // Servers from before this was told know the first version.
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(to, answer.knows.max(1));
        codec::decode("an answer", &answer.data).map_err(|error| failed(error.to_string(), true))
    }

    fn client(&self, server: &Server, line: Line) -> Result<RaftClient<Channel>, tonic::transport::Error> {
        let channels = match line {
            Line::Prompt => &self.prompt,
            Line::Bulk => &self.bulk,
        };
        let client = RaftClient::new(channels.to(&server.address)?);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// An error with its causes: tonic's own text is only "transport error".
fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What an operator needs of it: the last cause, or what the other server said.
fn innermost(status: &tonic::Status) -> String {
    let mut innermost = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        innermost = error.to_string();
        cause = error.source();
    }
    innermost
}

/// Whether the connection itself was refused, so that nothing can have been sent.
fn was_refused(status: &tonic::Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Entries are on the line.
#[derive(Debug, thiserror::Error)]
#[error("the entries are still on their way")]
struct OnItsWay;

/// A snapshot did not get through.
#[derive(Debug, thiserror::Error)]
#[error("send a snapshot: {0}")]
struct NotSent(String);

/// Makes openraft's clients.
#[derive(Clone, Debug)]
pub struct Network(pub Arc<Peers>);

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Server) -> Link {
        Link { peers: Arc::clone(&self.0), target, server: node.clone(), under_way: None }
    }
}

/// openraft's client of one server.
#[derive(Debug)]
pub struct Link {
    peers: Arc<Peers>,
    target: u64,
    server: Server,
    /// Entries that openraft has stopped waiting for, but that are still on the line.
    under_way: Option<UnderWay>,
}

impl Link {
    /// Asks for something that the other side's Raft answers with a result.
    async fn raft<Q, A, E>(
        &self,
        call: RaftCall,
        question: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError<u64, Server, RaftError<u64, E>>>
    where
        Q: Serialize,
        A: DeserializeOwned,
        E: Error + DeserializeOwned,
    {
        let to = (self.target, &self.server);
        let answer = self.peers.ask(to, call, question, option.hard_ttl()).await;
        self.told(call, answer)
    }

    /// What openraft is told of an answer or of its absence.
    #[expect(clippy::result_large_err, reason = "openraft's traits want this error as it is")]
    fn told<A, E: Error>(
        &self,
        call: RaftCall,
        answer: Result<Result<A, RaftError<u64, E>>, CallError>,
    ) -> Result<A, RPCError<u64, Server, RaftError<u64, E>>> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(RPCError::RemoteError(RemoteError::new_with_node(self.target, self.server.clone(), error)))
            }
            // Everything else is tried again after a pause.
            Err(error) => {
                tracing::debug!(target_node = self.target, ?call, "{error}");
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
        }
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, Server, RaftError<u64>>> {
        let Some(last) = rpc.entries.last().map(|entry| entry.log_id) else {
            return self.raft(RaftCall::AppendEntries, &rpc, &option).await;
        };
        let (vote, prev_log_id, leader_commit) = (rpc.vote, rpc.prev_log_id, rpc.leader_commit);
        let mut under_way = match self.under_way.take().filter(|under_way| under_way.serves(&rpc, &last)) {
            Some(under_way) => under_way,
            None => UnderWay::start(&self.peers, (self.target, &self.server), rpc, last),
        };
        if let Some(answer) = under_way.answer(&last).await {
            return self.told(RaftCall::AppendEntries, answer);
        }
        self.under_way = Some(under_way);
        let heartbeat = AppendEntriesRequest::<TypeConfig> { vote, prev_log_id, leader_commit, entries: Vec::new() };
        match self.raft(RaftCall::AppendEntries, &heartbeat, &option).await? {
            AppendEntriesResponse::Success if prev_log_id.is_some() => {
                Ok(AppendEntriesResponse::PartialSuccess(prev_log_id))
            }
            // openraft cannot be told that not even the first entry has arrived; it asks again.
            AppendEntriesResponse::Success => Err(RPCError::Unreachable(Unreachable::new(&OnItsWay))),
            other @ (AppendEntriesResponse::PartialSuccess(_)
            | AppendEntriesResponse::Conflict
            | AppendEntriesResponse::HigherVote(_)) => Ok(other),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let unreachable = |error: anyhow::Error| {
            tracing::warn!(target_node = self.target, "send a snapshot: {error:#}; it will be sent anew");
            StreamingError::Unreachable(Unreachable::new(&NotSent(format!("{error:#}"))))
        };
        let client = self.peers.client(&self.server, Line::Bulk).map_err(|error| unreachable(error.into()))?;
        let to = (self.peers.prompt.cluster(), self.target);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = transfer::send(client, (to, self.peers.knows), (vote, &snapshot)) => sent.map(SnapshotResponse::new).map_err(unreachable),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, Server, RaftError<u64>>> {
        self.raft(RaftCall::Vote, &rpc, &option).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_PAUSE))
    }
}
