//! The content rules of a node as people list them: those of its program, then those of its policy.

use std::collections::BTreeSet;

use proto::{
    rules::engine::Engine,
    wire::inspect::{Group, Origin, Rule, RulesResponse},
};

use crate::checks::{content::GROUP_MAX, criteria};

/// All of them.
pub(super) fn all(policy: &Engine) -> RulesResponse {
    let own = |rule: criteria::Rule| Rule {
        group: rule.group.to_owned(),
        name: rule.name.to_owned(),
        score: rule.score.0,
        text: rule.text.to_owned(),
        origin: Origin::BuiltIn.into(),
    };
    let written = policy.rules().map(|rule| Rule {
        group: rule.group.clone(),
        name: rule.name.clone(),
        score: rule.score.0,
        text: rule.text.clone(),
        origin: Origin::Policy.into(),
    });
    let built_in = criteria::rules().iter().copied().chain(criteria::by_odds()).map(own);
    RulesResponse {
        rules: built_in.chain(written).collect(),
        groups: groups(policy),
        left_out: policy.warning().unwrap_or_default(),
    }
}

fn groups(policy: &Engine) -> Vec<Group> {
    let own = criteria::groups().map(|(name, about)| Group {
        name: name.to_owned(),
        about: about.to_owned(),
        max: GROUP_MAX.0,
        origin: Origin::BuiltIn.into(),
    });
    let names: BTreeSet<&str> = policy.rules().map(|rule| rule.group.as_str()).collect();
    let written = names.into_iter().map(|name| Group {
        name: name.to_owned(),
        about: "rules of the policy".to_owned(),
        max: policy.set().cap(name).0,
        origin: Origin::Policy.into(),
    });
    own.chain(written).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use proto::rules::{NAME_BEGIN, engine::Engine};

    use super::all;

    #[test]
    fn each_rule_is_of_a_group_that_says_what_it_is_about_and_no_name_is_one_that_people_may_give() {
        let listed = all(&Engine::new(Arc::default()));
        let about: BTreeSet<&str> = listed.groups.iter().map(|group| group.name.as_str()).collect();
        assert!(listed.rules.len() > 150 && listed.rules.iter().all(|rule| about.contains(rule.group.as_str())));
        assert!(listed.groups.iter().all(|group| !group.about.is_empty()));
        assert!(listed.rules.iter().all(|rule| !rule.name.starts_with(NAME_BEGIN)));
    }
}
