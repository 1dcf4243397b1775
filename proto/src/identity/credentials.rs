//! The PEM files of a process, as they are in use: who it trusts, who it is, and who is revoked. They are read again while the
//! process runs, all together or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    client::WebPkiServerVerifier,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject};
use tonic::{
    Request,
    transport::{Certificate, ClientTlsConfig, Endpoint, Error, Identity as TlsIdentity, ServerTlsConfig},
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{Identity, IdentityError, Leaf, Refusal, Role, leaf::serial_hex};
use crate::time::UnixMs;

/// What came of looking at the files again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reread {
    /// They are as they were.
    Unchanged,
    /// They are in use from now on.
    Taken {
        /// Serial number of the certificate now in use.
        serial: String,
        /// Last second of its validity.
        not_after: UnixMs,
        /// How many certificates are revoked.
        revoked: usize,
    },
}

/// Who a process is and whom it trusts, out of `ca.pem` (one CA or several), `certificate.pem`, `key.pem` and, if it is there,
/// `crl.pem`. Cheap to clone; a clone sees what another one has read again. The key stays in here.
#[derive(Clone)]
pub struct Credentials {
    /// Who it is; this never changes.
    pub identity: Identity,
    folder: Arc<Path>,
    current: Arc<ArcSwap<Loaded>>,
    /// Held while the files are read again; holds the texts that were refused last, to report them once.
    refused: Arc<Mutex<Option<Texts>>>,
}

/// What is on disk.
#[derive(Clone, PartialEq, Eq)]
struct Texts {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
    crl: Option<Vec<u8>>,
}

/// What was made out of it.
struct Loaded {
    texts: Texts,
    /// Counts how often the files were taken.
    generation: u64,
    chain: Vec<CertificateDer<'static>>,
    leaf: Leaf,
    server: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
    lists: Lists,
}

