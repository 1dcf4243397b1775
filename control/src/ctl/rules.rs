//! `rules list`: the content rules that a node's program knows, and what each is worth.

use proto::{score::Score, wire::inspect::RulesRequest};
use serde_json::json;

use super::{
    Ended,
    connect::{Reach, explain},
    output::{Output, table},
};

/// Shows the rules of a node, all or those of one group.
///
/// # Errors
/// When the node does not answer, or has no such group.
pub async fn list(reach: &Reach, output: Output, node: &str, group: Option<&str>) -> anyhow::Result<Ended> {
    let answer = reach.node(node).await?.rules(RulesRequest {}).await.map_err(|status| explain(&status))?.into_inner();
    let rules: Vec<_> = answer.rules.iter().filter(|rule| group.is_none_or(|group| group == rule.group)).collect();
    if rules.is_empty() {
        let mut groups: Vec<&str> = answer.rules.iter().map(|rule| rule.group.as_str()).collect();
        groups.dedup();
        anyhow::bail!("there is no such group; there are: {}", groups.join(", "));
    }
    output.print(
        || {
            let rules = rules.iter().map(|rule| {
                json!({"group": rule.group, "name": rule.name, "score": f64::from(rule.score) / 100.0, "text": rule.text})
            });
            json!({"group_max": f64::from(answer.group_max) / 100.0, "rules": rules.collect::<Vec<_>>()})
        },
        || {
            let rows = rules.iter().map(|rule| {
                vec![
                    (&rule.group).into(),
                    (&rule.name).into(),
                    Score(rule.score).to_string().into(),
                    (&rule.text).into(),
                ]
            });
            let table = table(&["GROUP", "RULE", "POINTS", "SAYS"], rows);
            format!("{table}\n{} rules; no group counts more than {} points", rules.len(), Score(answer.group_max))
        },
    )?;
    Ok(Ended::Well)
}
