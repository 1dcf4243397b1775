//! Asks a next hop whether it would take mail for a recipient, without sending any (RFC 5321 section 3.3 up to RCPT).

use std::net::SocketAddr;

use proto::{
    address::Address,
    department::{NextHop, TlsRule},
};
use tokio::time::timeout;

use super::{
    Relay,
    dialogue::{Dialogue, Failure, Greeting},
    lookup,
};
use crate::smtp::reply::Class;

impl Relay {
    /// Whether the first of these next hops that answers knows the recipient; `None` when none says yes or no for good. Ends within
    /// `Limits::relay_timeout`. The reverse-path is null, so that what is asked is the recipient and nothing else.
    pub async fn knows(&self, hops: &[NextHop], to: &Address) -> Option<bool> {
        let asking = async {
            for hop in hops {
                for address in lookup::addresses(&self.resolver, hop, false).await.unwrap_or_default() {
                    if let Some(known) = self.ask(hop, address, to).await {
                        return Some(known);
                    }
                }
            }
            None
        };
        timeout(self.limits.relay_timeout, asking).await.ok().flatten()
    }

    async fn ask(&self, hop: &NextHop, address: SocketAddr, to: &Address) -> Option<bool> {
        let name = hop.to_string();
        let greeting =
            |rule| Greeting { hop, name: &name, hostname: &self.hostname, tls: &self.tls, rule, limits: &self.limits };
        let opened = match Dialogue::open(&greeting(hop.tls), address).await {
            Err(Failure::Handshake(_)) if hop.tls == TlsRule::Opportunistic => {
                Dialogue::open(&greeting(TlsRule::None), address).await
            }
            opened => opened,
        };
        let answer = opened.ok()?.would_take(to).await?;
        match answer.class() {
            Class::Done => Some(true),
            // Any other refusal is about us or about its policy, and says nothing of the mailbox.
            Class::Permanent => answer.is_no_such_mailbox().then_some(false),
            Class::Temporary | Class::Continue => None,
        }
    }
}