/// What the revocation lists say.
#[derive(Default)]
struct Lists {
    /// Issuer and serial of each revoked certificate.
    revoked: BTreeSet<(Vec<u8>, String)>,
    /// Number of each issuer's list.
    numbers: BTreeMap<Vec<u8>, u64>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files of a folder.
    ///
    /// # Errors
    /// When one is missing, they do not fit together, or the certificate names nobody. Whether it is valid now is another
    /// question: see [`Credentials::check`].
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let loaded = Loaded::build(Texts::read(folder)?, folder, 0)?;
        Ok(Self {
            identity: loaded.leaf.identity.clone(),
            folder: Arc::from(folder),
            current: Arc::new(ArcSwap::from_pointee(loaded)),
            refused: Arc::default(),
        })
    }

    /// Whether others would take this certificate now.
    ///
    /// # Errors
    /// When it is not of a CA in `ca.pem`, revoked, expired or not yet valid.
    pub fn check(&self, now: UnixMs) -> Result<(), IdentityError> {
        self.current.load().check(now)
    }

    /// Looks at the files again and takes them if all is well: the same holder, a certificate that others take now, and no
    /// revocation list older than the one in use. Otherwise the old ones stay in use. Reads files.
    ///
    /// # Errors
    /// What is wrong with them; for the same contents only the first time.
    pub fn reread(&self, now: UnixMs) -> Result<Reread, IdentityError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = Texts::read(&self.folder)?;
        let old = self.current.load_full();
        if texts == old.texts {
            *refused = None;
            return Ok(Reread::Unchanged);
        }
        let new = Loaded::build(texts.clone(), &self.folder, old.generation + 1)
            .and_then(|new| new.replaces(&old, now).map(|()| new));
        let new = match new {
            Ok(new) => new,
            Err(_) if refused.as_ref() == Some(&texts) => return Ok(Reread::Unchanged),
            Err(problem) => {
                *refused = Some(texts);
                return Err(problem);
            }
        };
        *refused = None;
        let taken = Reread::Taken {
            serial: new.leaf.serial.clone(),
            not_after: new.leaf.not_after,
            revoked: new.lists.revoked.len(),
        };
        self.current.store(Arc::new(new));
        Ok(taken)
    }

    /// Moves each time when other files were taken.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// The process's own certificate.
    #[must_use]
    pub fn leaf(&self) -> Leaf {
        self.current.load().leaf.clone()
    }

    /// Who sent a request, if the sender's certificate is valid now, of our cluster and of one of these roles. The connection
    /// may be older than the certificate's end or its revocation.
    ///
    /// # Errors
    /// `Refusal`, which is a `Status`.
    pub fn caller<T>(&self, request: &Request<T>, allowed: &[Role], now: UnixMs) -> Result<Identity, Refusal> {
        let leaf = Leaf::of_request(request)?;
        self.admit(&leaf, allowed, now)?;
        Ok(leaf.identity)
    }

    /// Whether the holder of this certificate may call a service for these roles now.
    ///
    /// # Errors
    /// `Refusal`.
    pub fn admit(&self, leaf: &Leaf, allowed: &[Role], now: UnixMs) -> Result<(), Refusal> {
        leaf.check_time(now)?;
        if self.current.load().lists.revoked.contains(&(leaf.issuer.clone(), leaf.serial.clone())) {
            return Err(Refusal::Revoked);
        }
        leaf.check_holder(&self.identity.cluster, allowed)
    }

    /// Checks a client's chain as a handshake now would: CA, time and revocation.
    ///
    /// # Errors
    /// `Refusal`.
    pub fn verify_client(&self, chain: &[CertificateDer<'_>], now: UnixMs) -> Result<(), Refusal> {
        verify(&self.current.load().clients, chain, now).map_err(|error| {
            // An error of another kind than the certificate's does not make it a good one.
            Refusal::of_tls(&error).unwrap_or(Refusal::Untrusted)
        })
    }

    fn tls_identity(loaded: &Loaded) -> TlsIdentity {
        TlsIdentity::from_pem(&loaded.texts.certificate, &loaded.texts.key)
    }

    /// For a gRPC server that lets tonic do the handshakes; it stays with the files as they are now.
    #[must_use]
    pub fn server_tls(&self) -> ServerTlsConfig {
        let loaded = self.current.load();
        ServerTlsConfig::new()
            .identity(Self::tls_identity(&loaded))
            .client_ca_root(Certificate::from_pem(&loaded.texts.ca))
    }

    /// For a listener that does the handshakes itself, to bound and log them: TLS 1.3, HTTP/2 only, no resumption, which would
    /// go around the checks. To be asked for at each handshake.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// For a gRPC client that lets tonic check the server, which must hold a certificate of `role`; without revocation lists.
    #[must_use]
    pub fn client_tls(&self, role: Role) -> ClientTlsConfig {
        let loaded = self.current.load();
        ClientTlsConfig::new()
            .identity(Self::tls_identity(&loaded))
            .ca_certificate(Certificate::from_pem(&loaded.texts.ca))
            .domain_name(role.dns_name())
    }

    /// For a gRPC client of a server at `host:port` that must hold a certificate of `role` which is not revoked.
    ///
    /// # Errors
    /// When the address is none.
    pub fn endpoint(&self, address: &str, role: Role) -> Result<Endpoint, Error> {
        let loaded = self.current.load();
        let tls = ClientTlsConfig::new().identity(Self::tls_identity(&loaded)).domain_name(role.dns_name());
        Endpoint::from_shared(format!("https://{address}"))?
            .tls_config_with_verifier(tls, Arc::clone(&loaded.servers) as Arc<_>)
    }
}

impl Texts {
    fn read(folder: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| IdentityError::Read { path: path.display().to_string(), source })
        };
        let crl = match read("crl.pem") {
            Ok(text) => Some(text),
            Err(IdentityError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { certificate: read("certificate.pem")?, ca: read("ca.pem")?, key: read("key.pem")?, crl })
    }
}

fn unfit(problem: &dyn fmt::Display) -> IdentityError {
    IdentityError::Unfit(problem.to_string())
}

