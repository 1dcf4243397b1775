//! The certificate that the listeners offer TLS with, as it is in use: read again while the process runs, all its files together
//! or none of them. Each listener has settings and ticket keys of its own, so that a TLS session of one is never resumed at the
//! other.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use proto::{
    identity::{Renewable, Reread, Validity},
    time::UnixMs,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ProtocolVersion, RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    },
    server::TlsStream,
};

use super::{
    demand::{TlsDemand, TlsDemands},
    transaction::Listener,
};

/// Where the certificate is and whom TLS is demanded of. The files hold PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The CAs that client certificates must be of, where they are demanded.
    pub clients: Option<PathBuf>,
    /// At the Internet's listener.
    pub internet: TlsDemands,
    /// At the departments' listener.
    pub departments: TlsDemands,
}

impl TlsSettings {
    fn demands(&self, listener: Listener) -> &TlsDemands {
        match listener {
            Listener::Internet => &self.internet,
            Listener::Departments => &self.departments,
        }
    }
}

/// Why the listeners cannot have a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is missing or is none.
    #[error("read {path}: {problem}")]
    Pem {
        /// The file.
        path: String,
        /// Why.
        problem: String,
    },
    /// Key and certificate do not go together, or a CA is none.
    #[error("use {path}: {problem}")]
    Unfit {
        /// The file.
        path: String,
        /// Why.
        problem: String,
    },
    /// Its time is over or has not come.
    #[error("use {path}: it is not valid now, but from {not_before} to {not_after}")]
    Untimely {
        /// The file.
        path: String,
        /// First moment of its validity.
        not_before: UnixMs,
        /// Last second of its validity.
        not_after: UnixMs,
    },
    /// Client certificates are demanded, but no CA is named for them.
    #[error("client certificates are demanded, so tls.clients must name the CAs that they are of")]
    NoClientCa,
}

/// The certificate in use. Cheap to clone; a clone sees what another one has read again. The key stays in here.
#[derive(Clone)]
pub struct ServerCertificate {
    settings: Arc<TlsSettings>,
    current: Arc<ArcSwap<Loaded>>,
    /// Held while the files are read again; holds the texts that were refused last, to report them once.
    refused: Arc<Mutex<Option<Texts>>>,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What is on disk.
#[derive(Clone, PartialEq, Eq)]
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    clients: Option<Vec<u8>>,
}

/// What was made out of it.
struct Loaded {
    texts: Texts,
    validity: Validity,
    internet: Configs,
    departments: Configs,
}

/// One listener's.
struct Configs {
    /// For who needs no certificate.
    open: Arc<ServerConfig>,
    /// For who must show one; it is there when there are CAs for it.
    certified: Option<Arc<ServerConfig>>,
}

impl ServerCertificate {
    /// Reads the files. A certificate whose time is over is used all the same: who sends mail seldom looks, and to stop
    /// because of it would be worse.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let asked = settings.internet.ask_for_certificates() || settings.departments.ask_for_certificates();
        if asked && settings.clients.is_none() {
            return Err(TlsError::NoClientCa);
        }
        let loaded = Loaded::build(Texts::read(settings)?, settings)?;
        Ok(Self {
            settings: Arc::new(settings.clone()),
            current: Arc::new(ArcSwap::from_pointee(loaded)),
            refused: Arc::default(),
        })
    }

    /// What is demanded of a client.
    #[must_use]
    pub fn demand(&self, listener: Listener, client: IpAddr) -> TlsDemand {
        self.settings.demands(listener).of(client)
    }

    /// For a handshake now. A client that must show a certificate is asked for one; a handshake with a wrong one fails and its
    /// alert says why, one without any is done, so that the refusal of its mail can be in words.
    #[must_use]
    pub fn acceptor(&self, listener: Listener, demand: TlsDemand) -> Option<TlsAcceptor> {
        let current = self.current.load();
        let configs = match listener {
            Listener::Internet => &current.internet,
            Listener::Departments => &current.departments,
        };
        let config = match demand {
            TlsDemand::None => return None,
            TlsDemand::Offered | TlsDemand::Required => Arc::clone(&configs.open),
            TlsDemand::ClientCertificate => Arc::clone(configs.certified.as_ref()?),
        };
        Some(TlsAcceptor::from(config))
    }
}

