//! Certificates for tests: a CA in memory, and folders as `posternctl cluster init` would leave them.

use std::path::Path;

use proto::identity::{Credentials, Identity, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
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
        let identity = Identity { cluster: cluster.into(), role, name: name.into() };
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![role.dns_name().to_owned()]).expect("a name");
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into().expect("ASCII")));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        for (file, text) in
            [("ca.pem", self.0.pem()), ("certificate.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(folder.join(file), text).expect("written");
        }
    }

    /// The credentials of a process.
    pub(crate) fn credentials(&self, cluster: &str, role: Role, name: &str) -> Credentials {
        let folder = TempDir::new().expect("a folder");
        self.write(folder.path(), cluster, role, name);
        Credentials::load(folder.path()).expect("credentials")
    }
}
