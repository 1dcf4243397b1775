//! How a client is met: what is asked of it before it is greeted, also when a proxy names another one.

use std::{
    future::{Future, Pending},
    net::IpAddr,
    sync::Arc,
};

use proto::{reputation::Subject, score::Score, time::UnixMs};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tracing::debug;

use super::{Connection, count};
use crate::{
    policy::standing,
    reception,
    smtp::{demand::TlsDemand, reply::Reply, step::Step, stream::Stream, transaction::Listener},
    telemetry::metrics,
};

impl Connection {
    /// What is said first. Of a client from the Internet that is not known as a good one more is asked, and not of a proxy that has
    /// not said yet for whom it speaks. `speaks` ends when it does not wait for the greeting; without it there is no delay.
    pub(super) async fn greeting(&mut self, early_talk: bool, speaks: Option<impl Future<Output = ()>>) -> Step {
        self.of_net = None;
        let view = Arc::clone(&self.service.view.borrow());
        self.known = standing::known(&view.reputation, &Subject::of_client(self.client), UnixMs::now());
        let step = self.session.greeting(&self.moment(&view, early_talk), self.known);
        let is_known = self.known.stance.is_some() || reception::is_good(self.known);
        let is_proxy = self.session.may_name_its_client();
        if self.session.listener() == Listener::Departments || is_known || is_proxy || matches!(step, Step::Close(_)) {
            return step;
        }
        match self.service.reception.connection(self.client, &view.clients) {
            Ok(presence) => self.of_net = presence,
            Err(reply) => return Step::Close(reply),
        }
        let mut met = self.service.reception.client(self.client, &view.clients, speaks).await;
        if early_talk {
            met.reasons.insert(0, reception::early_talk(&view.clients));
        }
        let points: Score = met.reasons.iter().map(|reason| reason.score).sum();
        let refused = points > Score::ZERO && points >= reception::refused_by_all(&view);
        let refusal = refused.then(|| reception::refusal(&met.reasons, "connect"));
        self.session.met(met, refusal)
    }

    pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(&self, step: Step, stream: &mut Stream<S>) -> bool {
        if let Step::Close(reply) = &step {
            metrics().turned_away(reply.code());
            count(reply);
            debug!(client = %self.client, reply = %reply.codes(), "turned away at connect");
        }
        match step {
            Step::Reply(reply) => stream.queue(&reply).await.is_ok(),
            Step::Close(reply) => {
                drop(stream.queue(&reply).await);
                false
            }
            // None of these is a greeting.
            Step::Ask(_)
            | Step::Anew { .. }
            | Step::StartTls(_)
            | Step::ReadData { .. }
            | Step::ReadChunk { .. }
            | Step::SkipChunk { .. } => false,
        }
    }

    /// After XCLIENT the connection is another client's: it takes of that one's share, and is greeted as that one.
    pub(super) async fn begin_anew<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut Stream<S>,
        client: IpAddr,
    ) -> bool {
        if client != self.client {
            let Some(seat) = self.seat.of_other(client) else {
                let reply =
                    Reply::temporary(21, (7, 0), "too many connections of that client").because("CLIENT_CONNECTIONS");
                count(&reply);
                drop(stream.queue(&reply).await);
                return false;
            };
            (self.client, self.seat) = (client, seat);
            // What is demanded of the peer holds as well as what is demanded of its client.
            let demand = self.tls.as_ref().map_or(TlsDemand::None, |tls| tls.demand(self.listener, client));
            self.demand = self.demand.max(demand);
            self.session.demand_also(self.demand);
        }
        let step = Box::pin(self.greeting(false, None::<Pending<()>>)).await;
        self.idle_since = Instant::now();
        self.greet(step, stream).await
    }
}
