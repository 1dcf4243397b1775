//! Hands a message to a next hop over SMTP (RFC 5321 section 3.3 as a client).

pub mod answer;
mod body;
mod dialogue;
mod envelope;
mod given;
mod lookup;
mod pool;
mod probe;
#[cfg(test)]
pub(crate) mod scripted;
mod targets;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_envelope;
#[cfg(test)]
mod tests_pool;
#[cfg(test)]
mod tests_tls;
mod tls;
mod wire;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use hickory_resolver::TokioResolver;
use proto::department::{NextHop, TlsRule};
use rustls::RootCertStore;
use tokio::time::timeout;

use self::{
    dialogue::{Dialogue, Failure, Greeting},
    given::Given,
    pool::{Key, Pool},
    tls::Tls,
};
use crate::{
    limits::Limits,
    smtp::{
        reply::{Class, Reply},
        transaction::Route,
    },
};

#[cfg(test)]
pub(crate) use self::tests::no_dns;
pub use self::{envelope::Envelope, tls::roots_from_pem};

/// What the next hop said about one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handed {
    /// 250 to the end of DATA.
    Accepted {
        /// `host:port`.
        next_hop: String,
        /// The final reply's text.
        reply: String,
    },
    /// 5yz, as we would pass it on.
    Refused(Reply),
    /// 4yz, no connection, no TLS where it is demanded, or nonsense.
    Deferred(Reply),
    /// The message was sent to its end, but the final answer did not come, or not in time: it may have been delivered.
    Unknown(Reply),
}

/// One message to be handed over.
struct Mail<'a> {
    envelope: Envelope<'a>,
    message: &'a [u8],
}