impl Loaded {
    fn build(texts: Texts, folder: &Path, generation: u64) -> Result<Self, IdentityError> {
        let not_pem = || IdentityError::NotPem(folder.join("certificate.pem").display().to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&texts.certificate).collect();
        let chain = chain.map_err(|_| not_pem())?;
        let leaf = Leaf::read(chain.first().ok_or_else(not_pem)?).map_err(|_| IdentityError::Nameless)?;
        let (roots, issuers) = roots(&texts.ca)?;
        let (crls, lists) = revocations(texts.crl.as_deref(), &issuers)?;
        let key = PrivateKeyDer::from_pem_slice(&texts.key).map_err(|error| unfit(&error))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        // A CA without a list has revoked nothing: a new CA comes before its first list.
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .with_crls(crls.iter().cloned())
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| unfit(&error))?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| unfit(&error))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unfit(&error))?
            .with_client_cert_verifier(Arc::clone(&clients))
            .with_single_cert(chain.clone(), key)
            .map_err(|error| unfit(&error))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { texts, generation, chain, leaf, server: Arc::new(server), clients, servers, lists })
    }

    fn check(&self, now: UnixMs) -> Result<(), IdentityError> {
        verify(&self.clients, &self.chain, now).map_err(|error| match Refusal::of_tls(&error) {
            Some(refusal) => IdentityError::Unusable(refusal.to_string()),
            None => IdentityError::Unusable(error.to_string()),
        })
    }

    /// Whether it may take the place of `old`.
    fn replaces(&self, old: &Self, now: UnixMs) -> Result<(), IdentityError> {
        let (was, is) = (&old.leaf.identity, &self.leaf.identity);
        if was != is {
            return Err(IdentityError::Another { was: was.to_string(), now: is.to_string() });
        }
        let (_, issuers) = roots(&self.texts.ca)?;
        for (issuer, number) in &old.lists.numbers {
            // The list of a CA that is no longer trusted may go with it.
            let is_older = self.lists.numbers.get(issuer).is_none_or(|now| now < number);
            if issuers.contains(issuer) && is_older {
                return Err(IdentityError::RevocationList(format!(
                    "it is gone or older than number {number}, which is in use"
                )));
            }
        }
        self.check(now)
    }
}

fn verify(
    clients: &Arc<dyn ClientCertVerifier>,
    chain: &[CertificateDer<'_>],
    now: UnixMs,
) -> Result<(), rustls::Error> {
    let (leaf, between) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    clients.verify_client_cert(leaf, between, now).map(drop)
}

/// The CAs, and their names in DER.
fn roots(pem: &[u8]) -> Result<(Arc<RootCertStore>, BTreeSet<Vec<u8>>), IdentityError> {
    let (mut roots, mut names) = (RootCertStore::empty(), BTreeSet::new());
    for root in CertificateDer::pem_slice_iter(pem) {
        let root = root.map_err(|error| unfit(&error))?;
        let (_, certificate) = X509Certificate::from_der(&root).map_err(|error| unfit(&error))?;
        names.insert(certificate.subject().as_raw().to_vec());
        roots.add(root.clone()).map_err(|error| unfit(&error))?;
    }
    Ok((Arc::new(roots), names))
}

/// The revocation lists, each of a CA that is trusted; TLS checks their signatures when it uses them.
fn revocations(
    pem: Option<&[u8]>,
    issuers: &BTreeSet<Vec<u8>>,
) -> Result<(Vec<CertificateRevocationListDer<'static>>, Lists), IdentityError> {
    let wrong = |problem: &dyn fmt::Display| IdentityError::RevocationList(problem.to_string());
    let (mut ders, mut lists) = (Vec::new(), Lists::default());
    let Some(pem) = pem else { return Ok((ders, lists)) };
    for der in CertificateRevocationListDer::pem_slice_iter(pem) {
        let der = der.map_err(|error| wrong(&error))?;
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(|error| wrong(&error))?;
        let issuer = list.issuer().as_raw().to_vec();
        if !issuers.contains(&issuer) {
            return Err(wrong(&"it is of a CA that is not in ca.pem"));
        }
        let number = list.crl_number().map(|number| number.to_u64_digits()).unwrap_or_default();
        lists.numbers.insert(issuer.clone(), number.first().copied().unwrap_or_default());
        for revoked in list.iter_revoked_certificates() {
            lists.revoked.insert((issuer.clone(), serial_hex(&revoked.user_certificate.to_bytes_be())));
        }
        ders.push(der.clone());
    }
    // An empty file is more likely a broken copy than a wish.
    if ders.is_empty() { Err(wrong(&"it holds no list")) } else { Ok((ders, lists)) }
}

#[cfg(test)]
mod tests;
