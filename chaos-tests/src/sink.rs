//! The sink: a small real SMTP server that stands for a department's mail server or for the Internet. It stores each
//! message in a file and reports it before it says 250. It can be told to refuse mailboxes or to be away.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Counts from 1.
    pub n: u64,
    /// Reverse-path.
    pub from: String,
    /// The recipients that were accepted.
    pub to: Vec<String>,
    /// Size as received.
    pub bytes: usize,
    /// Of the bytes as received, in hex.
    pub sha256: String,
    /// The `id` of the topmost Received field.
    pub transaction: String,
    /// Message-ID field.
    pub message_id: String,
    /// Whether it came under TLS.
    pub tls: bool,
    /// The lines of MAIL and of each RCPT that was accepted, as they came.
    #[serde(default)]
    pub envelope: Vec<String>,
    /// Where it is stored; empty when the sink keeps none.
    pub file: PathBuf,
}

/// What a sink can be told on its standard input, a JSON line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// RCPT for this local part gets this code (452, 550, …).
    Refuse(String, u16),
    /// RCPT for this local part is accepted again.
    Accept(String),
    /// Every connection is answered with 421, or no longer.
    Away(bool),
}

const LINE_BYTES_MAX: u64 = 4096;
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
const CONNECTIONS_MAX: usize = 512;
const READ_MAX: Duration = Duration::from_secs(300);

/// A sink that serves.
pub struct Sink<F> {
    name: String,
    folder: Option<PathBuf>,
    refused: Mutex<BTreeMap<String, u16>>,
    away: AtomicBool,
    count: AtomicU64,
    tls: Option<TlsAcceptor>,
    report: F,
}

enum End {
    Quit,
    StartTls,
}

#[derive(Default)]
struct Transaction {
    from: Option<String>,
    to: Vec<String>,
    lines: Vec<String>,
}

impl<F: Fn(Received) + Send + Sync + 'static> Sink<F> {
    /// A sink that stores in `folder`, or only counts.
    pub fn new(name: &str, folder: Option<PathBuf>, tls: Option<TlsAcceptor>, report: F) -> Self {
        Self {
            name: name.to_owned(),
            folder,
            refused: Mutex::default(),
            away: AtomicBool::new(false),
            count: AtomicU64::new(0),
            tls,
            report,
        }
    }

    /// Does as it is told from now on.
    pub fn obey(&self, order: Order) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match order {
            Order::Refuse(local, code) => drop(refused.insert(local, code)),
            Order::Accept(local) => drop(refused.remove(&local)),
            Order::Away(away) => self.away.store(away, Ordering::SeqCst),
        }
    }

    /// Serves until the program ends.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let Ok((stream, peer)) = listener.accept().await else { continue };
            let sink = self.clone();
            tokio::spawn(async move {
                if let Err(error) = sink.connection(stream).await {
                    eprintln!("{peer}: {error:#}");
                }
                drop(permit);
            });
        }
    }

    async fn connection(&self, stream: TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let mut stream = BufReader::new(stream);
        if self.away.load(Ordering::SeqCst) {
            return say(&mut stream, "421 4.3.2 away").await;
        }
        say(&mut stream, &format!("220 {} ESMTP sink", self.name)).await?;
        if let End::StartTls = self.session(&mut stream, false).await?
            && let Some(acceptor) = &self.tls
        {
            let stream = acceptor.accept(stream.into_inner()).await.context("TLS handshake")?;
            self.session(&mut BufReader::new(stream), true).await?;
        }
        Ok(())
    }

    async fn session<S>(&self, stream: &mut BufReader<S>, tls: bool) -> anyhow::Result<End>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut transaction = Transaction::default();
        loop {
            let line = line(stream).await?;
            let Some(line) = line else { return Ok(End::Quit) };
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let reply = match verb.as_str() {
                "EHLO" => {
                    let start = if self.tls.is_some() && !tls { "250-STARTTLS\r\n" } else { "" };
                    format!(
                        "250-{}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n{start}250-ENHANCEDSTATUSCODES\r\n250 SIZE {MESSAGE_BYTES_MAX}",
                        self.name
                    )
                }
                "HELO" | "NOOP" => "250 2.0.0 ok".to_owned(),
                "RSET" => {
                    transaction = Transaction::default();
                    "250 2.0.0 ok".to_owned()
                }
                "MAIL" => {
                    transaction = Transaction { from: Some(path(&line)), to: Vec::new(), lines: vec![line] };
                    "250 2.1.0 ok".to_owned()
                }
                "RCPT" => self.recipient(&mut transaction, line),
                "DATA" if transaction.to.is_empty() => "503 5.5.1 no recipient".to_owned(),
                "DATA" => {
                    say(stream, "354 go on").await?;
                    let message = data(stream).await?;
                    let n = self.store(std::mem::take(&mut transaction), &message, tls).await?;
                    format!("250 2.0.0 stored as {n}")
                }
                "STARTTLS" if self.tls.is_some() && !tls && stream.buffer().is_empty() => {
                    say(stream, "220 2.0.0 go on").await?;
                    return Ok(End::StartTls);
                }
                "QUIT" => {
                    say(stream, "221 2.0.0 bye").await?;
                    return Ok(End::Quit);
                }
                _ => "502 5.5.1 unknown command".to_owned(),
            };
            say(stream, &reply).await?;
        }
    }

    fn recipient(&self, transaction: &mut Transaction, line: String) -> String {
        let to = path(&line);
        if transaction.from.is_none() {
            return "503 5.5.1 MAIL first".to_owned();
        }
        let local = to.rsplit_once('@').map_or(to.as_str(), |(local, _)| local);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(local).copied();
        match refused {
            Some(code @ 400..500) => format!("{code} 4.2.2 mailbox {local} is full"),
            Some(code) => format!("{code} 5.1.1 no mailbox {local} here"),
            None => {
                transaction.to.push(to);
                transaction.lines.push(line);
                "250 2.1.5 ok".to_owned()
            }
        }
    }

    async fn store(&self, transaction: Transaction, message: &[u8], tls: bool) -> anyhow::Result<u64> {
        let n = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let mut file = PathBuf::new();
        if let Some(folder) = &self.folder {
            file = folder.join(format!("{n:06}.eml"));
            tokio::fs::write(&file, message).await.with_context(|| format!("write {}", file.display()))?;
        }
        (self.report)(Received {
            n,
            from: transaction.from.unwrap_or_default(),
            to: transaction.to,
            bytes: message.len(),
            sha256: hex::encode(Sha256::digest(message)),
            transaction: transaction_id(message),
            message_id: field(message, "Message-ID").unwrap_or_default(),
            tls,
            envelope: transaction.lines,
            file,
        });
        Ok(n)
    }
}

