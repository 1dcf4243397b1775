//! The load generator: a few threads with a runtime each, prepared bytes, and as little work as can be for each connection, so
//! that what is measured is the server. It knows its own CPU time.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{mails::Mails, talk::Talk, usage};
use crate::cluster::layout::BALANCER;

/// An errand that takes longer has failed.
const ERRAND_MAX: Duration = Duration::from_secs(60);
/// Connections under way in an open loop; what would be one more has failed.
const OPEN_MAX: usize = 4000;
/// Last parts of the addresses that a load comes from: 1 to this.
const HOSTS: u64 = 250;

/// What a connection is for.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Hands over one message, MAIL to DATA in one piece where `pipelined` (RFC 2920). Wants 250.
    Relay {
        /// The messages.
        mails: Arc<Mails>,
        /// In one piece.
        pipelined: bool,
    },
    /// Sends MAIL and RCPT to a recipient that does not exist. Wants 550.
    UnknownRecipient(Arc<Mails>),
    /// Wants 5yz instead of a greeting.
    TurnedAway,
    /// EHLO, STARTTLS, a full handshake, QUIT. Wants that the handshake succeeds.
    Handshake(Arc<ClientConfig>),
}

/// Where connections come from, or seem to. Of an address the first three parts.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// From such addresses of loopback.
    Own([u8; 3]),
    /// From a load balancer, which announces clients with such addresses (PROXY protocol, version 1).
    Announced([u8; 3]),
}

/// Who goes on errands, where to, and how many at a time.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub server: SocketAddr,
    /// Where from.
    pub origin: Origin,
    /// What for.
    pub errand: Errand,
    /// How many at a time.
    pub pace: Pace,
    /// After this time no errand begins.
    pub lasting: Duration,
    /// After so many errands none begins.
    pub count_max: u64,
    /// Threads.
    pub threads: usize,
}

/// How errands follow each other.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many connections, each of which begins anew when it has ended.
    Closed(usize),
    /// So many a second, whatever became of those before. What they take is counted from when they were due.
    Open(f64),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How long each errand took that ended as wanted.
    pub took: Vec<Duration>,
    /// Errands that did not, by the reply code; 0 without one.
    pub failed: BTreeMap<u16, u64>,
    /// What was wrong at first.
    pub problem: Option<String>,
    /// From the first to the last.
    pub lasted: Duration,
    /// CPU time of the generator's threads.
    pub cpu: Duration,
}

/// How an errand ended.
#[derive(Clone, Copy, Debug)]
struct Done {
    /// The code of an answer that is not the wanted one.
    wrong: Option<u16>,
    /// When the answer that counts was there.
    at: Instant,
}

impl Done {
    fn now(wrong: Option<u16>) -> Self {
        Self { wrong, at: Instant::now() }
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        for (code, count) in other.failed {
            *self.failed.entry(code).or_default() += count;
        }
        self.problem = self.problem.take().or(other.problem);
        self.lasted = self.lasted.max(other.lasted);
        self.cpu += other.cpu;
    }

