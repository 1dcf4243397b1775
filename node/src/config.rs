//! The node's settings file, `node.yaml`: read strictly, all faults told together.

mod directories;
mod limits;
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZero,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use proto::{
    address::Domain,
    identity::{Credentials, IdentityError, Role},
    member,
    time::UnixMs,
    yaml::{self, Fault, Faults, Map, Node},
};

use crate::{
    checks::virus::ClamdAddress,
    limits::Limits,
    reception::DirectorySettings,
    smtp::{server::Listeners, tls::TlsSettings},
};

/// Control servers that a node may be told of.
const CONTROL_SERVERS_MAX: usize = 16;
/// Virus scanners that a node may be told of.
const CLAMDS_MAX: usize = 16;
/// Name servers that a node may be told of.
const NAME_SERVERS_MAX: usize = 8;

/// A node's settings. Paths are relative to the folder of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name; its certificate says the same.
    pub name: String,
    /// The site that it stands in.
    pub site: String,
    /// What it calls itself towards other mail servers, and its authserv-id (RFC 8601).
    pub hostname: Domain,
    /// The folder with `ca.pem`, `certificate.pem` and `key.pem`.
    pub credentials: PathBuf,
    /// Control servers as `host:port`, 1 to 16.
    pub control: Vec<String>,
    /// Where mail comes in; at least one.
    pub listeners: Listeners,
    /// Where operators look into the node.
    pub inspect: Option<SocketAddr>,
    /// Where load balancers ask whether the node should get connections; plain HTTP.
    pub health: Option<SocketAddr>,
    /// Name servers, 1 to 8; those of the system are not asked.
    pub dns: Vec<SocketAddr>,
    /// The virus scanners, at most 16. Without one what policy demands to be scanned is not delivered.
    pub clamd: Vec<ClamdAddress>,
    /// What STARTTLS is offered with, and whom it is demanded of.
    pub tls: Option<TlsSettings>,
    /// Who knows recipients, where a department's file says so.
    pub directories: Vec<DirectorySettings>,
    /// PEM file of the roots that next hops are checked against where policy demands TLS.
    pub next_hop_roots: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// What is in it is wrong.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The credentials cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The credentials are somebody else's.
    #[error("{folder} holds the certificate of {held}; a certificate of node {name} is needed")]
    NotOurs {
        /// The folder.
        folder: String,
        /// Whose certificate it is.
        held: String,
        /// Who we are.
        name: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or with all that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        Ok(Self::parse(&name, &text, folder)?)
    }

    /// Reads a document; `folder` is what its paths are relative to.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub fn parse(file: &str, text: &str, folder: &Path) -> Result<Self, Faults> {
        let config = yaml::read(file, text, |map| root(map, folder))?;
        // Without a fault nothing that is required is missing.
        config.ok_or_else(|| Faults(Vec::new()))
    }

    /// Reads the credentials and checks that they are this node's.
    ///
    /// # Errors
    /// When they are missing, or of another name or role.
    pub fn load_credentials(&self) -> Result<Credentials, ConfigError> {
        let credentials = Credentials::load(&self.credentials)?;
        credentials.check(UnixMs::now())?;
        let held = &credentials.identity;
        if held.role == Role::Node && held.name == self.name {
            return Ok(credentials);
        }
        let folder = self.credentials.display().to_string();
        Err(ConfigError::NotOurs { folder, held: held.to_string(), name: self.name.clone() })
    }
}

