//! A network namespace of our own, and sockets in it: a socket belongs for its whole life to the namespace of the thread that
//! made it, so one thread stands in each namespace and makes sockets for whoever asks.

use std::{fs::File, io, os::fd::AsFd as _, path::Path, process::Stdio};

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    net::TcpSocket,
    process::Command,
    sync::{mpsc, oneshot},
};

use crate::janitor::Janitor;

/// What is missing when the system refuses.
const RIGHTS: &str = "network namespaces cannot be made here. They need iproute2 (`ip`) and the rights of root: run it as \
                      root (`sudo -E env PATH=$PATH cargo …`), or in a namespace of your own where you are root: \
                      `unshare -Urnm sh -c 'mount -t tmpfs none /run && cargo …'`";

/// A namespace with its loopback up. Its name goes with `delete`, or with the janitor.
#[derive(Debug)]
pub struct Namespace {
    /// As `ip netns` knows it.
    pub name: String,
    sockets: mpsc::Sender<oneshot::Sender<io::Result<TcpSocket>>>,
}

/// Runs `ip` with these words.
///
/// # Errors
/// When it fails, with what it said.
pub async fn ip(words: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(words.split_whitespace()).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("run ip {words}"))?;
    if !output.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// When the rights are missing, with what they are.
    pub async fn make(name: &str, janitor: &Janitor) -> anyhow::Result<Self> {
        janitor.makes_namespace(name);
        ip(&format!("netns add {name}")).await.context(RIGHTS)?;
        ip(&format!("-n {name} link set lo up")).await.context(RIGHTS)?;
        let file = File::open(Path::new("/run/netns").join(name)).context("open the namespace").context(RIGHTS)?;
        let (sockets, wanted) = mpsc::channel(64);
        let (entered_to, entered) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("netns {name}"))
            .spawn(move || stand_in(&file, entered_to, wanted))
            .context("start a thread")?;
        entered.await.context("the thread has ended")?.context("enter the namespace").context(RIGHTS)?;
        Ok(Self { name: name.to_owned(), sockets })
    }

    /// A new IPv4 socket in the namespace.
    ///
    /// # Errors
    /// When the system has none left.
    pub async fn socket(&self) -> io::Result<TcpSocket> {
        let (reply, made) = oneshot::channel();
        let gone = || io::Error::other("the namespace's thread has ended");
        self.sockets.send(reply).await.map_err(|_| gone())?;
        made.await.map_err(|_| gone())?
    }

    /// Takes its name away; it ends with the last process and socket in it.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn delete(&self) -> anyhow::Result<()> {
        ip(&format!("netns delete {}", self.name)).await
    }
}

/// Ends when nobody can ask any more.
fn stand_in(
    namespace: &File,
    entered: oneshot::Sender<io::Result<()>>,
    mut wanted: mpsc::Receiver<oneshot::Sender<io::Result<TcpSocket>>>,
) {
    let done = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    let stands = done.is_ok();
    // Whoever does not wait for it any more needs neither answer.
    let _ = entered.send(done.map_err(io::Error::from));
    while let Some(reply) = wanted.blocking_recv().filter(|_| stands) {
        let _ = reply.send(TcpSocket::new_v4());
    }
}
