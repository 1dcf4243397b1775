//! Who is who: a role and a name as a SPIFFE-style URI in the certificate (`spiffe://CLUSTER/ROLE/NAME`), what a peer's
//! certificate says beside it, and the mTLS settings that every process makes out of its PEM files.

mod channels;
mod credentials;
mod leaf;
mod rotation;
#[cfg(test)]
pub(crate) mod test_ca;

use std::fmt;

use serde::{Deserialize, Serialize};
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

pub use self::{
    channels::Channels,
    credentials::{Credentials, Reread},
    leaf::{Leaf, Refusal, Validity},
    rotation::{Renewable, keep_fresh},
};

/// What a certificate lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A control server: Raft, and answering for the cluster.
    Control,
    /// A node: the edge service.
    Node,
    /// A person or a script: the operator service, and looking into nodes.
    Operator,
}

impl Role {
    /// The word in the URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Node => "node",
            Self::Operator => "operator",
        }
    }

    /// The DNS name in each certificate of the role: clients demand it of a server, so that a node's certificate cannot
    /// answer in a control server's place.
    #[must_use]
    pub const fn dns_name(self) -> &'static str {
        match self {
            Self::Control => "control.postern.internal",
            Self::Node => "node.postern.internal",
            Self::Operator => "operator.postern.internal",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who holds a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id, given once by `posternctl cluster init`.
    pub cluster: String,
    /// What it may do.
    pub role: Role,
    /// Its name: unique in the role.
    pub name: String,
}

/// `spiffe://CLUSTER/ROLE/NAME`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.cluster, self.role, self.name)
    }
}

/// What is wrong with a certificate or its files.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing or unreadable.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold a certificate.
    #[error("{0} is not a PEM certificate")]
    NotPem(String),
    /// The three files do not make a TLS server.
    #[error("ca.pem, certificate.pem and key.pem do not fit together: {0}")]
    Unfit(String),
    /// Others would turn this certificate away: expired, not yet valid, revoked, or of a CA that is not in ca.pem.
    #[error("nobody would take certificate.pem: {0}; posternctl cluster issue --renew makes a new one")]
    Unusable(String),
    /// A revocation list is no list, or not of a CA in ca.pem.
    #[error("crl.pem: {0}; posternctl cluster revoke makes it")]
    RevocationList(String),
    /// The files on disk are another holder's than those in use.
    #[error("the certificate is now {now}'s, but this process is {was}")]
    Another {
        /// Who the process is.
        was: String,
        /// Whom the new certificate names.
        now: String,
    },
    /// Exactly one URI SAN must name cluster, role and name.
    #[error("the certificate names nobody: it needs one URI spiffe://CLUSTER/ROLE/NAME")]
    Nameless,
}

impl Identity {
    /// Reads the URI out of a certificate. The chain was checked by TLS before.
    ///
    /// # Errors
    /// When there is not exactly one well-formed URI.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Nameless)?;
        let names = certificate.subject_alternative_name().ok().flatten().ok_or(IdentityError::Nameless)?;
        let mut uris = names
            .value
            .general_names
            .iter()
            .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
        let uri = uris.next().ok_or(IdentityError::Nameless)?;
        if uris.next().is_some() {
            return Err(IdentityError::Nameless);
        }
        Self::parse(uri).ok_or(IdentityError::Nameless)
    }

    fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let (cluster, role, name) = (parts.next()?, parts.next()?, parts.next()?);
        let role = [Role::Control, Role::Node, Role::Operator].into_iter().find(|known| known.as_str() == role)?;
        let well_formed = parts.next().is_none() && !cluster.is_empty() && !name.is_empty();
        well_formed.then(|| Self { cluster: cluster.to_owned(), role, name: name.to_owned() })
    }

    /// Who sent a request: checked to be of our cluster and of one of the roles that may call the service. TLS has checked
    /// the certificate when the connection began; see [`Credentials::caller`] for a check as of now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a well-formed certificate of our cluster, `PERMISSION_DENIED` for another role.
    pub fn of_request<T>(request: &Request<T>, cluster: &str, allowed: &[Role]) -> Result<Self, Status> {
        let leaf = Leaf::of_request(request)?;
        leaf.check_holder(cluster, allowed)?;
        Ok(leaf.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::{Identity, Role};

    #[test]
    fn a_uri_names_cluster_role_and_name() {
        let identity = Identity { cluster: "c1".into(), role: Role::Node, name: "n-1".into() };
        assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
        for bad in [
            "",
            "spiffe://c1/node",
            "spiffe://c1/king/n",
            "spiffe://c1/node/",
            "spiffe://c1/node/n/x",
            "https://c1/node/n",
        ] {
            assert_eq!(Identity::parse(bad), None, "{bad}");
        }
    }
}
