//! Calls to other control servers: gRPC over mTLS, one lazily connected channel a server.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
        VoteResponse,
    },
};
use proto::{
    codec,
    identity::{Credentials, Role},
    wire::raft::{Payload, raft_client::RaftClient},
};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};

use super::{RaftCall, Server, types::TypeConfig};

/// Largest message in either direction, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that is silent for longer has its connection replaced.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Pause before calling a server again that could not be reached: about a heartbeat.
const RETRY_PAUSE: Duration = Duration::from_millis(150);

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
#[error("call control server {address}: {problem}")]
pub struct CallError {
    address: String,
    problem: String,
    /// Whether the request may have reached the other server all the same.
    pub maybe_arrived: bool,
}

/// Channels to the other servers, shared by all who call them.
#[derive(Debug)]
pub struct Peers {
    credentials: Credentials,
    /// At most one for each address that a membership has named.
    channels: Mutex<HashMap<String, Channel>>,
    /// Latest version of entries that this server knows, which it tells the others.
    knows: u32,
    /// The same of the others, by node id, as told with their last answer.
    told: Mutex<BTreeMap<u64, u32>>,
}

impl Peers {
    /// Calls in the name of these credentials, and tells that this server knows entries up to a version.
    #[must_use]
    pub fn new(credentials: Credentials, knows: u32) -> Self {
        Self { credentials, channels: Mutex::default(), knows, told: Mutex::default() }
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
            CallError { address, problem, maybe_arrived }
        };
        let channel = self.channel(server).map_err(|error| failed(describe(&error), false))?;
        let mut client = RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let cluster = self.credentials.identity.cluster.clone();
        let payload =
            Payload { cluster, version: codec::VERSION, data: codec::encode(&(to, question)), knows: self.knows };
        let answering = async {
            match call {
                RaftCall::AppendEntries => client.append_entries(payload).await,
                RaftCall::Vote => client.vote(payload).await,
                RaftCall::InstallSnapshot => client.install_snapshot(payload).await,
                RaftCall::Forward => client.forward(payload).await,
            }
        };
        let answer = match tokio::time::timeout(limit, answering).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(failed(describe(&status), !was_refused(&status))),
            Err(_) => return Err(failed(format!("no answer within {limit:?}"), true)),
        };
        if answer.version != codec::VERSION {
            return Err(failed(format!("its encoding is version {}, not {}", answer.version, codec::VERSION), true));
        }
        // Servers from before this was told know the first version.
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(to, answer.knows.max(1));
        codec::decode("an answer", &answer.data).map_err(|error| failed(error.to_string(), true))
    }

    fn channel(&self, server: &Server) -> Result<Channel, tonic::transport::Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&server.address) {
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(format!("https://{}", server.address))?
            .tls_config(self.credentials.client_tls(Role::Control))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        channels.insert(server.address.clone(), channel.clone());
        Ok(channel)
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

/// Makes openraft's clients.
#[derive(Clone, Debug)]
pub struct Network(pub Arc<Peers>);

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Server) -> Link {
        Link { peers: Arc::clone(&self.0), target, server: node.clone() }
    }
}

/// openraft's client of one server.
#[derive(Clone, Debug)]
pub struct Link {
    peers: Arc<Peers>,
    target: u64,
    server: Server,
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
        let answer: Result<Result<A, RaftError<u64, E>>, CallError> =
            self.peers.ask(to, call, question, option.hard_ttl()).await;
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
        self.raft(RaftCall::AppendEntries, &rpc, &option).await
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, Server, RaftError<u64, InstallSnapshotError>>> {
        self.raft(RaftCall::InstallSnapshot, &rpc, &option).await
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
