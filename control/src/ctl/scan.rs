//! `scan`: runs messages through a node's checks without delivering them, and prints one JSON line a message, in order.
//!
//! A thread reads the files and deals the messages out to `--jobs` streams in turn; each stream answers in its own order, so
//! taking the answers in turn gives the order of the messages back. All queues are short: a message waits on disk until
//! there is room for it.

use std::{
    fs::File,
    io::{BufReader, IsTerminal, stderr},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use proto::wire::inspect::{ScanRequest, ScanResponse};
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::{
    Ended,
    args::Scan,
    connect::{Inspect, Reach},
    escape,
    mailbox::{self, Found, MESSAGE_BYTES_MAX, Messages, Source},
    output,
};

/// Messages that are on their way or answered but not printed yet, for each stream.
const AHEAD: usize = 4;

/// A message on its way, in the order of printing.
struct Item {
    file: String,
    /// The stream that answers, or why the message was not sent.
    sent: Result<usize, String>,
    size_bytes: u64,
}

/// Scans everything below the paths.
///
/// # Errors
/// When a path is not there, the node does not answer, or the output cannot be written.
pub async fn run(reach: &Reach, scan: Scan) -> anyhow::Result<Ended> {
    let sources = mailbox::sources(&scan.paths)?;
    anyhow::ensure!(!sources.is_empty(), "there are no messages below the paths that were given");
    let node = reach.node(&scan.node).await?;
    let progress = progress(&sources);
    let (mut requests, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..scan.jobs {
        let (sender, receiver) = mpsc::channel(1);
        requests.push(sender);
        answers.push(Answers::open(node.clone(), receiver));
    }
    let (order, mut items) = mpsc::channel(usize::from(scan.jobs) * AHEAD);
    let template = ScanRequest {
        client_ip: scan.client_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        helo: scan.helo,
        mail_from: scan.mail_from,
        rcpt: scan.rcpt,
        ..ScanRequest::default()
    };
    let reader = tokio::task::spawn_blocking(move || Dealer { template, requests, order, next: 0 }.deal(&sources));
    let mut ended = Ended::Well;
    while let Some(item) = items.recv().await {
        let line = match item.sent {
            Ok(stream) => match answers[stream].next(&item.file).await {
                Ok(answer) => Line::of(&item.file, answer),
                Err(problem) => Line::failed(&item.file, problem),
            },
            Err(problem) => Line::failed(&item.file, problem),
        };
        if line.error.is_some() {
            ended = Ended::WithFaults;
        }
        let text = serde_json::to_string(&line).context("write JSON")?;
        progress.suspend(|| output::line(&escape::json(&text)))?;
        progress.inc(item.size_bytes);
    }
    reader.await.context("read the files")?;
    progress.finish_and_clear();
    Ok(ended)
}

fn progress(sources: &[Source]) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{bar:40} {bytes}/{total_bytes} {elapsed} (about {eta} left)";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(sources.iter().map(|source| source.size_bytes).sum()).with_style(style)
}

/// Reads files and deals out their messages.
struct Dealer {
    template: ScanRequest,
    requests: Vec<mpsc::Sender<ScanRequest>>,
    order: mpsc::Sender<Item>,
    next: usize,
}

/// The printer is gone: there is nothing left to do.
struct PrinterLeft;

impl Dealer {
    fn deal(mut self, sources: &[Source]) {
        for source in sources {
            if self.file(source).is_err() {
                return;
            }
        }
    }

    fn file(&mut self, source: &Source) -> Result<(), PrinterLeft> {
        let name = source.path.to_string_lossy().into_owned();
        let messages = File::open(&source.path).and_then(|file| Messages::new(BufReader::new(file)));
        let messages = match messages {
            Ok(messages) => messages,
            Err(error) => return self.failed(name, format!("cannot be read: {error}")),
        };
        let is_mbox = messages.is_mbox();
        for (at, found) in messages.enumerate() {
            let label = if is_mbox { format!("{name}#{}", at + 1) } else { name.clone() };
            match found {
                Ok(Found::Message(message)) => self.message(label, message)?,
                Ok(Found::TooLarge) => self.failed(label, format!("larger than {MESSAGE_BYTES_MAX} bytes"))?,
                Err(error) => self.failed(label, format!("cannot be read: {error}"))?,
            }
        }
        Ok(())
    }

    fn message(&mut self, file: String, message: Vec<u8>) -> Result<(), PrinterLeft> {
        let size_bytes = message.len() as u64;
        let stream = self.next;
        self.next = (self.next + 1) % self.requests.len();
        let request = ScanRequest { label: file.clone(), message, ..self.template.clone() };
        // The stream has ended early; whoever waits for its earlier answers has said why.
        let sent = self.requests[stream].blocking_send(request).map(|()| stream);
        let sent = sent.map_err(|_| "not sent: the node ended the stream".to_owned());
        self.order.blocking_send(Item { file, sent, size_bytes }).map_err(|_| PrinterLeft)
    }

    fn failed(&mut self, file: String, problem: String) -> Result<(), PrinterLeft> {
        self.order.blocking_send(Item { file, sent: Err(problem), size_bytes: 0 }).map_err(|_| PrinterLeft)
    }
}

/// The answers of one stream.
enum Answers {
    /// A node may wait for the first request before it answers at all.
    Opening(JoinHandle<Result<Response<Streaming<ScanResponse>>, Status>>),
    Open(Box<Streaming<ScanResponse>>),
    Ended(String),
}

impl Answers {
    fn open(mut node: Inspect, requests: mpsc::Receiver<ScanRequest>) -> Self {
        Self::Opening(tokio::spawn(async move { node.scan(ReceiverStream::new(requests)).await }))
    }

    async fn next(&mut self, file: &str) -> Result<ScanResponse, String> {
        if let Self::Opening(opening) = self {
            *self = match opening.await {
                Ok(Ok(answer)) => Self::Open(Box::new(answer.into_inner())),
                Ok(Err(status)) => Self::Ended(problem(&status)),
                Err(error) => Self::Ended(error.to_string()),
            };
        }
        let answer = match self {
            Self::Open(stream) => match stream.message().await {
                Ok(Some(answer)) if answer.label == file => return Ok(answer),
                Ok(Some(answer)) => format!("the node answered for {:?}", answer.label),
                Ok(None) => "the node ended the stream without an answer".to_owned(),
                Err(status) => problem(&status),
            },
            Self::Ended(problem) => return Err(problem.clone()),
            Self::Opening(_) => "the stream is not open".to_owned(),
        };
        *self = Self::Ended(answer.clone());
        Err(answer)
    }
}

fn problem(status: &Status) -> String {
    format!("the node ended the stream: {}", super::connect::explain(status))
}

/// What is printed for a message.
#[derive(Serialize)]
struct Line<'f> {
    file: &'f str,
    #[serde(flatten)]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Verdict {
    disposition: String,
    score: f64,
    reasons: Vec<Reason>,
    authentication: Authentication,
    policy_version: u64,
    took_ms: f64,
}

