//! The other control servers as keepers of bodies: sends them copies and fetches bodies from them.

use std::{sync::Arc, time::Duration};

use proto::{
    identity::{Channels, Credentials, Role},
    wire::raft::{CopyRequest, raft_client::RaftClient},
};
use tonic::{Code, transport::Channel};

use super::{Bodies, Body, BodyError, Sender, chunks};

/// How long a server may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server may take to receive a whole body and make it durable, or to send one.
const COPY_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a server may take to find a body on its disk and check it.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// A control server as the others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Name in its certificate.
    pub name: String,
    /// Where it stands.
    pub site: String,
    /// `host:port` of its gRPC listener.
    pub address: String,
}

/// Channels to the other control servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    channels: Arc<Channels>,
}

impl Peers {
    /// None yet; each channel is opened when it is first needed.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        let channels = Channels::new(credentials, Role::Control, |endpoint| {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(Duration::from_secs(10))
                .keep_alive_timeout(Duration::from_secs(5))
        });
        Self { channels: Arc::new(channels) }
    }

    fn client(&self, keeper: &Keeper) -> Result<RaftClient<Channel>, String> {
        let channel = self.channels.to(&keeper.address);
        channel.map(RaftClient::new).map_err(|error| format!("address {}: {error}", keeper.address))
    }

    /// Copies a body to a server; it is durable there when this returns its name.
    ///
    /// # Errors
    /// In words, with the server's name.
    pub async fn put(&self, keeper: &Keeper, body: &Body) -> Result<String, String> {
        let named = |problem: String| format!("{}: {problem}", keeper.name);
        let mut client = self.client(keeper).map_err(named)?;
        let chunks = chunks::cut(body.digest().to_owned(), body.bytes().clone()).map(Into::into);
        let put = client.put_copy(tokio_stream::iter(chunks));
        let stored = tokio::time::timeout(COPY_TIMEOUT, put)
            .await
            .map_err(|_| named(format!("no answer within {} s", COPY_TIMEOUT.as_secs())))?
            .map_err(|status| named(status.message().to_owned()))?
            .into_inner();
        // Another server, or one that stands elsewhere than the membership says, may be in our own site.
        if (&stored.server, &stored.site) == (&keeper.name, &keeper.site) {
            Ok(stored.server)
        } else {
            Err(named(format!("{} in site {} answered at its address", stored.server, stored.site)))
        }
    }

    /// Fetches a body from a server and checks it.
    ///
    /// # Errors
    /// When the server has not got it, or not right.
    pub async fn fetch(
        &self,
        keeper: &Keeper,
        bodies: &Bodies,
        digest: &str,
        size_bytes: u64,
    ) -> Result<Body, BodyError> {
        let broken = |problem: String| BodyError::BrokenOff(format!("{}: {problem}", keeper.name));
        let mut client = self.client(keeper).map_err(broken)?;
        let fetch = async {
            let request = CopyRequest { digest: digest.to_owned(), size_bytes };
            let found = tokio::time::timeout(FIND_TIMEOUT, client.get_copy(request)).await;
            let silent = |_| broken(format!("no answer within {} s", FIND_TIMEOUT.as_secs()));
            let chunks = found.map_err(silent)?.map_err(|status| {
                if status.code() == Code::NotFound { BodyError::Missing } else { broken(status.message().to_owned()) }
            })?;
            let body = bodies.receive(Sender::Node, chunks.into_inner()).await?;
            if body.digest() == digest && body.size_bytes() == size_bytes { Ok(body) } else { Err(BodyError::Digest) }
        };
        tokio::time::timeout(COPY_TIMEOUT, fetch)
            .await
            .map_err(|_| broken(format!("no answer within {} s", COPY_TIMEOUT.as_secs())))?
    }
}
