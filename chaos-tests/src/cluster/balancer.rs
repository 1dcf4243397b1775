//! HAProxy in front of both nodes, with the settings that the README shows.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;

use super::{Cluster, layout::BALANCER, operator::until};
use crate::{
    janitor::Janitor,
    ports,
    process::{Process, Program},
};

/// Time from one question for a node's health to the next.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// HAProxy as a process of the box.
#[derive(Debug)]
pub struct Balancer {
    /// Where it takes mail for the nodes.
    pub address: SocketAddr,
    process: Process,
}

fn settings(cluster: &Cluster, address: SocketAddr) -> String {
    let check = CHECK_EVERY.as_millis();
    let servers: String = cluster
        .nodes
        .iter()
        .map(|node| {
            let (name, health) = (node.name, node.health.port());
            let send = format!("send-proxy-v2 source {BALANCER}");
            format!("  server {name} {} {send} check port {health} inter {check}ms fall 1 rise 1\n", node.internet)
        })
        .collect();
    format!(
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n  retries 3\n  \
         option redispatch 1\nfrontend smtp\n  bind {address}\n  default_backend nodes\nbackend nodes\n  \
         balance roundrobin\n  option httpchk GET /health\n{servers}"
    )
}

impl Balancer {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When HAProxy is not installed or does not start.
    pub async fn start(cluster: &Cluster, janitor: &Janitor) -> anyhow::Result<Self> {
        let path = PathBuf::from("/usr/sbin/haproxy");
        if !path.is_file() {
            bail!("HAProxy is not installed (Debian: haproxy)");
        }
        let port = ports::reserve(None)?;
        let address = port.address();
        let file = cluster.root.join("haproxy.cfg");
        std::fs::write(&file, settings(cluster, address)).context("write HAProxy's settings")?;
        let program = Program {
            name: "haproxy".into(),
            path,
            arguments: vec!["-db".into(), "-f".into(), file.into()],
            environment: Vec::new(),
            log: cluster.root.join("logs/haproxy.log"),
        };
        drop(port);
        let process = program.start_foreign(janitor)?;
        until("HAProxy listens", || async { TcpStream::connect(address).await.ok() }).await?;
        Ok(Self { address, process })
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.process.kill9().await
    }
}
