//! One connection: greets, pumps lines through the session, reads messages and has them delivered.

mod messages;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use proto::{
    held::TransactionId,
    reputation::{Repute, Subject},
    score::Score,
    time::UnixMs,
    view::View,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::{
    demand::TlsDemand,
    places::{HandshakePlace, MessagePlace, Pressure, Seat},
    reply::{Class, Reply},
    session::Session,
    step::{Moment, Question, Settings, Step},
    stream::{Incoming, Stream, StreamError},
    tls::{self, ServerCertificate},
    transaction::{Listener, Transaction},
};
use crate::{
    policy::standing,
    reception::{self, Presence, Reception},
    telemetry::metrics,
};

/// Takes a message through all stages; [`crate::pipeline::Pipeline::run`] in production.
pub type Deliver = Arc<dyn Fn(Transaction, Bytes) -> BoxFuture<'static, Reply> + Send + Sync>;

/// Since the view was last confirmed; [`crate::cluster::Cluster::view_age`] in production.
pub type ViewAge = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What all connections share.
pub struct Service {
    /// For the sessions.
    pub settings: Arc<Settings>,
    /// The view as it moves.
    pub view: watch::Receiver<Arc<View>>,
    /// Its age.
    pub view_age: ViewAge,
    /// Whom clients meet before their first message.
    pub reception: Reception,
    /// What is done with a message.
    pub deliver: Deliver,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Service {
    /// Puts together what connections need.
    #[must_use]
    pub fn new(
        settings: Settings,
        view: watch::Receiver<Arc<View>>,
        view_age: ViewAge,
        reception: Reception,
        deliver: Deliver,
    ) -> Self {
        Self { settings: Arc::new(settings), view, view_age, reception, deliver }
    }

    fn view_fresh(&self, view: &View) -> bool {
        (self.view_age)() <= age_max(view)
    }
}

fn age_max(view: &View) -> Duration {
    Duration::from_millis(view.settings.view_age_max_ms)
}

/// Waits until the flag is true or nobody is left to raise it.
pub(super) async fn told(flag: &mut watch::Receiver<bool>) {
    drop(flag.wait_for(|raised| *raised).await);
}

/// Waits until all places have been taken for so long without a break.
async fn crowded_out(pressure: &mut watch::Receiver<Pressure>, patience: Duration) {
    pressed(pressure, false, patience).await;
}

/// The same, or until the listener stops, for those who stop with it.
async fn pressed(pressure: &mut watch::Receiver<Pressure>, stops: bool, patience: Duration) -> Pressure {
    let urgent = |now: &Pressure| *now == Pressure::Crowded || (stops && *now == Pressure::Stopping);
    loop {
        match pressure.wait_for(urgent).await.map(|now| *now) {
            Ok(Pressure::Stopping) => return Pressure::Stopping,
            // The places are there as long as this one.
            Err(_) => return std::future::pending().await,
            Ok(Pressure::None | Pressure::Crowded) => {}
        }
        if timeout(patience, pressure.wait_for(|now| *now != Pressure::Crowded)).await.is_err() {
            return Pressure::Crowded;
        }
    }
}

/// Counts what a refusal tells of.
fn count(reply: &Reply) {
    if let Some(rule) = reply.rule() {
        metrics().refused("session", rule);
    }
}

/// How a conversation ended.
enum Ending {
    Closed,
    /// The client has said QUIT, and nothing after it.
    Quit,
    StartTls(HandshakePlace),
}

/// A connection that has been accepted.
pub struct Connection {
    service: Arc<Service>,
    client: IpAddr,
    listener: Listener,
    session: Session,
    tls: Option<ServerCertificate>,
    demand: TlsDemand,
    seat: Seat,
    /// What was known of the client when it connected.
    known: Repute,
    /// Its place among those of its net, where these are bounded.
    of_net: Option<Presence>,
    /// When the transaction under way began.
    mail_at: Option<Instant>,
    /// When the last message or chunk had come, or the connection began.
    idle_since: Instant,
    /// The part of its message that has come in chunks so far.
    chunks: Option<Box<(Incoming, MessagePlace)>>,
    /// What it is to give way to.
    pressure: watch::Receiver<Pressure>,
    /// The same while a message has a place.
    messages_pressure: watch::Receiver<Pressure>,
    /// For who comes by a balancer: true when the node is drained and the balancer has had its time to notice.
    given_up: Option<watch::Receiver<bool>>,
}

impl Connection {
    /// For a client that came in at `listener`. `given_up` is for one that came by a balancer.
    #[must_use]
    pub fn new(
        service: Arc<Service>,
        client: IpAddr,
        listener: Listener,
        tls: Option<ServerCertificate>,
        seat: Seat,
        given_up: Option<watch::Receiver<bool>>,
    ) -> Self {
        let demand = tls.as_ref().map_or(TlsDemand::None, |tls| tls.demand(listener, client));
        let session = Session::new(Arc::clone(&service.settings), client, listener).demanding(demand);
        let (pressure, messages_pressure) = (seat.pressure(), seat.messages_pressure());
        Self {
            service,
            client,
            listener,
            session,
            tls,
            demand,
            seat,
            known: Repute::default(),
            of_net: None,
            mail_at: None,
            idle_since: Instant::now(),
            chunks: None,
            pressure,
            messages_pressure,
            given_up,
        }
    }

