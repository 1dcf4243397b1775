//! `cluster init` and `cluster issue`: a folder for each process and person, ready to be copied to its host.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use proto::{
    identity::{Credentials, Role},
    time::UnixMs,
};
use ulid::Ulid;

use super::{
    Ended,
    args::{Init, Issue, RoleName},
    output,
    pki::{self, Authority},
    renewal, settings,
};
use crate::raft::stamp;

/// Port of a node's inspect service in the template.
const INSPECT_PORT: u16 = 7100;

struct Server {
    id: usize,
    name: String,
    site: String,
    address: String,
}

struct Node {
    name: String,
    site: String,
}

/// Runs `cluster init`.
///
/// # Errors
/// When an argument is wrong, the folder holds something, or it cannot be written.
pub fn init(args: &Init) -> anyhow::Result<Ended> {
    output::line(&make(args)?)?;
    Ok(Ended::Well)
}

/// Makes CA, certificates and settings in a new folder; returns what to do next, in words.
///
/// # Errors
/// When an argument is wrong, the folder holds something, or it cannot be written.
pub fn make(args: &Init) -> anyhow::Result<String> {
    let servers: Vec<Server> = args
        .server
        .iter()
        .enumerate()
        .map(|(at, text)| server(at + 1, text).with_context(|| format!("--server {text}")))
        .collect::<anyhow::Result<_>>()?;
    let nodes: Vec<Node> = args
        .node
        .iter()
        .map(|text| node(text).with_context(|| format!("--node {text}")))
        .collect::<anyhow::Result<_>>()?;
    let operators: Vec<String> =
        args.operator.iter().map(|text| settings::name(text).context("--operator")).collect::<anyhow::Result<_>>()?;
    unique("--server names", servers.iter().map(|server| &server.name))?;
    unique("--server addresses", servers.iter().map(|server| &server.address))?;
    unique("--node names", nodes.iter().map(|node| &node.name))?;
    unique("--operator names", &operators)?;
    must_be_empty(&args.dir)?;

    let now = UnixMs::now();
    let mut authority = Authority::generate(&Ulid::new().to_string().to_lowercase(), now)?;
    authority.save(&args.dir.join("ca"))?;
    for server in &servers {
        let folder = args.dir.join("servers").join(&server.name);
        authority.issue_into(Role::Control, &server.name, &folder, now)?;
        pki::write_new(&folder.join("control.yaml"), &control_yaml(server), 0o644)?;
        stamp::mark_new(&folder.join("data")).context("say that the data folder is new")?;
    }
    for node in &nodes {
        let folder = args.dir.join("nodes").join(&node.name);
        authority.issue_into(Role::Node, &node.name, &folder, now)?;
        pki::write_new(&folder.join("node.yaml"), &node_yaml(node, &servers), 0o644)?;
    }
    for operator in &operators {
        let folder = args.dir.join("operators").join(operator);
        authority.issue_into(Role::Operator, operator, &folder, now)?;
        pki::write_new(&folder.join("posternctl.yaml"), &operator_yaml(operator, &servers), 0o644)?;
    }
    Ok(next_steps(&args.dir, &authority, &servers, &nodes, &operators))
}

/// Makes one more certificate.
///
/// # Errors
/// When an argument is wrong, the CA is not there, the folder holds something, or it cannot be written.
pub fn issue(args: &Issue) -> anyhow::Result<Ended> {
    if let Some(folder) = &args.renew {
        return renewal::renew(&args.ca, folder, args.days);
    }
    let Issue { role: Some(role), name: Some(name), out: Some(out), .. } = args else {
        bail!("--role, --name and a folder are needed, or --renew with a folder");
    };
    let name = settings::name(name).context("--name")?;
    let role = match role {
        RoleName::Control => Role::Control,
        RoleName::Node => Role::Node,
        RoleName::Operator => Role::Operator,
    };
    let authority = Authority::load(&args.ca).context("load the CA (--ca wants the folder of ca.pem and ca.key)")?;
    let authority = authority.for_days(args.days);
    must_be_empty(out)?;
    authority.issue_into(role, &name, out, UnixMs::now())?;
    if role == Role::Control {
        stamp::mark_new(&out.join("data")).context("say that the data folder is new")?;
    }
    let identity = Credentials::load(out)?.identity;
    output::line(&format!(
        "{} holds ca.pem, certificate.pem and key.pem of {identity}, valid for {} days.\n\
         Copy them to the folder that `credentials` names in the holder's settings.",
        out.display(),
        args.days
    ))?;
    Ok(Ended::Well)
}

