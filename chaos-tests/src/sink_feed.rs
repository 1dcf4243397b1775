//! The harness's end of the peers: what the sinks received and the DNS was asked, as it happens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::timeout,
};

use crate::{
    dns::Question,
    janitor::Janitor,
    process::{Process, Program},
    sink::{Order, Received},
};

/// How long an event may take that must come.
pub const EVENT_MAX: Duration = Duration::from_secs(30);
/// Events that wait for the harness.
const EVENTS_MAX: usize = 1024;

/// A list that grows, to be waited on.
#[derive(Clone, Debug)]
pub struct Feed<T> {
    all: watch::Receiver<Vec<Arc<T>>>,
}

impl<T> Feed<T> {
    /// All so far.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        self.all.borrow().clone()
    }

    /// The first that fits, now or later.
    ///
    /// # Errors
    /// When none comes within `EVENT_MAX`; `what` says in the error what was waited for.
    pub async fn first(&self, what: &str, fits: impl Fn(&T) -> bool) -> anyhow::Result<Arc<T>> {
        self.first_within(EVENT_MAX, what, fits).await
    }

    /// The first that fits, now or within a time.
    ///
    /// # Errors
    /// When none comes.
    pub async fn first_within(&self, limit: Duration, what: &str, fits: impl Fn(&T) -> bool) -> anyhow::Result<Arc<T>> {
        let mut all = self.all.clone();
        let mut seen = 0;
        let waiting = async {
            loop {
                let found = {
                    let list = all.borrow_and_update();
                    let found = list.iter().skip(seen).find(|item| fits(item)).cloned();
                    seen = list.len();
                    found
                };
                if let Some(found) = found {
                    return anyhow::Ok(found);
                }
                all.changed().await.context("the peer has ended")?;
            }
        };
        timeout(limit, waiting).await.with_context(|| format!("{what}: nothing came within {limit:?}"))?
    }

    /// Waits until there are this many.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn count(&self, limit: Duration, count: usize) -> anyhow::Result<()> {
        let mut all = self.all.clone();
        let waiting = all.wait_for(|list| list.len() >= count);
        match timeout(limit, waiting).await {
            Ok(reached) => reached.map(|_| ()).context("the peer has ended"),
            Err(_) => bail!("{} of {count} came within {limit:?}", self.all.borrow().len()),
        }
    }
}

/// A sink that runs.
#[derive(Debug)]
pub struct SinkPeer {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it received.
    pub received: Feed<Received>,
    obeyed: watch::Receiver<u64>,
    process: Mutex<Option<Process>>,
}

/// The DNS server that runs.
#[derive(Debug)]
pub struct DnsPeer {
    /// Where it listens, UDP and TCP.
    pub address: SocketAddr,
    /// What it was asked.
    pub asked: Feed<Question>,
    process: Mutex<Option<Process>>,
}

fn address(ready: &Value, key: &str) -> anyhow::Result<SocketAddr> {
    let text = ready.get(key).and_then(Value::as_str).with_context(|| format!("no {key:?} in {ready}"))?;
    text.parse().with_context(|| format!("{text:?} is no address"))
}

impl SinkPeer {
    /// Starts `peer sink …`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(name: &str, program: &Program, janitor: &Janitor) -> anyhow::Result<Self> {
        let (lines, mut events) = mpsc::channel(EVENTS_MAX);
        let (process, ready) = program.start(janitor, lines).await?;
        let (received, all) = watch::channel(Vec::new());
        let (done, obeyed) = watch::channel(0);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if event.get("obeyed").is_some() {
                    done.send_modify(|count| *count += 1);
                } else if let Ok(message) = serde_json::from_value::<Received>(event) {
                    received.send_modify(|list| list.push(Arc::new(message)));
                }
            }
        });
        let address = address(&ready, "smtp")?;
        Ok(Self { name: name.to_owned(), address, received: Feed { all }, obeyed, process: Mutex::new(Some(process)) })
    }

    /// Tells it what to do, and waits until it does so.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn order(&self, order: &Order) -> anyhow::Result<()> {
        let mut process = self.process.lock().await;
        let process = process.as_mut().context("the sink was stopped")?;
        let mut obeyed = self.obeyed.clone();
        let before = *obeyed.borrow_and_update();
        process.tell(&serde_json::to_string(order).context("encode an order")?).await?;
        let waiting = obeyed.wait_for(|count| *count > before);
        timeout(EVENT_MAX, waiting).await.context("the sink does not obey")?.context("the sink has ended")?;
        Ok(())
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it has to be killed.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let process = self.process.lock().await.take();
        if let Some(process) = process { process.stop().await } else { Ok(()) }
    }
}

impl DnsPeer {
    /// Starts `peer dns …`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(program: &Program, janitor: &Janitor) -> anyhow::Result<Self> {
        let (lines, mut events) = mpsc::channel(EVENTS_MAX);
        let (process, ready) = program.start(janitor, lines).await?;
        let (asked, all) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Ok(question) = serde_json::from_value::<Question>(event) {
                    asked.send_modify(|list| list.push(Arc::new(question)));
                }
            }
        });
        Ok(Self { address: address(&ready, "dns")?, asked: Feed { all }, process: Mutex::new(Some(process)) })
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it has to be killed.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let process = self.process.lock().await.take();
        if let Some(process) = process { process.stop().await } else { Ok(()) }
    }
}
