//! `posternctl.yaml`, and the names and addresses of the command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use proto::{
    member,
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
                servers: map.list("servers", |node| node.parsed(member::address)).unwrap_or_default(),
            }
        })
    }
}

/// Reads `host:port` out of an argument.
///
/// # Errors
/// When it is something else, with the text.
pub fn address(text: &str) -> anyhow::Result<String> {
    member::address(text).map_err(|problem| anyhow!("{text:?}: {problem}"))
}

/// Reads a name of a server, node, operator or site out of an argument.
///
/// # Errors
/// When it is something else, with the text.
pub fn name(text: &str) -> anyhow::Result<String> {
    member::name(text).map_err(|problem| anyhow!("{text:?}: {problem}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Settings;

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
}
