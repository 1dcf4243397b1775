//! `cluster issue --renew` and `cluster new-ca`: new certificates and CAs in the place of old ones, without an interruption.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context, bail};
use proto::{identity::Credentials, time::UnixMs};

use super::{Ended, args::NewCa, init::must_be_empty, output, pki::Authority};

/// Writes a new key and certificate over those in a folder.
///
/// # Errors
/// When the CA or the folder's certificate is not there, they are of two clusters, or the folder cannot be written.
pub fn renew(ca: &Path, folder: &Path) -> anyhow::Result<Ended> {
    let authority = Authority::load(ca).context("load the CA (--ca wants the folder of ca.pem and ca.key)")?;
    let leaf = renew_in(&authority, folder, UnixMs::now())?;
    output::line(&format!(
        "{} holds a new certificate and key of {}, valid until {} (serial {}).\n\
         A process that uses this folder takes them within 30 seconds, or at once on SIGHUP.",
        folder.display(),
        leaf.identity,
        leaf.not_after,
        leaf.serial
    ))?;
    Ok(Ended::Well)
}

fn renew_in(authority: &Authority, folder: &Path, now: UnixMs) -> anyhow::Result<proto::identity::Leaf> {
    let old = Credentials::load(folder).with_context(|| format!("load the credentials in {}", folder.display()))?;
    let identity = &old.identity;
    if identity.cluster != authority.cluster() {
        bail!("{identity} is not of the cluster {}, which this CA is for", authority.cluster());
    }
    let issued = authority.issue(identity.role, &identity.name, now)?;
    // Whom to trust comes first. A CA that is trusted already stays: others may still have certificates of it.
    let path = folder.join("ca.pem");
    let trusted = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    if !trusted.contains(authority.certificate_pem().trim()) {
        replace(&path, &format!("{}\n{}", trusted.trim_end(), authority.certificate_pem()), 0o644)?;
    }
    let list = folder.join("crl.pem");
    if let Some(text) = authority.list()?
        && !list.exists()
    {
        replace(&list, &text, 0o644)?;
    }
    // Between the two a process sees a pair that does not fit, leaves it and looks again.
    replace(&folder.join("key.pem"), &issued.key_pem, 0o600)?;
    replace(&folder.join("certificate.pem"), &issued.certificate_pem, 0o644)?;
    let new = Credentials::load(folder).context("read the new credentials")?;
    new.check(now).context("check the new credentials")?;
    Ok(new.leaf())
}

/// Makes a new CA for the cluster of another one.
///
/// # Errors
/// When the old CA is not there, or the folder holds something or cannot be written.
pub fn new_ca(args: &NewCa) -> anyhow::Result<Ended> {
    let old = Authority::load(&args.from).context("load the old CA (--from wants the folder of ca.pem and ca.key)")?;
    must_be_empty(&args.out)?;
    let mut new = Authority::generate(old.cluster(), UnixMs::now())?;
    new.save(&args.out)?;
    let (from, out) = (args.from.display(), args.out.display());
    output::line(&format!(
        "{out} holds a new CA for cluster {}. Each step everywhere before the next one begins:\n\
         \x20 1. append {out}/ca.pem to ca.pem in the folder of every control server, node and operator, and wait 30 seconds\n\
         \x20 2. for each folder: posternctl cluster issue --ca {out} --renew FOLDER, and wait 30 seconds\n\
         \x20 3. copy {out}/ca.pem over ca.pem in each folder; remove crl.pem where it is of the old CA\n\
         Then destroy {from}/ca.key.",
        new.cluster()
    ))?;
    Ok(Ended::Well)
}

/// Puts a file in the place of another, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let new = path.with_extension("pem.new");
    let write = || {
        // Left over by a run that was broken off; the mode of a new file is ours.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proto::{
        identity::{Credentials, Reread, Role},
        time::UnixMs,
    };

    use super::{Authority, renew_in};

    #[test]
    fn a_renewed_certificate_and_a_new_ca_are_taken_by_a_running_process() {
        let home = tempfile::tempdir().expect("a folder");
        let path = |name: &str| home.path().join(name);
        let now = UnixMs::now();
        let mut first = Authority::generate("c1", now).expect("a CA");
        first.save(&path("ca")).expect("saved");
        first.issue_into(Role::Node, "mx1", &path("mx1"), now).expect("issued");
        let process = Credentials::load(&path("mx1")).expect("credentials");
        let old = process.leaf();

        renew_in(&first, &path("mx1"), now).expect("renewed");
        assert!(matches!(process.reread(now), Ok(Reread::Taken { .. })));
        assert_eq!(process.leaf().identity, old.identity);
        assert_ne!(process.leaf().serial, old.serial);
        let mode = std::fs::metadata(path("mx1/key.pem")).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path("mx1")).expect("a folder").count(), 3, "nothing is left over");

        let mut second = Authority::generate(first.cluster(), now).expect("a CA");
        second.save(&path("ca2")).expect("saved");
        renew_in(&second, &path("mx1"), now).expect("renewed");
        assert!(matches!(process.reread(now), Ok(Reread::Taken { .. })));
        let ca = std::fs::read_to_string(path("mx1/ca.pem")).expect("a bundle");
        assert!(ca.contains(first.certificate_pem()) && ca.contains(second.certificate_pem()), "both are trusted");

        let other = Authority::generate("c2", now).expect("a CA");
        let error = renew_in(&other, &path("mx1"), now).expect_err("refused").to_string();
        assert!(error.contains("not of the cluster c2"), "{error}");
    }
}
