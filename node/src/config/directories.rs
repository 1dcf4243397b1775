//! The section `directories`: who knows the departments' recipients. The passwords are in files of their own, which only the node
//! may read.

use std::path::Path;

use proto::{
    member,
    yaml::{Fault, Map, Node},
};

use crate::reception::DirectorySettings;

/// Directories that a node may be told of.
const DIRECTORIES_MAX: usize = 64;
/// Longest password file, in bytes.
const PASSWORD_BYTES_MAX: usize = 1024;

/// What the section says; a name that is there twice, and too many, are faults.
pub(super) fn read(map: &mut Map<'_, '_>, folder: &Path) -> Vec<DirectorySettings> {
    let found = map.sections("directories", |section| directory(section, folder)).unwrap_or_default();
    let found: Vec<DirectorySettings> = found.into_iter().flatten().collect();
    if found.len() > DIRECTORIES_MAX {
        map.fault(format!("directories: at most {DIRECTORIES_MAX} are expected"));
    }
    for (at, one) in found.iter().enumerate() {
        if found.iter().take(at).any(|other| other.name == one.name) {
            map.fault(format!("directories: {} is there twice", one.name));
        }
    }
    found
}

fn directory(map: &mut Map<'_, '_>, folder: &Path) -> Option<DirectorySettings> {
    let name = map.required("name", |node| node.parsed(member::name));
    let url = map.required("url", url);
    let base = map.required("base", |node| node.text());
    let filter = map.required("filter", filter);
    let who = map.optional("bind", |node| node.text());
    let password = map.optional("password_file", |node| password(node, folder));
    if who.is_some() != password.is_some() {
        map.fault("bind and password_file go together");
    }
    let bind = who.zip(password);
    Some(DirectorySettings { name: name?, url: url?, base: base?, filter: filter?, bind })
}

fn url(node: &Node<'_, '_>) -> Result<String, Fault> {
    let text = node.text()?;
    let host = text.strip_prefix("ldap://").or_else(|| text.strip_prefix("ldaps://"));
    match host {
        Some(host) if !host.is_empty() => Ok(text),
        Some(_) | None => Err(node.fault("ldap://host:port or ldaps://host:port is expected")),
    }
}

fn filter(node: &Node<'_, '_>) -> Result<String, Fault> {
    let text = node.text()?;
    let whole = text.replace("{address}", "a@b.example");
    if !text.contains("{address}") || ldap3::parse_filter(&whole).is_err() {
        return Err(node.fault("a filter (RFC 4515) with {address} in it, such as (mail={address}), is expected"));
    }
    Ok(text)
}

/// The first line of a file.
fn password(node: &Node<'_, '_>, folder: &Path) -> Result<String, Fault> {
    let path = folder.join(node.text()?);
    let bytes = std::fs::read(&path).map_err(|error| node.fault(format!("read {}: {error}", path.display())))?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= PASSWORD_BYTES_MAX);
    let line = text.and_then(|text| text.lines().next()).filter(|line| !line.is_empty());
    line.map(str::to_owned).ok_or_else(|| node.fault(format!("{} does not hold a password", path.display())))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proto::yaml;

    use super::read;

    #[test]
    fn a_directory_needs_a_url_a_filter_and_both_halves_of_a_bind() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("pw"), "secret\nmore\n").expect("written");
        let read_all = |text: &str, folder: &Path| yaml::read("node.yaml", text, |map| read(map, folder));
        let whole = "directories:\n- {name: people, url: 'ldap://127.0.0.1:389', base: 'dc=gov,dc=test', \
                     filter: '(|(mail={address})(proxyAddresses=smtp:{address}))', bind: 'cn=node', password_file: pw}\n";
        let found = read_all(whole, folder.path()).expect("no fault");
        assert_eq!(found[0].bind, Some(("cn=node".into(), "secret".into())));
        assert!(!format!("{found:?}").contains("secret"));
        let faults = [
            (whole.replace("ldap://127", "http://127"), "ldap://host:port"),
            (whole.replace("{address}", "x"), "with {address} in it"),
            (whole.replace("(|(mail", "(|mail"), "with {address} in it"),
            (whole.replace(", password_file: pw", ""), "go together"),
            (whole.replace("password_file: pw", "password_file: none"), "read "),
            (format!("{whole}{}", whole.replace("directories:\n", "")), "there twice"),
        ];
        for (text, expected) in faults {
            let told = read_all(&text, folder.path()).expect_err("a fault").to_string();
            assert!(told.contains(expected), "{expected} in:\n{told}");
        }
    }
}
