//! The content rules of a node as people list them: those of its program, then those of its policy.

use std::collections::BTreeSet;

use proto::{
    client_rules::DnsList,
    rules::engine::Engine,
    score::Score,
    view::View,
    wire::inspect::{Group, Origin, Rule, RulesResponse},
};

use crate::{
    checks::{calendar, campaign, content::GROUP_MAX, criteria, history, impersonation, learnt, volume},
    policy::{blocked, score},
    reception::names,
};

/// Groups whose rules have points of their own, that no fit gives them.
const FIXED: [(&str, &str); 18] = [
    ("arc", "whether a chain of trusted servers speaks for what DMARC cannot"),
    ("attachments", "what a policy does not let in; it says what becomes of the message"),
    ("authentication", "whether anything tells who sent it"),
    ("campaigns", "near-copies that the cluster has seen lately"),
    ("clients", "what a client is and says before its first message"),
    ("correspondence", "whether sender and recipient know each other"),
    ("dkim", "signatures"),
    ("dmarc", "whether the author's domain vouches for it"),
    ("dns_lists", "what lists say of the client"),
    ("domain_lists", "what lists say of the names in it"),
    ("helo", "what the client calls itself"),
    ("impersonation", "who is imitated: departments, guarded domains, officials"),
    ("invitations", "calendars in it"),
    ("learnt", "what this cluster has learnt from releases and reports, within two points"),
    ("reputation", "what its senders have sent lately"),
    ("reverse_name", "the name of the client's address"),
    ("spf", "whether the sender's domain sends from there"),
    ("volume", "how much its sender has sent within an hour"),
];

/// Those of them whose rules together count no more than a group of criteria does.
const CAPPED: [&str; 3] = ["campaigns", "domain_lists", "impersonation"];

/// Rules with points of their own, those that policy gives among them.
fn fixed(view: &View) -> Vec<Rule> {
    let rule = |group: &str, name: &str, score: Score, text: &str, origin: Origin| Rule {
        group: group.to_owned(),
        name: name.to_owned(),
        score: score.0,
        text: text.to_owned(),
        origin: origin.into(),
    };
    let own = |group: &'static str, rules: &[(&str, Score, &str)]| -> Vec<Rule> {
        rules.iter().map(|(name, score, text)| rule(group, name, *score, text, Origin::BuiltIn)).collect()
    };
    let list = |group: &str, name: &str, of: &DnsList| rule(group, name, of.points, of.zone.as_str(), Origin::Policy);
    let domain_lists = view.settings.content.as_ref().map(|content| content.domain_lists.as_slice());
    let mut rules: Vec<Rule> = score::RULES
        .iter()
        .chain(&blocked::RULES)
        .map(|(group, name, score, text)| rule(group, name, *score, text, Origin::BuiltIn))
        .collect();
    rules.extend(
        names::rules(&view.clients.points)
            .map(|(group, name, score, text)| rule(group, name, score, text, Origin::Policy)),
    );
    rules.extend(own("campaigns", &campaign::RULES));
    rules.extend(own("correspondence", &[history::RULE]));
    rules.extend(own("impersonation", &impersonation::RULES));
    rules.extend(own("invitations", &calendar::RULES));
    rules.extend(own("learnt", &learnt::RULES));
    rules.extend(own("volume", &[volume::RULE]));
    rules.extend(view.clients.dns_lists.iter().map(|of| list("dns_lists", names::list_rule(of), of)));
    rules.extend(domain_lists.unwrap_or_default().iter().map(|of| list("domain_lists", "DOMAIN_LIST", of)));
    rules
}

/// All of them.
pub(super) fn all(view: &View) -> RulesResponse {
    let policy = view.rules.as_ref();
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
    let fixed = fixed(view);
    RulesResponse {
        groups: groups(policy, &fixed),
        rules: built_in.chain(fixed).chain(written).collect(),
        left_out: policy.warning().unwrap_or_default(),
    }
}

/// What a group without a fit counts at most, either way: all its rules together.
fn most(group: &str, rules: &[Rule]) -> Score {
    let (against, fors): (Vec<i32>, Vec<i32>) =
        rules.iter().filter(|rule| rule.group == group).map(|rule| rule.score).partition(|score| *score > 0);
    let most = against.iter().sum::<i32>().max(-fors.iter().sum::<i32>());
    Score(if CAPPED.contains(&group) { most.min(GROUP_MAX.0) } else { most })
}

fn groups(policy: &Engine, fixed: &[Rule]) -> Vec<Group> {
    let fixed = FIXED.into_iter().map(|(name, about)| (name, about, most(name, fixed)));
    let own = criteria::groups().chain(fixed).map(|(name, about, max)| Group {
        name: name.to_owned(),
        about: about.to_owned(),
        max: max.0,
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
    use std::collections::BTreeSet;

    use proto::{rules::NAME_BEGIN, view::View};

    use super::all;

    #[test]
    fn each_rule_is_of_a_group_that_says_what_it_is_about_here_and_in_the_readme_and_no_name_is_one_that_people_may_give()
     {
        let listed = all(&View::empty());
        let about: BTreeSet<&str> = listed.groups.iter().map(|group| group.name.as_str()).collect();
        assert!(listed.rules.len() > 150 && listed.rules.iter().all(|rule| about.contains(rule.group.as_str())));
        assert!(about.len() >= 30, "{about:?}");
        assert!(listed.groups.iter().all(|group| !group.about.is_empty()));
        let most = |name: &str| listed.groups.iter().find(|group| group.name == name).expect("a group").max;
        assert_eq!(["links", "bulk", "words", "impersonation", "dmarc"].map(most), [450, 250, 550, 450, 300]);
        let in_readme = include_str!("../../../README.md").lines().filter(|line| line.starts_with("| `"));
        let in_readme: BTreeSet<String> = in_readme.map(str::to_owned).collect();
        for group in &listed.groups {
            let row = format!("| `{}` | {} |", group.name, group.about);
            assert!(in_readme.contains(&row), "README lacks {row}");
        }
        assert!(listed.rules.iter().all(|rule| !rule.name.starts_with(NAME_BEGIN)));
    }
}
