//! `learning show` and `forget`: what the cluster has learnt from releases and reports.

use anyhow::Context;
use clap::Subcommand;
use proto::wire::operator::{
    LearningAttempt, LearningErrors, LearningForgetRequest, LearningRequest, LearningResponse, LessonCount,
};
use serde_json::{Value, json};

use super::{
    Ended,
    connect::{Reach, explain},
    output::{self, Cell, Output, table, time},
    reputation::Grounds,
};

/// What the cluster has learnt.
#[derive(Debug, Subcommand)]
pub enum LearningCommand {
    /// Lessons by source, the model in use, and what came of learning last.
    Show,
    /// Forget all lessons and the model: what Postern came with stays.
    Forget {
        /// Why.
        #[command(flatten)]
        grounds: Grounds,
    },
}

/// Does what was asked for.
///
/// # Errors
/// When no server answers.
pub async fn run(reach: &Reach, output: Output, command: LearningCommand) -> anyhow::Result<Ended> {
    let mut control = reach.control().await?;
    match command {
        LearningCommand::Show => {
            let answer = control.learning_show(LearningRequest {}).await.map_err(|status| explain(&status));
            let known = answer.context("show what was learnt")?.into_inner();
            output.print(|| as_json(&known), || as_text(&known))?;
        }
        LearningCommand::Forget { grounds: Grounds { why, ticket } } => {
            let request = LearningForgetRequest { why, ticket };
            let answer = control.learning_forget(request).await.map_err(|status| explain(&status));
            let answer = answer.context("forget what was learnt")?.into_inner();
            if !answer.done {
                output::note(&format!("posternctl: {}", answer.refused));
                return Ok(Ended::WithFaults);
            }
            output.print(|| json!({"done": true}), || "All lessons and the learnt model are forgotten.".to_owned())?;
        }
    }
    Ok(Ended::Well)
}

fn as_json(known: &LearningResponse) -> Value {
    let sources = known.sources.iter().map(|source| json!({"name": source.name, "lessons": count_json(source.count)}));
    json!({
        "enabled": known.enabled, "lessons_min": known.lessons_min, "every_ms": known.every_ms,
        "lessons": count_json(known.kept), "sources": sources.collect::<Vec<_>>(),
        "version": known.version, "in_use": !known.digest.is_empty(), "digest": known.digest,
        "taken": known.taken.as_ref().map(attempt_json), "last": known.last.as_ref().map(attempt_json),
    })
}

fn count_json(count: Option<LessonCount>) -> Value {
    let LessonCount { wanted, bad } = count.unwrap_or_default();
    json!({"wanted": wanted, "bad": bad})
}

fn attempt_json(attempt: &LearningAttempt) -> Value {
    let errors = |errors: Option<LearningErrors>| {
        let LearningErrors { wanted_over, bad_missed, loss } = errors.unwrap_or_default();
        json!({"wanted_over": wanted_over, "bad_missed": bad_missed, "loss": f64::from(loss) / 1000.0})
    };
    json!({
        "at": time(attempt.at_ms), "by": attempt.by, "learnt": count_json(attempt.learnt),
        "held_back": count_json(attempt.held_back), "before": errors(attempt.before), "after": errors(attempt.after),
        "newly_over": attempt.newly_over, "objection": attempt.objection,
    })
}

fn as_text(known: &LearningResponse) -> String {
    let row = |name: &str, text: String| vec![Cell::from(name), text.into()];
    let enabled = match known.enabled {
        true => format!(
            "yes: from {} lessons of either kind on, at most every {} s",
            known.lessons_min,
            known.every_ms / 1000
        ),
        false => "no: content.learning of the policy".to_owned(),
    };
    let model = if known.digest.is_empty() { "none" } else { &known.digest };
    let mut rows = vec![
        row("enabled", enabled),
        row("lessons", count_text(known.kept)),
        row("version", known.version.to_string()),
        row("model", model.to_owned()),
    ];
    if let Some(taken) = &known.taken {
        rows.push(row("in use since", attempt_text(taken)));
    }
    if let Some(last) = known.last.as_ref().filter(|last| !last.objection.is_empty()) {
        rows.push(row("last", attempt_text(last)));
        rows.push(row("not taken into use", last.objection.clone()));
    }
    let sources = known.sources.iter().map(|source| vec![Cell::from(&source.name), count_text(source.count).into()]);
    format!("{}\n\n{}", table(&["LEARNING", ""], rows), table(&["FROM", "LESSONS"], sources))
}

fn count_text(count: Option<LessonCount>) -> String {
    let LessonCount { wanted, bad } = count.unwrap_or_default();
    format!("{wanted} wanted, {bad} bad")
}

fn attempt_text(attempt: &LearningAttempt) -> String {
    let errors = |errors: Option<LearningErrors>| {
        let LearningErrors { wanted_over, bad_missed, loss } = errors.unwrap_or_default();
        format!("{wanted_over} wanted kept away, {bad_missed} bad passed, loss {:.3}", f64::from(loss) / 1000.0)
    };
    format!(
        "{} by {}, from {}; on {} held back: {}; before: {}",
        time(attempt.at_ms),
        attempt.by,
        count_text(attempt.learnt),
        count_text(attempt.held_back),
        errors(attempt.after),
        errors(attempt.before)
    )
}

#[cfg(test)]
mod tests {
    use proto::wire::operator::{LearningAttempt, LearningErrors, LearningResponse, LessonCount, LessonSource};

    use super::{as_json, as_text};

    #[test]
    fn what_was_learnt_is_shown_with_why_it_is_not_in_use() {
        let last = LearningAttempt {
            by: "control/alpha".into(),
            after: Some(LearningErrors { wanted_over: 1, bad_missed: 2, loss: 1500 }),
            objection: "1 wanted messages that pass now would be kept away".into(),
            ..LearningAttempt::default()
        };
        let count = Some(LessonCount { wanted: 7, bad: 9 });
        let source = LessonSource { name: "department/a\u{1b}[2J".into(), count };
        let known = LearningResponse {
            enabled: true,
            kept: count,
            sources: vec![source],
            last: Some(last),
            ..LearningResponse::default()
        };
        let text = as_text(&known);
        for part in ["7 wanted, 9 bad", "would be kept away", "1 wanted kept away, 2 bad passed, loss 1.500", "\\u{1b}"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let value = as_json(&known);
        assert_eq!((&value["in_use"], &value["last"]["after"]["loss"]), (&false.into(), &1.5.into()));
        assert!(value["taken"].is_null() && value["sources"][0]["lessons"]["bad"] == 9, "{value}");
    }
}
