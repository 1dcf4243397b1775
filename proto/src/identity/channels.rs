//! Connections to other servers, one an address, made again when the credentials were.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use tonic::transport::{Channel, Endpoint, Error};

use super::{Credentials, Role};

/// How many are kept: more than a cluster has control servers, so that it is reached only after many moves.
const CHANNELS_MAX: usize = 32;

/// Time-outs and the like of a connection.
type Shape = Box<dyn Fn(Endpoint) -> Endpoint + Send + Sync>;

/// Channels to servers of one role. A channel connects when it is first used. Once the credentials have been read again, the
/// next caller gets a new one; calls under way end on the old one.
pub struct Channels {
    credentials: Credentials,
    role: Role,
    shape: Shape,
    open: Mutex<HashMap<String, (u64, Channel)>>,
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("identity", &self.credentials.identity).finish_non_exhaustive()
    }
}

impl Channels {
    /// None yet, to servers that hold a certificate of `role`.
    #[must_use]
    pub fn new(
        credentials: Credentials,
        role: Role,
        shape: impl Fn(Endpoint) -> Endpoint + Send + Sync + 'static,
    ) -> Self {
        Self { credentials, role, shape: Box::new(shape), open: Mutex::default() }
    }

    /// The cluster in whose name they call.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.credentials.identity.cluster
    }

    /// The channel to `host:port`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the address is none.
    pub fn to(&self, address: &str) -> Result<Channel, Error> {
        let generation = self.credentials.generation();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_with, channel)) = open.get(address)
            && *made_with == generation
        {
            return Ok(channel.clone());
        }
        let endpoint = self.credentials.endpoint(address, self.role)?;
        let channel = (self.shape)(endpoint).connect_lazy();
        if open.len() >= CHANNELS_MAX {
            open.clear();
        }
        // Read before the endpoint was made: at worst the next call makes one more.
        open.insert(address.to_owned(), (generation, channel.clone()));
        Ok(channel)
    }
}
