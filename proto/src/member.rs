//! What the members of a cluster are called and where they are reached: one reading for certificates, every settings file and
//! the command line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::address::Domain;

/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 63;

/// A control server as a change of the membership names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Raft node id, from 1; never used again.
    pub id: u64,
    /// Name in its certificate; never used again.
    pub name: String,
    /// Where it stands.
    pub site: String,
    /// `host:port`.
    pub address: String,
}

/// What an operator does to the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberAct {
    /// The first members of all.
    Form {
        /// All of them.
        members: Vec<Member>,
    },
    /// A new server becomes a learner: it is filled and has no vote.
    Add {
        /// Which.
        member: Member,
    },
    /// A learner gets its vote.
    Promote {
        /// Which.
        member: Member,
    },
    /// A server leaves for good.
    Remove {
        /// Which.
        member: Member,
        /// Whether a warning was overruled.
        forced: bool,
    },
    /// Another server leads.
    Transfer {
        /// Name of the one that led.
        from: String,
        /// Name of the one that is to lead.
        to: String,
    },
}

/// Reads the name of a server, node, operator or site: it becomes a folder and a part of a URI.
///
/// # Errors
/// When it has other characters or more than 63 of them.
pub fn name(text: &str) -> Result<String, &'static str> {
    let ok = (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && !text.starts_with(['-', '_', '.']);
    if ok {
        Ok(text.to_owned())
    } else {
        Err("1 to 63 of a-z, 0-9, -, _ and . are expected, the first a letter or digit")
    }
}

/// Reads `host:port`, with an IPv6 address in brackets.
///
/// # Errors
/// When it is something else.
pub fn address(text: &str) -> Result<String, &'static str> {
    let named = text.rsplit_once(':').is_some_and(|(host, port)| {
        host.is_ascii() && Domain::parse(host).is_ok() && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if named || text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0) {
        Ok(text.to_owned())
    } else {
        Err("host:port is expected, such as 10.0.1.5:7001 or control-1.example:7001")
    }
}

#[cfg(test)]
mod tests {
    use super::{address, name};

    #[test]
    fn names_and_addresses_that_would_do_harm_are_refused() {
        for bad in ["", "..", ".a", "-a", "a/b", "Alpha", "a b", "a\n", &"a".repeat(64)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        for good in ["alpha", "control-1", "anna.berg", "1"] {
            assert!(name(good).is_ok(), "{good:?}");
        }
        for bad in ["", "host", "host:", ":1", "host:0", "host:70000", "::1:1", "a b:1", "h/x:1"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
        for good in ["127.0.0.1:1", "[::1]:7001", "alpha.csg.test:7001", "localhost:1"] {
            assert!(address(good).is_ok(), "{good:?}");
        }
    }
}
