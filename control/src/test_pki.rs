//! Certificates for tests: a CA in memory, and folders as `posternctl cluster init` would leave them.

use std::path::Path;

use proto::identity::{Credentials, Identity, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

/// A cluster's CA.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    /// A new one; two of them trust nothing of each other.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA"))
    }

    /// Writes the three files into a folder.
    pub(crate) fn write(&self, folder: &Path, cluster: &str, role: Role, name: &str) {
        self.write_odd(folder, cluster, role, name, |_| {});
    }

    /// The same, with something odd about the certificate.
    pub(crate) fn write_odd(
        &self,
        folder: &Path,
        cluster: &str,
        role: Role,
        name: &str,
        odd: impl FnOnce(&mut CertificateParams),
    ) {
        let identity = Identity { cluster: cluster.into(), role, name: name.into() };
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![role.dns_name().to_owned()]).expect("a name");
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into().expect("ASCII")));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        odd(&mut params);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        for (file, text) in
            [("ca.pem", self.0.pem()), ("certificate.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(folder.join(file), text).expect("written");
        }
    }

    /// The credentials of a process.
    pub(crate) fn credentials(&self, cluster: &str, role: Role, name: &str) -> Credentials {
        self.odd(cluster, role, name, |_| {})
    }

    /// The same, with something odd about the certificate.
    pub(crate) fn odd(
        &self,
        cluster: &str,
        role: Role,
        name: &str,
        odd: impl FnOnce(&mut CertificateParams),
    ) -> Credentials {
        let folder = TempDir::new().expect("a folder");
        self.write_odd(folder.path(), cluster, role, name, odd);
        Credentials::load(folder.path()).expect("credentials")
    }

    /// A list that revokes the certificate of these credentials.
    pub(crate) fn revoke(&self, who: &Credentials) -> String {
        let serial = who.leaf().serial;
        let digits = if serial.len().is_multiple_of(2) { serial } else { format!("0{serial}") };
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(hex::decode(digits).expect("hex")),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2046, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).expect("a list").pem().expect("PEM")
    }
}