/// The first header field of that name, unfolded.
#[must_use]
pub fn field(message: &[u8], name: &str) -> Option<String> {
    fields(message).into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// All header fields in their order, unfolded.
#[must_use]
pub fn fields(message: &[u8]) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in String::from_utf8_lossy(message).split("\r\n").take_while(|line| !line.is_empty()) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    fields
}

fn transaction_id(message: &[u8]) -> String {
    let received = field(message, "Received").unwrap_or_default();
    let mut words = received.split_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("id"));
    words.nth(1).unwrap_or_default().trim_end_matches(';').to_owned()
}

fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or("", |(path, _)| path).to_owned()
}

async fn say<S: AsyncWrite + AsyncRead + Unpin + Send>(stream: &mut BufReader<S>, text: &str) -> anyhow::Result<()> {
    let text = format!("{text}\r\n");
    timeout(READ_MAX, stream.write_all(text.as_bytes())).await.context("the client does not read")?.context("reply")?;
    stream.flush().await.context("reply")
}

async fn bytes_of_line<S: AsyncRead + Unpin + Send>(stream: &mut BufReader<S>, max: u64) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    let reading = async { (&mut *stream).take(max).read_until(b'\n', &mut line).await };
    timeout(READ_MAX, reading).await.context("the client is silent")?.context("read a line")?;
    Ok(line)
}

async fn line<S: AsyncRead + Unpin + Send>(stream: &mut BufReader<S>) -> anyhow::Result<Option<String>> {
    let line = bytes_of_line(stream, LINE_BYTES_MAX).await?;
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
        None if line.is_empty() => Ok(None),
        None => bail!("a line without CRLF or of more than {LINE_BYTES_MAX} bytes"),
    }
}

/// The message up to CRLF.CRLF, dots unstuffed. A bare LF does not end a line.
async fn data<S: AsyncRead + Unpin + Send>(stream: &mut BufReader<S>) -> anyhow::Result<Vec<u8>> {
    let mut message: Vec<u8> = Vec::new();
    loop {
        let line = bytes_of_line(stream, MESSAGE_BYTES_MAX as u64).await?;
        if line.is_empty() {
            bail!("the connection ended within a message");
        }
        let at_line_start = message.is_empty() || message.ends_with(b"\r\n");
        if at_line_start && line == b".\r\n" {
            return Ok(message);
        }
        let dot_stuffed = at_line_start && line.first() == Some(&b'.');
        message.extend_from_slice(if dot_stuffed { line.get(1..).unwrap_or_default() } else { &line });
        if message.len() > MESSAGE_BYTES_MAX {
            bail!("a message of more than {MESSAGE_BYTES_MAX} bytes");
        }
    }
}

/// A TLS acceptor with a certificate made for `name`; the certificate is written to `folder/NAME.pem` for who wants to trust it.
///
/// # Errors
/// When the certificate cannot be made or written.
pub fn self_made_tls(name: &str, address: SocketAddr, folder: &Path) -> anyhow::Result<TlsAcceptor> {
    let names = vec![name.to_owned(), address.ip().to_string()];
    let made = rcgen::generate_simple_self_signed(names).context("make a certificate")?;
    let file = folder.join(format!("{name}.pem"));
    std::fs::write(&file, made.cert.pem()).with_context(|| format!("write {}", file.display()))?;
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .context("use the certificate")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