/// `alpha=north@10.0.1.5:7001`.
fn server(id: usize, text: &str) -> anyhow::Result<Server> {
    let (name, rest) = text.split_once('=').context("NAME=SITE@HOST:PORT is expected")?;
    let (site, address) = rest.split_once('@').context("NAME=SITE@HOST:PORT is expected")?;
    Ok(Server { id, name: settings::name(name)?, site: settings::name(site)?, address: settings::address(address)? })
}

/// `mx1=north`.
fn node(text: &str) -> anyhow::Result<Node> {
    let (name, site) = text.split_once('=').context("NAME=SITE is expected")?;
    Ok(Node { name: settings::name(name)?, site: settings::name(site)? })
}

fn unique<'a>(what: &str, items: impl IntoIterator<Item = &'a String>) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    match items.into_iter().find(|item| !seen.insert(*item)) {
        Some(twice) => bail!("{what} must differ: {twice} is there twice"),
        None => Ok(()),
    }
}

pub(super) fn must_be_empty(folder: &Path) -> anyhow::Result<()> {
    let empty = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("look into {}", folder.display())),
    };
    if !empty {
        bail!("{} is not empty: keys are never written over; name a new folder", folder.display());
    }
    Ok(())
}

fn control_yaml(server: &Server) -> String {
    let Server { id, name, site, address } = server;
    // A host name or an address of another interface cannot always be listened on; an IP address is taken as it is.
    let listen = match address.parse::<std::net::SocketAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => format!("0.0.0.0:{}", address.rsplit(':').next().unwrap_or_default()),
    };
    format!(
        "# Control server {name} of site {site}. Start it with: postern-control --config control.yaml\n\
         # Folders are relative to this file.\n\
         \n\
         # Never given to another server, not even when this one is lost.\n\
         id: {id}\n\
         name: \"{name}\"\n\
         site: \"{site}\"\n\
         \n\
         # Raft log, state and message bodies: a disk of its own with room for the quarantine. The file data.new-server beside it\n\
         # says that it was never used: a server does not begin in an empty folder without it.\n\
         data: data\n\
         \n\
         # Where it listens, and where the other servers, the nodes and the operators reach it.\n\
         listen: \"{listen}\"\n\
         advertise: \"{address}\"\n\
         \n\
         # Folder of ca.pem, certificate.pem and key.pem.\n\
         credentials: \".\"\n"
    )
}

