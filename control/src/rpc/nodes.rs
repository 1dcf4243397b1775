//! Nodes as operators see them: who watches which server's view, who is drained.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    member,
    mutation::Change,
    wire::operator::{Node, NodeDrainRequest, NodeListResponse, Watching},
};
use tonic::Status;

use super::{Shared, operator::grounds};
use crate::{raft::about::About, state::store::StateStore};

/// All nodes that any member sees, and those that are drained.
pub(super) async fn list(shared: &Shared) -> Result<NodeListResponse, Status> {
    let drained = shared.read(StateStore::drained).await?;
    let said = shared.group.about_all().await;
    let members = shared.group.status().members;
    let name = |id: &u64| members.get(id).map_or_else(|| id.to_string(), |server| server.name.clone());
    let said = said.into_iter().map(|(id, about)| (name(&id), about)).collect();
    Ok(gathered(said, drained))
}

fn gathered(said: Vec<(String, Result<About, String>)>, drained: BTreeSet<String>) -> NodeListResponse {
    let unseen = |name: String| Node { name: name.clone(), drained: true, ..Node::default() };
    let mut nodes: BTreeMap<String, Node> = drained.into_iter().map(|name| (name.clone(), unseen(name))).collect();
    let mut silent = Vec::new();
    for (server, about) in said {
        match about {
            Err(problem) => silent.push(format!("{server}: {problem}")),
            Ok(about) => {
                for seen in about.nodes {
                    let node = nodes.entry(seen.name.clone()).or_default();
                    (node.name, node.site, node.version) = (seen.name, seen.site, seen.version);
                    let (server, since_ms, index) = (server.clone(), seen.since.0, seen.index);
                    let certificate_until_ms = seen.certificate_until.0;
                    node.watching.push(Watching { server, since_ms, index, certificate_until_ms });
                }
            }
        }
    }
    NodeListResponse { nodes: nodes.into_values().collect(), silent }
}

/// The change that drains a node or undrains it.
pub(super) fn drain(request: &NodeDrainRequest) -> Result<Change, Status> {
    let node = member::name(&request.node).map_err(|problem| Status::invalid_argument(format!("node: {problem}")))?;
    Ok(Change::DrainNode { node, drained: request.drained, grounds: grounds(&request.why, &request.ticket)? })
}

/// Whether any member sees a node of this name now.
pub(super) async fn is_seen(shared: &Shared, name: &str) -> bool {
    let said = shared.group.about_all().await;
    said.into_values().flatten().any(|about| about.nodes.iter().any(|node| node.name == name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::gathered;
    use crate::raft::about::{About, Seen};

    #[test]
    fn a_node_is_listed_once_with_all_who_see_it_and_a_drained_one_that_is_away_too() {
        let seen = |name: &str, index| Seen { name: name.into(), site: "north".into(), index, ..Seen::default() };
        let about = |nodes| Ok(About { nodes, ..About::default() });
        let said = vec![
            ("alpha".to_owned(), about(vec![seen("mx1", 7), seen("mx2", 7)])),
            ("beta".to_owned(), about(vec![seen("mx1", 9)])),
            ("gamma".to_owned(), Err("connection refused".to_owned())),
        ];
        let list = gathered(said, BTreeSet::from(["mx1".to_owned(), "mx9".to_owned()]));
        let shown: Vec<_> =
            list.nodes.iter().map(|node| (node.name.as_str(), node.drained, node.watching.len())).collect();
        assert_eq!(shown, [("mx1", true, 2), ("mx2", false, 1), ("mx9", true, 0)]);
        assert_eq!(list.silent, ["gamma: connection refused"]);
    }
}
