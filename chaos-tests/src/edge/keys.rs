//! Keys for STARTTLS, made for one run: the same for both servers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// A certificate for 127.0.0.1 and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Key {
    /// `ECDSA P-256` or `RSA 2048`.
    pub name: &'static str,
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Key {
    /// One of each kind, written to a folder.
    ///
    /// # Errors
    /// When one cannot be made or written.
    pub fn both(folder: &Path) -> anyhow::Result<[Self; 2]> {
        Ok([
            Self::make(folder, "ECDSA P-256", "ecdsa", &rcgen::PKCS_ECDSA_P256_SHA256)?,
            Self::make(folder, "RSA 2048", "rsa", &rcgen::PKCS_RSA_SHA256)?,
        ])
    }

    fn make(folder: &Path, name: &'static str, file: &str, kind: &'static SignatureAlgorithm) -> anyhow::Result<Self> {
        let pair = KeyPair::generate_for(kind).with_context(|| format!("make a key of {name}"))?;
        let made = CertificateParams::new(vec!["127.0.0.1".to_owned()]).and_then(|wanted| wanted.self_signed(&pair));
        let pem = made.with_context(|| format!("make a certificate of {name}"))?.pem();
        let (certificate, key) = (folder.join(format!("{file}.pem")), folder.join(format!("{file}.key")));
        for (path, text) in [(&certificate, pem), (&key, pair.serialize_pem())] {
            std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(Self { name, certificate, key })
    }

    /// A client that trusts this certificate alone and does a full handshake each time. It offers one group, which every server
    /// has, so that all do the same work.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn client(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(&self.certificate).context("read the certificate")?;
        roots.add(certificate).context("use the certificate")?;
        let provider = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}
