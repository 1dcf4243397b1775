//! postern-control's file, read and checked in one place; all faults together.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use proto::{
    identity::{Credentials, Role},
    member,
    time::UnixMs,
    yaml::{self, Fault, Faults, Node},
};

/// What a control server needs to know. The example in `--help` shows each key.
#[derive(Clone, Debug)]
pub struct Config {
    /// Raft node id, from 1; never used again after the server is lost.
    pub id: u64,
    /// Name: the one in the certificate.
    pub name: String,
    /// Where it stands. A body is durable when servers in two sites have it.
    pub site: String,
    /// Folder of log, state and bodies.
    pub data: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// `host:port` under which nodes, peers and operators reach it.
    pub advertise: String,
    /// Who it is.
    pub credentials: Credentials,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// What is wrong in it, a line each.
    #[error(transparent)]
    Faults(#[from] Faults),
}

impl Config {
    /// Reads a file and the credentials that it names.
    ///
    /// # Errors
    /// With every fault, each with its line.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let path = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Ok(Self::parse(&path, &text, file.parent().unwrap_or(Path::new(".")))?)
    }

    /// Reads a text; folders in it are relative to `base`.
    ///
    /// # Errors
    /// With every fault, each with its line.
    pub fn parse(file: &str, text: &str, base: &Path) -> Result<Self, Faults> {
        let config = yaml::read(file, text, |map| {
            let id = map.required("id", |node| node.integer(1..=u64::from(u32::MAX)));
            let name = map.required("name", |node| node.parsed(member::name));
            let site = map.required("site", |node| node.parsed(member::name));
            let data = map.required("data", |node| folder(node, base));
            let listen = map.required("listen", |node| node.parsed(listen));
            let advertise = map.optional("advertise", |node| node.parsed(member::address));
            let credentials = map.required("credentials", |node| credentials(node, base));
            if let (Some(name), Some(credentials)) = (&name, &credentials) {
                map.optional("name", |node| is_named(node, name, credentials));
            }
            if advertise.is_none() && listen.is_some_and(|at| at.ip().is_unspecified() || at.port() == 0) {
                map.optional("listen", |node| {
                    Err::<(), _>(node.fault("nobody can reach this address: name one with the key advertise"))
                });
            }
            let listen = listen?;
            let advertise = advertise.unwrap_or_else(|| listen.to_string());
            Some(Self { id: id?, name: name?, site: site?, data: data?, listen, advertise, credentials: credentials? })
        })?;
        // A value that is missing has left a fault, so there is none here.
        config.ok_or_else(|| Faults(Vec::new()))
    }
}

fn listen(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "an IP address with a port is expected, such as 127.0.0.1:7001 or [::1]:7001")
}

fn folder(node: &Node<'_, '_>, base: &Path) -> Result<PathBuf, Fault> {
    let text = node.text()?;
    if text.is_empty() { Err(node.fault("a folder is expected")) } else { Ok(base.join(text)) }
}

fn credentials(node: &Node<'_, '_>, base: &Path) -> Result<Credentials, Fault> {
    let credentials = Credentials::load(&folder(node, base)?)
        .map_err(|error| node.fault(format!("{error}; posternctl cluster init makes these files")))?;
    let role = credentials.identity.role;
    if role != Role::Control {
        return Err(node.fault(format!("the certificate is a {role}'s; a control server needs one of role control")));
    }
    credentials.check(UnixMs::now()).map_err(|error| node.fault(error.to_string()))?;
    Ok(credentials)
}

fn is_named(node: &Node<'_, '_>, name: &str, credentials: &Credentials) -> Result<(), Fault> {
    let certified = &credentials.identity.name;
    if name == certified {
        return Ok(());
    }
    Err(node.fault(format!("the certificate is {certified}'s: the two must agree")))
}

#[cfg(test)]
mod tests;
