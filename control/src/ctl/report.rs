//! `report`: says of messages that they are spam, or wanted. A node reads them and says what they teach; the control servers keep that,
//! with who reported it and why.

use std::{fs::File, io::BufReader};

use anyhow::Context;
use proto::{
    learning::REPORT_LESSONS_MAX,
    wire::{
        inspect::{ScanRequest, ScanResponse},
        operator::ReportMailRequest,
    },
};
use serde_json::json;
use tokio_stream::StreamExt as _;

use super::{
    Ended,
    args::reason,
    connect::{Inspect, Reach, explain},
    mailbox::{self, Found, MESSAGE_BYTES_MAX, Messages},
    output::{self, Output},
};

/// `report`.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// What they are.
    pub kind: KindName,
    /// Message files, folders, mbox files: as they came, with all of their header.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<std::path::PathBuf>,
    /// The inspect address of a node, which reads them.
    #[arg(long, value_name = "HOST:PORT")]
    pub node: String,
    /// Whom they were for: its department's threshold counts.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub rcpt: String,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
}

/// What people say of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KindName {
    /// Spam, phishing or worse, though it came through.
    Spam,
    /// Somebody wanted it, though it was kept away.
    Wanted,
}

/// What came of it.
#[derive(Debug, Default)]
struct Done {
    reported: usize,
    /// With the reasons.
    failed: Vec<String>,
    lessons: Vec<Vec<u8>>,
}

/// Reports everything below the paths.
///
/// # Errors
/// When a path is not there, or node or control servers do not answer.
pub async fn run(reach: &Reach, output: Output, report: Report) -> anyhow::Result<Ended> {
    let sources = mailbox::sources(&report.paths)?;
    anyhow::ensure!(!sources.is_empty(), "there are no messages below the paths that were given");
    let mut node = reach.node(&report.node).await?;
    let mut done = Done::default();
    for source in sources {
        let name = source.path.to_string_lossy().into_owned();
        let messages = File::open(&source.path).and_then(|file| Messages::new(BufReader::new(file)));
        let messages = match messages {
            Ok(messages) => messages,
            Err(error) => {
                done.failed.push(format!("{name}: cannot be read: {error}"));
                continue;
            }
        };
        for (number, found) in messages.enumerate() {
            match lesson(&mut node, &report.rcpt, found).await? {
                Ok(lesson) => done.lessons.push(lesson),
                Err(problem) => done.failed.push(format!("{name}#{}: {problem}", number + 1)),
            }
            if done.lessons.len() == REPORT_LESSONS_MAX {
                hand_in(reach, &report, &mut done).await?;
            }
        }
    }
    hand_in(reach, &report, &mut done).await?;
    done.failed.iter().for_each(|problem| output::note(&format!("posternctl: {problem}")));
    output.print(
        || json!({"reported": done.reported, "failed": done.failed}),
        || format!("{} messages are reported, {} could not be.", done.reported, done.failed.len()),
    )?;
    Ok(if done.failed.is_empty() { Ended::Well } else { Ended::WithFaults })
}

/// What a message teaches, as the node says, or why it teaches nothing.
async fn lesson(
    node: &mut Inspect,
    rcpt: &str,
    found: std::io::Result<Found>,
) -> anyhow::Result<Result<Vec<u8>, String>> {
    let message = match found {
        Ok(Found::Message(message)) => message,
        Ok(Found::TooLarge) => return Ok(Err(format!("larger than {MESSAGE_BYTES_MAX} bytes"))),
        Err(error) => return Ok(Err(format!("cannot be read: {error}"))),
    };
    let request = ScanRequest { message, rcpt: rcpt.to_owned(), lesson: true, ..ScanRequest::default() };
    let answers = node.scan(tokio_stream::once(request)).await.map_err(|status| explain(&status))?;
    let answer = answers.into_inner().next().await.context("the node ended the stream")?;
    let ScanResponse { error, lesson, .. } = answer.map_err(|status| explain(&status))?;
    let none = "the node says nothing of what it teaches: it is of an earlier version".to_owned();
    Ok(if !error.is_empty() {
        Err(error)
    } else if lesson.is_empty() {
        Err(none)
    } else {
        Ok(lesson)
    })
}

/// Hands in what has been read.
async fn hand_in(reach: &Reach, report: &Report, done: &mut Done) -> anyhow::Result<()> {
    let lessons = std::mem::take(&mut done.lessons);
    if lessons.is_empty() {
        return Ok(());
    }
    let (count, bad) = (lessons.len(), report.kind == KindName::Spam);
    let Report { why, ticket, .. } = report;
    let request = ReportMailRequest { bad, lessons, why: why.clone(), ticket: ticket.clone() };
    let answer = reach.control().await?.report_mail(request).await.map_err(|status| explain(&status));
    let answer = answer.context("report messages")?.into_inner();
    anyhow::ensure!(answer.done, "{}", answer.refused);
    done.reported += count;
    Ok(())
}
