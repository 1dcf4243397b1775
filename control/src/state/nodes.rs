//! The nodes that operators have drained.

use std::collections::BTreeSet;

use proto::{
    member,
    mutation::{Grounds, Mutation, Outcome, Refused},
};

use super::{
    Step,
    audit::check_grounds,
    keys::{Keys, Kind, behind, key},
    policy::full,
};

/// Most nodes that are drained at a time.
const DRAINED_MAX: usize = 10_000;

/// Names of the drained nodes.
pub fn drained(keys: &impl Keys) -> BTreeSet<String> {
    let prefix = key(Kind::Drained, &[]);
    let to = behind(&prefix);
    let names = keys.range(&prefix, &to);
    names.filter_map(|(key, _)| String::from_utf8(key.get(prefix.len()..)?.to_vec()).ok()).collect()
}

impl<K: Keys> Step<'_, K> {
    /// Drains a node or lets it take mail again. What is so already stays so, and leaves no trace.
    pub(super) fn drain_node(
        &mut self,
        mutation: &Mutation,
        node: &str,
        wanted: bool,
        grounds: &Grounds,
    ) -> Result<Outcome, Refused> {
        check_grounds(grounds)?;
        let name = member::name(node).map_err(|problem| Refused::Invalid(format!("node: {problem}")))?;
        let place = key(Kind::Drained, &[name.as_bytes()]);
        if self.keys.value(&place).is_some() == wanted {
            return Ok(Outcome::Done);
        }
        if wanted {
            full("drained nodes", drained(&self.keys).len() + 1, DRAINED_MAX)?;
            self.keys.put_bytes(place, Vec::new());
        } else {
            self.keys.remove(place);
        }
        self.moved.drained = true;
        self.audit(mutation, format!("{} node {name}", if wanted { "drain" } else { "undrain" }), grounds);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use proto::mutation::{Change, Grounds, Outcome, Refused};

    use super::drained;
    use crate::state::{
        query,
        testing::{World, node, operator},
    };

    fn drain(node: &str, drained: bool) -> Change {
        Change::DrainNode {
            node: node.into(),
            drained,
            grounds: Grounds { why: "a new kernel".into(), ticket: String::new() },
        }
    }

    #[test]
    fn a_node_is_drained_until_it_is_undrained_and_each_change_leaves_one_trace() {
        let mut world = World::new();
        for (name, wanted) in [("mx1", true), ("mx1", true), ("mx2", true), ("mx1", false), ("mx1", false)] {
            assert_eq!(world.apply(operator("anna"), drain(name, wanted)), Outcome::Done);
        }
        assert_eq!(drained(&world.keys).into_iter().collect::<Vec<_>>(), ["mx2"]);
        let view = query::view(&world.keys, 9);
        assert_eq!(view.drained.map(|names| names.len()), Some(1));
        let records = query::audit(&world.keys, 0, 10).records;
        let what: Vec<&str> = records.iter().rev().map(|record| record.what.as_str()).collect();
        assert_eq!(what, ["drain node mx1", "drain node mx2", "undrain node mx1"]);
    }

    #[test]
    fn nobody_but_an_operator_with_a_reason_drains_a_node_that_can_be_one() {
        let mut world = World::new();
        let bad = world.apply(operator("anna"), drain("../mx1", true));
        assert!(matches!(bad, Outcome::Refused(Refused::Invalid(_))), "{bad:?}");
        let silent = Change::DrainNode { node: "mx1".into(), drained: true, grounds: Grounds::default() };
        assert!(matches!(world.apply(operator("anna"), silent), Outcome::Refused(Refused::Invalid(_))));
        assert!(matches!(world.apply(node("mx1"), drain("mx1", false)), Outcome::Refused(Refused::Role { .. })));
    }
}
