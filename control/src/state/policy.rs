//! Puts a whole new policy in force: one version an entry, checked again however well the proposer has checked.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    client_rules::DNS_LISTS_MAX,
    codec,
    content_rules::{GUARDED_DOMAINS_MAX, OFFICIALS_MAX},
    department::{Department, DepartmentId},
    mutation::{Grounds, Mutation, Outcome, Refused},
    policy::MESSAGE_BYTES_MAX,
    rules::{self, RULES_BYTES_MAX, RULES_MAX, RuleSet},
    score::Score,
    view::StateSettings,
};
use sha2::{Digest, Sha256};

use super::{
    Step,
    audit::check_grounds,
    keys::{Keys, Kind, key, read_parts},
    query::{self, PolicyRecord},
};

/// Most departments.
const DEPARTMENTS_MAX: usize = 10_000;
/// Most domains of one department.
const DOMAINS_MAX: usize = 1_000;
/// Largest policy with all departments, encoded, in bytes: it must fit into one log entry and one RPC.
pub(super) const POLICY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most points of a rule, or cap of a group, either way, in hundredths.
const RULE_POINTS_MAX: i32 = 10_000;
/// Most lines of a plan in the history: one for each department when all are new, and some.
const PLAN_LINES_MAX: usize = 20_000;

/// A policy as proposed.
pub(super) struct Plan<'m> {
    pub(super) base_version: u64,
    pub(super) settings: &'m StateSettings,
    pub(super) departments: &'m [Department],
    pub(super) changes: &'m [String],
}

impl Plan<'_> {
    fn check(&self) -> Result<(), Refused> {
        full("departments", self.departments.len(), DEPARTMENTS_MAX)?;
        full("lines of the plan", self.changes.len(), PLAN_LINES_MAX)?;
        let lists = self.settings.clients.as_ref().map_or(0, |clients| clients.dns_lists.len());
        full("dns_lists", lists, DNS_LISTS_MAX)?;
        if let Some(content) = &self.settings.content {
            full("domain_lists", content.domain_lists.len(), DNS_LISTS_MAX)?;
            full("officials", content.officials.len(), OFFICIALS_MAX)?;
            full("guarded_domains", content.guarded_domains.len(), GUARDED_DOMAINS_MAX)?;
        }
        self.settings.rules.as_deref().map_or(Ok(()), check_rules)?;
        let mut owners = BTreeMap::new();
        let mut ids = BTreeMap::new();
        let layers = self.departments.iter().map(|department| &department.policy).chain([&self.settings.policy]);
        for layer in layers {
            if layer.message_bytes_max.is_some_and(|bytes| bytes > MESSAGE_BYTES_MAX) {
                return Err(Refused::Invalid(format!("message_bytes_max may not exceed {MESSAGE_BYTES_MAX}")));
            }
        }
        for department in self.departments {
            full("domains of a department", department.domains.len(), DOMAINS_MAX)?;
            if ids.insert(&department.id, ()).is_some() {
                return Err(Refused::Invalid(format!("department {} is there twice", department.id)));
            }
            for domain in &department.domains {
                if let Some(other) = owners.insert(domain, &department.id) {
                    let both = format!("{domain} belongs to {other} and to {}", department.id);
                    return Err(Refused::Invalid(both));
                }
            }
        }
        Ok(())
    }
}

/// Bounds and names. Patterns are compiled by whoever proposes them, never here: servers of different versions of Postern may
/// differ about a pattern, and must not about an entry.
fn check_rules(set: &RuleSet) -> Result<(), Refused> {
    full("rules", set.rules.len(), RULES_MAX)?;
    full("groups of rules", set.caps.len(), RULES_MAX)?;
    full("bytes of rules", set.size_bytes(), RULES_BYTES_MAX)?;
    let is_far = |score: &Score| score.0.abs() > RULE_POINTS_MAX;
    if set.rules.iter().any(|rule| is_far(&rule.score))
        || set.caps.values().any(|cap| is_far(cap) || *cap < Score::ZERO)
    {
        return Err(Refused::Invalid(
            "points of rules and caps of groups are at most 100, and caps not below zero".into(),
        ));
    }
    let wrong = set.rules.iter().find(|rule| !rules::is_name(&rule.name) || !rules::is_group(&rule.group));
    wrong.map_or(Ok(()), |rule| {
        Err(Refused::Invalid(format!("{:?} in {:?} is no name of a rule", rule.name, rule.group)))
    })
}

/// Refuses more than `cap`.
pub(super) fn full(what: &str, count: usize, cap: usize) -> Result<(), Refused> {
    if count <= cap {
        return Ok(());
    }
    Err(Refused::Full { what: what.to_owned(), cap: u64::try_from(cap).unwrap_or(u64::MAX) })
}

/// Key of a department's value.
pub(super) fn department_key(id: &DepartmentId) -> Vec<u8> {
    key(Kind::Department, &[id.as_str().as_bytes(), &[0]])
}

/// Key of a version's value.
pub(super) fn version_key(version: u64) -> Vec<u8> {
    key(Kind::Policy, &[&version.to_be_bytes()])
}

impl<K: Keys> Step<'_, K> {
    pub(super) fn apply_policy(
        &mut self,
        mutation: &Mutation,
        plan: &Plan<'_>,
        grounds: &Grounds,
    ) -> Result<Outcome, Refused> {
        let current = self.meta.policy_version;
        if plan.base_version != current {
            return Err(Refused::VersionMoved { planned: plan.base_version, current });
        }
        check_grounds(grounds)?;
        plan.check()?;
        let encoded = codec::encode(&(plan.settings, plan.departments));
        full("bytes of the policy", encoded.len(), POLICY_BYTES_MAX)?;

        let version = current + 1;
        let named: BTreeSet<_> = plan.departments.iter().map(|department| &department.id).collect();
        for gone in query::department_ids(&self.keys) {
            if !named.contains(&gone) {
                self.keys.remove_parts(&department_key(&gone));
                self.moved.departments.insert(gone);
            }
        }
        for department in plan.departments {
            let place = department_key(&department.id);
            if read_parts::<Department>(&self.keys, "a department", &place).as_ref() != Some(department) {
                self.keys.put_parts(&place, department);
                self.moved.departments.insert(department.id.clone());
            }
        }
        // The version, at least, is new to nodes.
        self.moved.settings = true;
        self.keys.put_parts(&key(Kind::Settings, &[]), plan.settings);
        let record = PolicyRecord {
            version,
            index: self.index,
            at: self.meta.now,
            by: mutation.by.to_string(),
            grounds: grounds.clone(),
            digest: hex::encode(Sha256::digest(encoded)),
            changes: plan.changes.to_vec(),
        };
        self.keys.put_parts(&version_key(version), &record);
        if let Some(old) = version.checked_sub(self.caps.versions) {
            self.keys.remove_parts(&version_key(old));
        }
        self.meta.policy_version = version;
        let what = format!("put policy version {version} in force: {} changes", plan.changes.len());
        self.audit(mutation, what, grounds);
        Ok(Outcome::PolicyApplied { version })
    }
}
