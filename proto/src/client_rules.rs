//! What the state's policy says of clients before they have sent a message: what speaks against them and by how much, and how
//! much of them is taken.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{address::Domain, score::Score};

/// Lists that are asked about each client, at most: each is a question to DNS.
pub const DNS_LISTS_MAX: usize = 32;

/// A list of clients that is asked over DNS (RFC 5782).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsList {
    /// Where it is asked, below which the client's address is written backwards.
    pub zone: Domain,
    /// What it counts when it lists the client; below zero for a list of good ones.
    pub points: Score,
    /// Answers that count; all of 127.0.0.0/8 when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Ipv4Net>,
}

/// `zen.example 4.00 (127.0.0.2/32)`.
impl std::fmt::Display for DnsList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.zone, self.points)?;
        if self.answers.is_empty() {
            return Ok(());
        }
        let answers: Vec<String> = self.answers.iter().map(ToString::to_string).collect();
        write!(f, " ({})", answers.join(" "))
    }
}

/// Points of the checks that need nothing but the client's address and what it calls itself. A check of zero points is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPoints {
    /// It spoke before it was greeted (RFC 5321 section 4.3.1).
    pub early_talk: Score,
    /// Its address has no name that leads back to it (RFC 8601 section 2.7.3).
    pub no_reverse_name: Score,
    /// That name is made of the address, as those of dial-up lines are.
    pub generic_reverse_name: Score,
    /// It calls itself by our name, by that of a department, or by an address that is not its own.
    pub false_helo: Score,
    /// It calls itself by something that is no name on the Internet: an address without brackets, a word without a dot.
    pub bad_helo: Score,
    /// The name that it calls itself by has neither an address nor an MX record.
    pub unknown_helo: Score,
}

impl ClientPoints {
    /// None of the checks is made.
    pub const NONE: Self = Self {
        early_talk: Score::ZERO,
        no_reverse_name: Score::ZERO,
        generic_reverse_name: Score::ZERO,
        false_helo: Score::ZERO,
        bad_helo: Score::ZERO,
        unknown_helo: Score::ZERO,
    };

    /// What Postern ships with.
    pub const BUILT_IN: Self = Self {
        early_talk: Score::points(10, 0),
        no_reverse_name: Score::points(1, 20),
        generic_reverse_name: Score::points(0, 80),
        false_helo: Score::points(5, 0),
        bad_helo: Score::points(1, 50),
        unknown_helo: Score::points(1, 0),
    };
}

/// How much is taken in a minute, by each node for itself; what has no bound is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Connections of one client: an IPv4 address or an IPv6 /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_connections: Option<u32>,
    /// Connections of one net: a /24 or a /48.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_connections: Option<u32>,
    /// Transactions with a reverse-path of one domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_domain_messages: Option<u32>,
    /// Recipients of one department, and for its own servers those that they send to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department_recipients: Option<u32>,
    /// Recipients that one client names and that nobody knows: who names more looks for addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_recipients: Option<u32>,
}

/// How much is under way at once, at each node by itself; what has no bound is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtOnce {
    /// Connections of one net: a /24 or a /48. Those of one client are bounded by the settings of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_connections: Option<u32>,
    /// Messages with a reverse-path of one domain, from DATA or the first BDAT to their reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_domain_messages: Option<u32>,
    /// Messages for a recipient of one department, and for its own servers those that they send; counted as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub department_messages: Option<u32>,
}

impl AtOnce {
    fn is_unbounded(&self) -> bool {
        *self == Self::default()
    }
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRules {
    /// How long a client that is not known as a good one waits for its greeting, in milliseconds; zero: not at all, and only
    /// what it has sent by then counts as early.
    pub greet_delay_ms: u64,
    /// How long it is put off the first time where policy wants that, in milliseconds.
    pub greylist_delay_ms: u64,
    /// What counts against it.
    pub points: ClientPoints,
    /// Asked about it, at most [`DNS_LISTS_MAX`].
    pub dns_lists: Vec<DnsList>,
    /// Bounds of what comes in a minute.
    pub rates: Rates,
    /// Bounds of what is under way.
    #[serde(default, skip_serializing_if = "AtOnce::is_unbounded")]
    pub at_once: AtOnce,
}

impl ClientRules {
    /// What holds where the state's file says nothing: five minutes of greylisting, no delay, no lists.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            greet_delay_ms: 0,
            greylist_delay_ms: 5 * 60 * 1000,
            points: ClientPoints::BUILT_IN,
            dns_lists: Vec::new(),
            rates: Rates { unknown_recipients: Some(30), ..Rates::default() },
            at_once: AtOnce::default(),
        }
    }

    /// Nothing is asked, nothing is bounded.
    #[must_use]
    pub fn none() -> Self {
        let (points, rates) = (ClientPoints::NONE, Rates::default());
        Self { points, rates, ..Self::built_in() }
    }

    /// Each value as text with its key, for plans.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { greet_delay_ms, greylist_delay_ms, points, dns_lists, rates, at_once } = self;
        let text = |bound: Option<u32>, unit: &str| {
            bound.map_or_else(|| "no bound".to_owned(), |bound| format!("{bound}{unit}"))
        };
        let (bound, most) = (|bound| text(bound, "/min"), |bound| text(bound, " at once"));
        let lists: Vec<String> = dns_lists.iter().map(ToString::to_string).collect();
        vec![
            ("greet_delay", format!("{greet_delay_ms} ms")),
            ("greylist_delay", format!("{} s", greylist_delay_ms / 1000)),
            ("points.early_talk", points.early_talk.to_string()),
            ("points.no_reverse_name", points.no_reverse_name.to_string()),
            ("points.generic_reverse_name", points.generic_reverse_name.to_string()),
            ("points.false_helo", points.false_helo.to_string()),
            ("points.bad_helo", points.bad_helo.to_string()),
            ("points.unknown_helo", points.unknown_helo.to_string()),
            ("dns_lists", format!("[{}]", lists.join(", "))),
            ("rates.client_connections", bound(rates.client_connections)),
            ("rates.net_connections", bound(rates.net_connections)),
            ("rates.sender_domain_messages", bound(rates.sender_domain_messages)),
            ("rates.department_recipients", bound(rates.department_recipients)),
            ("rates.unknown_recipients", bound(rates.unknown_recipients)),
            ("at_once.net_connections", most(at_once.net_connections)),
            ("at_once.sender_domain_messages", most(at_once.sender_domain_messages)),
            ("at_once.department_messages", most(at_once.department_messages)),
        ]
    }
}
