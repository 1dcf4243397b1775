//! One connection: greets, pumps lines through the session, reads messages and has them delivered.

mod greeting;
mod messages;
mod pressure;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use proto::{held::TransactionId, reputation::Repute, view::View};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use self::pressure::{crowded_out, pressed};
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
    reception::{Presence, Reception},
    telemetry::metrics,
};

/// A transaction may take so many times as long as silence.
const TRANSACTION_PATIENCE: u32 = 6;
/// Replies wait for so long for the answer to a later line.
const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(1);

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
    /// How long we have asked others about it.
    asked: Duration,
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
            asked: Duration::ZERO,
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
        let step = Box::pin(self.greeting(early_talk, Some(speaks))).await;
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
            if self.gives_way(Instant::now(), patience) {
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
            if !self.session.in_transaction() {
                (self.mail_at, self.asked) = (None, Duration::ZERO);
            } else if self.mail_at.is_none() {
                self.mail_at = Some(Instant::now());
            }
            let step = if let Step::Ask(question) = step { Box::pin(self.ask(stream, question)).await? } else { step };
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
                    self.chunks = None;
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

    /// Whether it keeps a place that others want for nothing: with small talk, or with a message in chunks that comes too slowly. Our
    /// own time does not count.
    pub(super) fn gives_way(&mut self, now: Instant, patience: Duration) -> bool {
        let crowded = *self.pressure.borrow() == Pressure::Crowded;
        match (&mut self.chunks, self.mail_at) {
            (Some(begun), _) => {
                let crowded = crowded || *self.messages_pressure.borrow() == Pressure::Crowded;
                crowded && begun.0.is_slow(now, patience)
            }
            (None, Some(began)) => crowded && now - began > patience * TRANSACTION_PATIENCE + self.asked,
            (None, None) => crowded && now - self.idle_since > patience,
        }
    }

    /// Asks what only the edges know of the transaction under way. What was answered before does not wait for it long.
    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut Stream<S>,
        question: Question,
    ) -> Result<Step, StreamError> {
        let asked_at = Instant::now();
        let (reception, known) = (&self.service.reception, self.known);
        let answer = {
            let transaction = self.session.transaction();
            let mut asking = std::pin::pin!(async {
                match (question, transaction) {
                    (Question::Sender, Some(transaction)) => reception.sender(transaction, known).await,
                    (Question::Recipient, Some(transaction)) => {
                        reception.recipient(transaction, known).await.map(|()| Vec::new())
                    }
                    // Nothing is asked without one.
                    (Question::Sender | Question::Recipient, None) => Ok(Vec::new()),
                }
            });
            match timeout(ANSWERS_WAIT_MAX, &mut asking).await {
                Ok(answer) => answer,
                Err(_) => {
                    stream.flush().await?;
                    asking.await
                }
            }
        };
        // Our own time is no small talk.
        self.idle_since += asked_at.elapsed();
        self.asked += asked_at.elapsed();
        Ok(self.session.judged(question, answer))
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
