//! The files of a process are read again all together or not at all.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{Credentials, Reread};
use crate::{
    identity::{
        IdentityError, Refusal, Role,
        test_ca::{Ca, put},
    },
    time::UnixMs,
};

/// 2026-11-18.
const NOW: UnixMs = UnixMs(1_795_000_000_000);
const VALID: (i32, i32) = (2026, 2028);

fn write(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).expect("written");
}

/// The node n1 with certificate 1.
fn start() -> (TempDir, Ca, Credentials) {
    let (folder, ca) = (TempDir::new().expect("a folder"), Ca::new("first"));
    write(folder.path(), "ca.pem", &ca.pem());
    put(folder.path(), &ca.sign("n1", 1, VALID));
    let credentials = Credentials::load(folder.path()).expect("credentials");
    (folder, ca, credentials)
}

fn serial(credentials: &Credentials) -> String {
    credentials.leaf().serial
}

#[test]
fn a_renewed_certificate_is_taken_once_key_and_certificate_fit() {
    let (folder, ca, credentials) = start();
    let clone = credentials.clone();
    assert_eq!(credentials.reread(NOW).expect("well"), Reread::Unchanged);
    let renewed = ca.sign("n1", 2, VALID);
    write(folder.path(), "key.pem", &renewed.key);
    let half = credentials.reread(NOW).expect_err("half a pair");
    assert!(matches!(half, IdentityError::Unfit(_)), "{half}");
    assert_eq!((serial(&credentials).as_str(), credentials.generation()), ("1", 0), "the old pair stays in use");
    assert_eq!(credentials.reread(NOW).expect("told once"), Reread::Unchanged);
    put(folder.path(), &renewed);
    assert!(matches!(credentials.reread(NOW), Ok(Reread::Taken { serial, .. }) if serial == "2"));
    assert_eq!((serial(&clone).as_str(), clone.generation()), ("2", 1), "a clone sees it");
}

#[test]
fn a_certificate_that_nobody_would_take_is_not_taken() {
    let (folder, ca, credentials) = start();
    let foreign = Ca::new("foreign");
    for (wrong, told) in [
        (ca.sign("n1", 2, (2020, 2021)), "expired"),
        (ca.sign("n1", 3, (2040, 2041)), "not valid yet"),
        (foreign.sign("n1", 4, VALID), "not of a CA"),
        (ca.sign("n2", 5, VALID), "now spiffe://c1/node/n2's"),
    ] {
        put(folder.path(), &wrong);
        let error = credentials.reread(NOW).expect_err(told).to_string();
        assert!(error.contains(told), "{error}");
        assert_eq!(serial(&credentials), "1");
    }
    put(folder.path(), &ca.sign("n1", 6, VALID));
    write(folder.path(), "crl.pem", &ca.revoke(1, &[6]));
    let error = credentials.reread(NOW).expect_err("revoked").to_string();
    assert!(error.contains("revoked"), "{error}");
}

#[test]
fn a_revocation_list_only_grows_newer_and_is_of_a_ca_that_is_trusted() {
    let (folder, ca, credentials) = start();
    let other = ca.sign("n2", 9, VALID);
    let verify = || {
        let folder = TempDir::new().expect("a folder");
        write(folder.path(), "ca.pem", &ca.pem());
        put(folder.path(), &other);
        let loaded = Credentials::load(folder.path()).expect("credentials").current.load_full();
        (credentials.verify_client(&loaded.chain, NOW), credentials.admit(&loaded.leaf, &[Role::Node], NOW))
    };
    assert_eq!(verify(), (Ok(()), Ok(())));
    write(folder.path(), "crl.pem", &ca.revoke(7, &[9]));
    assert!(matches!(credentials.reread(NOW), Ok(Reread::Taken { revoked: 1, .. })));
    assert_eq!(verify(), (Err(Refusal::Revoked), Err(Refusal::Revoked)));
    for worse in [ca.revoke(6, &[]), String::new(), Ca::new("foreign").revoke(8, &[]), "x".into()] {
        write(folder.path(), "crl.pem", &worse);
        assert!(matches!(credentials.reread(NOW), Err(IdentityError::RevocationList(_))), "{worse}");
    }
    fs::remove_file(folder.path().join("crl.pem")).expect("removed");
    assert!(credentials.reread(NOW).is_err(), "a list does not go away by itself");
    assert_eq!(verify().0, Err(Refusal::Revoked));
    write(folder.path(), "crl.pem", &ca.revoke(8, &[]));
    assert!(matches!(credentials.reread(NOW), Ok(Reread::Taken { revoked: 0, .. })));
    assert_eq!(verify(), (Ok(()), Ok(())));
}

#[test]
fn a_new_ca_is_trusted_beside_the_old_one_until_the_old_one_goes() {
    let (folder, old, credentials) = start();
    let new = Ca::new("second");
    write(folder.path(), "crl.pem", &old.revoke(1, &[77]));
    write(folder.path(), "ca.pem", &format!("{}{}", old.pem(), new.pem()));
    assert!(matches!(credentials.reread(NOW), Ok(Reread::Taken { .. })));
    let chain_of = |ca: &Ca| {
        let signed = ca.sign("n3", 3, VALID);
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.certificate.as_bytes()).expect("PEM");
        vec![pem.contents.into()]
    };
    for ca in [&old, &new] {
        assert_eq!(credentials.verify_client(&chain_of(ca), NOW), Ok(()));
    }
    write(folder.path(), "ca.pem", &new.pem());
    assert!(credentials.reread(NOW).is_err(), "its own certificate is still of the old CA");
    put(folder.path(), &new.sign("n1", 2, VALID));
    assert!(credentials.reread(NOW).is_err(), "the old CA's list stays behind");
    fs::remove_file(folder.path().join("crl.pem")).expect("removed");
    assert!(matches!(credentials.reread(NOW), Ok(Reread::Taken { .. })));
    assert_eq!(credentials.verify_client(&chain_of(&old), NOW), Err(Refusal::Untrusted));
    assert_eq!(credentials.verify_client(&chain_of(&new), NOW), Ok(()));
}

#[test]
fn the_last_second_of_a_certificate_counts() {
    let (_folder, _ca, credentials) = start();
    let leaf = credentials.leaf();
    assert_eq!(leaf.check_time(leaf.not_after.plus_ms(999)), Ok(()));
    assert_eq!(leaf.check_time(leaf.not_after.plus_ms(1000)), Err(Refusal::Expired));
    assert_eq!(leaf.check_time(UnixMs(leaf.not_before.0 - 1)), Err(Refusal::NotYetValid));
    assert!(credentials.check(NOW).is_ok() && credentials.check(UnixMs(0)).is_err());
}
