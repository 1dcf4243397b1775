//! The filters that people would take instead: Debian's Rspamd and SpamAssassin, started with folders of their own, taught by the same
//! messages, without a network. Those that the system may run are not touched.

mod rspamd;
mod spamassassin;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};

pub use self::{
    rspamd::{Rspamd, Use},
    spamassassin::SpamAssassin,
};
use super::corpus::Sorted;
use crate::janitor::Janitor;

/// A peer that takes longer for one message is broken.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Where peers live.
#[derive(Debug)]
pub struct Ground {
    /// Of this run; each peer makes its own in it.
    pub folder: PathBuf,
    /// Ends what was started, whatever happens.
    pub janitor: Janitor,
}

/// What a filter that runs says.
pub trait Peer: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// From so many points on it tags or quarantines by default, and from so many it rejects; SpamAssassin leaves that to others.
    fn thresholds(&self) -> (f64, f64);
    /// CPU time of all its processes so far.
    ///
    /// # Errors
    /// When the system does not tell.
    fn cpu(&self) -> anyhow::Result<Duration>;
    /// Where messages are asked about.
    fn address(&self) -> SocketAddr;
    /// The question about a message.
    fn question(&self, sorted: &Sorted) -> Vec<u8>;
    /// The points in the answer.
    ///
    /// # Errors
    /// When there are none.
    fn points(&self, answer: &[u8]) -> anyhow::Result<f64>;
}

/// What a peer says of messages, and what that took.
#[derive(Debug)]
pub struct Said {
    /// Of each message, in their order.
    pub points: Vec<f64>,
    /// CPU time of all of them.
    pub cpu: Duration,
    /// How long it took, several at a time.
    pub took: Duration,
}

/// Asks about all messages, so many at a time.
///
/// # Errors
/// When one is not answered.
pub async fn ask(peer: &dyn Peer, all: &[Sorted], at_once: usize, progress: &ProgressBar) -> anyhow::Result<Said> {
    let before = peer.cpu()?;
    let began = std::time::Instant::now();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worker = async || {
        let mut answered = Vec::new();
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(sorted) = all.get(at) else { return anyhow::Ok(answered) };
            let answer = exchange(peer.address(), &peer.question(sorted)).await;
            let points = answer.and_then(|answer| peer.points(&answer));
            answered.push((at, points.with_context(|| format!("{} about {}", peer.name(), sorted.name))?));
            progress.inc(1);
        }
    };
    let workers = (0..at_once).map(|_| worker());
    let mut answered: Vec<(usize, f64)> = futures::future::try_join_all(workers).await?.into_iter().flatten().collect();
    answered.sort_by_key(|(at, _)| *at);
    let points = answered.into_iter().map(|(_, points)| points).collect();
    Ok(Said { points, cpu: peer.cpu()?.saturating_sub(before), took: began.elapsed() })
}

/// One question, one answer, until the other side closes. Our side stays open: Rspamd takes a closed one for a client that has left.
async fn exchange(address: SocketAddr, question: &[u8]) -> anyhow::Result<Vec<u8>> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.context("connect")?;
        stream.write_all(question).await.context("ask")?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.context("read the answer")?;
        Ok(answer)
    };
    timeout(ANSWER_MAX, talk).await.with_context(|| format!("no answer within {ANSWER_MAX:?}"))?
}

/// Runs a command to its end.
async fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().await.with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// An HTTP request with these fields more, each with its end of line.
fn post(path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The JSON in an HTTP answer.
fn json(answer: &[u8]) -> anyhow::Result<serde_json::Value> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("an HTTP answer has a header")?;
    let status = String::from_utf8_lossy(answer.split(|byte| *byte == b'\r').next().unwrap_or_default());
    // 204 and 208: Rspamd has learnt it before, or knows without.
    ensure!(status.contains(" 20"), "the answer is {status}");
    Ok(serde_json::from_slice(&answer[end + 4..]).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::json;

    #[test]
    fn the_score_is_in_the_body_of_a_good_answer() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"score\": 4.5}";
        assert_eq!(json(answer).ok().and_then(|json| json["score"].as_f64()), Some(4.5));
        assert!(json(b"HTTP/1.1 208 Already reported\r\n\r\n").is_ok(), "it was learnt before");
        assert!(json(b"HTTP/1.1 403 Forbidden\r\n\r\n{\"score\": 4.5}").is_err());
        assert!(json(b"").is_err());
    }
}