    /// Serves the client until one side has enough. `early_talk` says that the client spoke before the greeting.
    pub async fn run(mut self, socket: TcpStream, early_talk: bool) {
        let service = Arc::clone(&self.service);
        let limits = &service.settings.limits;
        let deadline = Instant::now() + limits.connection_time_max;
        let speaks = async { drop(socket.peek(&mut [0]).await) };
        // What not every connection comes to has memory of its own, so that an idle one stays small.
        let step = Box::pin(self.greeting(early_talk, speaks)).await;
        let mut stream = Stream::new(socket, limits, deadline);
        if !self.greet(step, &mut stream).await {
            return stream.close().await;
        }
        let Some(Ending::StartTls(place)) = self.until_end(&mut stream).await else { return };
        Box::pin(self.under_tls(stream.into_inner(), place, deadline)).await;
    }

    /// The handshake, and the conversation after it.
    async fn under_tls(&mut self, socket: TcpStream, place: HandshakePlace, deadline: Instant) {
        let Some(socket) = self.handshake(socket, place).await else { return };
        let mut stream = Stream::new(socket, &self.service.settings.limits, deadline);
        self.until_end(&mut stream).await;
    }

    /// The TLS handshake; nothing when it was not done, or not in time.
    async fn handshake(&mut self, socket: TcpStream, place: HandshakePlace) -> Option<TlsStream<TcpStream>> {
        let acceptor = self.tls.as_ref()?.acceptor(self.listener, self.demand)?;
        let done = timeout(self.service.settings.limits.handshake_timeout, acceptor.accept(socket)).await;
        drop(place);
        let (result, version, socket) = match done {
            Ok(Ok(socket)) => {
                self.session.tls_started(tls::certified(&socket));
                ("done", tls::version(&socket), Some(socket))
            }
            Ok(Err(error)) => {
                debug!(client = %self.client, %error, "TLS handshake failed");
                ("failed", "none", None)
            }
            Err(_) => ("late", "none", None),
        };
        metrics().handshake(self.listener.as_str(), result, version);
        socket
    }

