//! Who is who: a role and a name as a SPIFFE-style URI in the certificate (`spiffe://CLUSTER/ROLE/NAME`), and the mTLS
//! settings that every process makes out of its three PEM files.

use std::{fmt, path::Path, sync::Arc};

use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use tonic::{
    Request, Status,
    transport::{Certificate, ClientTlsConfig, Identity as TlsIdentity, ServerTlsConfig},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

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

    /// Who sent a request: checked to be of our cluster and of one of the roles that may call the service.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a well-formed certificate of our cluster, `PERMISSION_DENIED` for another role.
    pub fn of_request<T>(request: &Request<T>, cluster: &str, allowed: &[Role]) -> Result<Self, Status> {
        let certificates =
            request.peer_certs().ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let leaf = certificates.first().ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let identity = Self::of_certificate(leaf).map_err(|error| Status::unauthenticated(error.to_string()))?;
        if identity.cluster != cluster {
            return Err(Status::unauthenticated("the certificate is of another cluster"));
        }
        if !allowed.contains(&identity.role) {
            return Err(Status::permission_denied(format!("a {} may not call this service", identity.role)));
        }
        Ok(identity)
    }
}

/// The three PEM texts of a process: who it trusts and who it is. The key stays in here.
#[derive(Clone)]
pub struct Credentials {
    /// Who it is.
    pub identity: Identity,
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads `ca.pem`, `certificate.pem` and `key.pem` of a folder.
    ///
    /// # Errors
    /// When one is missing or the certificate names nobody.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| IdentityError::Read { path: path.display().to_string(), source })
        };
        let certificate = read("certificate.pem")?;
        let der = CertificateDer::from_pem_slice(&certificate)
            .map_err(|_| IdentityError::NotPem(folder.join("certificate.pem").display().to_string()))?;
        Ok(Self { identity: Identity::of_certificate(&der)?, ca: read("ca.pem")?, key: read("key.pem")?, certificate })
    }

    fn tls_identity(&self) -> TlsIdentity {
        TlsIdentity::from_pem(&self.certificate, &self.key)
    }

    /// For a gRPC server: a client without a certificate of the cluster's CA is turned away.
    #[must_use]
    pub fn server_tls(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.tls_identity()).client_ca_root(Certificate::from_pem(&self.ca))
    }

    /// The same for a listener that does the handshakes itself, to bound and log them: TLS 1.3, HTTP/2 only.
    ///
    /// # Errors
    /// When a file holds no certificate or key, or the key is not the certificate's.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let unfit = |problem: &dyn fmt::Display| IdentityError::Unfit(problem.to_string());
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&self.ca) {
            roots.add(root.map_err(|error| unfit(&error))?).map_err(|error| unfit(&error))?;
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| unfit(&error))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unfit(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unfit(&error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.map_err(|error| unfit(&error))?, key)
            .map_err(|error| unfit(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// For a gRPC client of a server that must hold a certificate of `role`.
    #[must_use]
    pub fn client_tls(&self, role: Role) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(self.tls_identity())
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(role.dns_name())
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
