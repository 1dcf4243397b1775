//! Sites far apart on one machine. Each site is a network namespace whose only way out leads into a namespace of its own
//! "outside", where a proxy owns the addresses of all other sites: so one address reaches a server from everywhere, and
//! every byte between two sites passes the link of that pair and direction.

pub mod link;
pub mod namespace;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use self::{
    link::Link,
    namespace::{Namespace, ip},
};
use crate::janitor::Janitor;

/// Where a control server listens in its site.
const PORT: u16 = 7001;
/// How long the proxy waits for a site to take a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Numbers the networks of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A site.
#[derive(Debug)]
struct Site {
    /// Where its processes and clients are.
    inside: Arc<Namespace>,
    /// Where the proxy stands.
    outside: Arc<Namespace>,
}

/// The network between the sites. Dropping it ends the proxies; the namespaces go with `delete` or with the janitor.
#[derive(Debug)]
pub struct Wan {
    sites: Vec<Site>,
    /// By the sending and the receiving site.
    links: Vec<Vec<Arc<Link>>>,
    _proxies: JoinSet<()>,
}

/// Where the server of a site is reached, from everywhere.
#[must_use]
pub fn address(site: usize) -> SocketAddr {
    let site = u8::try_from(site + 1).unwrap_or(u8::MAX);
    SocketAddr::from((Ipv4Addr::new(10, 77, site, 2), PORT))
}

/// The proxy's end of a site's only line.
fn gateway(site: usize) -> Ipv4Addr {
    let site = u8::try_from(site + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 77, site, 1)
}

impl Site {
    async fn make(name: &str, number: usize, count: usize, janitor: &Janitor) -> anyhow::Result<Self> {
        let inside = Namespace::make(&format!("{name}-site{number}"), janitor).await?;
        let outside = Namespace::make(&format!("{name}-wan{number}"), janitor).await?;
        let (within, without) = (&inside.name, &outside.name);
        let (here, gateway) = (address(number).ip(), gateway(number));
        ip(&format!("link add site netns {without} type veth peer name wan netns {within}")).await?;
        ip(&format!("-n {within} address add {here}/24 dev wan")).await?;
        ip(&format!("-n {within} link set wan up")).await?;
        ip(&format!("-n {without} address add {gateway}/24 dev site")).await?;
        ip(&format!("-n {without} link set site up")).await?;
        ip(&format!("-n {within} route add default via {gateway}")).await?;
        for other in (0..count).filter(|other| *other != number) {
            ip(&format!("-n {without} address add {}/32 dev lo", address(other).ip())).await?;
        }
        Ok(Self { inside: Arc::new(inside), outside: Arc::new(outside) })
    }
}

/// Takes connections of one site to another one.
async fn listen(from: &Namespace, to: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = from.socket().await.context("make a socket")?;
    socket.set_reuseaddr(true).context("prepare a socket")?;
    socket.bind(to).and_then(|()| socket.listen(128)).with_context(|| format!("listen as {to} in {}", from.name))
}

async fn proxy(listener: TcpListener, to: (Arc<Namespace>, SocketAddr), there: Arc<Link>, back: Arc<Link>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(near, to.clone(), Arc::clone(&there), Arc::clone(&back)));
    }
}

async fn connection(
    near: TcpStream,
    (namespace, address): (Arc<Namespace>, SocketAddr),
    there: Arc<Link>,
    back: Arc<Link>,
) {
    // The handshake of TCP goes there and back.
    tokio::time::sleep(there.delay() + back.delay()).await;
    there.opened().await;
    back.opened().await;
    let connect = async { namespace.socket().await?.connect(address).await };
    let Ok(Ok(far)) = timeout(CONNECT_MAX, connect).await else { return };
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(there.pass(near_read, far_write), back.pass(far_read, near_write));
}

impl Wan {
    /// Makes `count` sites; `delay` gives the time that bytes take from one to another.
    ///
    /// # Errors
    /// When the rights for namespaces are missing, with what they are.
    pub async fn make(count: usize, janitor: &Janitor, mut delay: impl FnMut() -> Duration) -> anyhow::Result<Self> {
        let name = format!("postern{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut sites = Vec::new();
        for number in 0..count {
            let site = Site::make(&name, number, count, janitor).await;
            sites.push(site.with_context(|| format!("make the network of site {number}"))?);
        }
        let links: Vec<Vec<Arc<Link>>> =
            (0..count).map(|_| (0..count).map(|_| Arc::new(Link::new(delay()))).collect()).collect();
        let mut proxies = JoinSet::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let listener = listen(&sites[from].outside, address(to)).await?;
                let far = (Arc::clone(&sites[to].outside), address(to));
                proxies.spawn(proxy(listener, far, Arc::clone(&links[from][to]), Arc::clone(&links[to][from])));
            }
        }
        Ok(Self { sites, links, _proxies: proxies })
    }

    /// How many sites there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sites.len()
    }

    /// The namespace of a site's processes and clients.
    #[must_use]
    pub fn inside(&self, site: usize) -> &Arc<Namespace> {
        &self.sites[site].inside
    }

    /// Opens or cuts one direction between two sites.
    pub fn set_open(&self, from: usize, to: usize, open: bool) {
        self.links[from][to].set_open(open);
    }

    /// Opens or cuts all that a site sends.
    pub fn set_sends(&self, site: usize, open: bool) {
        self.others(site).for_each(|other| self.set_open(site, other, open));
    }

    /// Opens or cuts all that a site receives.
    pub fn set_receives(&self, site: usize, open: bool) {
        self.others(site).for_each(|other| self.set_open(other, site, open));
    }

    fn others(&self, site: usize) -> impl Iterator<Item = usize> {
        (0..self.count()).filter(move |other| *other != site)
    }

    /// Takes a site's line down or up again, as a pulled cable: here TCP finds out by itself.
    ///
    /// # Errors
    /// When `ip` fails.
    pub async fn set_line(&self, site: usize, up: bool) -> anyhow::Result<()> {
        let word = if up { "up" } else { "down" };
        ip(&format!("-n {} link set site {word}", self.sites[site].outside.name)).await
    }

    /// Opens every link and takes every line up.
    ///
    /// # Errors
    /// When `ip` fails.
    pub async fn heal(&self) -> anyhow::Result<()> {
        for site in 0..self.count() {
            self.set_sends(site, true);
            self.set_line(site, true).await?;
        }
        Ok(())
    }

    /// Takes the namespaces away.
    ///
    /// # Errors
    /// When one is gone already.
    pub async fn delete(&self) -> anyhow::Result<()> {
        for site in &self.sites {
            site.inside.delete().await?;
            site.outside.delete().await?;
        }
        Ok(())
    }
}
