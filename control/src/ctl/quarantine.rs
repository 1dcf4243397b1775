//! `quarantine list`, `show`, `release` and `delete`.

use anyhow::{Context, bail};
use proto::{
    address::Address,
    department::DepartmentId,
    held::HeldId,
    wire::operator::{ActRequest, HeldDetail, HeldRequest, HeldSummary, ListRequest},
};
use serde_json::{Value, json};

use super::{
    Ended,
    args::{Act, List, QuarantineCommand},
    connect::{Reach, explain},
    output::{self, Cell, Output, size, table, time},
};

/// Runs one of the commands.
///
/// # Errors
/// When an argument is wrong or no server answers.
pub async fn run(reach: &Reach, output: Output, command: QuarantineCommand) -> anyhow::Result<Ended> {
    match command {
        QuarantineCommand::List(list) => self::list(reach, output, list).await,
        QuarantineCommand::Show { id } => show(reach, output, id).await,
        QuarantineCommand::Release(act) => self::act(reach, output, act, Action::Release).await,
        QuarantineCommand::Delete(act) => self::act(reach, output, act, Action::Delete).await,
    }
}

#[derive(Clone, Copy)]
enum Action {
    Release,
    Delete,
}

async fn list(reach: &Reach, output: Output, list: List) -> anyhow::Result<Ended> {
    let List { department, recipient, all, max } = list;
    if !department.is_empty() {
        DepartmentId::parse(&department).context("--department")?;
    }
    if !recipient.is_empty() {
        Address::parse(&recipient).context("--recipient")?;
    }
    let mut control = reach.control().await?;
    let request = ListRequest { department, recipient, ended: all, max };
    let answer = control.quarantine_list(request).await.map_err(|status| explain(&status))?.into_inner();
    let (held, more) = (answer.held, answer.more);
    let row = |it: &HeldSummary| {
        vec![
            (&it.id).into(),
            time(it.received_at_ms).into(),
            (&it.status).into(),
            (&it.department).into(),
            sender(it).into(),
            several(&it.recipients),
            (&it.subject).into(),
            (&it.score).into(),
            several(&it.reasons),
        ]
    };
    output.print(
        || held.iter().map(summary_json).collect(),
        || {
            if held.is_empty() {
                return "Nothing is held.".into();
            }
            let heading = ["ID", "RECEIVED", "STATUS", "DEPARTMENT", "FROM", "TO", "SUBJECT", "SCORE", "REASONS"];
            table(&heading, held.iter().map(row))
        },
    )?;
    if more {
        output::cut("messages", held.len(), "--max N (at most 1000), --department and --recipient show others");
    }
    Ok(Ended::Well)
}

async fn show(reach: &Reach, output: Output, id: String) -> anyhow::Result<Ended> {
    let id = known_id(&id)?;
    let mut control = reach.control().await?;
    let answer = control.quarantine_show(HeldRequest { id: id.clone() }).await.map_err(|status| explain(&status));
    let detail = answer.with_context(|| format!("show {id}"))?.into_inner();
    output.print(|| detail_json(&detail), || detail_text(&detail))?;
    Ok(Ended::Well)
}

async fn act(reach: &Reach, output: Output, act: Act, action: Action) -> anyhow::Result<Ended> {
    let Act { id, why, ticket } = act;
    let id = known_id(&id)?;
    let mut control = reach.control().await?;
    let request = ActRequest { id: id.clone(), why, ticket };
    let (verb, done_text) = match action {
        Action::Release => ("release", "is released: a node delivers it now"),
        Action::Delete => ("delete", "is deleted"),
    };
    let answer = match action {
        Action::Release => control.quarantine_release(request).await,
        Action::Delete => control.quarantine_delete(request).await,
    };
    let answer = answer.map_err(|status| explain(&status)).with_context(|| format!("{verb} {id}"))?.into_inner();
    if !answer.done {
        output::note(&format!("posternctl: {id}: {}", answer.refused));
        return Ok(Ended::WithFaults);
    }
    output.print(|| json!({"id": id, "done": true}), || format!("{id} {done_text}."))?;
    Ok(Ended::Well)
}

/// An id in the form that the servers know.
fn known_id(text: &str) -> anyhow::Result<String> {
    match HeldId::parse(text.trim()) {
        Some(id) => Ok(id.to_string()),
        None => bail!("{text:?} is not an id: 26 letters and digits out of `posternctl quarantine list` are expected"),
    }
}

