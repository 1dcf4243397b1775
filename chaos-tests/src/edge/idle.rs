//! Connections that have said EHLO and nothing since: what each costs of memory.

use std::time::Duration;

use anyhow::bail;
use futures::{StreamExt as _, stream};
use serde::Serialize;
use tokio::{net::TcpStream, time::sleep};

use super::{
    World,
    generator::{connect, greet},
    postfix::IDLE_MAX,
    rows::Who,
    talk::Talk,
    usage::Memory,
};

/// Connections from one address, as many as a node allows.
const EACH: usize = 50;
/// Addresses of a net.
const HOSTS: usize = 250;
/// Opened at the same time.
const AT_ONCE: usize = 100;
/// Before memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);

/// Memory with so many connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct IdleRow {
    /// Which server.
    pub who: Who,
    /// Connections that were asked for.
    pub wanted: usize,
    /// Connections that were held when memory was looked at.
    pub held: usize,
    /// Resident memory of all its processes, pages that are shared counted in each, in bytes.
    pub rss: u64,
    /// The same, pages that are shared counted once.
    pub pss: u64,
    /// How many processes.
    pub processes: usize,
    /// What each connection added to that, in bytes.
    pub each: f64,
}

impl World {
    /// Holds so many connections, each a level above the one before, and looks at each level. Postfix gets no more than it has
    /// processes for, and the node no more than the system lets one process open.
    ///
    /// # Errors
    /// When the system does not tell what memory is used, or no connection is taken.
    pub async fn idle(&self, who: Who) -> anyhow::Result<Vec<IdleRow>> {
        let (server, account, most) = if who.is_ours() {
            (self.ours.internet, &self.ours.node, super::connections_max())
        } else {
            (self.postfix.idle, &self.postfix.account, IDLE_MAX)
        };
        let bare = account.memory()?;
        let mut open: Vec<TcpStream> = Vec::new();
        let mut rows = Vec::new();
        for &wanted in &self.plan.idle {
            if open.len() >= most {
                break;
            }
            let opening = stream::iter(open.len()..wanted.min(most)).map(|n| async move {
                let (net, host) = (n / (EACH * HOSTS), n % HOSTS);
                let socket = connect(server, [127, 20, u8::try_from(net).unwrap_or(u8::MAX)], host as u64).await?;
                let mut talk = Talk::new(socket);
                greet(&mut talk).await?;
                Ok::<_, std::io::Error>(talk.into_inner())
            });
            let mut opening = opening.buffer_unordered(AT_ONCE);
            let mut problem = None;
            while let Some(opened) = opening.next().await {
                match opened {
                    Ok(socket) => open.push(socket),
                    Err(error) => problem = Some(error),
                }
            }
            if open.is_empty() {
                bail!("{}: no connection was taken: {problem:?}", who.name());
            }
            sleep(SETTLE).await;
            let now = account.memory()?;
            // Who was sent away would have something to read.
            let quiet = |socket: &&TcpStream| {
                socket.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            };
            let held = open.iter().filter(quiet).count();
            rows.push(row(who, wanted, held, bare, now));
        }
        Ok(rows)
    }
}

fn row(who: Who, wanted: usize, held: usize, bare: Memory, now: Memory) -> IdleRow {
    // What processes share would count again with each of them; the node is one process.
    let each = now.pss.saturating_sub(bare.pss) as f64 / held as f64;
    IdleRow { who, wanted, held, rss: now.rss, pss: now.pss, processes: now.processes, each }
}
