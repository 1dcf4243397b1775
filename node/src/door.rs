//! The handshakes of the node's own gRPC service: bounded in number and time, each with the credentials as they are then.

use std::{io, time::Duration};

use futures::{Stream, StreamExt as _, future::ready};
use proto::identity::{Credentials, Refusal};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::TcpListenerStream;

/// Handshakes at a time.
const HANDSHAKES_MAX: usize = 32;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections that TLS lets in.
pub fn incoming(
    listener: TcpListener,
    credentials: Credentials,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + Send {
    TcpListenerStream::new(listener)
        .map(move |accepted| handshake(accepted, credentials.clone()))
        .buffer_unordered(HANDSHAKES_MAX)
        .filter_map(ready)
}

async fn handshake(
    accepted: io::Result<TcpStream>,
    credentials: Credentials,
) -> Option<io::Result<TlsStream<TcpStream>>> {
    let stream = match accepted {
        Ok(stream) => stream,
        // Out of descriptors, or the client has gone: the next one may do.
        Err(error) => {
            tracing::warn!(%error, "accept a gRPC connection");
            return None;
        }
    };
    let from = stream.peer_addr().ok();
    match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(credentials.server_config()).accept(stream)).await {
        Ok(Ok(stream)) => Some(Ok(stream)),
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
            let reason = tls.and_then(Refusal::of_tls).map_or("tls", Refusal::reason);
            tracing::warn!(?from, reason, refused = %error, "a TLS client was turned away");
            None
        }
        Err(_) => {
            tracing::warn!(?from, "a TLS client did not finish its handshake in time");
            None
        }
    }
}