#[derive(Serialize)]
struct Reason {
    rule: String,
    score: f64,
    text: String,
}

#[derive(Default, Serialize)]
struct Authentication {
    spf: String,
    dkim: String,
    dmarc: String,
    arc: String,
    virus: String,
}

impl<'f> Line<'f> {
    fn failed(file: &'f str, problem: String) -> Self {
        Self { file, verdict: None, error: Some(problem) }
    }

    fn of(file: &'f str, answer: ScanResponse) -> Self {
        if !answer.error.is_empty() {
            return Self::failed(file, answer.error);
        }
        let reasons = answer.reasons.into_iter();
        let authentication = answer.authentication.unwrap_or_default();
        let verdict = Verdict {
            disposition: answer.disposition,
            score: points(answer.score),
            reasons: reasons.map(|it| Reason { rule: it.rule, score: points(it.score), text: it.text }).collect(),
            authentication: Authentication {
                spf: authentication.spf,
                dkim: authentication.dkim,
                dmarc: authentication.dmarc,
                arc: authentication.arc,
                virus: authentication.virus,
            },
            policy_version: answer.policy_version,
            took_ms: f64::from(u32::try_from(answer.took_us).unwrap_or(u32::MAX)) / 1000.0,
        };
        Self { file, verdict: Some(verdict), error: None }
    }
}

/// Hundredths as points: a number with at most two decimals.
fn points(hundredths: i32) -> f64 {
    f64::from(hundredths) / 100.0
}

#[cfg(test)]
mod tests {
    use super::{Line, ScanResponse};

    #[test]
    fn a_line_has_a_verdict_or_an_error() {
        let answer = ScanResponse { disposition: "reject".into(), score: 1205, took_us: 1500, ..Default::default() };
        let line = serde_json::to_string(&Line::of("a.eml", answer)).expect("JSON");
        assert_eq!(
            line,
            r#"{"file":"a.eml","disposition":"reject","score":12.05,"reasons":[],"authentication":{"spf":"","dkim":"","#
                .to_owned() + r#""dmarc":"","arc":"","virus":""},"policy_version":0,"took_ms":1.5}"#
        );
        let answer = ScanResponse { error: "no policy yet".into(), ..Default::default() };
        let line = serde_json::to_string(&Line::of("a.eml", answer)).expect("JSON");
        assert_eq!(line, r#"{"file":"a.eml","error":"no policy yet"}"#);
    }
}