    fn note(&mut self, since: Instant, outcome: io::Result<Done>) {
        match outcome {
            Ok(Done { wrong: None, at }) => self.took.push(at - since),
            Ok(Done { wrong: Some(code), .. }) => {
                *self.failed.entry(code).or_default() += 1;
                self.problem.get_or_insert_with(|| format!("the answer was {code}"));
            }
            Err(error) => {
                *self.failed.entry(0).or_default() += 1;
                self.problem.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// Errands that did not end as wanted.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl Load {
    /// Runs it to its end.
    ///
    /// # Errors
    /// When a thread of it cannot run.
    pub async fn run(self) -> anyhow::Result<Tally> {
        let next = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..self.threads)
            .map(|_| {
                let (load, next) = (self.clone(), Arc::clone(&next));
                tokio::task::spawn_blocking(move || load.one_thread(&next))
            })
            .collect();
        let mut all = Tally::default();
        for thread in threads {
            all.add(thread.await.context("a thread of the load")??);
        }
        Ok(all)
    }

    fn one_thread(self, next: &Arc<AtomicU64>) -> anyhow::Result<Tally> {
        let before = usage::thread_cpu()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let began = Instant::now();
        let mut tally = runtime.block_on(async {
            match self.pace {
                Pace::Closed(connections) => self.closed(connections, next).await,
                Pace::Open(rate) => self.open(rate / self.threads as f64, next).await,
            }
        });
        tally.lasted = began.elapsed();
        tally.cpu = usage::thread_cpu()?.saturating_sub(before);
        Ok(tally)
    }

    async fn closed(&self, connections: usize, next: &Arc<AtomicU64>) -> Tally {
        let end = Instant::now() + self.lasting;
        let mut workers = JoinSet::new();
        for _ in 0..connections.div_ceil(self.threads) {
            let (load, next) = (self.clone(), Arc::clone(next));
            workers.spawn(async move {
                let mut tally = Tally::default();
                while Instant::now() < end {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= load.count_max {
                        break;
                    }
                    let began = Instant::now();
                    tally.note(began, load.errand(n).await);
                }
                tally
            });
        }
        let mut all = Tally::default();
        while let Some(Ok(tally)) = workers.join_next().await {
            all.add(tally);
        }
        all
    }

    async fn open(&self, rate: f64, next: &Arc<AtomicU64>) -> Tally {
        let began = Instant::now();
        let (mut all, mut under_way, mut sent) = (Tally::default(), JoinSet::new(), 0_u64);
        while began.elapsed() < self.lasting {
            // Each is due at its own time, also when the timer is late or a server makes others wait.
            while began.elapsed().as_secs_f64() * rate > sent as f64 {
                let due = began + Duration::from_secs_f64(sent as f64 / rate);
                sent += 1;
                if under_way.len() >= OPEN_MAX {
                    all.note(due, Err(io::Error::other("too many connections are under way")));
                    continue;
                }
                let (load, n) = (self.clone(), next.fetch_add(1, Ordering::Relaxed));
                under_way.spawn(async move { (due, load.errand(n).await) });
            }
            sleep(Duration::from_millis(1)).await;
            while let Some(Ok((due, done))) = under_way.try_join_next() {
                all.note(due, done);
            }
        }
        while let Some(Ok((due, done))) = under_way.join_next().await {
            all.note(due, done);
        }
        all
    }

    async fn errand(&self, n: u64) -> io::Result<Done> {
        timeout(ERRAND_MAX, self.go(n)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn go(&self, n: u64) -> io::Result<Done> {
        let mut talk = match self.origin {
            Origin::Own(net) => Talk::new(connect(self.server, net, n).await?),
            Origin::Announced(net) => announced(self.server, net, n).await?,
        };
        match &self.errand {
            Errand::TurnedAway => {
                let code = talk.code().await?;
                Ok(Done::now((code / 100 != 5).then_some(code)))
            }
            Errand::Relay { mails, pipelined } => relay(&mut talk, mails, *pipelined, n).await,
            Errand::UnknownRecipient(mails) => {
                greet(&mut talk).await?;
                let [mail, rcpt, _] = &mails.nth(n).envelope;
                for command in [mail, rcpt] {
                    let code = talk.ask(command).await?;
                    if code == 550 {
                        return quit(&mut talk).await;
                    }
                    if code != 250 {
                        return Ok(Done::now(Some(code)));
                    }
                }
                Ok(Done::now(Some(250)))
            }
            Errand::Handshake(config) => {
                greet(&mut talk).await?;
                let code = talk.ask(b"STARTTLS\r\n").await?;
                if code != 220 {
                    return Ok(Done::now(Some(code)));
                }
                let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
                let connector = TlsConnector::from(Arc::clone(config));
                let mut talk = Talk::new(connector.connect(name, talk.into_inner()).await?);
                talk.ask(b"EHLO load.test\r\n").await?;
                quit(&mut talk).await
            }
        }
    }
}

/// A connection from one of the addresses of a net, in turn.
///
/// # Errors
/// When there is none.
pub async fn connect(server: SocketAddr, [a, b, c]: [u8; 3], n: u64) -> io::Result<TcpStream> {
    connect_from(Ipv4Addr::new(a, b, c, host(n)).into(), server).await
}

/// Last part of the address number n.
fn host(n: u64) -> u8 {
    u8::try_from(1 + n % HOSTS).unwrap_or(1)
}

async fn connect_from(address: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(address, 0))?;
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection of the balancer's, for one of the addresses of a net, in turn.
async fn announced(server: SocketAddr, [a, b, c]: [u8; 3], n: u64) -> io::Result<Talk<TcpStream>> {
    let mut talk = Talk::new(connect_from(BALANCER, server).await?);
    let client = format!("PROXY TCP4 {a}.{b}.{c}.{} {BALANCER} 40000 25\r\n", host(n));
    talk.send(client.as_bytes()).await?;
    Ok(talk)
}

/// The greeting and EHLO.
///
/// # Errors
/// When the server does not greet.
pub async fn greet(talk: &mut Talk<TcpStream>) -> io::Result<()> {
    for code in [talk.code().await?, talk.ask(b"EHLO load.test\r\n").await?] {
        if code / 100 != 2 {
            return Err(io::Error::other(format!("greeted with {code}")));
        }
    }
    Ok(())
}

async fn relay(talk: &mut Talk<TcpStream>, mails: &Mails, pipelined: bool, n: u64) -> io::Result<Done> {
    greet(talk).await?;
    let mail = mails.nth(n);
    if pipelined {
        talk.send(&mail.group).await?;
    }
    for (command, wanted) in mail.envelope.iter().zip([250, 250, 354]) {
        let code = if pipelined { talk.code().await? } else { talk.ask(command).await? };
        if code != wanted {
            return Ok(Done::now(Some(code)));
        }
    }
    let code = talk.ask(&mail.body).await?;
    if code != 250 {
        return Ok(Done::now(Some(code)));
    }
    quit(talk).await
}

/// Says good-bye after the answer that counts.
async fn quit<S: AsyncRead + AsyncWrite + Unpin>(talk: &mut Talk<S>) -> io::Result<Done> {
    let at = Instant::now();
    let code = talk.ask(b"QUIT\r\n").await?;
    Ok(Done { wrong: (code != 221).then_some(code), at })
}