fn node_yaml(node: &Node, servers: &[Server]) -> String {
    let Node { name, site } = node;
    let (near, far): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.site == *site);
    let control: String =
        near.into_iter().chain(far).map(|server| format!("  - \"{}\"  # {}\n", server.address, server.site)).collect();
    format!(
        "# Node {name} of site {site}. Start it with: postern-node --config node.yaml\n\
         # Folders are relative to this file.\n\
         name: \"{name}\"\n\
         site: \"{site}\"\n\
         \n\
         # Its name on the Internet: in the greeting, in EHLO and in Received. Change it.\n\
         hostname: \"{name}.example\"\n\
         \n\
         # Folder of ca.pem, certificate.pem and key.pem.\n\
         credentials: \".\"\n\
         \n\
         # The control servers, those of its own site first.\n\
         control:\n{control}\
         \n\
         # internet takes mail from everybody, departments from the departments' own servers.\n\
         listeners:\n  internet: \"0.0.0.0:25\"\n  departments: \"0.0.0.0:2525\"\n\
         # Load balancers in front of them: they must say in a header of the PROXY protocol (1 or 2) whose connection it is.\n\
         #  balancers: [192.0.2.8, 192.0.2.9]\n\
         \n\
         # Where they ask whether this node should get connections: GET /health, 200 or 503 with the reasons. Plain HTTP.\n\
         # health: \"127.0.0.1:8025\"\n\
         \n\
         # For posternctl scan, node view and policy apply --wait; wants an operator's certificate.\n\
         inspect: \"0.0.0.0:{INSPECT_PORT}\"\n\
         \n\
         # 1 to 8 name servers, as ip:port; a validating resolver on this host is best. Change it where there is none.\n\
         dns: [\"127.0.0.1:53\"]\n\
         \n\
         # The virus scanner, as ip:port or unix:/path, or a list of up to 16. Without one each scan counts as unavailable, unless\n\
         # the policy says `virus_scan: off`. clamd.conf must have AlertExceedsMax yes, or clamd calls clean what it skips and\n\
         # gets no mail; StreamMaxLength, MaxFileSize and MaxScanSize of 25M or more (`virus_bytes_max` of the limits), for\n\
         # what is larger is not scanned and counts as such.\n\
         clamd: \"127.0.0.1:3310\"\n\
         \n\
         # STARTTLS on both listeners: the certificate of `hostname`; new files are in use within 30 seconds, or at once on SIGHUP.\n\
         # Rules: none, offered (which is what holds without a word), required, client_certificate; the most specific network counts.\n\
         # tls:\n\
         #   certificate: /etc/postern/hostname.pem\n\
         #   key: /etc/postern/hostname.key\n\
         #   clients: /etc/postern/clients-ca.pem  # of whom client certificates must be\n\
         #   departments: {{rule: required, networks: [{{network: 10.7.0.0/16, rule: client_certificate}}]}}\n\
         \n\
         # Roots that next hops with `tls: required` must have their certificates from.\n\
         # next_hop_roots: /etc/ssl/certs/ca-certificates.crt\n\
         \n\
         # Bounds on connections, sizes and times, where the built-in ones do not fit:\n\
         # limits: {{}}\n"
    )
}

fn operator_yaml(operator: &str, servers: &[Server]) -> String {
    let servers: String =
        servers.iter().map(|server| format!("  - \"{}\"  # {}\n", server.address, server.site)).collect();
    format!(
        "# Settings of {operator} for posternctl. It looks for posternctl.yaml in the current folder, or use --config.\n\
         \n\
         # Folder of ca.pem, certificate.pem and key.pem, relative to this file.\n\
         credentials: \".\"\n\
         \n\
         # The control servers; the first that answers is asked.\n\
         servers:\n{servers}"
    )
}