/// Whether the client has shown a certificate. Only where one is demanded is it asked for, and then TLS has checked it.
#[must_use]
pub fn certified<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty())
}

/// For metrics: the version that was agreed on.
#[must_use]
pub fn version<S>(stream: &TlsStream<S>) -> &'static str {
    match stream.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        // Nothing else is in the settings.
        _ => "none",
    }
}

impl Renewable for ServerCertificate {
    type Problem = TlsError;

    fn what(&self) -> &'static str {
        "the listeners' certificate"
    }

    fn renewed_by(&self) -> &'static str {
        "put the new one in the place of the old"
    }

    fn not_after(&self) -> UnixMs {
        self.current.load().validity.not_after
    }

    fn reread(&self, now: UnixMs) -> Result<Reread, TlsError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = Texts::read(&self.settings)?;
        if texts == self.current.load().texts {
            *refused = None;
            return Ok(Reread::Unchanged);
        }
        let new = Loaded::build(texts.clone(), &self.settings).and_then(|new| new.timely(&self.settings, now));
        let new = match new {
            Ok(new) => new,
            Err(_) if refused.as_ref() == Some(&texts) => return Ok(Reread::Unchanged),
            Err(problem) => {
                *refused = Some(texts);
                return Err(problem);
            }
        };
        *refused = None;
        let (serial, not_after) = (new.validity.serial.clone(), new.validity.not_after);
        self.current.store(Arc::new(new));
        Ok(Reread::Taken { serial, not_after, revoked: 0 })
    }
}

impl Texts {
    fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| unreadable(path, &error));
        Ok(Self {
            certificate: read(&settings.certificate)?,
            key: read(&settings.key)?,
            clients: settings.clients.as_ref().map(read).transpose()?,
        })
    }
}

fn unreadable(path: &Path, problem: &dyn fmt::Display) -> TlsError {
    TlsError::Pem { path: path.display().to_string(), problem: problem.to_string() }
}

fn unfit(path: &Path, problem: &dyn fmt::Display) -> TlsError {
    TlsError::Unfit { path: path.display().to_string(), problem: problem.to_string() }
}

impl Loaded {
    fn build(texts: Texts, settings: &TlsSettings) -> Result<Self, TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&texts.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable(&settings.certificate, &error))?;
        let key = PrivateKeyDer::from_pem_slice(&texts.key).map_err(|error| unreadable(&settings.key, &error))?;
        let leaf = chain.first().ok_or_else(|| unreadable(&settings.certificate, &"it holds no certificate"))?;
        let validity = Validity::read(leaf).ok_or_else(|| unfit(&settings.certificate, &"it is no certificate"))?;
        let verifier = match (&settings.clients, &texts.clients) {
            (Some(path), Some(pem)) => Some(clients(path, pem)?),
            _ => None,
        };
        let config = |verifier: Option<&Arc<dyn ClientCertVerifier>>| {
            config(chain.clone(), key.clone_key(), verifier).map_err(|error| unfit(&settings.certificate, &error))
        };
        let configs = || {
            let certified = verifier.as_ref().map(|verifier| config(Some(verifier))).transpose()?;
            Ok(Configs { open: config(None)?, certified })
        };
        Ok(Self { internet: configs()?, departments: configs()?, validity, texts })
    }

    fn timely(self, settings: &TlsSettings, now: UnixMs) -> Result<Self, TlsError> {
        let Validity { not_before, not_after, .. } = self.validity;
        if self.validity.check_time(now).is_ok() {
            return Ok(self);
        }
        Err(TlsError::Untimely { path: settings.certificate.display().to_string(), not_before, not_after })
    }
}

/// Checks a client's certificate against these CAs, where it shows one.
fn clients(path: &Path, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem) {
        let root = root.map_err(|error| unreadable(path, &error))?;
        roots.add(root).map_err(|error| unfit(path, &error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| unfit(path, &error))
}

/// TLS 1.2 and 1.3. Sessions are resumed by tickets alone, whose keys belong to this config and are replaced every six hours: a
/// client costs no memory when it has gone. Where certificates are demanded nothing is resumed, which would go around the
/// check of the certificate.
fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    verifier: Option<&Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if verifier.is_some() {
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = aws_lc_rs::Ticketer::new()?;
    }
    Ok(Arc::new(config))
}