fn root(map: &mut Map<'_, '_>, folder: &Path) -> Option<Config> {
    let path = |node: &Node<'_, '_>| node.text().map(|text| folder.join(text));
    let name = map.required("name", |node| node.parsed(member::name));
    let site = map.required("site", |node| node.parsed(member::name));
    let hostname = map.required("hostname", |node| node.parsed(Domain::parse));
    let credentials = map.required("credentials", path);
    let control = map.list("control", |node| node.parsed(member::address));
    let control_ok = control.as_ref().is_some_and(|servers| (1..=CONTROL_SERVERS_MAX).contains(&servers.len()));
    if !control_ok {
        map.fault(format!("control: 1 to {CONTROL_SERVERS_MAX} control servers as host:port are expected"));
    }
    let listeners = map
        .section("listeners", |listeners| Listeners {
            internet: listeners.optional("internet", socket_address),
            departments: listeners.optional("departments", socket_address),
            balancers: listeners.list("balancers", network).unwrap_or_default(),
            xclient: listeners.list("xclient", network).unwrap_or_default(),
        })
        .unwrap_or_default();
    if listeners.internet.or(listeners.departments).is_none() {
        map.fault("listeners: at least one of internet and departments is expected");
    }
    let dns = map.list("dns", socket_address).unwrap_or_default();
    if !(1..=NAME_SERVERS_MAX).contains(&dns.len()) {
        map.fault(format!("dns: 1 to {NAME_SERVERS_MAX} name servers as address:port are expected"));
    }
    let clamd = map.one_or_more("clamd", |node| clamd_address(node, folder)).unwrap_or_default();
    let is_doubled = (1..clamd.len()).any(|at| clamd[..at].contains(&clamd[at]));
    if clamd.len() > CLAMDS_MAX || is_doubled {
        map.fault(format!("clamd: at most {CLAMDS_MAX} addresses are expected, each once"));
    }
    let directories = directories::read(map, folder);
    let tls = map.section("tls", |tls| tls::read(tls, folder));
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut limits = Limits::for_processors(processors);
    map.section("limits", |section| limits::read(section, &mut limits));
    Some(Config {
        inspect: map.optional("inspect", socket_address),
        health: map.optional("health", socket_address),
        clamd,
        next_hop_roots: map.optional("next_hop_roots", path),
        name: name?,
        site: site?,
        hostname: hostname?,
        credentials: credentials?,
        control: control?,
        listeners,
        dns,
        tls: tls.flatten(),
        directories,
        limits,
    })
}

fn socket_address(node: &Node<'_, '_>) -> Result<SocketAddr, Fault> {
    node.text()?.parse().map_err(|_| node.fault("an address and port such as 192.0.2.1:25 is expected"))
}

fn network(node: &Node<'_, '_>) -> Result<IpNet, Fault> {
    let text = node.text()?;
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| node.fault("an address or a network such as 192.0.2.0/28 is expected"))
}

