//! `posternctl.yaml` and the addresses and names that the command line takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use proto::{
    address::Domain,
    yaml::{self, Faults},
};

/// The operator's settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Folder of ca.pem, certificate.pem and key.pem.
    pub credentials: PathBuf,
    /// `host:port` of the control servers, asked in this order.
    pub servers: Vec<String>,
}

impl Settings {
    /// Reads the file; a relative folder in it is relative to the file.
    ///
    /// # Errors
    /// When it cannot be read, or all its faults.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "read the settings {} (name yours with --config FILE; `posternctl cluster init` makes one for each operator)",
                path.display()
            )
        })?;
        Ok(Self::read(path, &text)?)
    }

    fn read(path: &Path, text: &str) -> Result<Self, Faults> {
        let folder = path.parent().unwrap_or(Path::new(""));
        yaml::read(&path.display().to_string(), text, |map| {
            map.at_least_one("servers");
            Self {
                credentials: folder.join(map.required("credentials", yaml::Node::text).unwrap_or_default()),
                servers: map.list("servers", |node| node.parsed(address)).unwrap_or_default(),
            }
        })
    }
}

/// Reads `host:port`, with an IPv6 address in brackets.
///
/// # Errors
/// When it is something else.
pub fn address(text: &str) -> anyhow::Result<String> {
    let ok = text.parse::<std::net::SocketAddr>().is_ok_and(|address| address.port() != 0)
        || text
            .rsplit_once(':')
            .is_some_and(|(host, port)| Domain::parse(host).is_ok() && port.parse::<u16>().is_ok_and(|port| port != 0));
    if !ok {
        bail!("{text:?} is not HOST:PORT, such as 10.0.1.5:7001");
    }
    Ok(text.to_owned())
}

/// Reads a name of a server, node, operator or site: it becomes a folder and a part of a URI.
///
/// # Errors
/// When it has other characters or more than 63 of them.
pub fn name(text: &str) -> anyhow::Result<String> {
    let ok = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && !text.starts_with(['-', '_', '.']);
    if !ok {
        bail!("{text:?} is not a name: 1 to 63 of a-z, 0-9, -, _ and ., the first a letter or digit");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Settings, address, name};

    #[test]
    fn the_settings_are_relative_to_their_file() {
        let text = "credentials: \".\"\nservers: [\"10.0.1.5:7001\", \"[::1]:7001\"]\n";
        let settings = Settings::read(Path::new("conf/anna/posternctl.yaml"), text).expect("settings");
        assert_eq!(settings.credentials, Path::new("conf/anna/."));
        assert_eq!(settings.servers.len(), 2);
        let faults = Settings::read(Path::new("x.yaml"), "credential: a\nservers: [b]\n").expect_err("faults");
        let faults = faults.to_string();
        assert!(faults.contains("x.yaml:1:1: credential: unknown key"), "{faults}");
        assert!(faults.contains("x.yaml:2:11: servers[0]"), "{faults}");
    }

    #[test]
    fn names_and_addresses_that_would_do_harm_are_refused() {
        for bad in ["", "..", ".a", "a/b", "A", "a b", "a\n", &"a".repeat(64)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "host", "host:", ":1", "host:0", "host:70000", "::1:1", "a b:1", "h/x:1"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
        for good in ["127.0.0.1:1", "[::1]:7001", "alpha.csg.test:7001", "localhost:1"] {
            assert!(address(good).is_ok(), "{good:?}");
        }
    }
}