    /// What is said first. Of a client from the Internet that is not known as a good one more is asked; `speaks` ends when it
    /// does not wait for that.
    async fn greeting(&mut self, early_talk: bool, speaks: impl Future<Output = ()>) -> Step {
        self.of_net = None;
        let view = Arc::clone(&self.service.view.borrow());
        self.known = standing::known(&view.reputation, &Subject::of_client(self.client), UnixMs::now());
        let step = self.session.greeting(&self.moment(&view, early_talk), self.known);
        let is_known = self.known.stance.is_some() || reception::is_good(self.known);
        if self.session.listener() == Listener::Departments || is_known || matches!(step, Step::Close(_)) {
            return step;
        }
        match self.service.reception.connection(self.client, &view.clients) {
            Ok(presence) => self.of_net = presence,
            Err(reply) => return Step::Close(reply),
        }
        let mut reasons = self.service.reception.client(self.client, &view.clients, speaks).await;
        if early_talk {
            reasons.insert(0, reception::early_talk(&view.clients));
        }
        let points: Score = reasons.iter().map(|reason| reason.score).sum();
        let refused = points > Score::ZERO && points >= reception::refused_by_all(&view);
        let refusal = refused.then(|| reception::refusal(&reasons, "connect"));
        self.session.met(reasons, refusal)
    }

    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(&self, step: Step, stream: &mut Stream<S>) -> bool {
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

    /// Talks, and says why when the client is cut off.
    async fn until_end<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut Stream<S>) -> Option<Ending> {
        let ending = self.talk(stream).await;
        match ending {
            Ok(Ending::StartTls(place)) => return Some(Ending::StartTls(place)),
            Ok(Ending::Closed) => stream.close().await,
            Ok(Ending::Quit) => stream.part().await,
            Err(StreamError::TooSlow) => {
                let reply = Reply::temporary(21, (4, 2), "too slow; closing").because("TOO_SLOW");
                count(&reply);
                stream.append(&reply);
                stream.close().await;
            }
            Err(StreamError::Gone) => debug!("the client has closed the connection"),
        }
        None
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut Stream<S>) -> Result<Ending, StreamError> {
        self.idle_since = Instant::now();
        loop {
            let patience = self.service.settings.limits.stress_timeout;
            if *self.pressure.borrow() == Pressure::Crowded && self.is_small_talk(Instant::now(), patience) {
                return Err(StreamError::TooSlow);
            }
            // A transaction that has begun may end, within the time that the server gives itself to stop.
            let line = tokio::select! {
                biased;
                pressure = pressed(&mut self.pressure, !self.session.in_transaction(), patience) => {
                    if pressure == Pressure::Crowded {
                        return Err(StreamError::TooSlow);
                    }
                    stream.queue(&Reply::temporary(21, (3, 2), "the server stops; come back")).await?;
                    return Ok(Ending::Closed);
                }
                // Few connections come to this, so that it has memory of its own.
                () = async { Box::pin(crowded_out(&mut self.messages_pressure, patience)).await }, if self.chunks.is_some() => {
                    return Err(StreamError::TooSlow);
                }
                line = stream.line(self.chunks.as_ref().map(|begun| &begun.0)) => line?,
            };
            let view = Arc::clone(&self.service.view.borrow());
            let step = self.session.step(&line, &self.moment(&view, stream.has_input()));
            self.mail_at =
                if self.session.in_transaction() { self.mail_at.or_else(|| Some(Instant::now())) } else { None };
            let step = if let Step::Ask(question) = step { Box::pin(self.ask(question)).await } else { step };
            let step = match self.suspected(step, &view) {
                Step::ReadData { reply, transaction, bytes_max } => {
                    let reply = Box::pin(self.message(stream, &reply, *transaction, bytes_max)).await?;
                    self.idle_since = Instant::now();
                    self.session.finished(reply)
                }
                Step::ReadChunk { bytes, last, bytes_max } => {
                    let step = Box::pin(self.chunk(stream, bytes, last, bytes_max)).await?;
                    self.idle_since = Instant::now();
                    step
                }
                Step::SkipChunk { bytes, reply } => {
                    Box::pin(self.discard(stream, bytes)).await?;
                    Step::Reply(reply)
                }
                step @ (Step::Reply(_) | Step::Ask(_) | Step::Anew { .. } | Step::StartTls(_) | Step::Close(_)) => step,
            };
            // What of a message has come goes with its transaction.
            if !self.session.in_transaction() {
                (self.chunks, self.mail_at) = (None, None);
            }
            match step {
                Step::Reply(reply) => {
                    if !matches!(reply.class(), Class::Done) {
                        debug!(client = %self.client, reply = %reply.to_string().trim_end(), "refused");
                    }
                    count(&reply);
                    stream.queue(&reply).await?;
                }
                Step::StartTls(reply) => {
                    let Some(place) = self.seat.handshake().await else {
                        metrics().handshake(self.listener.as_str(), "no_place", "none");
                        // RFC 3207 section 4.
                        stream.queue(&Reply::temporary(54, (7, 0), "too many TLS handshakes at once")).await?;
                        continue;
                    };
                    stream.queue(&reply).await?;
                    stream.flush().await?;
                    return Ok(Ending::StartTls(place));
                }
                Step::Anew { client } => {
                    if !self.begin_anew(stream, client).await {
                        return Ok(Ending::Closed);
                    }
                }
                Step::Close(reply) => {
                    count(&reply);
                    stream.queue(&reply).await?;
                    // Under TLS a farewell of its own follows QUIT.
                    let quit = reply.class() == Class::Done && !stream.has_input() && !self.session.under_tls();
                    return Ok(if quit { Ending::Quit } else { Ending::Closed });
                }
                // Turned into replies above.
                Step::Ask(_) | Step::ReadData { .. } | Step::ReadChunk { .. } | Step::SkipChunk { .. } => {}
            }
        }
    }

