//! What a new policy changes, in lines that people like: `+` is new, `~` changed, `-` gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use proto::{
    client_rules::ClientRules,
    content_rules::ContentRules,
    department::{Department, NextHop, TlsRule},
    policy::{Layer, Policy, PolicyLayer},
    rules::{Condition, GROUP_CAP, Rule, RuleSet},
    view::{CLIENT_SCORE_MAX, StateSettings},
};

use super::PolicySet;

/// Names listed in a line before it says how many more there are.
const NAMES_MAX: usize = 5;

/// The plan's lines from `old` to `new`: the state first, then the departments by id. Empty when nothing changes.
#[must_use]
pub fn changes(old: &PolicySet, new: &PolicySet) -> Vec<String> {
    let mut lines = state(&old.settings, &new.settings);
    let by_id = |set: &PolicySet| -> BTreeMap<_, _> {
        set.departments.iter().map(|department| (department.id.clone(), department.clone())).collect()
    };
    let (before, after) = (by_id(old), by_id(new));
    let ids: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for id in ids {
        match (before.get(id), after.get(id)) {
            (None, Some(now)) => lines.push(format!("+ department {id} ({})", count(now.domains.len(), "domain"))),
            (Some(was), None) => lines.push(format!("- department {id} ({})", count(was.domains.len(), "domain"))),
            (Some(was), Some(now)) => {
                let was_policy = policy_of(&old.settings, Some(&was.policy));
                let now_policy = policy_of(&new.settings, Some(&now.policy));
                let mut found = department(was, now);
                found.extend(policy(&was_policy, &now_policy, Layer::Department));
                lines.extend(found.into_iter().map(|change| format!("~ {id}: {change}")));
            }
            (None, None) => {}
        }
    }
    lines
}

fn state(old: &StateSettings, new: &StateSettings) -> Vec<String> {
    let first = *old == StateSettings::default();
    let mut found = Vec::new();
    if !first {
        value(&mut found, "name", &format!("{:?}", old.name), &format!("{:?}", new.name));
    }
    let by_mx = |relays: &[NextHop]| if relays.is_empty() { "by MX".to_owned() } else { hops(relays) };
    value(&mut found, "internet_relays", &by_mx(&old.internet_relays), &by_mx(&new.internet_relays));
    names(&mut found, "arc_sealers", &old.arc_sealers, &new.arc_sealers);
    if !first {
        value(&mut found, "view_age_max", &span(old.view_age_max_ms), &span(new.view_age_max_ms));
    }
    let score = |settings: &StateSettings| settings.client_score_max.unwrap_or(CLIENT_SCORE_MAX).to_string();
    value(&mut found, "client_score_max", &score(old), &score(new));
    let rules =
        |settings: &StateSettings| settings.clients.as_deref().cloned().unwrap_or_else(ClientRules::built_in).rows();
    for ((key, was), (_, now)) in rules(old).into_iter().zip(rules(new)) {
        value(&mut found, &format!("clients.{key}"), &was, &now);
    }
    let rules = |settings: &StateSettings| {
        settings.content.as_deref().map_or_else(|| ContentRules::default().rows(), ContentRules::rows)
    };
    for ((key, was), (_, now)) in rules(old).into_iter().zip(rules(new)) {
        value(&mut found, &format!("content.{key}"), &was, &now);
    }
    let rows = policy(&policy_of(old, None), &policy_of(new, None), Layer::State);
    found.extend(rows.into_iter().filter(|row| !first || row.contains(" -> ")));
    let mut lines: Vec<String> = found.into_iter().map(|change| format!("~ state: {change}")).collect();
    if first && old != new {
        lines.insert(0, format!("+ state {:?}", new.name));
    }
    let none = RuleSet::default();
    lines.extend(written(old.rules.as_deref().unwrap_or(&none), new.rules.as_deref().unwrap_or(&none)));
    lines
}

/// Rules that are new, changed or gone, and groups whose cap changes.
fn written(old: &RuleSet, new: &RuleSet) -> Vec<String> {
    let by_name = |set: &RuleSet| -> BTreeMap<String, Rule> {
        set.rules.iter().map(|rule| (rule.name.clone(), rule.clone())).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let mut lines = Vec::new();
    for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        match (before.get(name), after.get(name)) {
            (None, Some(now)) => lines.push(format!("+ rule {name} ({}, {})", now.score, now.group)),
            (Some(was), None) => lines.push(format!("- rule {name} ({}, {})", was.score, was.group)),
            (Some(was), Some(now)) => {
                lines.extend(rule(was, now).into_iter().map(|line| format!("~ rule {name}: {line}")))
            }
            (None, None) => {}
        }
    }
    for group in old.caps.keys().chain(new.caps.keys()).collect::<BTreeSet<_>>() {
        let mut found = Vec::new();
        let shown = |set: &RuleSet| set.caps.get(group).copied().unwrap_or(GROUP_CAP).to_string();
        value(&mut found, "cap", &shown(old), &shown(new));
        lines.extend(found.into_iter().map(|line| format!("~ group {group}: {line}")));
    }
    let order = |set: &RuleSet| set.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    if lines.is_empty() && order(old) != order(new) {
        lines.push("~ rules: another order".into());
    }
    lines
}

