//! What a peer's certificate says, and why a peer is turned away.

use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Identity, Role};
use crate::time::UnixMs;

/// Why a caller is turned away because of its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It showed none.
    #[error("a client certificate is needed")]
    NoCertificate,
    /// It names nobody, or two.
    #[error("the certificate names nobody: it needs one URI spiffe://CLUSTER/ROLE/NAME")]
    Nameless,
    /// It is of a CA that is not in ca.pem, or broken.
    #[error("the certificate is not of a CA of this cluster")]
    Untrusted,
    /// It is of another cluster under the same CA.
    #[error("the certificate is of another cluster")]
    Cluster,
    /// Its time has not come.
    #[error("the certificate is not valid yet: are the clocks right?")]
    NotYetValid,
    /// Its time is over.
    #[error("the certificate has expired: posternctl cluster issue --renew makes a new one")]
    Expired,
    /// It is in crl.pem.
    #[error("the certificate is revoked")]
    Revoked,
    /// Its holder may do other things.
    #[error("a {0} may not call this service")]
    Role(Role),
}

impl Refusal {
    /// The word for counters: one of few.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::Nameless => "nameless",
            Self::Untrusted => "untrusted",
            Self::Cluster => "cluster",
            Self::NotYetValid => "not-yet-valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Role(_) => "role",
        }
    }

    /// What TLS found wrong with a peer's certificate; nothing when it was something else.
    #[must_use]
    pub fn of_tls(error: &rustls::Error) -> Option<Self> {
        use rustls::{CertificateError, Error};
        // Both enums are open: what a later rustls adds is a certificate that is not taken, or no certificate's matter.
        if matches!(error, Error::NoCertificatesPresented) {
            return Some(Self::NoCertificate);
        }
        let Error::InvalidCertificate(problem) = error else { return None };
        if matches!(problem, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
            return Some(Self::Expired);
        }
        if matches!(problem, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) {
            return Some(Self::NotYetValid);
        }
        Some(if *problem == CertificateError::Revoked { Self::Revoked } else { Self::Untrusted })
    }
}

/// `UNAUTHENTICATED`, or `PERMISSION_DENIED` when only the role is wrong.
impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NoCertificate
            | Refusal::Nameless
            | Refusal::Untrusted
            | Refusal::Cluster
            | Refusal::NotYetValid
            | Refusal::Expired
            | Refusal::Revoked => Self::unauthenticated(text),
            Refusal::Role(_) => Self::permission_denied(text),
        }
    }
}

/// What any certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Serial number, in lower-case hex without leading zeros.
    pub serial: String,
    /// First moment.
    pub not_before: UnixMs,
    /// Last second.
    pub not_after: UnixMs,
}

impl Validity {
    /// Reads a certificate; nothing when it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self::of(&certificate))
    }

    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        // A time before 1970 counts as 1970.
        let ms = |seconds: i64| UnixMs(u64::try_from(seconds).unwrap_or_default().saturating_mul(1000));
        Self {
            serial: serial_hex(&certificate.serial.to_bytes_be()),
            not_before: ms(validity.not_before.timestamp()),
            not_after: ms(validity.not_after.timestamp()),
        }
    }

    /// Whether its time has come and is not over.
    ///
    /// # Errors
    /// `NotYetValid`, `Expired`.
    pub fn check_time(&self, now: UnixMs) -> Result<(), Refusal> {
        check_time(self.not_before, self.not_after, now)
    }
}

fn check_time(not_before: UnixMs, not_after: UnixMs, now: UnixMs) -> Result<(), Refusal> {
    if now < not_before {
        return Err(Refusal::NotYetValid);
    }
    // The last second is whole.
    if now.0 / 1000 > not_after.0 / 1000 { Err(Refusal::Expired) } else { Ok(()) }
}

/// What a certificate says of its holder. The chain was checked by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Whom it names.
    pub identity: Identity,
    /// Serial number, in lower-case hex without leading zeros.
    pub serial: String,
    /// First moment of its validity.
    pub not_before: UnixMs,
    /// Last second of its validity.
    pub not_after: UnixMs,
    /// The issuer's name as the certificate has it, in DER.
    pub(super) issuer: Vec<u8>,
}

impl Leaf {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When it is none or names nobody.
    pub fn read(der: &[u8]) -> Result<Self, Refusal> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Refusal::Nameless)?;
        let identity = Identity::of_certificate(der).map_err(|_| Refusal::Nameless)?;
        let Validity { serial, not_before, not_after } = Validity::of(&certificate);
        Ok(Self { identity, serial, not_before, not_after, issuer: certificate.issuer().as_raw().to_vec() })
    }

    /// The certificate that the sender of a request has shown.
    ///
    /// # Errors
    /// When it showed none or it names nobody.
    pub fn of_request<T>(request: &Request<T>) -> Result<Self, Refusal> {
        let certificates = request.peer_certs().ok_or(Refusal::NoCertificate)?;
        Self::read(certificates.first().ok_or(Refusal::NoCertificate)?)
    }

    /// Whether its time has come and is not over.
    ///
    /// # Errors
    /// `NotYetValid`, `Expired`.
    pub fn check_time(&self, now: UnixMs) -> Result<(), Refusal> {
        check_time(self.not_before, self.not_after, now)
    }

    /// Whether its holder is of this cluster and has one of these roles.
    ///
    /// # Errors
    /// `Cluster`, `Role`.
    pub fn check_holder(&self, cluster: &str, allowed: &[Role]) -> Result<(), Refusal> {
        if self.identity.cluster != cluster {
            return Err(Refusal::Cluster);
        }
        if allowed.contains(&self.identity.role) { Ok(()) } else { Err(Refusal::Role(self.identity.role)) }
    }
}

/// A serial number as people write it.
pub(super) fn serial_hex(bytes: &[u8]) -> String {
    let text = hex::encode(bytes);
    let short = text.trim_start_matches('0');
    if short.is_empty() { "0".to_owned() } else { short.to_owned() }
}
