//! `rules list`: the content rules of a node, those of its program and those that people have written, and what each is worth.

use proto::{
    score::Score,
    wire::inspect::{Group, Origin, Rule, RulesRequest},
};
use serde_json::{Value, json};

use super::{
    Ended,
    connect::{Reach, explain},
    escape,
    output::{Output, table},
};

/// Shows the rules of a node, all or those of one group.
///
/// # Errors
/// When the node does not answer, or has no such group.
pub async fn list(reach: &Reach, output: Output, node: &str, group: Option<&str>) -> anyhow::Result<Ended> {
    let answer = reach.node(node).await?.rules(RulesRequest {}).await.map_err(|status| explain(&status))?.into_inner();
    let is_asked = |name: &str| group.is_none_or(|group| group == name);
    let rules: Vec<_> = answer.rules.iter().filter(|rule| is_asked(&rule.group)).collect();
    let groups: Vec<_> = answer.groups.iter().filter(|group| is_asked(&group.name)).collect();
    // A node of an earlier version tells of no groups.
    if groups.is_empty() && rules.is_empty() {
        let all: Vec<&str> = answer.groups.iter().map(|group| group.name.as_str()).collect();
        anyhow::bail!("there is no such group; there are: {}", all.join(", "));
    }
    output.print(
        || {
            let rules: Vec<Value> = rules.iter().map(|rule| rule_json(rule)).collect();
            let groups: Vec<Value> = groups.iter().map(|group| group_json(group)).collect();
            json!({"groups": groups, "rules": rules, "left_out": answer.left_out})
        },
        || {
            let of_rules = rules.iter().map(|rule| {
                vec![
                    origin(rule.origin).into(),
                    (&rule.group).into(),
                    (&rule.name).into(),
                    Score(rule.score).to_string().into(),
                    (&rule.text).into(),
                ]
            });
            let of_groups = groups.iter().map(|group| {
                vec![
                    origin(group.origin).into(),
                    (&group.name).into(),
                    Score(group.max).to_string().into(),
                    (&group.about).into(),
                ]
            });
            let groups = table(&["WHOSE", "GROUP", "AT MOST", "IS ABOUT"], of_groups);
            let text = table(&["WHOSE", "GROUP", "RULE", "POINTS", "SAYS"], of_rules);
            let text = format!("{groups}\n{text}\n{} rules", rules.len());
            if answer.left_out.is_empty() { text } else { format!("{text}\n{}", escape::lines(&answer.left_out)) }
        },
    )?;
    Ok(Ended::Well)
}

fn origin(origin: i32) -> &'static str {
    match Origin::try_from(origin) {
        Ok(Origin::BuiltIn) => "postern",
        Ok(Origin::Policy) => "policy",
        Err(_) => "?",
    }
}

fn rule_json(rule: &Rule) -> Value {
    let score = f64::from(rule.score) / 100.0;
    json!({"whose": origin(rule.origin), "group": rule.group, "name": rule.name, "score": score, "text": rule.text})
}

fn group_json(group: &Group) -> Value {
    let max = f64::from(group.max) / 100.0;
    json!({"whose": origin(group.origin), "name": group.name, "max": max, "about": group.about})
}
