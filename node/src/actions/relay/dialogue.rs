//! The conversation with one next hop: greeting, TLS, envelope, message (RFC 5321 section 3, RFC 3207, RFC 2920).

use std::{cell::LazyCell, net::SocketAddr, time::Duration};

use proto::{
    address::Address,
    department::{NextHop, TlsRule},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    Handed, Mail,
    answer::Answer,
    body,
    envelope::{Offers, has_utf8_header, mail_command, rcpt_command, unfit},
    given::Given,
    tls::Tls,
    wire::{Broken, Wire},
};
use crate::{
    limits::Limits,
    smtp::reply::{Class, Reply},
};

/// RCPT commands that are sent before their answers are read, so that neither side waits for the other with full buffers.
const PIPELINE_MAX: usize = 50;
/// Bytes of the message handed to the socket at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// The answer of a hop that ends the connection (RFC 5321 section 3.8).
const CLOSING: u16 = 421;

/// Why a next hop has not taken the message, when it is not about a recipient.
pub(super) enum Failure {
    /// STARTTLS was agreed on and then the handshake failed.
    Handshake(Reply),
    /// The connection was closed or broke, or the hop has ended it with 421, before it was sent the message: of a connection that
    /// had been kept this says nothing about the hop.
    Gone(Reply),
    /// TLS is required, and there is none to be had.
    NoTls(Reply),
    /// Try the next address or hop; the reply is for whoever is left.
    Next(Reply),
}

/// A greeted next hop that may be sent a message.
pub(super) struct Greeted {
    wire: Wire,
    offers: Offers,
    /// Whether it is under TLS with a certificate that was verified.
    verified: bool,
    since: Instant,
    messages: u32,
}

impl Greeted {
    /// Messages that it has taken over this connection.
    pub(super) fn messages(&self) -> u32 {
        self.messages
    }

    /// Since it was greeted.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether it has said nothing since it took the last message.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }

    /// Says good-bye.
    pub(super) async fn quit(self) {
        self.wire.quit().await;
    }
}

/// The handing over of one message to a greeted next hop.
pub(super) struct Dialogue<'a> {
    greeted: Greeted,
    hop: &'a str,
    limits: &'a Limits,
}

/// How a hop is to be greeted.
pub(super) struct Greeting<'a> {
    pub(super) hop: &'a NextHop,
    /// `host:port`, for replies.
    pub(super) name: &'a str,
    /// Our own name for EHLO.
    pub(super) hostname: &'a str,
    pub(super) tls: &'a Tls,
    /// The hop's rule, or `None` on the second try after a failed handshake.
    pub(super) rule: TlsRule,
    pub(super) limits: &'a Limits,
}

impl Greeting<'_> {
    fn lost(&self, broken: &Broken) -> Failure {
        let reply = Reply::temporary(51, (4, 1), format!("the next hop failed: {broken}"));
        Failure::Next(reply.noted(format!("next hop {}", self.name)))
    }

    fn no_tls(&self, why: &str) -> Reply {
        Reply::temporary(51, (7, 5), format!("the next hop: {why}")).noted(format!("next hop {}", self.name))
    }
}

impl<'a> Dialogue<'a> {
    /// With a hop, called `hop` in replies, that was greeted before.
    pub(super) fn with(greeted: Greeted, hop: &'a str, limits: &'a Limits) -> Self {
        Self { greeted, hop, limits }
    }

    /// Connects, reads the banner, says EHLO, and goes under TLS as the rule says.
    pub(super) async fn open(greeting: &Greeting<'a>, address: SocketAddr) -> Result<Self, Failure> {
        let limits = greeting.limits;
        let patience = limits.connect_timeout;
        let stream = match timeout(patience, TcpStream::connect(address)).await {
            Ok(connected) => connected.map_err(|error| greeting.lost(&error.into()))?,
            Err(_) => return Err(greeting.lost(&Broken::Slow(patience))),
        };
        stream.set_nodelay(true).map_err(|error| greeting.lost(&error.into()))?;
        let mut wire = Wire::new(stream);
        let banner = wire.answer(Some(limits.relay_timeout)).await.map_err(|broken| greeting.lost(&broken))?;
        if banner.class() != Class::Done {
            // Also 554 (RFC 5321 section 3.1): a balancer without servers must not bounce a department's mail.
            return Err(Failure::Next(banner.passed_on_as_temporary(greeting.name)));
        }
        let offers = hello(&mut wire, greeting).await?;
        let greeted = Greeted { wire, offers, verified: false, since: Instant::now(), messages: 0 };
        let mut dialogue = Self::with(greeted, greeting.name, limits);
        let connector = match greeting.rule {
            TlsRule::None => return Ok(dialogue),
            TlsRule::Opportunistic if !dialogue.greeted.offers.starttls => return Ok(dialogue),
            TlsRule::Opportunistic => greeting.tls.opportunistic(),
            TlsRule::Required if !dialogue.greeted.offers.starttls => {
                return Err(Failure::NoTls(greeting.no_tls("TLS is required, but it offers no STARTTLS")));
            }
            TlsRule::Required => greeting.tls.verified().ok_or_else(|| {
                Failure::NoTls(greeting.no_tls("TLS is required, but no roots for next hops are configured"))
            })?,
        };
        let answer = dialogue.ask("STARTTLS\r\n").await.map_err(|broken| greeting.lost(&broken))?;
        if answer.class() == Class::Done {
            dialogue.under_tls(greeting, connector).await
        } else if greeting.rule == TlsRule::Required {
            Err(Failure::Next(answer.passed_on_as_temporary(greeting.name)))
        } else {
            Ok(dialogue)
        }
    }

