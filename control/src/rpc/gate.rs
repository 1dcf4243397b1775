//! The gate in front of each service: nobody comes in without a certificate of this cluster with the service's role,
//! and each one turned away is logged.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use proto::identity::{Identity, Role};
use tonic::{
    Request, Status,
    body::Body,
    codegen::{Service, http},
    metadata::MetadataMap,
    server::NamedService,
};

use super::{Grpc, admitted};

/// Longest part of a method's path that is logged, in characters.
const LOGGED_PATH_CHARS: usize = 100;

/// A service behind its gate.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    role: Option<Role>,
    cluster: Arc<str>,
}

impl<S: Grpc> Gate<S> {
    /// The role is the one that `admitted` gives for the service's name.
    #[must_use]
    pub fn new(inner: S, cluster: &Arc<str>) -> Self {
        Self { inner, role: admitted(S::NAME), cluster: Arc::clone(cluster) }
    }
}

impl<S> Gate<S> {
    fn admit(&self, request: &http::Request<Body>) -> Result<Identity, Status> {
        let peer = Request::from_parts(MetadataMap::new(), request.extensions().clone(), ());
        let allowed: Vec<Role> = self.role.into_iter().collect();
        Identity::of_request(&peer, &self.cluster, &allowed).inspect_err(|status| {
            let certificates = peer.peer_certs();
            let holder = certificates.as_ref().and_then(|all| all.first()).map(|leaf| Identity::of_certificate(leaf));
            let peer_identity = match holder {
                Some(Ok(identity)) => identity.to_string(),
                Some(Err(error)) => error.to_string(),
                None => "no certificate".to_owned(),
            };
            let method: String = request.uri().path().chars().take(LOGGED_PATH_CHARS).collect();
            let from = peer.remote_addr();
            tracing::warn!(peer_identity, ?from, method, refused = status.message(), "a caller was turned away");
        })
    }
}

impl<S: Grpc> Service<http::Request<Body>> for Gate<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.admit(&request) {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

#[cfg(test)]
pub(crate) mod tests;
