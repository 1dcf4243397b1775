//! The cluster's own CA and the certificates that it issues: each names cluster, role and holder in one URI
//! (`spiffe://CLUSTER/ROLE/NAME`), and the role in one DNS name that clients demand of a server.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use proto::{
    identity::{Identity, Leaf, Role},
    time::UnixMs,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Folder in the CA's own with a copy of each certificate that it has issued, named by serial number.
pub const ISSUED: &str = "issued";
/// Validity of the CA.
const CA_DAYS: u32 = 3653;
/// Validity of a certificate.
pub const CERTIFICATE_DAYS: u32 = 365;
/// Certificates are valid from a little before now, for hosts whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(3600);

/// The cluster's CA with its key.
pub struct Authority {
    cluster: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// Its folder, once it has one.
    home: Option<PathBuf>,
    /// Validity of the certificates that it issues.
    days: u32,
}

/// A certificate and its key, in PEM.
pub struct Issued {
    /// For everybody.
    pub certificate_pem: String,
    /// For the holder alone.
    pub key_pem: String,
}

impl Authority {
    /// A new CA (ECDSA P-256) for a new cluster.
    ///
    /// # Errors
    /// When keys cannot be made.
    pub fn generate(cluster: &str, now: UnixMs) -> anyhow::Result<Self> {
        let key = KeyPair::generate().context("make the CA's key")?;
        // Two CAs of one cluster must differ in name: a revocation list is its CA's by that name.
        let mut params = params(&format!("Postern cluster {cluster} {}", ulid::Ulid::new()), now, CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // The SPIFFE way of naming a trust domain's own certificate (SPIFFE X509-SVID section 2): no path.
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{cluster}").try_into()?)];
        let certificate_pem = params.self_signed(&key).context("sign the CA's certificate")?.pem();
        Ok(Self {
            cluster: cluster.to_owned(),
            certificate_pem,
            issuer: Issuer::new(params, key),
            home: None,
            days: CERTIFICATE_DAYS,
        })
    }

    /// Reads `ca.pem` and `ca.key` of a folder.
    ///
    /// # Errors
    /// When one is missing, they do not belong together, or the certificate names no cluster.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let (certificate_pem, key_pem) = (read("ca.pem")?, read("ca.key")?);
        let key = KeyPair::from_pem(&key_pem).context("ca.key is not a private key")?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).context("ca.pem is not a certificate")?;
        let (_, x509) = X509Certificate::from_der(&der).context("ca.pem is not a certificate")?;
        if *x509.public_key().subject_public_key.data != *key.public_key_raw() {
            bail!("ca.key is not the key of ca.pem");
        }
        let cluster = cluster_of(&x509).context("ca.pem names no cluster: `cluster init` did not make it")?;
        let home = Some(folder.to_owned());
        Ok(Self {
            cluster,
            issuer: Issuer::from_ca_cert_der(&der, key)?,
            certificate_pem,
            home,
            days: CERTIFICATE_DAYS,
        })
    }

    /// Writes `ca.pem` and `ca.key`, the latter for its owner alone.
    ///
    /// # Errors
    /// When a file is there already or cannot be written.
    pub fn save(&mut self, folder: &Path) -> anyhow::Result<()> {
        make_folder(folder)?;
        self.home = Some(folder.to_owned());
        write_new(&folder.join("ca.key"), &self.issuer.key().serialize_pem(), 0o600)?;
        write_new(&folder.join("ca.pem"), &self.certificate_pem, 0o644)
    }

    /// The same CA, whose next certificates are valid for so many days.
    #[must_use]
    pub fn for_days(self, days: u32) -> Self {
        Self { days, ..self }
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The CA's certificate.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate with a new key, valid for a year as server and as client. A copy of the certificate stays in the CA's
    /// folder, for the day when it is to be revoked.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate, or the copy cannot be written.
    pub fn issue(&self, role: Role, name: &str, now: UnixMs) -> anyhow::Result<Issued> {
        let identity = Identity { cluster: self.cluster.clone(), role, name: name.to_owned() };
        let mut params = params(&format!("{role} {name}"), now, self.days);
        params.subject_alt_names =
            vec![SanType::URI(identity.to_string().try_into()?), SanType::DnsName(role.dns_name().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("sign a certificate")?;
        if let Some(home) = &self.home {
            let leaf = Leaf::read(certificate.der()).context("read the certificate again")?;
            make_folder(&home.join(ISSUED))?;
            write_new(&home.join(ISSUED).join(format!("{}.pem", leaf.serial)), &certificate.pem(), 0o644)?;
        }
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Issues a certificate and writes `ca.pem`, `certificate.pem` and `key.pem` into a new folder.
    ///
    /// # Errors
    /// When a file is there already or cannot be written.
    pub fn issue_into(&self, role: Role, name: &str, folder: &Path, now: UnixMs) -> anyhow::Result<()> {
        let issued = self.issue(role, name, now)?;
        make_folder(folder)?;
        write_new(&folder.join("ca.pem"), &self.certificate_pem, 0o644)?;
        write_new(&folder.join("certificate.pem"), &issued.certificate_pem, 0o644)?;
        if let Some(list) = self.list()? {
            write_new(&folder.join("crl.pem"), &list, 0o644)?;
        }
        write_new(&folder.join("key.pem"), &issued.key_pem, 0o600)
    }

    /// The CA's revocation list, if it has revoked anything.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = self.home.as_ref().map(|home| home.join("crl.pem")) else { return Ok(None) };
        match fs::read_to_string(&path) {
            Ok(list) => Ok(Some(list)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// A revocation list with this number, in PEM: serial numbers, each with the moment when it was revoked.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn sign_list(&self, number: u64, revoked: &[(Vec<u8>, UnixMs)], now: UnixMs) -> anyhow::Result<String> {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let now = epoch + Duration::from_millis(now.0);
        let revoked = revoked.iter().map(|(serial, at)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: epoch + Duration::from_millis(at.0),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            // It holds until the next one comes; nobody is to be locked out because nothing was revoked for long.
            next_update: now + DAY * CA_DAYS,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer).context("sign the list")?.pem()?)
    }
}

fn params(common_name: &str, now: UnixMs, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(now.0);
    params.not_before = now - BACKDATE;
    params.not_after = now + DAY * days;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn cluster_of(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        uri.strip_prefix("spiffe://").map(str::to_owned)
    })
}

/// Makes a folder, and those above it, that only its owner can look into.
///
/// # Errors
/// When it cannot be made.
pub fn make_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make the folder {}", folder.display()))
}

/// Writes a file that must not be there yet.
///
/// # Errors
/// When it is there or cannot be written.
pub fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proto::{
        identity::{Credentials, Identity, Role},
        time::UnixMs,
    };
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::{Authority, CertificateDer, PemObject};

    #[test]
    fn a_certificate_names_its_holder_and_its_role() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut authority = Authority::generate("c1", UnixMs::now()).expect("a CA");
        authority.save(&folder.path().join("ca")).expect("saved");
        let again = Authority::load(&folder.path().join("ca")).expect("loaded");
        let out = folder.path().join("nodes/mx1");
        again.issue_into(Role::Node, "mx1", &out, UnixMs::now()).expect("issued");
        let credentials = Credentials::load(&out).expect("credentials");
        let expected = Identity { cluster: "c1".into(), role: Role::Node, name: "mx1".into() };
        assert_eq!(credentials.identity, expected);
        for secret in ["ca/ca.key", "nodes/mx1/key.pem"] {
            let mode = std::fs::metadata(folder.path().join(secret)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
        assert!(again.issue_into(Role::Node, "mx1", &out, UnixMs::now()).is_err(), "nothing is written over");
    }

    #[test]
    fn a_certificate_is_valid_for_a_year_and_the_ca_for_ten() {
        let now = UnixMs(1_795_000_000_000);
        let authority = Authority::generate("c1", now).expect("a CA");
        let node = authority.issue(Role::Node, "mx1", now).expect("issued");
        for (pem, days) in [(authority.certificate_pem(), 3653), (node.certificate_pem.as_str(), 365)] {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
            let (_, x509) = X509Certificate::from_der(&der).expect("a certificate");
            let validity = x509.validity();
            assert_eq!(validity.not_before.timestamp(), 1_795_000_000 - 3600);
            assert_eq!(validity.not_after.timestamp(), 1_795_000_000 + days * 24 * 3600);
        }
    }

    #[test]
    fn a_key_of_another_ca_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a", "b"] {
            let mut authority = Authority::generate(name, UnixMs::now()).expect("a CA");
            authority.save(&folder.path().join(name)).expect("saved");
        }
        std::fs::copy(folder.path().join("b/ca.key"), folder.path().join("a/ca.key")).expect("copied");
        let error = Authority::load(&folder.path().join("a")).err().expect("an error");
        assert_eq!(error.to_string(), "ca.key is not the key of ca.pem");
    }
}
