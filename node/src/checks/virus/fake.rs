//! A clamd for tests: real sockets, and answers as the test wants them.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
    sync::watch,
    time::timeout,
};

use super::{MAIL_HEAD, nest::nest, wire::ClamdAddress};

/// What it does with a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Does {
    /// Takes all of it and answers.
    Says(&'static [u8]),
    /// Answers after the first kilobyte and closes, as over `StreamMaxLength`.
    SaysEarly(&'static [u8]),
    /// Takes all of it and, after this time, finds nothing.
    Takes(Duration),
    /// Takes all of it and never answers.
    Hangs,
    /// Takes all of it, and then the whole clamd is gone.
    Dies,
}

pub(super) const CLEAN: Does = Does::Says(b"stream: OK\0");

type Judge = Arc<dyn Fn(&[u8]) -> Does + Send + Sync>;

/// How it behaves; may be changed at any time.
#[derive(Clone)]
pub(super) struct Role {
    /// The answer to PING; `None`: it hangs.
    pub(super) pong: Option<&'static [u8]>,
    pub(super) version: String,
    pub(super) nest: Does,
    pub(super) judge: Judge,
}

impl Role {
    /// A good one, with signatures of no known age.
    pub(super) fn judging(judge: impl Fn(&[u8]) -> Does + Send + Sync + 'static) -> Self {
        Self {
            pong: Some(b"PONG\0"),
            version: "ClamAV 1.4.6".to_owned(),
            nest: Does::Says(b"stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND\0"),
            judge: Arc::new(judge),
        }
    }
}

pub(super) struct Fake {
    pub(super) address: ClamdAddress,
    role: Arc<Mutex<Role>>,
    heard: watch::Sender<Vec<String>>,
    /// True once it is to die; closed once its listener is gone.
    dead: watch::Sender<bool>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Listener {
    async fn accept(&self) -> Box<dyn Socket> {
        match self {
            Self::Tcp(listener) => Box::new(listener.accept().await.expect("accepts").0),
            Self::Unix(listener) => Box::new(listener.accept().await.expect("accepts").0),
        }
    }
}

impl Fake {
    pub(super) async fn start(role: Role) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), role).await
    }

    /// Where another one was before.
    pub(super) async fn start_again(old: &ClamdAddress, role: Role) -> Self {
        let ClamdAddress::Tcp(address) = old else { panic!("{old:?}") };
        Self::start_at(*address, role).await
    }

    async fn start_at(address: SocketAddr, role: Role) -> Self {
        let listener = TcpListener::bind(address).await.expect("binds");
        let address = ClamdAddress::Tcp(listener.local_addr().expect("an address"));
        Self::on(address, Listener::Tcp(listener), role)
    }

    pub(super) fn start_in(folder: &Path, role: Role) -> Self {
        let path = folder.join("clamd.sock");
        let listener = UnixListener::bind(&path).expect("binds");
        Self::on(ClamdAddress::Unix(path), Listener::Unix(listener), role)
    }

    fn on(address: ClamdAddress, listener: Listener, role: Role) -> Self {
        let (dead, mut dying) = watch::channel(false);
        let fake = Self { address, role: Arc::new(Mutex::new(role)), heard: watch::Sender::default(), dead };
        let (role, heard, dead) = (fake.role.clone(), fake.heard.clone(), fake.dead.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    socket = listener.accept() => {
                        let role = role.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        // Who breaks off has a reason.
                        let (heard, dead) = (heard.clone(), dead.clone());
                        tokio::spawn(async move { drop(answer(socket, role, heard, dead).await) });
                    }
                    _ = dying.wait_for(|dead| *dead) => break,
                }
            }
            // First the listener, then the receiver that tells of it.
            drop(listener);
            drop(dying);
        });
        fake
    }

    /// Ends once nobody can connect any more.
    pub(super) async fn die(&self) {
        self.dead.send_replace(true);
        self.dead.closed().await;
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Role)) {
        change(&mut self.role.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What it was asked since the last time: `PING`, `VERSION`, `NEST`, or the message.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.send_replace(Vec::new())
    }

    /// Messages only.
    pub(super) fn scanned(&self) -> Vec<String> {
        let mut heard = self.heard();
        heard.retain(|one| !["PING", "VERSION", "NEST"].contains(&one.as_str()));
        heard
    }

    /// Waits until it has been asked this, half a minute at most.
    pub(super) async fn hears(&self, what: &str) {
        let mut heard = self.heard.subscribe();
        let asked = heard.wait_for(|all| all.iter().any(|one| one == what));
        drop(timeout(Duration::from_secs(30), asked).await.expect("a question in time").expect("it lives"));
    }
}

async fn answer(
    mut socket: Box<dyn Socket>,
    role: Role,
    heard: watch::Sender<Vec<String>>,
    dead: watch::Sender<bool>,
) -> io::Result<()> {
    let mut command = Vec::new();
    while command.last() != Some(&0) {
        command.push(socket.read_u8().await?);
    }
    let hears = |what: &[u8]| heard.send_modify(|all| all.push(String::from_utf8_lossy(what).into_owned()));
    let (mut message, early) = (Vec::new(), matches!((role.judge)(b""), Does::SaysEarly(_)));
    match command.as_slice() {
        b"zPING\0" => {
            hears(b"PING");
            return match role.pong {
                Some(pong) => socket.write_all(pong).await,
                None => std::future::pending().await,
            };
        }
        b"zVERSION\0" => {
            hears(b"VERSION");
            return socket.write_all(format!("{}\0", role.version).as_bytes()).await;
        }
        b"zINSTREAM\0" => loop {
            let length = usize::try_from(socket.read_u32().await?).expect("a length");
            let from = message.len();
            message.resize(from + length, 0);
            // Of a chunk that it does not take to its end it has read a kilobyte.
            let read = if early && length > 1024 { 1024 } else { length };
            socket.read_exact(&mut message[from..from + read]).await?;
            if length == 0 || read < length {
                break;
            }
        },
        other => panic!("{other:?}"),
    }
    if message.starts_with(MAIL_HEAD) {
        message.drain(..MAIL_HEAD.len());
    }
    let is_nest = message.get(..1024).is_some_and(|begin| nest().starts_with(begin));
    let does = if is_nest {
        hears(b"NEST");
        role.nest
    } else {
        hears(&message);
        (role.judge)(&message)
    };
    match does {
        Does::Says(answer) | Does::SaysEarly(answer) => socket.write_all(answer).await,
        Does::Takes(time) => {
            tokio::time::sleep(time).await;
            socket.write_all(b"stream: OK\0").await
        }
        Does::Hangs => std::future::pending().await,
        Does::Dies => {
            dead.send_replace(true);
            dead.closed().await;
            Ok(())
        }
    }
}

/// A clamd that takes whatever comes and answers with these bytes, or never.
pub(crate) async fn clamd(answer: Option<&'static [u8]>) -> ClamdAddress {
    let does = answer.map_or(Does::Hangs, Does::Says);
    Fake::start(Role::judging(move |_| does)).await.address
}
