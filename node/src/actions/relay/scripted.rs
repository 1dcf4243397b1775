//! An SMTP server for tests that says what its script says, one connection after the other, and tells what it heard.

use std::sync::Arc;

use proto::department::{NextHop, TlsRule};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// One step of a conversation.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Says this in one write, `\\n` meaning a line end, CRLF added.
    Say(String),
    /// Reads a line, which must begin so.
    Hear(&'static str),
    /// Reads up to the end of DATA.
    Data,
    /// Goes on under TLS.
    Tls,
    /// Says nothing more, but keeps the connection until the other side closes it.
    Silence,
}

/// What one connection brought: lines, and the data as sent, with the final dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) lines: Vec<String>,
    pub(crate) data: String,
}

/// A running server; it ends after its last script.
pub(crate) struct Scripted {
    pub(crate) hop: NextHop,
    running: JoinHandle<Vec<Heard>>,
}

/// `S: text` is said, `C: text` is heard as the beginning of a line, `DATA`, `TLS` and `SILENCE` are what they are.
pub(crate) fn script(text: &str) -> Vec<Step> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| match line.split_once(' ') {
            Some(("S:", said)) => Step::Say(said.replace("\\n", "\r\n")),
            Some(("C:", heard)) => Step::Hear(String::leak(heard.to_owned())),
            _ if line == "DATA" => Step::Data,
            _ if line == "TLS" => Step::Tls,
            _ if line == "SILENCE" => Step::Silence,
            _ => panic!("not a step: {line}"),
        })
        .collect()
}

/// A conversation that takes one message for one recipient.
pub(crate) const TAKES_ONE: &str = "
    S: 220 sink.test ESMTP
    C: EHLO
    S: 250-sink.test
    S: 250-SIZE 1000000
    S: 250-8BITMIME
    S: 250 PIPELINING
    C: MAIL FROM:
    C: RCPT TO:
    S: 250 2.1.0 ok
    S: 250 2.1.5 ok
    C: DATA
    S: 354 go on
    DATA
    S: 250 2.0.0 stored as 42
    C: QUIT";

impl Scripted {
    pub(crate) async fn start(scripts: &[&str], tls: TlsRule, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let hop = NextHop { host: "127.0.0.1".to_owned(), port, tls };
        let scripts: Vec<Vec<Step>> = scripts.iter().map(|text| script(text)).collect();
        let acceptor = acceptor.map(Arc::new);
        let running = tokio::spawn(async move {
            let mut all = Vec::new();
            for steps in scripts {
                let (stream, _) = listener.accept().await.expect("a connection");
                all.push(converse(Box::new(stream), steps, acceptor.as_deref()).await);
            }
            all
        });
        Self { hop, running }
    }

    /// A server without TLS.
    pub(crate) async fn plain(scripts: &[&str]) -> Self {
        Self::start(scripts, TlsRule::None, None).await
    }

    /// What each connection brought; waits for the last.
    pub(crate) async fn heard(self) -> Vec<Heard> {
        self.running.await.expect("the script went through")
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

async fn converse(mut stream: Box<dyn Duplex>, steps: Vec<Step>, acceptor: Option<&TlsAcceptor>) -> Heard {
    let mut heard = Heard::default();
    for step in steps {
        match step {
            Step::Say(text) => {
                // The other side may be gone by now; the test looks at what was heard.
                stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap_or_default();
            }
            Step::Hear(start) => {
                let line = read_until(&mut stream, b"\n").await;
                assert!(line.starts_with(start), "heard {line:?} instead of {start:?}");
                heard.lines.push(line.trim_end().to_owned());
            }
            Step::Data => heard.data = read_until(&mut stream, b"\r\n.\r\n").await,
            Step::Tls => match acceptor.expect("a certificate").accept(stream).await {
                Ok(under_tls) => stream = Box::new(under_tls),
                Err(_) => return heard,
            },
            Step::Silence => {
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap_or_default();
            }
        }
    }
    heard
}

async fn read_until(stream: &mut Box<dyn Duplex>, end: &[u8]) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