fn next_steps(dir: &Path, authority: &Authority, servers: &[Server], nodes: &[Node], operators: &[String]) -> String {
    // Without a trailing slash.
    let dir: PathBuf = dir.components().collect();
    let dir = dir.display();
    let sites: BTreeSet<&String> = servers.iter().map(|server| &server.site).collect();
    let mut lines = vec![format!("Cluster {} is in {dir}. Next:", authority.cluster()), String::new()];
    for server in servers {
        let Server { name, site, address, .. } = server;
        lines.push(format!(
            "  copy {dir}/servers/{name} to the host of {address} (site {site}), in that folder: postern-control --config control.yaml"
        ));
    }
    for Node { name, site } in nodes {
        lines.push(format!(
            "  edit {dir}/nodes/{name}/node.yaml, copy its folder to {name} (site {site}), in that folder: postern-node --config node.yaml"
        ));
    }
    for operator in operators {
        lines.push(format!("  give {dir}/operators/{operator} to {operator}, and to nobody else"));
    }
    if let Some(first) = operators.first() {
        let config = format!("--config {dir}/operators/{first}/posternctl.yaml");
        lines.push(String::new());
        lines.push("When the control servers run:".into());
        lines.push(format!("  posternctl {config} cluster form {dir}"));
        lines.push(format!("  posternctl {config} policy apply POLICY_FOLDER --why 'first policy'"));
        lines.push(
            "where POLICY_FOLDER has state.yaml and a file for each department. Before it no mail is accepted.".into(),
        );
    }
    lines.push(String::new());
    lines.push(format!(
        "Keep {dir}/ca offline: whoever has ca.key is the cluster. Certificates end in a year; renew with"
    ));
    lines.push(format!("  posternctl cluster issue --ca {dir}/ca --renew FOLDER"));
    if servers.len().is_multiple_of(2) || servers.len() < 3 {
        lines.push(format!(
            "Note: {} control servers outlive the loss of {}; three or five are better.",
            servers.len(),
            (servers.len() - 1) / 2
        ));
    }
    if sites.len() < servers.len().min(3) {
        lines.push(
            "Note: control servers share a site; bodies need two sites, and a lost site must leave a majority.".into(),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use proto::identity::{Credentials, Role};

    use super::{Init, make};

    fn args(dir: &std::path::Path) -> Init {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Init {
            dir: dir.to_owned(),
            server: own(&["alpha=north@127.0.0.1:7001", "beta=south@beta.csg.test:7001"]),
            node: own(&["mx1=south"]),
            operator: own(&["anna"]),
        }
    }

    #[test]
    fn each_holder_gets_a_folder_that_works_and_nothing_is_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("prod");
        let next = make(&args(&dir)).expect("made");
        assert!(next.contains("outlive the loss of 0"), "{next}");
        for (path, role, name) in [
            ("servers/alpha", Role::Control, "alpha"),
            ("nodes/mx1", Role::Node, "mx1"),
            ("operators/anna", Role::Operator, "anna"),
        ] {
            let identity = Credentials::load(&dir.join(path)).expect("credentials").identity;
            assert_eq!((identity.role, identity.name.as_str(), identity.cluster.len()), (role, name, 26));
            assert_eq!(identity.cluster, identity.cluster.to_lowercase());
        }
        let read = |path: &str| std::fs::read_to_string(dir.join(path)).expect("a file");
        assert!(
            read("servers/beta/control.yaml").contains("listen: \"0.0.0.0:7001\"\nadvertise: \"beta.csg.test:7001\"")
        );
        let node = read("nodes/mx1/node.yaml");
        assert!(node.find("beta.csg.test") < node.find("127.0.0.1:7001"), "its own site comes first:\n{node}");
        let settings = crate::ctl::settings::Settings::load(&dir.join("operators/anna/posternctl.yaml"));
        assert_eq!(settings.expect("settings").servers, ["127.0.0.1:7001", "beta.csg.test:7001"]);
        let error = make(&args(&dir)).expect_err("refused").to_string();
        assert!(error.contains("is not empty"), "{error}");
    }

    #[test]
    fn what_is_printed_starts_the_programs() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("prod");
        let next = make(&args(&dir)).expect("made");
        let file = |path: &str| std::fs::read_to_string(dir.join(path)).expect("a file");
        let told = [next, file("servers/alpha/control.yaml"), file("nodes/mx1/node.yaml")].concat();
        for (program, file, times) in [("postern-control", "control.yaml", 3), ("postern-node", "node.yaml", 2)] {
            assert_eq!(told.matches(&format!(": {program} --config {file}\n")).count(), times, "{program}:\n{told}");
            assert_eq!(told.matches(&format!(": {program} ")).count(), times, "{program}:\n{told}");
        }
    }

    #[test]
    fn wrong_members_are_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        for wrong in ["alpha", "alpha=north", "../x=north@h:1", "alpha=north@h", "alpha=north@127.0.0.1:7001"] {
            let dir = folder.path().join("prod");
            let mut args = args(&dir);
            args.server.push(wrong.to_owned());
            assert!(make(&args).is_err(), "{wrong}");
            assert!(!dir.exists(), "{wrong}");
        }
    }
}