fn rule(was: &Rule, now: &Rule) -> Vec<String> {
    let mut found = Vec::new();
    value(&mut found, "score", &was.score.to_string(), &now.score.to_string());
    value(&mut found, "group", &was.group, &now.group);
    value(&mut found, "text", &format!("{:?}", was.text), &format!("{:?}", now.text));
    for (key, was, now) in [("all", &was.all, &now.all), ("any", &was.any, &now.any), ("none", &was.none, &now.none)] {
        if was != now {
            let shown = |conditions: &[Condition]| {
                let one = |condition: &Condition| format!("{}: {:?}", condition.field, condition.value);
                format!("[{}]", conditions.iter().map(one).collect::<Vec<_>>().join(", "))
            };
            value(&mut found, key, &shown(was), &shown(now));
        }
    }
    found
}

fn department(old: &Department, new: &Department) -> Vec<String> {
    let mut found = Vec::new();
    value(&mut found, "name", &format!("{:?}", old.name), &format!("{:?}", new.name));
    names(&mut found, "domains", &old.domains, &new.domains);
    value(&mut found, "next_hops", &hops(&old.next_hops), &hops(&new.next_hops));
    names(&mut found, "sources", &old.sources, &new.sources);
    names(&mut found, "services", &old.services, &new.services);
    value(&mut found, "verify_recipients", &old.verification.to_string(), &new.verification.to_string());
    match (&old.recipients, &new.recipients) {
        (None, None) => {}
        (None, Some(known)) => found.push(format!("recipients: from now on {} are known, others refused", known.len())),
        (Some(_), None) => found.push("recipients: from now on the next hop knows them".into()),
        (Some(was), Some(now)) => names(&mut found, "recipients", was, now),
    }
    found
}

/// The values that this layer sets or set; what changes below it is said once, for the layer below.
fn policy(old: &Policy, new: &Policy, layer: Layer) -> Vec<String> {
    let rows = old.rows().into_iter().zip(new.rows());
    rows.filter(|((_, was, was_by), (_, now, now_by))| {
        (was, was_by) != (now, now_by) && (*was_by == layer || *now_by == layer)
    })
    .map(|((key, was, _), (_, now, now_by))| {
        if was == now { format!("{key} stays {now}, now {now_by}") } else { format!("{key} {was} -> {now} ({now_by})") }
    })
    .collect()
}

fn policy_of(settings: &StateSettings, department: Option<&PolicyLayer>) -> Policy {
    let policy = Policy::built_in().with(&settings.policy, Layer::State);
    department.into_iter().fold(policy, |policy, layer| policy.with(layer, Layer::Department))
}

fn value(found: &mut Vec<String>, key: &str, old: &str, new: &str) {
    if old != new {
        found.push(format!("{key} {old} -> {new}"));
    }
}

/// `domains + a.test, - b.test`.
fn names<'a, T: Display + 'a>(
    found: &mut Vec<String>,
    key: &str,
    old: impl IntoIterator<Item = &'a T>,
    new: impl IntoIterator<Item = &'a T>,
) {
    let texts = |items: &mut dyn Iterator<Item = &'a T>| items.map(ToString::to_string).collect::<BTreeSet<_>>();
    let (old, new) = (texts(&mut old.into_iter()), texts(&mut new.into_iter()));
    let mut parts = Vec::new();
    for (sign, only) in [("+", new.difference(&old)), ("-", old.difference(&new))] {
        let all: Vec<&String> = only.collect();
        parts.extend(all.iter().take(NAMES_MAX).map(|name| format!("{sign} {name}")));
        if all.len() > NAMES_MAX {
            parts.push(format!("{sign} {} more", all.len() - NAMES_MAX));
        }
    }
    if !parts.is_empty() {
        found.push(format!("{key} {}", parts.join(", ")));
    }
}

fn hops(hops: &[NextHop]) -> String {
    let shown = |hop: &NextHop| {
        let tls = match hop.tls {
            TlsRule::None => " (no TLS)",
            TlsRule::Opportunistic => "",
            TlsRule::Required => " (TLS required)",
        };
        format!("{hop}{tls}")
    };
    hops.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// Milliseconds in the largest unit that divides them.
fn span(ms: u64) -> String {
    let units = [(24 * 3600 * 1000, "d"), (3600 * 1000, "h"), (60 * 1000, "m"), (1000, "s")];
    let fitting = units.iter().find(|(unit_ms, _)| ms > 0 && ms.is_multiple_of(*unit_ms));
    fitting.map_or_else(|| format!("{ms} ms"), |(unit_ms, name)| format!("{}{name}", ms / unit_ms))
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
