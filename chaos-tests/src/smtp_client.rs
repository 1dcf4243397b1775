//! An SMTP client for tests and load: one conversation, one message after the other.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// Longer than any server may take (RFC 5321 section 4.5.3.2 has longer ones; here everything is near).
const REPLY_MAX: Duration = Duration::from_secs(60);
const LINE_BYTES_MAX: u64 = 4096;
const LINES_MAX: usize = 100;

/// What a server said to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// All lines without the code, with a space between.
    pub text: String,
}

impl Reply {
    /// 2yz or 3yz.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// The transaction id of `250 2.0.0 accepted as 01J…`.
    #[must_use]
    pub fn transaction(&self) -> Option<&str> {
        if self.code != 250 {
            return None;
        }
        self.text.split_once("accepted as ")?.1.split_whitespace().next()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// From whom and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Reverse-path, empty for null.
    pub from: String,
    /// Forward-paths.
    pub to: Vec<String>,
}

/// What became of a transaction in the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// To MAIL.
    pub mail: Reply,
    /// To each RCPT that was sent.
    pub rcpt: Vec<Reply>,
    /// To the end of DATA, or to DATA itself when it was refused; `None` when it was not sent.
    pub data: Option<Reply>,
}

impl Answers {
    /// The reply that decided: of the end of DATA, else the first refusal.
    #[must_use]
    pub fn last(&self) -> &Reply {
        let refused = || self.rcpt.iter().find(|reply| !reply.is_yes());
        self.data.as_ref().or_else(refused).unwrap_or(&self.mail)
    }

    /// The id, when the message was accepted.
    #[must_use]
    pub fn transaction(&self) -> Option<&str> {
        self.data.as_ref().and_then(Reply::transaction)
    }
}

/// A connection after EHLO.
#[derive(Debug)]
pub struct Conversation {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// What EHLO announced.
    pub extensions: Reply,
}

impl Conversation {
    /// Connects from `client`, waits for the greeting and says EHLO.
    ///
    /// # Errors
    /// When the server is not there or does not answer with 2yz.
    pub async fn open(server: SocketAddr, client: Option<IpAddr>, helo: &str) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4().context("make a socket")?;
        if let Some(client) = client {
            socket.bind(SocketAddr::new(client, 0)).with_context(|| format!("send from {client}"))?;
        }
        let stream = timeout(REPLY_MAX, socket.connect(server)).await.context("no connection in time")?;
        let stream = stream.with_context(|| format!("connect to {server}"))?;
        Self::over(stream, helo).await
    }

    /// The same over a connection that there is already.
    ///
    /// # Errors
    /// When the server does not answer with 2yz.
    pub async fn over(stream: TcpStream, helo: &str) -> anyhow::Result<Self> {
        let server = stream.peer_addr().context("ask for the server's address")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let (reader, writer) = stream.into_split();
        let extensions = Reply { code: 0, text: String::new() };
        let mut conversation = Self { reader: BufReader::new(reader), writer, extensions };
        let greeting = conversation.reply().await?;
        if greeting.code != 220 {
            bail!("{server} greets with {greeting}");
        }
        conversation.extensions = conversation.say(&format!("EHLO {helo}")).await?;
        if !conversation.extensions.is_yes() {
            bail!("{server} answers EHLO with {}", conversation.extensions);
        }
        Ok(conversation)
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// When the connection breaks or the reply is not SMTP.
    pub async fn say(&mut self, command: &str) -> anyhow::Result<Reply> {
        self.raw(format!("{command}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        timeout(REPLY_MAX, self.writer.write_all(bytes)).await.context("the server does not read")?.context("send")
    }

    /// Reads one reply of one or more lines.
    ///
    /// # Errors
    /// When the connection breaks or the reply is not SMTP.
    pub async fn reply(&mut self) -> anyhow::Result<Reply> {
        timeout(REPLY_MAX, self.reply_lines()).await.context("no reply in time")?
    }

    async fn reply_lines(&mut self) -> anyhow::Result<Reply> {
        let mut texts = Vec::new();
        for _ in 0..LINES_MAX {
            let mut line = String::new();
            let length = (&mut self.reader).take(LINE_BYTES_MAX).read_line(&mut line).await.context("read a reply")?;
            if length == 0 {
                bail!("the server closed the connection");
            }
            let line = line.trim_end();
            let code = line.get(..3).and_then(|code| code.parse().ok()).with_context(|| format!("{line:?}"))?;
            texts.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text: texts.join(" ") });
            }
        }
        bail!("a reply of more than {LINES_MAX} lines")
    }

    /// One transaction. With no recipient accepted DATA is not sent, and the transaction is reset.
    ///
    /// # Errors
    /// When the connection breaks: what became of the message is then unknown.
    pub async fn send(&mut self, envelope: &Envelope, message: &[u8]) -> anyhow::Result<Answers> {
        let mail = self.say(&format!("MAIL FROM:<{}>", envelope.from)).await?;
        let mut answers = Answers { mail, rcpt: Vec::new(), data: None };
        if !answers.mail.is_yes() {
            return Ok(answers);
        }
        for to in &envelope.to {
            let reply = self.say(&format!("RCPT TO:<{to}>")).await?;
            answers.rcpt.push(reply);
        }
        if !answers.rcpt.iter().any(Reply::is_yes) {
            self.say("RSET").await?;
            return Ok(answers);
        }
        let go = self.say("DATA").await?;
        if go.code != 354 {
            answers.data = Some(go);
            return Ok(answers);
        }
        self.raw(&stuffed(message)).await?;
        answers.data = Some(self.reply().await?);
        Ok(answers)
    }

    /// Says good-bye.
    ///
    /// # Errors
    /// When the connection breaks before the reply.
    pub async fn quit(mut self) -> anyhow::Result<()> {
        self.say("QUIT").await.map(|_| ())
    }
}

/// The message with CRLF line ends, leading dots doubled and the final line (RFC 5321 section 4.5.2).
#[must_use]
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use super::{Reply, stuffed};

    #[test]
    fn lines_end_with_crlf_and_dots_are_doubled() {
        assert_eq!(stuffed(b"a\n.\r\n..b\nc"), b"a\r\n..\r\n...b\r\nc\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
    }

    #[test]
    fn only_a_250_names_a_transaction() {
        let reply = |code, text: &str| Reply { code, text: text.into() };
        assert_eq!(reply(250, "2.0.0 accepted as 01JX").transaction(), Some("01JX"));
        assert_eq!(reply(451, "4.3.0 accepted as 01JX").transaction(), None);
        assert_eq!(reply(250, "2.1.0 ok").transaction(), None);
    }
}
