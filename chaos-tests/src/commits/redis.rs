//! A single Redis that fsyncs before it answers, for comparison: `SET` over a connection for each client, without TLS.

use std::path::Path;

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
};

use super::{Ground, Store, work::Work};
use crate::{
    cluster::operator::until,
    ports,
    process::{Process, Program},
};

/// Redis as a process.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub process: Process,
    /// Its clients.
    pub sets: Sets,
}

/// One connection for each client.
#[derive(Debug)]
pub struct Sets(Vec<Mutex<TcpStream>>);

impl Redis {
    /// Starts it with `appendfsync always` and connects the clients.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start(path: &Path, ground: &Ground, clients: usize) -> anyhow::Result<Self> {
        let folder = ground.fresh("redis")?;
        let port = ports::reserve(None)?;
        let address = port.address();
        let mut arguments =
            vec!["--bind".to_owned(), address.ip().to_string(), "--port".into(), address.port().to_string()];
        arguments.extend(["--dir".into(), folder.display().to_string(), "--save".into(), String::new()]);
        arguments.extend(["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned));
        let program = Program {
            name: "redis".into(),
            path: path.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            log: folder.join("redis.log"),
        };
        drop(port);
        let process = program.start_foreign(&ground.janitor)?;
        let first = until("redis answers", || async { TcpStream::connect(address).await.ok() }).await;
        drop(first.with_context(|| program.log_end())?);
        let mut connections = Vec::new();
        for _ in 0..clients {
            let stream = TcpStream::connect(address).await.context("connect to redis")?;
            stream.set_nodelay(true).context("set TCP_NODELAY")?;
            connections.push(Mutex::new(stream));
        }
        Ok(Self { process, sets: Sets(connections) })
    }
}

impl Sets {
    /// SET in RESP, and its answer.
    async fn set(&self, client: usize, key: &str, value: &[u8]) -> anyhow::Result<()> {
        let mut stream = self.0[client % self.0.len()].lock().await;
        let mut command = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len()).into_bytes();
        command.extend_from_slice(value);
        command.extend_from_slice(b"\r\n");
        stream.write_all(&command).await.context("write to redis")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.context("read from redis")?;
        if &answer != b"+OK\r\n" {
            bail!("redis answered {:?}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    }
}

impl Store for Sets {
    async fn write(&self, client: usize, work: Work) -> anyhow::Result<()> {
        let (key, value) = work.pair();
        self.set(client, &key, &value).await
    }
}
