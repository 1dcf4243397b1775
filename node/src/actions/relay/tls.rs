//! TLS towards next hops: with any certificate where it is merely offered, with a verified one where it is demanded.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use tokio_rustls::TlsConnector;

/// The two ways of speaking TLS as a client.
#[derive(Clone)]
pub(super) struct Tls {
    opportunistic: TlsConnector,
    /// Nothing when no roots are configured: then no certificate can be verified.
    verified: Option<TlsConnector>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("verified", &self.verified.is_some()).finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn new(roots: Option<Arc<RootCertStore>>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .expect("the provider of rustls supports its default versions")
        };
        let any = Arc::new(AnyCertificate(Arc::clone(&provider)));
        let opportunistic = builder().dangerous().with_custom_certificate_verifier(any).with_no_client_auth();
        let verified = roots.map(|roots| builder().with_root_certificates(roots).with_no_client_auth());
        Self {
            opportunistic: TlsConnector::from(Arc::new(opportunistic)),
            verified: verified.map(|config| TlsConnector::from(Arc::new(config))),
        }
    }

    /// For `TlsRule::Opportunistic`: against eavesdroppers, not against impostors (RFC 7435).
    pub(super) fn opportunistic(&self) -> &TlsConnector {
        &self.opportunistic
    }

    /// For `TlsRule::Required`.
    pub(super) fn verified(&self) -> Option<&TlsConnector> {
        self.verified.as_ref()
    }
}

/// Reads roots for next hops out of a PEM file's bytes.
///
/// # Errors
/// When it holds no certificate, or one that cannot be a root; in words for the operator.
pub fn roots_from_pem(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("not a root certificate: {error}"))?;
    }
    if roots.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(Arc::new(roots)) }
}

/// Takes any certificate, but demands that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
