//! `node list`, `node drain` and `node undrain`.

use proto::wire::operator::{Node, NodeDrainRequest, NodeListRequest, NodeListResponse};
use serde_json::json;

use super::{
    Ended,
    args::Drain,
    connect::{Reach, explain},
    output::{self, Cell, Output, table, time},
    settings,
};

/// Lists the nodes.
///
/// # Errors
/// When no server answers.
pub async fn list(reach: &Reach, output: Output) -> anyhow::Result<Ended> {
    let mut control = reach.control().await?;
    let list = control.node_list(NodeListRequest {}).await.map_err(|status| explain(&status))?.into_inner();
    output.print(|| as_json(&list), || as_text(&list))?;
    for silent in &list.silent {
        output::note(&format!("posternctl: not asked for its nodes: {silent}"));
    }
    Ok(Ended::Well)
}

fn as_json(list: &NodeListResponse) -> serde_json::Value {
    let node = |node: &Node| {
        let watching =
            node.watching.iter().map(|it| json!({"server": it.server, "since_ms": it.since_ms, "index": it.index}));
        json!({"name": node.name, "site": node.site, "version": node.version, "drained": node.drained,
            "watching": watching.collect::<Vec<_>>()})
    };
    json!({"nodes": list.nodes.iter().map(node).collect::<Vec<_>>(), "silent": list.silent})
}

fn as_text(list: &NodeListResponse) -> String {
    if list.nodes.is_empty() {
        return "No node watches a control server now, and none is drained.".into();
    }
    let row = |node: &Node| {
        let state = match (node.watching.is_empty(), node.drained) {
            (false, false) => "takes mail",
            (false, true) => "drained",
            (true, _) => "drained, away",
        };
        vec![
            (&node.name).into(),
            (&node.site).into(),
            state.into(),
            Cell::lines(node.watching.iter().map(|it| &it.server)),
            Cell::lines(node.watching.iter().map(|it| time(it.since_ms))),
            Cell::lines(node.watching.iter().map(|it| it.index.to_string())),
            (&node.version).into(),
        ]
    };
    let heading = ["NODE", "SITE", "STATE", "WATCHES", "SINCE", "VIEW INDEX", "VERSION"];
    table(&heading, list.nodes.iter().map(row))
}

/// Drains a node or undrains it.
///
/// # Errors
/// When the name is none or no server answers.
pub async fn drain(reach: &Reach, drain: Drain, drained: bool) -> anyhow::Result<Ended> {
    let Drain { name, why, ticket } = drain;
    let node = settings::name(&name)?;
    let request = NodeDrainRequest { node, drained, why, ticket };
    let answer = reach.control().await?.node_drain(request).await.map_err(|status| explain(&status))?.into_inner();
    if !answer.done {
        output::note(&format!("posternctl: refused: {}", answer.refused));
        return Ok(Ended::WithFaults);
    }
    let what = if drained {
        "is drained: it answers new mail with 421 and ends what is under way"
    } else {
        "takes mail again"
    };
    output::line(&format!("{name} {what}."))?;
    if !answer.seen {
        output::note(&format!(
            "posternctl: no control server sees a node {name} now: is the name right (`posternctl node list`)? It holds once the \
             node is back"
        ));
    }
    Ok(Ended::Well)
}

#[cfg(test)]
mod tests {
    use super::as_text;
    use proto::wire::operator::{Node, NodeListResponse, Watching};

    #[test]
    fn a_drained_node_is_told_from_one_that_is_away() {
        let watching = vec![Watching { server: "alpha".into(), since_ms: 0, index: 7, ..Watching::default() }];
        let node = |name: &str, drained, watching| Node { name: name.into(), drained, watching, ..Node::default() };
        let nodes =
            vec![node("mx1", false, watching.clone()), node("mx2", true, watching), node("mx3", true, Vec::new())];
        let text = as_text(&NodeListResponse { nodes, silent: Vec::new() });
        let states = ["mx1 ", "mx2 ", "mx3 "]
            .map(|name| text.lines().find(|line| line.trim_start().starts_with(name)).expect("a row"));
        assert!(
            states[0].contains("takes mail") && states[1].contains("drained") && states[2].contains("drained, away"),
            "{text}"
        );
    }
}