fn clamd_address(node: &Node<'_, '_>, folder: &Path) -> Result<ClamdAddress, Fault> {
    let text = node.text()?;
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(ClamdAddress::Unix(folder.join(path))),
        Some(_) | None => text
            .parse()
            .map(ClamdAddress::Tcp)
            .map_err(|_| node.fault("an address and port, or unix:/path, is expected")),
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::{ClamdAddress, Config};

    const WHOLE: &str = "\
name: node-a
site: north
hostname: mx1.gov.test
credentials: credentials/node-a
control: [127.0.0.1:7001, control-b:7001]
listeners:
  internet: 127.0.0.1:2525
  departments: 127.0.0.1:2526
  balancers: [192.0.2.8, 192.0.2.16/28]
  xclient: [192.0.2.9]
inspect: 127.0.0.1:7400
dns: ['127.0.0.1:5300']
clamd: unix:/run/clamd.sock
tls: {certificate: mx.pem, key: /etc/mx.key}
limits:
  connections_max: 7
  read_timeout: 5m
";

    fn faults(text: &str) -> String {
        Config::parse("node.yaml", text, Path::new("/etc/postern"))
            .err()
            .map_or_else(String::new, |faults| faults.to_string())
    }

    #[test]
    fn a_whole_file_is_read_with_paths_relative_to_it() {
        let config = Config::parse("node.yaml", WHOLE, Path::new("/etc/postern")).expect("a config");
        assert_eq!(config.credentials, Path::new("/etc/postern/credentials/node-a"));
        let tls = config.tls.expect("TLS files");
        assert_eq!(
            (tls.certificate.as_path(), tls.key.as_path()),
            (Path::new("/etc/postern/mx.pem"), Path::new("/etc/mx.key"))
        );
        let balancers: Vec<String> = config.listeners.balancers.iter().map(ToString::to_string).collect();
        assert_eq!(balancers, ["192.0.2.8/32", "192.0.2.16/28"]);
        assert_eq!(config.listeners.xclient, ["192.0.2.9/32".parse().expect("a network")]);
        assert_eq!(config.clamd, [ClamdAddress::Unix("/run/clamd.sock".into())]);
        assert_eq!((config.limits.connections_max, config.limits.read_timeout), (7, Duration::from_secs(300)));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let told = faults(
            "name: Node A\nhostname: '-'\ncontrol: [nowhere]\ndns: [127.0.0.1]\nlimits:\n  read_timeout: 5\n  conections_max: 3\n",
        );
        for expected in [
            "site: is missing",
            "credentials: is missing",
            "node.yaml:1:7: name: \"Node A\": 1 to 63",
            "hostname",
            "control[0]: \"nowhere\": host:port",
            "control: 1 to 16",
            "listeners: at least one",
            "dns[0]: an address and port",
            "node.yaml:6:17: limits.read_timeout: a time from 1s",
            "limits.conections_max: unknown key",
        ] {
            assert!(told.contains(expected), "{expected} in:\n{told}");
        }
    }

    #[test]
    fn one_clamd_may_be_told_of_or_several_or_none() {
        let one = "clamd: unix:/run/clamd.sock\n";
        let of = |clamd: &str| Config::parse("node.yaml", &WHOLE.replace(one, clamd), Path::new("/etc/postern"));
        let several = of("clamd: ['192.0.2.4:3310', unix:a.sock]\n").map(|config| config.clamd).expect("a config");
        let tcp = ClamdAddress::Tcp("192.0.2.4:3310".parse().expect("an address"));
        assert_eq!(several, [tcp, ClamdAddress::Unix("/etc/postern/a.sock".into())]);
        assert_eq!(of("").map(|config| config.clamd).expect("a config"), []);
        let seventeen: Vec<String> = (0..17).map(|port| format!("'192.0.2.4:{}'", 3310 + port)).collect();
        let seventeen = format!("[{}]", seventeen.join(", "));
        for wrong in ["3310", "[3310]", "[unix:]", "[unix:a, unix:a]", seventeen.as_str()] {
            let told = faults(&WHOLE.replace(one, &format!("clamd: {wrong}\n")));
            assert!(told.contains("clamd"), "{wrong}: {told}");
        }
    }

    #[test]
    fn name_servers_must_be_told() {
        let listed = "dns: ['127.0.0.1:5300']\n";
        let nine = format!("dns: [{}]\n", ["'127.0.0.1:53'"; 9].join(", "));
        for other in ["", "dns: []\n", nine.as_str()] {
            let told = faults(&WHOLE.replace(listed, other));
            assert!(told.contains("dns: 1 to 8 name servers"), "{other}: {told}");
        }
    }

    #[test]
    fn limits_have_bounds() {
        for (key, bad) in [
            ("virus_signatures_age_max", "7"),
            ("virus_signatures_age_max", "0d"),
            ("connect_timeout", "25h"),
            ("connect_timeout", "0s"),
            ("depth_max", "65"),
            ("drain_time_max", "\u{e9}"),
        ] {
            assert!(faults(&format!("{WHOLE}  {key}: {bad}\n")).contains(key), "{key}: {bad}");
        }
        assert!(faults(&format!("{WHOLE}  relay_time_max: 5m\n")).contains("relay_time_max: less than 300s"));
        assert_eq!(faults(&format!("{WHOLE}  relay_time_max: 299s\n")), "");
    }

    #[test]
    fn credentials_must_be_this_nodes() {
        let folder = tempfile::tempdir().expect("a folder");
        let issue = |uri: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().expect("a URI")));
            let key = rcgen::KeyPair::generate().expect("a key");
            let pem = params.self_signed(&key).expect("a certificate").pem();
            for (name, text) in [("ca.pem", &pem), ("certificate.pem", &pem), ("key.pem", &key.serialize_pem())] {
                std::fs::write(folder.path().join(name), text).expect("written");
            }
        };
        let mut config = Config::parse("node.yaml", WHOLE, folder.path()).expect("a config");
        config.credentials = folder.path().to_owned();
        issue("spiffe://gov/node/node-a");
        assert!(config.load_credentials().is_ok());
        for other in ["spiffe://gov/node/node-b", "spiffe://gov/control/node-a", "spiffe://gov/operator/node-a"] {
            issue(other);
            let told = config.load_credentials().err().map_or_else(String::new, |error| error.to_string());
            assert!(told.contains(other) && told.contains("node node-a is needed"), "{told}");
        }
    }
}
