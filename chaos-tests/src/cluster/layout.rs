//! The files of the box: what each node is told, and the policy that the demo and the tests begin with.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// From here a load balancer comes, if there is one.
pub const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// A control server: name, site and where it listens.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// Name in its certificate.
    pub name: &'static str,
    /// Where it stands.
    pub site: &'static str,
    /// gRPC.
    pub address: SocketAddr,
}

/// A node: name, site and where it listens.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Name in its certificate.
    pub name: &'static str,
    /// Where it stands.
    pub site: &'static str,
    /// SMTP, the MX side.
    pub internet: SocketAddr,
    /// SMTP, the departments' side.
    pub departments: SocketAddr,
    /// gRPC, for looking into it.
    pub inspect: SocketAddr,
    /// HTTP, for load balancers.
    pub health: SocketAddr,
}

/// What surrounds the nodes.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// All control servers.
    pub control: Vec<SocketAddr>,
    /// The test DNS.
    pub dns: SocketAddr,
    /// clamd, if there is one.
    pub clamd: Option<SocketAddr>,
    /// Each sink's address by its name: `interior`, `health`, `internet`.
    pub interior: SocketAddr,
    /// The health department's mail server.
    pub health: SocketAddr,
    /// The relay to the Internet.
    pub internet: SocketAddr,
}

/// A folder below the box, made if needed.
///
/// # Errors
/// When it cannot be made.
pub fn folder(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = root.join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Writes a node's settings into its folder, over the template there, with more lines and more limits.
///
/// # Errors
/// When the file cannot be written.
pub fn write_node(
    directory: &Path,
    node: &NodePlan,
    around: &Surroundings,
    (settings, limits): (&str, &str),
) -> anyhow::Result<PathBuf> {
    let control: Vec<String> = around.control.iter().map(|address| format!("\"{address}\"")).collect();
    let clamd = around.clamd.map(|address| format!("clamd: \"{address}\"\n")).unwrap_or_default();
    let text = format!(
        "name: {}\nsite: {}\nhostname: {}.gov.test\ncredentials: \".\"\ncontrol: [{}]\n\
         listeners: {{internet: \"{}\", departments: \"{}\", balancers: [{BALANCER}]}}\ninspect: \"{}\"\n\
         health: \"{}\"\ndns: [\"{}\"]\n{clamd}{settings}\
         limits: {{redelivery_delay: 1s{limits}}}\n",
        node.name,
        node.site,
        node.name,
        control.join(", "),
        node.internet,
        node.departments,
        node.inspect,
        node.health,
        around.dns,
    );
    let path = directory.join("nodes").join(node.name).join("node.yaml");
    write(&path, &text)?;
    Ok(path)
}

/// Writes the first policy: a file for the state and one for each of the two departments.
///
/// # Errors
/// When a file cannot be written.
pub fn write_policy(folder: &Path, around: &Surroundings) -> anyhow::Result<()> {
    let scan = if around.clamd.is_some() { "required" } else { "off" };
    let hop =
        |address: SocketAddr| format!("[{{host: \"{}\", port: {}, tls: opportunistic}}]", address.ip(), address.port());
    let state = format!(
        "# Holds for all departments. A department's file may say otherwise for itself.\n\
         state: The State of Test\ninternet_relays: {}\npolicy:\n  virus_scan: {scan}\n  greylist_at: 50\n  quarantine_at: 6\n  reject_at: 12\n",
        hop(around.internet)
    );
    let interior = format!(
        "department: interior\nname: Department of the Interior\ndomains: [interior.gov.test]\nnext_hops: {}\n\
         sources: [127.0.1.0/24]\nrecipients: [anna, bert, clara]\n",
        hop(around.interior)
    );
    let health = format!(
        "# Stricter than the state: no archives. Its mail server knows its people, so none are listed here.\n\
         department: health\nname: Department of Health\ndomains: [health.gov.test]\nnext_hops: {}\n\
         sources: [127.0.2.0/24]\npolicy:\n  blocked_types: [executable, script, archive]\n",
        hop(around.health)
    );
    write(&folder.join("state.yaml"), &state)?;
    write(&folder.join("interior.yaml"), &interior)?;
    write(&folder.join("health.yaml"), &health)
}
