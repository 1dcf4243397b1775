//! A transaction: MAIL to the end of DATA (RFC 5321 section 3.3), with what was found out about client and recipients.

use std::{net::IpAddr, sync::Arc};

use proto::{
    address::{Address, Domain, ReversePath},
    department::{DepartmentId, NextHop},
    envelope::{Handling, Notification},
    held::TransactionId,
    policy::Policy,
    verdict::Reason,
    view::View,
};

/// Where a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The MX side.
    Internet,
    /// The private network's side.
    Departments,
}

impl Listener {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::Departments => "departments",
        }
    }
}

/// Who is talking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Where it came in.
    pub listener: Listener,
    /// What it calls itself in EHLO or HELO; printable ASCII.
    pub helo: String,
    /// Whether it said EHLO.
    pub extended: bool,
    /// Whether the connection is under TLS.
    pub tls: bool,
    /// Whether it was offered TLS and did not take it. What a proxy did says nothing of its client.
    pub declined_tls: bool,
    /// What the DNS calls its address.
    pub name: ClientName,
    /// On the private network: whose server it is.
    pub department: Option<DepartmentId>,
    /// What spoke for or against it before its first message.
    pub reasons: Vec<Reason>,
}

/// What the DNS calls a client's address: a name counts when it leads back to the address (`iprev`, RFC 8601 section 2.7.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientName {
    /// Nobody has looked: it is well known, or a department's, or there was no connection.
    #[default]
    Unasked,
    /// There was no answer in time.
    Unanswered,
    /// It has none that leads back to it.
    None,
    /// This one, in lower case.
    Known(String),
}

/// What was found out about a client before it was greeted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// What the DNS calls its address.
    pub name: ClientName,
    /// What speaks for or against it.
    pub reasons: Vec<Reason>,
}

/// How far a recipient's mail is trusted before anything is known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrustClass {
    /// From the Internet to a department.
    Internet,
    /// From a department to the Internet.
    Outbound,
    /// From a department to a department: scanned for malware, never scored, never off the private network.
    Interdepartmental,
}

impl TrustClass {
    /// The word for headers, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::Outbound => "outbound",
            Self::Interdepartmental => "interdepartmental",
        }
    }
}

/// How a recipient is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A department's own servers, over the private network. Never by MX.
    Department {
        /// Whose.
        id: DepartmentId,
        /// Tried in order.
        next_hops: Vec<NextHop>,
    },
    /// The Internet: by these relays, or by the MX records of the domain when there are none.
    Internet {
        /// The recipient's domain.
        domain: Domain,
        /// Tried in order.
        relays: Vec<NextHop>,
    },
}

/// A recipient that RCPT has accepted.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// The forward-path.
    pub address: Address,
    /// What holds for it.
    pub policy: Arc<Policy>,
    /// How it is reached.
    pub route: Route,
    /// How far it is trusted.
    pub class: TrustClass,
    /// What the sender wants to hear of it.
    pub notification: Notification,
}

impl Recipient {
    /// Whose recipient it is; nobody's when it is on the Internet.
    #[must_use]
    pub fn department(&self) -> Option<&DepartmentId> {
        match &self.route {
            Route::Department { id, .. } => Some(id),
            Route::Internet { .. } => None,
        }
    }
}

/// What MAIL and RCPT have built up when DATA comes.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// In the 250 reply, the log, the trace and the Received field.
    pub id: TransactionId,
    /// Fixed at MAIL: a transaction never sees two policies.
    pub view: Arc<View>,
    /// Who is talking.
    pub client: Client,
    /// Whom to tell.
    pub reverse_path: ReversePath,
    /// What the sender asks of every server on the way.
    pub handling: Handling,
    /// At least one when DATA comes.
    pub recipients: Vec<Recipient>,
}
