//! Where a message went, found out from outside: by the SMTP replies, the sinks and the quarantine.

use std::fmt;

use proto::wire::operator::HeldSummary;

use crate::{
    cases::Case,
    cluster::Cluster,
    sink::{Received, field},
    smtp_client::Answers,
};

/// What became of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is at this sink.
    Delivered(String),
    /// It is held until somebody releases it.
    Quarantined,
    /// It is held and will be delivered by itself.
    Deferred,
    /// 5yz.
    Refused,
    /// 4yz: the sender keeps it.
    TryLater,
    /// It got 250 and is nowhere: what must never be.
    Lost,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered(sink) => write!(f, "delivered to {sink}"),
            Self::Quarantined => f.write_str("quarantined"),
            Self::Deferred => f.write_str("held, to be delivered later"),
            Self::Refused => f.write_str("refused"),
            Self::TryLater => f.write_str("sender tries later"),
            Self::Lost => f.write_str("LOST"),
        }
    }
}

/// What is known about a message and one recipient at the end.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who.
    pub recipient: String,
    /// What became of it.
    pub fate: Fate,
    /// The verdict, as the header, the record or the reply says.
    pub verdict: String,
    /// Its reasons.
    pub reasons: String,
    /// The held record's id, if there is one.
    pub held: Option<String>,
}

impl Account {
    fn new(recipient: &str, fate: Fate, verdict: String, reasons: String) -> Self {
        Self { recipient: recipient.to_owned(), fate, verdict, reasons, held: None }
    }
}

/// Sends a case to a node and finds out what became of it for each recipient.
///
/// # Errors
/// When the connection breaks or the quarantine cannot be listed.
pub async fn send_and_follow(cluster: &Cluster, case: &Case, node: usize) -> anyhow::Result<Vec<Account>> {
    let server = cluster.smtp(node, case.side);
    let answers = cluster.send(server, case.client, &case.envelope, &case.message).await?;
    follow(cluster, &case.envelope.to, &answers).await
}

/// What became of a message for each of its recipients.
///
/// # Errors
/// When the quarantine cannot be listed.
pub async fn follow(cluster: &Cluster, recipients: &[String], answers: &Answers) -> anyhow::Result<Vec<Account>> {
    let held = match answers.transaction() {
        None => Vec::new(),
        Some(id) => cluster.operator.held().await?.into_iter().filter(|held| held.transaction == id).collect(),
    };
    let mut accounts = Vec::new();
    for (at, recipient) in recipients.iter().enumerate() {
        let reply = answers.rcpt.get(at).filter(|reply| !reply.is_yes()).unwrap_or(answers.last());
        let refused = if reply.code >= 500 { Some(Fate::Refused) } else { None };
        let refused = refused.or((reply.code >= 400).then_some(Fate::TryLater));
        accounts.push(match (refused, answers.transaction()) {
            (Some(fate), _) => {
                let verdict = if fate == Fate::Refused { "reject" } else { "defer" };
                Account::new(recipient, fate, verdict.to_owned(), reply.to_string())
            }
            (None, Some(transaction)) => accepted(cluster, recipient, transaction, &held).await,
            (None, None) => Account::new(recipient, Fate::Lost, String::new(), reply.to_string()),
        });
    }
    Ok(accounts)
}

async fn accepted(cluster: &Cluster, recipient: &str, transaction: &str, held: &[HeldSummary]) -> Account {
    let has = |to: &[String]| to.iter().any(|to| to.eq_ignore_ascii_case(recipient));
    if let Some(record) = held.iter().find(|record| has(&record.recipients)) {
        let fate = if record.kind.eq_ignore_ascii_case("quarantined") { Fate::Quarantined } else { Fate::Deferred };
        let verdict = format!("{} {}", if fate == Fate::Quarantined { "quarantine" } else { "accept" }, record.score);
        let mut account = Account::new(recipient, fate, verdict, record.reasons.join(", "));
        account.held = Some(record.id.clone());
        return account;
    }
    let [interior, health, internet] = cluster.sinks().map(|sink| {
        let wanted = move |message: &Received| message.transaction == transaction && has(&message.to);
        async move { (sink.received.first("the message at a sink", wanted).await, sink.name.clone()) }
    });
    let found = tokio::select! {
        (Ok(message), name) = interior => Some((message, name)),
        (Ok(message), name) = health => Some((message, name)),
        (Ok(message), name) = internet => Some((message, name)),
        else => None,
    };
    let Some((message, sink)) = found else {
        return Account::new(recipient, Fate::Lost, String::new(), format!("250 for {transaction}"));
    };
    let bytes = tokio::fs::read(&message.file).await.unwrap_or_default();
    let header = |name| field(&bytes, name).unwrap_or_default();
    let verdict = verdict_in_short(&header("X-Postern-Verdict"));
    let reasons = header("X-Postern-Reasons");
    let rules = reasons.split(';').filter_map(|reason| reason.split('=').next());
    let reasons = rules.map(str::trim).filter(|rule| !rule.is_empty()).collect::<Vec<_>>().join(", ");
    Account::new(recipient, Fate::Delivered(sink), verdict, reasons)
}

/// `accept; score=0.70; policy=1; …` as `accept 0.70`.
fn verdict_in_short(header: &str) -> String {
    let mut parts = header.split(';').map(str::trim);
    let disposition = parts.next().unwrap_or_default();
    let score = parts.find_map(|part| part.strip_prefix("score=")).unwrap_or_default();
    format!("{disposition} {score}")
}