    /// After the 220 to STARTTLS. Whatever was said in the clear is forgotten (RFC 3207 section 4.2); whatever was said
    /// too early ends the attempt, because it would be taken for something said under TLS (CVE-2021-38371).
    async fn under_tls(self, greeting: &Greeting<'a>, connector: &TlsConnector) -> Result<Self, Failure> {
        if self.greeted.wire.has_unread() {
            tracing::warn!(
                next_hop = self.hop,
                "plaintext after the answer to STARTTLS: injected by somebody in between?"
            );
            return Err(Failure::Next(greeting.no_tls("plaintext followed the answer to STARTTLS; nothing was sent")));
        }
        let Self { greeted, hop, limits } = self;
        let handshake = greeted.wire.under_tls(connector, &greeting.hop.host, limits.relay_timeout).await;
        // What rustls says names the host.
        let mut wire = handshake.map_err(|broken| {
            let reply = greeting.no_tls("TLS handshake failed");
            Failure::Handshake(reply.noted(format!("next hop {}: {broken}", greeting.name)))
        })?;
        let offers = hello(&mut wire, greeting).await?;
        let verified = greeting.rule == TlsRule::Required;
        Ok(Self::with(Greeted { wire, offers, verified, since: greeted.since, messages: 0 }, hop, limits))
    }

    async fn ask(&mut self, command: &str) -> Result<Answer, Broken> {
        self.greeted.wire.send(command.as_bytes(), self.limits.relay_timeout).await?;
        self.greeted.wire.answer(Some(self.limits.relay_timeout)).await
    }

    fn lost(&self, broken: &Broken) -> Failure {
        let reply = Reply::temporary(51, (4, 2), format!("the next hop failed: {broken}"));
        let reply = reply.noted(format!("next hop {}", self.hop));
        // One that is merely slow would be as slow over another connection, and time is for the next hop.
        if matches!(broken, Broken::Slow(_)) { Failure::Next(reply) } else { Failure::Gone(reply) }
    }

    /// MAIL, RCPT for each recipient that is still open, DATA and the message. Answers are put down in `given` as they come,
    /// so that they hold even if time runs out. A hop that has taken the message may be sent another one: it is given back.
    pub(super) async fn hand_over(mut self, mail: &Mail<'_>, given: &mut Given) -> Result<Option<Greeted>, Failure> {
        let taken = match self.envelope(mail, given).await? {
            Some(taken) if !taken.is_empty() => taken,
            _ => {
                self.greeted.quit().await;
                let left = given.has_open_unless_unfit();
                return if left { Err(Failure::Next(given.problem())) } else { Ok(None) };
            }
        };
        let go_on = self.ask("DATA\r\n").await.map_err(|broken| self.lost(&broken))?;
        if go_on.code() == CLOSING {
            return Err(Failure::Gone(go_on.passed_on(self.hop)));
        }
        if go_on.code() != 354 {
            let reply = go_on.passed_on(self.hop);
            for at in taken {
                given.answer(at, refusal(reply.clone()));
            }
            self.greeted.quit().await;
            return Ok(None);
        }
        // From here on this hop has the message, or may have it: no other is tried.
        given.committed();
        match self.message(mail.message, &taken, given).await {
            Ok(answer) if answer.class() == Class::Done => {
                let text = answer.text();
                for at in taken {
                    given.answer(at, Handed::Accepted { next_hop: self.hop.to_owned(), reply: text.clone() });
                }
                self.greeted.messages += 1;
                return Ok(Some(self.greeted));
            }
            Ok(answer) => {
                let reply = answer.passed_on(self.hop);
                for at in taken {
                    given.answer(at, refusal(reply.clone()));
                }
            }
            Err(broken) => {
                // RFC 5321 section 4.2.5 and RFC 1047: it may have been delivered; twice is better than never.
                let when =
                    if given.is_sent() { "after the message was sent; it may come twice" } else { "in the message" };
                let reply = Reply::temporary(51, (4, 2), format!("the next hop failed: {broken} {when}"));
                given.deferred(reply.noted(format!("next hop {}", self.hop)));
                return Ok(None);
            }
        }
        self.greeted.quit().await;
        Ok(None)
    }