    /// Whether it keeps a place that others want for nothing: a transaction may take longer than silence, and a message that comes
    /// in chunks as long as it comes fast enough.
    fn is_small_talk(&self, now: Instant, patience: Duration) -> bool {
        match (&self.chunks, self.mail_at) {
            (Some(begun), _) => begun.0.is_slow(now, patience),
            (None, Some(began)) => now - began > patience * 6,
            (None, None) => now - self.idle_since > patience,
        }
    }

    /// Asks what only the edges know of the transaction under way.
    async fn ask(&mut self, question: Question) -> Step {
        let (reception, known, asked_at) = (&self.service.reception, self.known, Instant::now());
        let answer = match (question, self.session.transaction()) {
            (Question::Sender, Some(transaction)) => reception.sender(transaction, known).await,
            (Question::Recipient, Some(transaction)) => {
                reception.recipient(transaction, known).await.map(|()| Vec::new())
            }
            // Nothing is asked without one.
            (Question::Sender | Question::Recipient, None) => Ok(Vec::new()),
        };
        // Our own time is no small talk.
        self.idle_since += asked_at.elapsed();
        self.session.judged(question, answer)
    }

    /// Ends the conversation with a client from the Internet that looks for addresses.
    fn suspected(&mut self, step: Step, view: &View) -> Step {
        let unknown = matches!(&step, Step::Reply(reply) if reply.is_no_such_mailbox());
        if !unknown || self.session.listener() == Listener::Departments {
            return step;
        }
        match self.service.reception.unknown_recipient(self.client, &view.clients) {
            Ok(()) => step,
            Err(reply) => self.session.turn_away(reply),
        }
    }

    /// After XCLIENT the connection is another client's: it takes of that one's share, and is greeted as that one.
    async fn begin_anew<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut Stream<S>, client: IpAddr) -> bool {
        if client != self.client {
            let Some(seat) = self.seat.of_other(client) else {
                let reply = Reply::temporary(21, (7, 0), "too many connections of that client");
                count(&reply.clone().because("CLIENT_CONNECTIONS"));
                drop(stream.queue(&reply).await);
                return false;
            };
            (self.client, self.seat) = (client, seat);
            // What is demanded of the peer holds as well as what is demanded of its client.
            let demand = self.tls.as_ref().map_or(TlsDemand::None, |tls| tls.demand(self.listener, client));
            self.demand = self.demand.max(demand);
            self.session.demand_also(self.demand);
        }
        let step = Box::pin(self.greeting(false, std::future::pending())).await;
        self.greet(step, stream).await
    }

    fn moment<'v>(&self, view: &'v Arc<View>, more_input: bool) -> Moment<'v> {
        // A transaction is bound to the view of its MAIL, which nobody confirms any more when there is a newer one.
        let bound = self.session.view().filter(|bound| !Arc::ptr_eq(bound, view));
        let since_mail = self.mail_at.map_or(Duration::ZERO, |at| at.elapsed());
        let bound_fresh = bound.is_none() || since_mail <= age_max(view);
        let view_fresh = self.service.view_fresh(view) && bound_fresh;
        let of_view = || view.is_drained(&self.service.settings.node);
        let drained = self.given_up.as_ref().map_or_else(of_view, |given_up| *given_up.borrow());
        Moment { view, view_fresh, drained, fresh_id: TransactionId::fresh(), more_input }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
