//! A department: a tenant of the gateway with its domains, next hops and people.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{address::Domain, policy::PolicyLayer};

/// A department's short name: 1 to 63 lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DepartmentId(String);

/// A text is not a department's short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a department's id is 1 to 63 lower-case letters, digits and hyphens")]
pub struct DepartmentIdError;

impl DepartmentId {
    /// Reads a short name.
    ///
    /// # Errors
    /// When it has other characters or length.
    pub fn parse(text: &str) -> Result<Self, DepartmentIdError> {
        let ok = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok { Ok(Self(text.to_owned())) } else { Err(DepartmentIdError) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DepartmentId {
    type Error = DepartmentIdError;
    fn try_from(text: String) -> Result<Self, DepartmentIdError> {
        Self::parse(&text)
    }
}

impl From<DepartmentId> for String {
    fn from(id: DepartmentId) -> Self {
        id.0
    }
}

impl fmt::Display for DepartmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a next hop must do about TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsRule {
    /// Never asked for.
    None,
    /// Used where offered, with any certificate.
    #[default]
    Opportunistic,
    /// Demanded, with a certificate for the host's name from a trusted root; otherwise the mail waits.
    Required,
}

/// A server that takes mail from us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// A host name, resolved when used, or an IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS towards it.
    pub tls: TlsRule,
}

/// `host:port`.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who knows whether a recipient of the department exists, beyond its list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// Nobody is asked before the message comes.
    #[default]
    None,
    /// The next hop is asked with MAIL and RCPT.
    NextHop,
    /// A directory that each node's settings name so, because they hold its password.
    Directory(String),
}

impl Verification {
    /// Whether nobody is asked.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// As a department's file writes it.
impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::NextHop => f.write_str("next_hop"),
            Self::Directory(name) => write!(f, "directory:{name}"),
        }
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Department {
    /// Short name, unique.
    pub id: DepartmentId,
    /// Name for people.
    pub name: String,
    /// Domains it receives mail for; no domain belongs to two departments.
    pub domains: BTreeSet<Domain>,
    /// Where its mail goes, tried in order.
    pub next_hops: Vec<NextHop>,
    /// Networks from which its own servers send to the `departments` listener.
    pub sources: Vec<IpNet>,
    /// Networks on the Internet side that may send in the name of its domains.
    pub services: Vec<IpNet>,
    /// Known local parts in lower case; `None` means that the next hop knows.
    pub recipients: Option<BTreeSet<String>>,
    /// Who else is asked about a recipient.
    #[serde(default, skip_serializing_if = "Verification::is_none")]
    pub verification: Verification,
    /// What this department's policy says on top of the state's.
    pub policy: PolicyLayer,
}

impl Department {
    /// Whether this Internet client may speak in its name.
    #[must_use]
    pub fn lists_service(&self, client: IpAddr) -> bool {
        self.services.iter().any(|net| net.contains(&client))
    }
}
