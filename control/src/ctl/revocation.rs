//! `cluster revoke`: the list of certificates that nobody is to take any more.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, bail};
use proto::{identity::Leaf, time::UnixMs};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::{
    Ended,
    args::Revoke,
    output,
    pki::{Authority, ISSUED},
    renewal::replace,
};

/// Longest serial number, in bytes (RFC 5280 section 4.1.2.2).
const SERIAL_BYTES_MAX: usize = 20;

/// Serial numbers, and when each was revoked.
type Revoked = BTreeMap<Vec<u8>, UnixMs>;

/// Runs `cluster revoke`.
///
/// # Errors
/// When nothing is known of what is to be revoked, or the list cannot be read or written.
pub fn revoke(args: &Revoke) -> anyhow::Result<Ended> {
    let authority = Authority::load(&args.ca).context("load the CA (--ca wants the folder of ca.pem and ca.key)")?;
    let (new, all) = extend(&authority, &args.ca, &args.what, UnixMs::now())?;
    output::line(&format!(
        "{new} more certificates are revoked, {all} in all, in {list}.\n\
         Copy it into the credentials folder of every control server, node and operator as crl.pem: each process takes it within\n\
         30 seconds, or at once on SIGHUP, and ends the connections of those who are revoked.",
        list = args.ca.join("crl.pem").display()
    ))?;
    Ok(Ended::Well)
}

/// Adds to the list; returns how many are new and how many there are.
fn extend(authority: &Authority, ca: &Path, what: &[String], now: UnixMs) -> anyhow::Result<(usize, usize)> {
    let (number, mut revoked) = match authority.list()? {
        Some(list) => read(&list).context("read crl.pem")?,
        None => (0, Revoked::new()),
    };
    let before = revoked.len();
    for what in what {
        for serial in serials(authority, ca, what)? {
            revoked.entry(serial).or_insert(now);
        }
    }
    let entries: Vec<_> = revoked.iter().map(|(serial, at)| (serial.clone(), *at)).collect();
    replace(&ca.join("crl.pem"), &authority.sign_list(number + 1, &entries, now)?, 0o644)?;
    Ok((revoked.len() - before, revoked.len()))
}

/// The number of a list and what is in it.
fn read(pem: &str) -> anyhow::Result<(u64, Revoked)> {
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).context("it is no revocation list")?;
    let (_, list) = CertificateRevocationList::from_der(&der).context("it is no revocation list")?;
    let number = list.crl_number().and_then(|number| number.to_u64_digits().first().copied()).unwrap_or_default();
    let entries = list.iter_revoked_certificates().map(|entry| {
        let seconds = u64::try_from(entry.revocation_date.timestamp()).unwrap_or_default();
        (entry.serial().to_bytes_be(), UnixMs(seconds.saturating_mul(1000)))
    });
    Ok((number, entries.collect()))
}

/// Which serial numbers are meant.
fn serials(authority: &Authority, ca: &Path, what: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    if Path::new(what).is_file() {
        let leaf = certificate(Path::new(what))?;
        if leaf.identity.cluster != authority.cluster() {
            bail!("{what} is {}'s, of another cluster", leaf.identity);
        }
        return Ok(vec![bytes(&leaf.serial)?]);
    }
    if let Some((role, name)) = what.split_once('/') {
        let mut found = Vec::new();
        let folder = ca.join(ISSUED);
        let entries = fs::read_dir(&folder).with_context(|| format!("look into {}", folder.display()))?;
        for entry in entries {
            let leaf = certificate(&entry?.path())?;
            if leaf.identity.role.as_str() == role && leaf.identity.name == name {
                found.push(bytes(&leaf.serial)?);
            }
        }
        if found.is_empty() {
            bail!("no certificate of {what} is in {}: name its certificate.pem or its serial number", folder.display());
        }
        return Ok(found);
    }
    let serial = bytes(what)
        .with_context(|| format!("{what:?} is no file, no ROLE/NAME such as node/mx1, and no serial number in hex"))?;
    Ok(vec![serial])
}

fn certificate(path: &Path) -> anyhow::Result<Leaf> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let der = CertificateDer::from_pem_slice(&text).with_context(|| format!("{} is no certificate", path.display()))?;
    Leaf::read(&der).with_context(|| format!("read {}", path.display()))
}

/// A serial number as lists carry it: without leading zeros.
fn bytes(serial: &str) -> anyhow::Result<Vec<u8>> {
    let digits: String = serial.chars().filter(|char| *char != ':').collect();
    let even = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
    let mut bytes = hex::decode(even)?;
    bytes.drain(..bytes.iter().take_while(|byte| **byte == 0).count());
    if !(1..=SERIAL_BYTES_MAX).contains(&bytes.len()) {
        bail!("a serial number has 1 to {SERIAL_BYTES_MAX} bytes");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proto::{
        identity::{Credentials, Refusal, Role},
        time::UnixMs,
    };

    use super::{Authority, extend, read};

    #[test]
    fn a_list_grows_and_processes_take_it() {
        let home = tempfile::tempdir().expect("a folder");
        let path = |name: &str| home.path().join(name);
        let now = UnixMs::now();
        let mut authority = Authority::generate("c1", now).expect("a CA");
        authority.save(&path("ca")).expect("saved");
        for (role, name) in [(Role::Control, "alpha"), (Role::Node, "mx1"), (Role::Node, "mx2"), (Role::Node, "mx3")] {
            authority.issue_into(role, name, &path(name), now).expect("issued");
        }
        let of = |name: &str| Credentials::load(&path(name)).expect("credentials");
        let revoke = |what: &[&str]| {
            let what: Vec<String> = what.iter().map(|what| (*what).to_owned()).collect();
            extend(&authority, &path("ca"), &what, now)
        };
        let file = path("mx2/certificate.pem").display().to_string();
        assert_eq!(revoke(&["node/mx1", &file]).expect("revoked"), (2, 2));
        assert_eq!(revoke(&["node/mx1", &of("mx3").leaf().serial]).expect("revoked"), (1, 3));
        for unknown in ["node/mx9", "operator/mx1", "anna", ""] {
            assert!(revoke(&[unknown]).is_err(), "{unknown}");
        }
        let list = authority.list().expect("read").expect("a list");
        assert_eq!(read(&list).expect("a list").0, 2, "each list has a higher number");

        let alpha = of("alpha");
        std::fs::write(path("alpha/crl.pem"), &list).expect("copied");
        alpha.reread(now).expect("taken");
        for name in ["mx1", "mx2", "mx3"] {
            assert_eq!(alpha.admit(&of(name).leaf(), &[Role::Node], now), Err(Refusal::Revoked), "{name}");
        }
        // Whoever comes later is not revoked, and knows the list.
        authority.issue_into(Role::Node, "mx1", &path("again"), now).expect("issued");
        assert_eq!(alpha.admit(&of("again").leaf(), &[Role::Node], now), Ok(()));
        assert_eq!(of("again").admit(&of("mx2").leaf(), &[Role::Node], now), Err(Refusal::Revoked));
    }
}