/// A client for next hops. Cheap to clone.
#[derive(Clone)]
pub struct Relay {
    hostname: Arc<str>,
    limits: Arc<Limits>,
    resolver: TokioResolver,
    tls: Tls,
    /// Shared by all clones.
    pool: Arc<Pool>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("hostname", &self.hostname).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Relay {
    /// A client that calls itself `hostname` (a domain name), asks `resolver` for hosts that are not IP addresses, and
    /// verifies certificates against `roots` where a next hop must have one. Without roots no such next hop gets mail.
    #[must_use]
    pub fn new(hostname: &str, limits: &Limits, resolver: TokioResolver, roots: Option<Arc<RootCertStore>>) -> Self {
        let pool = Pool::new(limits);
        Self { hostname: hostname.into(), limits: Arc::new(limits.clone()), resolver, tls: Tls::new(roots), pool }
    }

    /// Delivers one message while its sender waits: `deliver_within` `Limits::relay_time_max`.
    pub async fn deliver(&self, route: &Route, envelope: Envelope<'_>, message: &[u8]) -> Vec<Handed> {
        self.deliver_within(self.limits.relay_time_max, route, envelope, message).await
    }

    /// Delivers one message to recipients of one route; an answer for each recipient, in their order. Ends within `limit`.
    /// A message with a bare CR or LF is refused, not sent.
    ///
    /// The next hops are tried in order until one has begun to take the message. A recipient that this one told to come
    /// back is deferred. When the connection breaks or time runs out after the final dot, the outcome is unknown: the
    /// message may have arrived (RFC 5321 section 4.2.5). When no hop failed in another way, and none offers what the message
    /// needs (SMTPUTF8, REQUIRETLS), it is refused.
    pub async fn deliver_within(
        &self,
        limit: Duration,
        route: &Route,
        envelope: Envelope<'_>,
        message: &[u8],
    ) -> Vec<Handed> {
        let nobody = Reply::temporary(51, (4, 4), "no next hop is configured; add one to the department");
        let mut given = Given::nothing(envelope.to.len(), nobody);
        if !body::has_clean_line_ends(message) {
            given.refused(&Reply::permanent(50, (6, 0), "the message has a bare CR or LF"));
            return given.finish();
        }
        let mail = Mail { envelope, message };
        if timeout(limit, self.try_hops(route, &mail, &mut given)).await.is_err() {
            let (seconds, problem) = (limit.as_secs_f32(), given.problem());
            let text = if given.is_sent() {
                format!("the next hop did not answer the whole message within {seconds} s; it may come twice")
            } else {
                format!("no next hop took it within {seconds} s; the last problem: {problem}")
            };
            given.failed(Reply::temporary(51, (4, 7), text.trim_end()).noted(problem.note()));
        }
        given.finish()
    }

    async fn try_hops(&self, route: &Route, mail: &Mail<'_>, given: &mut Given) {
        let (hops, public_only) = match route {
            Route::Department { next_hops, .. } => (next_hops.clone(), false),
            Route::Internet { relays, .. } if !relays.is_empty() => (relays.clone(), false),
            // Whoever can forge the MX records would get the message under a name of his own.
            Route::Internet { .. } if mail.envelope.handling.require_tls => {
                return given.all_unfit(&envelope::no_require_tls());
            }
            Route::Internet { domain, .. } => {
                let answer = lookup::mx(&self.resolver, domain.as_str()).await;
                let seed = u64::try_from(ulid::Ulid::new().random() >> 16).unwrap_or_default();
                match targets::hosts(domain.as_str(), answer, seed) {
                    Ok(hosts) => (hosts, true),
                    Err(reply) if reply.class() == Class::Permanent => return given.refused(&reply),
                    Err(reply) => return given.deferred(reply),
                }
            }
        };
        for hop in hops {
            let name = hop.to_string();
            let silent = Reply::temporary(51, (4, 1), "the next hop has not answered yet");
            given.deferred(silent.noted(format!("next hop {name}")));
            let addresses = match lookup::addresses(&self.resolver, &hop, public_only).await {
                Ok(addresses) => addresses,
                Err(reply) => {
                    given.failed(reply);
                    continue;
                }
            };
            for address in addresses {
                if let Err(reply) = self.try_address(&hop, &name, address, mail, given).await {
                    // Its text commonly holds a recipient's address.
                    tracing::info!(codes = reply.codes(), "a next hop did not take a message");
                    tracing::debug!(%address, problem = reply.for_operators(), "a next hop did not take a message");
                    given.failed(reply);
                }
                if given.is_committed() || !given.has_open() {
                    return;
                }
            }
        }
    }

    /// One address of one next hop: over a connection that was kept, or else over a new one. A kept connection that turns out to
    /// be gone before the hop was sent the message tells nothing about the hop, so a new one is tried.
    async fn try_address(
        &self,
        hop: &NextHop,
        name: &str,
        address: SocketAddr,
        mail: &Mail<'_>,
        given: &mut Given,
    ) -> Result<(), Reply> {
        let require_tls = mail.envelope.handling.require_tls;
        let rule = if require_tls { TlsRule::Required } else { hop.tls };
        let key = Key { address, host: hop.host.clone(), rule };
        let mut handed = match self.pool.take(&key) {
            Some(kept) => Dialogue::with(kept, name, &self.limits).hand_over(mail, given).await,
            None => Err(Failure::Gone(given.problem())),
        };
        let mut keep = true;
        if let Err(Failure::Gone(_)) = handed {
            handed = match self.open((hop, rule), name, address).await {
                Ok((dialogue, as_agreed)) => {
                    keep = as_agreed;
                    dialogue.hand_over(mail, given).await
                }
                Err(failure) => Err(failure),
            };
        }
        match handed {
            Ok(Some(greeted)) => {
                let needless = if keep { self.pool.keep(key, greeted) } else { Some(greeted) };
                if let Some(greeted) = needless {
                    greeted.quit().await;
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            // Where nobody expects verified TLS, it will not be there another time either.
            Err(Failure::Handshake(reply) | Failure::NoTls(reply)) if require_tls && hop.tls != TlsRule::Required => {
                given.all_unfit(&envelope::no_require_tls().noted(reply.note()));
                Ok(())
            }
            Err(Failure::Handshake(reply) | Failure::NoTls(reply) | Failure::Gone(reply) | Failure::Next(reply)) => {
                Err(reply)
            }
        }
    }

    /// A new connection, and whether it is as the rule says. After a failed handshake a hop that merely offered TLS is
    /// tried in the clear, on another connection: whoever can break a handshake can also hide the offer. That one is good for one
    /// message: the next one tries TLS again.
    async fn open<'a>(
        &'a self,
        (hop, rule): (&'a NextHop, TlsRule),
        name: &'a str,
        address: SocketAddr,
    ) -> Result<(Dialogue<'a>, bool), Failure> {
        let greeting =
            |rule| Greeting { hop, name, hostname: &self.hostname, tls: &self.tls, rule, limits: &self.limits };
        match Dialogue::open(&greeting(rule), address).await {
            Err(Failure::Handshake(reply)) if rule == TlsRule::Opportunistic => {
                tracing::warn!(next_hop = name, problem = reply.for_operators(), "going on without TLS");
                Ok((Dialogue::open(&greeting(TlsRule::None), address).await?, false))
            }
            opened => Ok((opened?, true)),
        }
    }
}
