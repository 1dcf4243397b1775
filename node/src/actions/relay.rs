//! Hands a message to a next hop over SMTP (RFC 5321 section 3.3 as a client).

use proto::address::{Address, ReversePath};

use crate::smtp::{reply::Reply, transaction::Route};

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
}

/// A client for next hops.
#[derive(Debug)]
pub struct Relay {}

impl Relay {
    /// Delivers one message to recipients of one route; an answer for each recipient, in their order. Ends within
    /// `Limits::relay_time_max`.
    pub async fn deliver(&self, _route: &Route, _from: &ReversePath, _to: &[Address], _message: &[u8]) -> Vec<Handed> {
        todo!()
    }
}
