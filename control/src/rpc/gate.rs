//! The gate in front of each service: nobody comes in without a certificate of this cluster, valid now, with the service's
//! role, nor with more under way than a caller may have. Each one turned away is counted and logged.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, Either, FutureExt as _, Ready, ready};
use http_body::{Frame, SizeHint};
use proto::{
    identity::{Credentials, Identity, Refusal, Role},
    time::UnixMs,
};
use tonic::{
    Status,
    body::Body,
    codegen::{Body as HttpBody, Bytes, Service, http},
    server::NamedService,
};

use super::{
    Grpc,
    admission::{Admission, Place},
    admitted,
    listener::{Call, Peer},
    refusals::Refusals,
};

/// Longest part of a method's path that is logged, in characters.
const LOGGED_PATH_CHARS: usize = 100;

/// By what a server judges its callers, and where it counts those turned away. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Who this server is, whom it trusts, and who is revoked.
    pub credentials: Credentials,
    /// Whom it turned away.
    pub refusals: Refusals,
}

impl Guard {
    /// With nobody turned away yet.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, refusals: Refusals::default() }
    }
}

/// A service behind its gate.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    role: Option<Role>,
    guard: Guard,
    places: Admission,
}

/// Requests under way in a service: in all, and of one caller. Services do not share them, so Raft never waits for nodes or
/// people. A stream counts until its end.
const fn requests_max(role: Option<Role>) -> (usize, usize) {
    match role {
        Some(Role::Control) => (1024, 256),
        Some(Role::Node) => (4096, 256),
        Some(Role::Operator) => (128, 32),
        None => (0, 0),
    }
}

impl<S: Grpc> Gate<S> {
    /// The role is the one that `admitted` gives for the service's name.
    #[must_use]
    pub fn new(inner: S, guard: &Guard) -> Self {
        let role = admitted(S::NAME);
        let (max, each_max) = requests_max(role);
        Self { inner, role, guard: guard.clone(), places: Admission::new(max, each_max) }
    }
}

impl<S> Gate<S> {
    /// Whether it comes in, and what it holds while it is inside.
    fn admit(&self, request: &http::Request<Body>) -> Result<(Identity, Inside), Status> {
        let peer = request.extensions().get::<Peer>();
        let told = |reason, status: &Status| {
            let Some(unlogged) = self.guard.refusals.count(reason) else { return };
            let peer_identity = peer.map_or_else(|| "no certificate".to_owned(), Peer::to_string);
            let method: String = request.uri().path().chars().take(LOGGED_PATH_CHARS).collect();
            let from = peer.and_then(|peer| peer.from);
            tracing::warn!(
                peer_identity,
                ?from,
                method,
                reason,
                unlogged,
                refused = status.message(),
                "a caller was turned away"
            );
        };
        let known = peer.ok_or(Refusal::NoCertificate).and_then(|peer| {
            let leaf = peer.leaf.as_ref().as_ref().map_err(|refusal| *refusal)?;
            self.guard.credentials.admit(leaf, self.role.as_slice(), UnixMs::now())?;
            Ok((peer, leaf.identity.clone()))
        });
        let (peer, identity) = known.map_err(|refusal| {
            let status = Status::from(refusal);
            told(refusal.reason(), &status);
            status
        })?;
        let place = self.places.enter(&identity.name).map_err(|full| {
            let status = Status::resource_exhausted(full.to_string());
            told("requests", &status);
            status
        })?;
        Ok((identity, Inside { _place: place, _call: peer.begin() }))
    }
}

/// What a request holds until its answer is complete.
#[derive(Debug)]
struct Inside {
    _place: Place,
    _call: Call,
}

/// An answer that holds its request's place until it is complete or nobody wants it any more.
struct Answer {
    body: Body,
    _inside: Inside,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<S: Grpc> Service<http::Request<Body>> for Gate<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        Either<BoxFuture<'static, Result<Self::Response, Infallible>>, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.admit(&request) {
            Ok((identity, inside)) => {
                request.extensions_mut().insert(identity);
                let answering = self.inner.call(request);
                let answer = async move {
                    let answer = answering.await?;
                    Ok(answer.map(|body| Body::new(Answer { body, _inside: inside })))
                };
                Either::Left(answer.boxed())
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
