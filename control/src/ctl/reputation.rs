//! `reputation show`, `set` and `forget`: what is known of a sender, and what an operator says of one.

use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use proto::{
    reputation::Subject,
    time::UnixMs,
    wire::operator::{ActResponse, ForgetReputationRequest, Reputation, SetReputationRequest, SubjectRequest},
};
use serde_json::{Value, json};

use super::{
    Ended,
    args::reason,
    connect::{Reach, explain},
    output::{self, Cell, Output, table, time},
};

/// Reputation of senders.
#[derive(Debug, Subcommand)]
pub enum ReputationCommand {
    /// What is counted of a sender, and what an operator said.
    Show {
        /// `ip:192.0.2.7`, `net:192.0.2.0/24`, `net:2001:db8::/64`, `dkim:example.com`, `spf:example.com` or
        /// `campaign:0123456789abcdef`, as the reasons of a message name it.
        subject: Subject,
    },
    /// Let a sender in or keep it out for a while, whatever is counted. Takes the place of what was set before.
    Set(Set),
    /// Forget what was set and what was counted.
    Forget {
        /// As in `show`.
        subject: Subject,
        /// Why.
        #[command(flatten)]
        grounds: Grounds,
    },
}

/// `reputation set`.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// As in `show`.
    pub subject: Subject,
    /// What holds.
    pub stance: StanceName,
    /// Until when: a span such as 12h or 30d, or a time such as 2027-01-31T10:00:00Z. At most ten years.
    #[arg(long, value_name = "TIME", value_parser = until)]
    pub until: Until,
    #[command(flatten)]
    grounds: Grounds,
}

/// Why.
#[derive(Debug, clap::Args)]
pub struct Grounds {
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
}

/// The stances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StanceName {
    /// Let it in.
    Allow,
    /// Keep it out.
    Block,
}

/// An end, as an operator gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So long from now.
    For(Duration),
    /// At this time.
    At(UnixMs),
}

impl Until {
    fn after(self, now: UnixMs) -> UnixMs {
        match self {
            Self::For(span) => now.plus_ms(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            Self::At(at) => at,
        }
    }
}

/// Reads the end of a manual entry.
fn until(text: &str) -> Result<Until, &'static str> {
    let span = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(count, unit)| {
        let seconds: u64 = match unit {
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return None,
        };
        Some(Duration::from_secs(count.parse::<u64>().ok()?.checked_mul(seconds)?))
    });
    let at = || Some(UnixMs(u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok()?));
    let read = span.map(Until::For).or_else(|| at().map(Until::At));
    read.ok_or("a span such as 12h or 30d, or a time such as 2027-01-31T10:00:00Z is expected")
}

/// Does what was asked for.
///
/// # Errors
/// When no server answers.
pub async fn run(reach: &Reach, output: Output, command: ReputationCommand) -> anyhow::Result<Ended> {
    match command {
        ReputationCommand::Show { subject } => show(reach, output, &subject).await,
        ReputationCommand::Set(Set { subject, stance, until, grounds }) => {
            let stance = match stance {
                StanceName::Allow => "allow",
                StanceName::Block => "block",
            };
            let until_ms = until.after(UnixMs::now()).0;
            let Grounds { why, ticket } = grounds;
            let request =
                SetReputationRequest { subject: subject.to_string(), stance: stance.to_owned(), until_ms, why, ticket };
            let answer = reach.control().await?.reputation_set(request).await.map_err(|status| explain(&status));
            let answer = answer.with_context(|| format!("set {subject}"))?.into_inner();
            done(output, &subject, &answer, &format!("{subject} is set to {stance} until {}.", time(until_ms)))
        }
        ReputationCommand::Forget { subject, grounds: Grounds { why, ticket } } => {
            let request = ForgetReputationRequest { subject: subject.to_string(), why, ticket };
            let answer = reach.control().await?.reputation_forget(request).await.map_err(|status| explain(&status));
            let answer = answer.with_context(|| format!("forget {subject}"))?.into_inner();
            done(output, &subject, &answer, &format!("{subject} is forgotten."))
        }
    }
}