    /// What is said to RCPT for a recipient, and nothing when it does not come to that. Nothing is sent.
    pub(super) async fn would_take(mut self, to: &Address) -> Option<Answer> {
        // To a hop without SMTPUTF8 the address means nothing, and its answer would not either.
        let mail = match (to.is_ascii(), self.greeted.offers.smtputf8) {
            (true, _) => "MAIL FROM:<>\r\n",
            (false, true) => "MAIL FROM:<> SMTPUTF8\r\n",
            (false, false) => return None,
        };
        let mail = self.ask(mail).await.ok()?;
        let answer = match mail.class() {
            Class::Done => Some(self.ask(&format!("RCPT TO:<{to}>\r\n")).await.ok()?),
            Class::Continue | Class::Temporary | Class::Permanent => None,
        };
        self.greeted.wire.quit().await;
        answer
    }

    /// MAIL and RCPT; the recipients that were accepted, or nothing when MAIL was refused for good.
    async fn envelope(&mut self, mail: &Mail<'_>, given: &mut Given) -> Result<Option<Vec<usize>>, Failure> {
        let (offers, verified) = (self.greeted.offers, self.greeted.verified);
        let mut open = given.open();
        // Once for all recipients: there may be a thousand, and the message may be large.
        let header_is_utf8 = LazyCell::new(|| has_utf8_header(mail.message));
        open.retain(|&at| {
            let envelope = &mail.envelope;
            let why = unfit(envelope, &envelope.to[at], || *header_is_utf8, offers, verified);
            given.fits(at, why.map(|reply| reply.noted(format!("next hop {}", self.hop))))
        });
        if open.is_empty() {
            return Ok(None);
        }
        let mut commands = vec![mail_command(&mail.envelope, mail.message, offers)];
        commands.extend(open.iter().map(|&at| rcpt_command(&mail.envelope, at, offers)));
        let mut asked = std::iter::once(None).chain(open.into_iter().map(Some));
        let mut taken = Vec::new();
        for batch in commands.chunks(if self.greeted.offers.pipelining { PIPELINE_MAX } else { 1 }) {
            let patience = self.limits.relay_timeout;
            let sent = self.greeted.wire.send(batch.concat().as_bytes(), patience).await;
            sent.map_err(|broken| self.lost(&broken))?;
            for recipient in asked.by_ref().take(batch.len()) {
                let answer = self.greeted.wire.answer(Some(patience)).await;
                let answer = answer.map_err(|broken| self.lost(&broken))?;
                if answer.code() == CLOSING {
                    return Err(Failure::Gone(answer.passed_on(self.hop)));
                }
                match (recipient, answer.class()) {
                    (None, Class::Done) => {}
                    (None, Class::Permanent) => {
                        given.refused(&answer.passed_on(self.hop));
                        return Ok(None);
                    }
                    (None, Class::Temporary | Class::Continue) => {
                        return Err(Failure::Next(answer.passed_on(self.hop)));
                    }
                    (Some(at), Class::Done) => taken.push(at),
                    (Some(at), Class::Permanent) => given.answer(at, Handed::Refused(answer.passed_on(self.hop))),
                    (Some(at), Class::Temporary | Class::Continue) => given.postpone(at, answer.passed_on(self.hop)),
                }
            }
        }
        Ok(Some(taken))
    }

    /// The message, and the answer to its final dot, for which only the whole delivery's limit holds.
    async fn message(&mut self, message: &[u8], taken: &[usize], given: &mut Given) -> Result<Answer, Broken> {
        let patience: Duration = self.limits.relay_timeout;
        let mut block = Vec::with_capacity(BLOCK_BYTES.min(message.len() + 64));
        for piece in body::stuffed(message) {
            for part in piece.chunks(BLOCK_BYTES) {
                if block.len() + part.len() > BLOCK_BYTES {
                    self.greeted.wire.send(&block, patience).await?;
                    block.clear();
                }
                // Always followed by the final dot at least.
                if part.len() == BLOCK_BYTES {
                    self.greeted.wire.send(part, patience).await?;
                } else {
                    block.extend_from_slice(part);
                }
            }
        }
        // The final dot is in this block.
        given.sent(taken);
        self.greeted.wire.send(&block, patience).await?;
        self.greeted.wire.answer(None).await
    }
}

/// A refusal of the class that the reply has.
fn refusal(reply: Reply) -> Handed {
    if reply.class() == Class::Permanent { Handed::Refused(reply) } else { Handed::Deferred(reply) }
}

/// EHLO, or HELO where that is not understood (RFC 5321 section 3.2).
async fn hello(wire: &mut Wire, greeting: &Greeting<'_>) -> Result<Offers, Failure> {
    let patience = greeting.limits.relay_timeout;
    for verb in ["EHLO", "HELO"] {
        let command = format!("{verb} {}\r\n", greeting.hostname);
        wire.send(command.as_bytes(), patience).await.map_err(|broken| greeting.lost(&broken))?;
        let answer = wire.answer(Some(patience)).await.map_err(|broken| greeting.lost(&broken))?;
        match answer.class() {
            Class::Done if verb == "EHLO" => return Ok(Offers::of(&answer)),
            Class::Done => return Ok(Offers::default()),
            Class::Permanent if verb == "EHLO" => {}
            Class::Permanent | Class::Temporary | Class::Continue => {
                return Err(Failure::Next(answer.passed_on_as_temporary(greeting.name)));
            }
        }
    }
    Err(greeting.lost(&Broken::Closed))
}
