//! Real nodes in the sites, and their clients from the Internet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::{net::TcpStream, sync::mpsc};

use super::{NODES, SERVERS, Sites};
use crate::{
    binaries::programs,
    process::{Process, Program},
    wan,
};

/// Where a node listens for the Internet, on the loopback of its site.
const INTERNET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2525);

impl Sites {
    /// Starts a node in a site. It has no name server and no virus scanner.
    ///
    /// # Errors
    /// When it does not get ready, with the end of its log.
    pub async fn start_node(&self, node: usize, site: usize) -> anyhow::Result<Process> {
        let (name, path) = (NODES[node], programs(&indicatif::ProgressBar::hidden()).await?.node.clone());
        let control: Vec<String> = (0..self.count()).map(|server| format!("\"{}\"", wan::address(server))).collect();
        let settings = format!(
            "name: {name}\nsite: {}\nhostname: {name}.gov.test\ncredentials: \".\"\ncontrol: [{}]\n\
             listeners: {{internet: \"{INTERNET}\", departments: \"127.0.0.1:2526\"}}\ndns: [\"127.0.0.1:53\"]\n",
            SERVERS[site].1,
            control.join(", "),
        );
        let file = self.root.join("cluster/nodes").join(name).join("node.yaml");
        std::fs::write(&file, settings).with_context(|| format!("write {}", file.display()))?;
        let words = ["netns", "exec", &self.wan.inside(site).name].map(Into::into);
        let program = Program {
            name: name.to_owned(),
            path: "ip".into(),
            arguments: words.into_iter().chain([path.into(), "--config".into(), file.into()]).collect(),
            environment: Vec::new(),
            log: self.root.join("logs").join(format!("{name}.log")),
        };
        let (lines, _) = mpsc::channel(1);
        Ok(program.start(&self.janitor, lines).await?.0)
    }

    /// Connects to the node of a site as a client from the Internet.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn connect(&self, site: usize, client: IpAddr) -> anyhow::Result<TcpStream> {
        let socket = self.wan.inside(site).socket().await.context("make a socket")?;
        socket.bind(SocketAddr::new(client, 0)).with_context(|| format!("send from {client}"))?;
        socket.connect(INTERNET).await.context("connect to the node")
    }
}
