//! The rows: one load on one server each.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::{process::Command, time::sleep};

use super::{
    Network, World,
    generator::{Errand, Load, Origin, Pace, Tally},
    mails::Mails,
    route,
    usage::Account,
};
use crate::load::Percentiles;

/// What was accepted must be at the next hop so long after the last that came there.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);
/// After the last arrival: the server clears up.
const SETTLE: Duration = Duration::from_millis(300);
/// Part of what Postfix can do at most that both servers get when latencies are compared.
const EQUAL_LOAD: f64 = 0.5;

/// Which server, and which way through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Who {
    /// Postfix, by way of its queue.
    #[serde(rename = "Postfix, queue")]
    Queue,
    /// Postfix as a proxy before a queue.
    #[serde(rename = "Postfix, proxy")]
    Proxy,
    /// Postfix's postscreen.
    #[serde(rename = "Postfix, postscreen")]
    Postscreen,
    /// Postfix with STARTTLS, or with idle connections.
    #[serde(rename = "Postfix, smtpd")]
    Smtpd,
    /// The node, from one department to another.
    #[serde(rename = "node, departments")]
    Departments,
    /// The node, from the Internet with all checks but clamd.
    #[serde(rename = "node, Internet")]
    Internet,
}

impl Who {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "Postfix, queue",
            Self::Proxy => "Postfix, proxy",
            Self::Postscreen => "Postfix, postscreen",
            Self::Smtpd => "Postfix, smtpd",
            Self::Departments => "node, departments",
            Self::Internet => "node, Internet",
        }
    }

    /// Whether it is the node.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Departments | Self::Internet)
    }
}

/// A line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `relay of 2 KB`.
    pub what: String,
    /// Which server.
    pub who: Who,
    /// `20 connections`, or `300/s`.
    pub pace: String,
    /// Errands that ended as wanted.
    pub done: usize,
    /// Errands that did not.
    pub failed: u64,
    /// Messages that were accepted and did not come to the next hop.
    pub missing: u64,
    /// The first problem.
    pub problem: Option<String>,
    /// Done a second, until the last message was at the next hop.
    pub per_s: f64,
    /// CPU time of the server for each, in microseconds: of all its processes, and of the control server.
    pub cpu_us: f64,
    /// Of that, of the control server.
    pub control_us: f64,
    /// Not of the server: of the name server.
    pub dns_us: f64,
    /// Not of the server: of the generator.
    pub generator_us: f64,
    /// Not of the server: of the next hop.
    pub next_hop_us: f64,
    /// Part of one core that the generator used, in percent: below 100 it is not what holds back.
    pub generator_percent: f64,
    /// Connections to the next hop for each.
    pub next_hop_connections: f64,
    /// Latencies in milliseconds: 50 %, 95 %, 99 % of them took no longer.
    pub latency_ms: [f64; 3],
}

/// CPU time so far.
#[derive(Clone, Copy, Debug)]
struct Spent {
    server: Duration,
    control: Duration,
    dns: Duration,
    next_hop: Duration,
}

impl World {
    fn account(&self, who: Who) -> &Account {
        if who.is_ours() { &self.ours.node } else { &self.postfix.account }
    }

    fn spent(&self, who: Who) -> anyhow::Result<Spent> {
        let (control, dns) = if who.is_ours() {
            (self.ours.control.cpu()?, self.ours.dns.cpu()?)
        } else {
            (Duration::ZERO, Duration::ZERO)
        };
        Ok(Spent { server: self.account(who).cpu()? + control, control, dns, next_hop: self.drain.cpu() })
    }

    fn load(&self, server: SocketAddr, network: Network, errand: Errand, pace: Pace) -> Load {
        Load {
            server,
            origin: Origin::Own(network.prefix()),
            errand,
            pace,
            lasting: self.plan.lasting,
            count_max: u64::MAX,
            threads: self.plan.threads,
        }
    }

