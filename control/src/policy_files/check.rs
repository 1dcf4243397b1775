//! What must hold between the policy files: one owner for each domain and network, unique ids, thresholds in order.

use std::collections::BTreeMap;

use ipnet::IpNet;
use proto::{
    address::Domain,
    policy::{Layer, Policy},
    yaml::Fault,
};

use super::fields::{DepartmentDraft, Placed, PolicyDraft, StateDraft};

/// All faults that only several files, or several layers, show together.
pub(super) fn across_files(state: Option<&StateDraft>, departments: &[DepartmentDraft]) -> Vec<Fault> {
    let mut faults = Vec::new();
    ids(departments, &mut faults);
    domains(departments, &mut faults);
    sources(departments, &mut faults);
    thresholds(state, departments, &mut faults);
    faults
}

fn ids(departments: &[DepartmentDraft], faults: &mut Vec<Fault>) {
    let mut first: BTreeMap<_, &Fault> = BTreeMap::new();
    for id in departments.iter().filter_map(|draft| draft.id.as_ref()) {
        if let Some(other) = first.get(&id.value) {
            faults.push(at(&id.place, format!("{} is already the id in {}", id.value, line_of(other))));
        } else {
            first.insert(&id.value, &id.place);
        }
    }
}

/// A domain, and all below it, belongs to one department: a sender's name claims the department above it.
fn domains(departments: &[DepartmentDraft], faults: &mut Vec<Fault>) {
    let mut owners: BTreeMap<&str, (usize, &Placed<Domain>)> = BTreeMap::new();
    for (number, draft) in departments.iter().enumerate() {
        for domain in &draft.domains {
            match owners.get(domain.value.as_str()) {
                None => {
                    owners.insert(domain.value.as_str(), (number, domain));
                }
                Some((owner, _)) if *owner == number => faults.push(at(&domain.place, "is listed twice".into())),
                Some((owner, first)) => {
                    let owner = owner_of(&departments[*owner], &first.place);
                    faults.push(at(&domain.place, format!("{} belongs to {owner} already", domain.value)));
                }
            }
        }
    }
    for (name, (number, domain)) in &owners {
        let mut parents = name.match_indices('.').filter_map(|(dot, _)| owners.get(&name[dot + 1..]));
        if let Some((owner, parent)) = parents.find(|(owner, _)| owner != number) {
            let owner = owner_of(&departments[*owner], &parent.place);
            let problem = format!("{name} lies below {}, which belongs to {owner}", parent.value);
            faults.push(at(&domain.place, problem));
        }
    }
}

/// An address speaks for one department only.
fn sources(departments: &[DepartmentDraft], faults: &mut Vec<Fault>) {
    let mut nets: Vec<(usize, &Placed<IpNet>)> = departments
        .iter()
        .enumerate()
        .flat_map(|(number, draft)| draft.sources.iter().map(move |net| (number, net)))
        .collect();
    // In this order a network comes after each one that contains it; two networks overlap only that way.
    nets.sort_by_key(|(number, net)| (net.value, *number));
    let mut around: Vec<(usize, &Placed<IpNet>)> = Vec::new();
    for (number, net) in nets {
        while around.last().is_some_and(|(_, outer)| !outer.value.contains(&net.value)) {
            around.pop();
        }
        if let Some((owner, outer)) = around.iter().rev().find(|(owner, _)| *owner != number) {
            let owner = owner_of(&departments[*owner], &outer.place);
            faults.push(at(&net.place, format!("{} overlaps {} of {owner}", net.value, outer.value)));
        }
        around.push((number, net));
    }
}

/// `tag_at <= quarantine_at <= reject_at` in what the layers add up to.
fn thresholds(state: Option<&StateDraft>, departments: &[DepartmentDraft], faults: &mut Vec<Fault>) {
    let silent = PolicyDraft::default();
    let state = state.map_or(&silent, |state| &state.policy);
    let below = Policy::built_in().with(&state.layer, Layer::State);
    faults.extend(out_of_order(&below, state));
    for draft in departments {
        let policy = below.clone().with(&draft.policy.layer, Layer::Department);
        faults.extend(out_of_order(&policy, &draft.policy));
    }
}

/// Only a layer that sets a threshold is blamed.
fn out_of_order(policy: &Policy, draft: &PolicyDraft) -> Option<Fault> {
    let place = draft.thresholds.first()?;
    let (tag, quarantine, reject) = (&policy.tag_at, &policy.quarantine_at, &policy.reject_at);
    if tag.value <= quarantine.value && quarantine.value <= reject.value {
        return None;
    }
    let problem = format!(
        "tag_at <= quarantine_at <= reject_at must hold, but they are {} ({}), {} ({}), {} ({})",
        tag.value, tag.layer, quarantine.value, quarantine.layer, reject.value, reject.layer
    );
    Some(at(place, problem))
}

fn at(place: &Fault, problem: String) -> Fault {
    Fault { problem, ..place.clone() }
}

fn line_of(place: &Fault) -> String {
    format!("{}:{}", place.file, place.line)
}

fn owner_of(draft: &DepartmentDraft, place: &Fault) -> String {
    let id = draft.id.as_ref().map_or("another department", |id| id.value.as_str());
    format!("{id} ({})", line_of(place))
}
