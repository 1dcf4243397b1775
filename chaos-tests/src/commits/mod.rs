//! Committed writes a second, by the same load: clients that each write, wait until it is durable, and write again.

pub mod disk;
pub mod edge;
pub mod etcd;
pub mod redis;
pub mod rows;
pub mod voters;
pub mod work;

use std::{
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use self::work::Work;
use crate::{binaries::Programs, janitor::Janitor, load::Percentiles};

/// Something that makes writes durable.
pub trait Store: Send + Sync + 'static {
    /// Makes one write; done when whoever stores it says that it is durable. `client` counts from zero.
    fn write(&self, client: usize, work: Work) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// The load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many write at the same time.
    pub clients: usize,
    /// What they write.
    pub work: Work,
    /// Writes that begin or end in this first time do not count.
    pub warm_up: Duration,
    /// How long is counted.
    pub lasting: Duration,
}

/// What a load gave.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Writes that ended in the counted time, a second.
    pub writes_per_s: f64,
    /// How long each took.
    pub latencies: Percentiles,
}

/// Puts a load on a store.
///
/// # Errors
/// When a write fails: a figure with failed writes in it would be none.
pub async fn measure<S: Store>(store: S, load: Load) -> anyhow::Result<Sample> {
    let store = Arc::new(store);
    let from = Instant::now() + load.warm_up;
    let to = from + load.lasting;
    let clients: Vec<_> = (0..load.clients)
        .map(|client| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut counted = Vec::new();
                loop {
                    let start = Instant::now();
                    if start >= to {
                        return anyhow::Ok(counted);
                    }
                    store.write(client, load.work).await?;
                    let end = Instant::now();
                    if end >= from && end < to {
                        counted.push(end - start);
                    }
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.context("a client of the load")??);
    }
    Ok(Sample { writes_per_s: all.len() as f64 / load.lasting.as_secs_f64(), latencies: Percentiles::of(all) })
}

/// Where the stores live.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Every store gets a new folder in here: the same disk for all.
    pub folder: PathBuf,
    /// Our programs.
    pub programs: Programs,
    /// Ends what is started, whatever happens.
    pub janitor: Janitor,
}

impl Ground {
    /// A new folder for one store.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let made = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&self.folder);
        Ok(made.with_context(|| format!("make a folder for {name} in {}", self.folder.display()))?.keep())
    }
}

/// Where Debian and others install a foreign program.
#[must_use]
pub fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/opt/homebrew/bin"]
        .into_iter()
        .map(|folder| PathBuf::from(folder).join(name))
        .find(|path| path.is_file())
}