    /// Puts a load on a server, after a shorter one that does not count.
    ///
    /// # Errors
    /// When the system does not tell what was used, or nothing was done.
    pub async fn measure(&self, what: &str, who: Who, load: Load) -> anyhow::Result<Row> {
        let relays = matches!(load.errand, Errand::Relay { .. });
        let before = self.drain.messages();
        let warm = Load { lasting: self.plan.warm_up, ..load.clone() }.run().await?;
        self.settle(relays, before + warm.took.len() as u64).await;

        let (before, connections) = (self.drain.messages(), self.drain.connections());
        let (spent, began) = (self.spent(who)?, Instant::now());
        let tally = load.clone().run().await?;
        let wanted = if relays { tally.took.len() as u64 } else { 0 };
        let last = self.settle(relays, before + wanted).await;
        let lasted = if relays { tally.lasted.max(last.saturating_duration_since(began)) } else { tally.lasted };
        let after = self.spent(who)?;
        let missing = wanted.saturating_sub(self.drain.messages() - before);
        let hops = self.drain.connections() - connections;
        row(what, who, load.pace, tally, lasted, missing, hops, (spent, after))
    }

    async fn settle(&self, relays: bool, messages: u64) -> Instant {
        let last = if relays { self.drain.until(messages, ARRIVAL_MAX).await } else { Instant::now() };
        sleep(SETTLE).await;
        last
    }

    /// Relay of messages of each size: as much as 20 connections can, and then all servers at the same rate.
    ///
    /// # Errors
    /// As of [`Self::measure`].
    pub async fn relay(&self, at: usize, who: Who, rate: Option<f64>) -> anyhow::Result<Row> {
        let network = if who == Who::Internet { Network::Internet } else { Network::Department };
        let mails = self.mails(network)?.get(at).cloned().context("there are so many messages")?;
        let server = match who {
            Who::Queue => self.postfix.queue,
            Who::Proxy => self.postfix.proxy,
            Who::Departments => self.ours.departments,
            Who::Internet => self.ours.internet,
            Who::Postscreen | Who::Smtpd => bail!("{} does not relay", who.name()),
        };
        let what = format!("relay, {}", mails.name);
        let pace = rate.map_or(Pace::Closed(self.plan.connections), |rate| Pace::Open(rate * EQUAL_LOAD));
        self.measure(&what, who, self.load(server, network, Errand::Relay { mails, pipelined: true }, pace)).await
    }

    /// A recipient that does not exist.
    ///
    /// # Errors
    /// As of [`Self::measure`].
    pub async fn unknown_recipient(&self, who: Who) -> anyhow::Result<Row> {
        let mut to = route(Network::Internet);
        to.to = format!("nobody@{}", super::DOMAIN);
        let errand = Errand::UnknownRecipient(Arc::new(Mails::new("none", &to, &[Vec::new()])?));
        let server = if who.is_ours() { self.ours.internet } else { self.postfix.queue };
        let load = self.load(server, Network::Internet, errand, Pace::Closed(self.plan.connections));
        self.measure("refusal at RCPT", who, load).await
    }

    /// A client that a local list names.
    ///
    /// # Errors
    /// As of [`Self::measure`].
    pub async fn turned_away(&self, who: Who) -> anyhow::Result<Row> {
        let server = if who.is_ours() { self.ours.internet } else { self.postfix.postscreen };
        let load = self.load(server, Network::Denied, Errand::TurnedAway, Pace::Closed(self.plan.connections));
        self.measure("refusal at connect", who, load).await
    }

    /// STARTTLS with one of the keys, which the node must have been started with.
    ///
    /// # Errors
    /// As of [`Self::measure`].
    pub async fn handshake(&self, who: Who, at: usize) -> anyhow::Result<Row> {
        let key = &self.keys[at];
        let server = if who.is_ours() { self.ours.internet } else { self.postfix.tls[at] };
        let errand = Errand::Handshake(key.client()?);
        let load = self.load(server, Network::Internet, errand, Pace::Closed(self.plan.connections));
        self.measure(&format!("TLS handshake, {}", key.name), who, load).await
    }