fn sender(it: &HeldSummary) -> String {
    if it.reverse_path.is_empty() { "<>".into() } else { it.reverse_path.clone() }
}

/// The first few of a list, a line each.
fn several(items: &[String]) -> Cell {
    const SHOWN: usize = 3;
    let more = items.len().checked_sub(SHOWN).filter(|more| *more > 0).map(|more| format!("and {more} more"));
    Cell::lines(items.iter().take(SHOWN).chain(&more))
}

fn summary_json(it: &HeldSummary) -> Value {
    json!({
        "id": it.id, "transaction": it.transaction, "kind": it.kind, "status": it.status,
        "received_at": time(it.received_at_ms), "department": it.department, "reverse_path": it.reverse_path,
        "recipients": it.recipients, "subject": it.subject, "score": it.score, "reasons": it.reasons,
        "size_bytes": it.size_bytes, "policy_version": it.policy_version,
    })
}

fn detail_json(detail: &HeldDetail) -> Value {
    let summary = detail.summary.clone().unwrap_or_default();
    let mut value = summary_json(&summary);
    let reasons: Vec<Value> = detail
        .reasons
        .iter()
        .map(|reason| json!({"rule": reason.rule, "score": reason.score, "text": reason.text}))
        .collect();
    value["reasons"] = reasons.into();
    value["client"] = json!(detail.client);
    value["digest"] = json!(detail.digest);
    value["copies"] = json!(detail.copies);
    value["attempts"] = json!(detail.attempts);
    value["next_attempt"] = json!(detail.next_attempt_ms.map(time));
    value["last_problem"] = json!(detail.last_problem);
    value["lease"] = json!(detail.lease);
    value
}

fn detail_text(detail: &HeldDetail) -> String {
    let it = detail.summary.clone().unwrap_or_default();
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| {
        if !value.is_empty() {
            rows.push(vec![Cell::from(key), value.into()]);
        }
    };
    row("id", it.id.clone());
    row("transaction", it.transaction.clone());
    row("kind", it.kind.clone());
    row("status", it.status.clone());
    row("received", time(it.received_at_ms));
    row("from client", detail.client.clone());
    row("from", sender(&it));
    for recipient in &it.recipients {
        row("to", recipient.clone());
    }
    row("department", it.department.clone());
    row("subject", it.subject.clone());
    row("size", size(it.size_bytes));
    row("score", format!("{} under policy version {}", it.score, it.policy_version));
    row("body", format!("sha256 {} on {}", detail.digest, detail.copies.join(", ")));
    if detail.attempts > 0 {
        row("failed attempts", detail.attempts.to_string());
    }
    row("next attempt", detail.next_attempt_ms.map(time).unwrap_or_default());
    row("last problem", detail.last_problem.clone());
    row("lease", detail.lease.clone());
    let reasons =
        detail.reasons.iter().map(|reason| vec![(&reason.rule).into(), (&reason.score).into(), (&reason.text).into()]);
    let reasons = table(&["RULE", "SCORE", "WHAT IT SAYS"], reasons);
    format!("{}\n\n{reasons}", table(&["HELD MESSAGE", ""], rows))
}

#[cfg(test)]
mod tests {
    use super::{HeldDetail, HeldSummary, detail_json, detail_text, known_id};

    #[test]
    fn what_mail_says_about_itself_is_shown_without_its_tricks() {
        let summary = HeldSummary {
            id: "01JD0000000000000000000000".into(),
            subject: "hello \u{1b}]0;owned\u{7}\u{202e}".into(),
            recipients: vec!["a@b.test\nSTATUS delivered".into()],
            ..HeldSummary::default()
        };
        let detail = HeldDetail { summary: Some(summary), ..HeldDetail::default() };
        let text = detail_text(&detail);
        assert!(text.contains("\\u{1b}]0;owned\\u{7}\\u{202e}"), "{text}");
        assert!(text.contains("a@b.test\\u{a}STATUS"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text}");
        assert_eq!(detail_json(&detail)["subject"], "hello \u{1b}]0;owned\u{7}\u{202e}");
    }

    #[test]
    fn an_id_is_checked_before_it_is_sent() {
        assert_eq!(known_id(" 01jd0000000000000000000000").expect("an id"), "01JD0000000000000000000000");
        assert!(known_id("01JD").is_err());
    }
}