fn done(output: Output, subject: &Subject, answer: &ActResponse, text: &str) -> anyhow::Result<Ended> {
    if !answer.done {
        output::note(&format!("posternctl: {subject}: {}", answer.refused));
        return Ok(Ended::WithFaults);
    }
    output.print(|| json!({"subject": subject.to_string(), "done": true}), || text.to_owned())?;
    Ok(Ended::Well)
}

async fn show(reach: &Reach, output: Output, subject: &Subject) -> anyhow::Result<Ended> {
    let request = SubjectRequest { subject: subject.to_string() };
    let answer = reach.control().await?.reputation_show(request).await.map_err(|status| explain(&status));
    let known = answer.with_context(|| format!("show {subject}"))?.into_inner();
    output.print(|| as_json(&known), || as_text(&known))?;
    Ok(Ended::Well)
}

fn as_json(known: &Reputation) -> Value {
    let manual = known.manual.as_ref().map(|manual| {
        json!({"stance": manual.stance, "until": time(manual.until_ms), "by": manual.by, "at": time(manual.at_ms),
            "why": manual.why, "ticket": manual.ticket})
    });
    json!({"subject": known.subject, "score": known.score, "good": hundredths(known.good), "bad": hundredths(known.bad),
        "manual": manual})
}

fn as_text(known: &Reputation) -> String {
    let mut rows = vec![
        vec![Cell::from("subject"), (&known.subject).into()],
        vec![Cell::from("score"), format!("{} (from -1000, good, to 1000, bad)", known.score).into()],
        vec![Cell::from("good outcomes"), hundredths(known.good).to_string().into()],
        vec![Cell::from("bad outcomes"), hundredths(known.bad).to_string().into()],
    ];
    if let Some(manual) = &known.manual {
        rows.push(vec![Cell::from("set to"), format!("{} until {}", manual.stance, time(manual.until_ms)).into()]);
        rows.push(vec![Cell::from("by"), format!("{} at {}", manual.by, time(manual.at_ms)).into()]);
        rows.push(vec![Cell::from("why"), (&manual.why).into()]);
        rows.push(vec![Cell::from("ticket"), (&manual.ticket).into()]);
    }
    table(&["SENDER", ""], rows)
}

/// Outcomes as they count now: they halve each day, so they are no whole numbers.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52, and these are for show")]
fn hundredths(count: u64) -> f64 {
    count as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::{
        time::UnixMs,
        wire::operator::{ManualReputation, Reputation},
    };

    use super::{Until, as_json, as_text, until};

    #[test]
    fn an_end_is_a_span_or_a_time() {
        let hours = |hours: u64| Until::For(Duration::from_secs(hours * 3600));
        assert_eq!([until("12h"), until("30d")], [Ok(hours(12)), Ok(hours(720))]);
        let at = until("2026-11-18T11:06:40Z").expect("a time");
        assert_eq!(at.after(UnixMs(7)), UnixMs(1_795_000_000_000));
        assert_eq!(hours(1).after(UnixMs(7)), UnixMs(3_600_007));
        for bad in ["", "d", "12", "-1h", "1w", "tomorrow", "1\u{fc}", "1969-01-01T00:00:00Z", "99999999999999999999d"]
        {
            assert!(until(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_known_is_shown_with_what_was_said_and_no_tricks() {
        let manual =
            ManualReputation { stance: "block".into(), why: "a\u{1b}[2Jb".into(), ..ManualReputation::default() };
        let known = Reputation { subject: "spf:a.test".into(), score: 70, bad: 150, manual: Some(manual), good: 0 };
        let text = as_text(&known);
        assert!(text.contains("block until 1970-01-01T00:00:00Z") && text.contains("\\u{1b}[2J"), "{text}");
        let value = as_json(&known);
        assert_eq!((&value["bad"], &value["manual"]["stance"]), (&1.5.into(), &"block".into()));
        assert!(as_json(&Reputation { manual: None, ..known })["manual"].is_null());
    }
}