    /// The same load on Postfix by this generator and by Postfix's own `smtp-source`, which tells whether the former holds back
    /// or spares the server. Neither sends commands in one piece.
    ///
    /// # Errors
    /// As of [`Self::measure`], and when `smtp-source` fails.
    pub async fn against_smtp_source(&self) -> anyhow::Result<Vec<Row>> {
        let mails = self.mails(Network::Department)?.get(1).cloned().context("there is a middle size")?;
        let what = format!("generator, {}", mails.name);
        let errand = Errand::Relay { mails: Arc::clone(&mails), pipelined: false };
        let pace = Pace::Closed(self.plan.connections);
        let ours = self.measure(&what, Who::Queue, self.load(self.postfix.queue, Network::Department, errand, pace));
        let ours = ours.await?;

        let route = route(Network::Department);
        let (before, connections) = (self.drain.messages(), self.drain.connections());
        let (spent, began) = (self.spent(Who::Queue)?, Instant::now());
        let own = Account::open("smtp-source");
        let mut command = Command::new("/usr/sbin/smtp-source");
        command.args(["-s", &self.plan.connections.to_string(), "-m", &ours.done.to_string()]);
        // Its own header fields are about 200 bytes.
        command.args(["-l", &mails.bytes_mean().saturating_sub(200).to_string(), "-f", &route.from, "-t", &route.to]);
        let mut child =
            command.arg(self.postfix.queue.to_string()).kill_on_drop(true).spawn().context("smtp-source")?;
        own.started(child.id().unwrap_or_default());
        if !child.wait().await.context("wait for smtp-source")?.success() {
            bail!("smtp-source failed");
        }
        let sent = began.elapsed();
        let last = self.settle(true, before + ours.done as u64).await;
        let after = self.spent(Who::Queue)?;
        let took = vec![Duration::ZERO; ours.done];
        let tally = Tally { took, lasted: sent, ..Tally::default() };
        let missing = (ours.done as u64).saturating_sub(self.drain.messages() - before);
        let hops = self.drain.connections() - connections;
        let lasted = sent.max(last.saturating_duration_since(began));
        let theirs = row("smtp-source", Who::Queue, pace, tally, lasted, missing, hops, (spent, after))?;
        Ok(vec![ours, theirs])
    }
}

#[expect(clippy::too_many_arguments, reason = "each is one figure of the row, and there is one caller for each kind")]
fn row(
    what: &str,
    who: Who,
    pace: Pace,
    tally: Tally,
    lasted: Duration,
    missing: u64,
    hops: u64,
    (before, after): (Spent, Spent),
) -> anyhow::Result<Row> {
    let done = tally.took.len();
    if done == 0 {
        bail!("{what}, {}: nothing was done: {}", who.name(), tally.problem.unwrap_or_default());
    }
    let (failed, problem) = (tally.failures(), tally.problem.clone());
    let each_us = |time: Duration| time.as_secs_f64() * 1e6 / done as f64;
    let latencies = Percentiles::of(tally.took);
    Ok(Row {
        what: what.to_owned(),
        who,
        pace: match pace {
            Pace::Closed(connections) => format!("{connections} connections"),
            Pace::Open(rate) => format!("{rate:.0}/s"),
        },
        done,
        failed,
        missing,
        problem,
        per_s: done as f64 / lasted.as_secs_f64(),
        cpu_us: each_us(after.server.saturating_sub(before.server)),
        control_us: each_us(after.control.saturating_sub(before.control)),
        dns_us: each_us(after.dns.saturating_sub(before.dns)),
        generator_us: each_us(tally.cpu),
        next_hop_us: each_us(after.next_hop.saturating_sub(before.next_hop)),
        generator_percent: tally.cpu.as_secs_f64() / tally.lasted.as_secs_f64() * 100.0,
        next_hop_connections: hops as f64 / done as f64,
        latency_ms: [50, 95, 99].map(|p| latencies.ms(p)),
    })
}
