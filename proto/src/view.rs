//! The view: policies, departments and routes at one log index, as nodes hold it in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    address::Domain,
    department::{Department, DepartmentId, NextHop},
    policy::{Layer, Policy, PolicyLayer},
};

/// The state's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSettings {
    /// Name for people.
    pub name: String,
    /// Where mail to the Internet goes; by MX records when empty.
    pub internet_relays: Vec<NextHop>,
    /// Hosts whose ARC seals are believed (RFC 8617), by signing domain.
    pub arc_sealers: Vec<Domain>,
    /// A node that has not heard from the control servers for this long answers 451.
    pub view_age_max_ms: u64,
    /// What the state's policy says on top of the built-in one.
    pub policy: PolicyLayer,
}

/// A step from one view to the next; the first one of a watch holds everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewChange {
    /// Log index after the change.
    pub index: u64,
    /// Policy version after the change.
    pub policy_version: u64,
    /// Whether what is not named here is gone.
    pub whole: bool,
    /// The state's settings, when they changed.
    pub settings: Option<StateSettings>,
    /// Departments that are new or changed.
    pub departments: Vec<Department>,
    /// Departments that are gone.
    pub removed: Vec<DepartmentId>,
    /// How often nodes were drained or undrained, after the change.
    #[serde(default)]
    pub drains: u64,
    /// Names of all drained nodes, when they changed.
    #[serde(default)]
    pub drained: Option<BTreeSet<String>>,
}

/// A department with the policy that its layers add up to.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// As its file says.
    pub department: Department,
    /// All layers.
    pub policy: Arc<Policy>,
}

/// What a node knows at one log index. Immutable: a transaction keeps the one that it began with.
#[derive(Clone, Debug)]
pub struct View {
    /// Log index.
    pub index: u64,
    /// Policy version, named by each verdict. Zero: no policy yet, and no mail is accepted.
    pub policy_version: u64,
    /// The state's settings.
    pub settings: StateSettings,
    /// The state's own policy, for mail to the Internet.
    pub state_policy: Arc<Policy>,
    /// Names of the nodes that take no new mail.
    pub drained: Arc<BTreeSet<String>>,
    tenants: BTreeMap<DepartmentId, Arc<Tenant>>,
    by_domain: HashMap<Domain, DepartmentId>,
}

impl View {
    /// Before the first policy.
    #[must_use]
    pub fn empty() -> Self {
        Self::build(0, 0, StateSettings::default(), Vec::new())
    }

    fn build(index: u64, policy_version: u64, settings: StateSettings, departments: Vec<Department>) -> Self {
        let state_policy = Policy::built_in().with(&settings.policy, Layer::State);
        let mut view = Self {
            index,
            policy_version,
            settings,
            state_policy: Arc::new(state_policy.clone()),
            drained: Arc::default(),
            tenants: BTreeMap::new(),
            by_domain: HashMap::new(),
        };
        for department in departments {
            for domain in &department.domains {
                view.by_domain.insert(domain.clone(), department.id.clone());
            }
            let policy = Arc::new(state_policy.clone().with(&department.policy, Layer::Department));
            view.tenants.insert(department.id.clone(), Arc::new(Tenant { department, policy }));
        }
        view
    }

    /// The view after a change. An index never goes back: an older change is answered with the view as it is.
    #[must_use]
    pub fn after(&self, change: ViewChange) -> Self {
        if change.index < self.index {
            return self.clone();
        }
        let mut departments: BTreeMap<DepartmentId, Department> = if change.whole {
            BTreeMap::new()
        } else {
            self.tenants.values().map(|tenant| (tenant.department.id.clone(), tenant.department.clone())).collect()
        };
        for id in &change.removed {
            departments.remove(id);
        }
        departments.extend(change.departments.into_iter().map(|department| (department.id.clone(), department)));
        let settings = change.settings.unwrap_or_else(|| self.settings.clone());
        let drained = change.drained.map_or_else(|| Arc::clone(&self.drained), Arc::new);
        let view = Self::build(change.index, change.policy_version, settings, departments.into_values().collect());
        Self { drained, ..view }
    }

    /// Whether the node of this name is to take no new mail.
    #[must_use]
    pub fn is_drained(&self, node: &str) -> bool {
        self.drained.contains(node)
    }

    /// All departments in the order of their ids.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// A department by its id.
    #[must_use]
    pub fn tenant(&self, id: &DepartmentId) -> Option<&Arc<Tenant>> {
        self.tenants.get(id)
    }

    /// Whose mail goes to exactly this domain.
    #[must_use]
    pub fn tenant_of(&self, domain: &Domain) -> Option<&Arc<Tenant>> {
        self.by_domain.get(domain).and_then(|id| self.tenants.get(id))
    }

    /// Whose name a sender with this domain uses: the department of the domain or of one above it.
    #[must_use]
    pub fn claimed_by(&self, domain: &Domain) -> Option<&Arc<Tenant>> {
        let mut name = domain.as_str();
        loop {
            if let Some(tenant) = Domain::parse(name).ok().and_then(|domain| self.tenant_of(&domain)) {
                return Some(tenant);
            }
            name = name.split_once('.')?.1;
        }
    }

    /// The department whose own servers send from this address.
    #[must_use]
    pub fn tenant_at(&self, client: IpAddr) -> Option<&Arc<Tenant>> {
        self.tenants.values().find(|tenant| tenant.department.sends_from(client))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{StateSettings, View, ViewChange};
    use crate::{
        address::Domain,
        department::{Department, DepartmentId},
        policy::PolicyLayer,
    };

    fn department(id: &str, domain: &str) -> Department {
        Department {
            id: DepartmentId::parse(id).expect("an id"),
            name: id.to_owned(),
            domains: BTreeSet::from([Domain::parse(domain).expect("a domain")]),
            next_hops: Vec::new(),
            sources: vec!["10.1.0.0/16".parse().expect("a net")],
            services: Vec::new(),
            recipients: None,
            policy: PolicyLayer::default(),
        }
    }

    fn change(index: u64, whole: bool, departments: Vec<Department>) -> ViewChange {
        let settings = whole.then(StateSettings::default);
        ViewChange { index, policy_version: index, whole, settings, departments, ..ViewChange::default() }
    }

    #[test]
    fn a_view_moves_forward_only() {
        let first = View::empty().after(change(5, true, vec![department("interior", "interior.gov.test")]));
        let second = first.after(change(7, false, vec![department("health", "health.gov.test")]));
        assert_eq!((second.index, second.tenants().count()), (7, 2));
        let stale = second.after(change(6, true, Vec::new()));
        assert_eq!((stale.index, stale.tenants().count()), (7, 2));
    }

    #[test]
    fn a_node_is_drained_until_a_change_says_otherwise() {
        let drained = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
        let first = View::empty().after(ViewChange { drained: drained(&["mx1"]), ..change(5, true, Vec::new()) });
        let second = first.after(change(6, false, vec![department("interior", "interior.gov.test")]));
        assert!(second.is_drained("mx1") && !second.is_drained("mx2"));
        let third = second.after(ViewChange { drained: drained(&[]), ..change(7, false, Vec::new()) });
        assert!(!third.is_drained("mx1"));
    }

    #[test]
    fn a_name_below_a_departments_domain_claims_the_department() {
        let view = View::empty().after(change(1, true, vec![department("interior", "interior.gov.test")]));
        let claimed = |name| view.claimed_by(&Domain::parse(name).expect("a domain")).is_some();
        assert!(claimed("interior.gov.test") && claimed("x.y.interior.gov.test"));
        assert!(!claimed("gov.test") && !claimed("notinterior.gov.test"));
        assert!(view.tenant_of(&Domain::parse("x.interior.gov.test").expect("a domain")).is_none());
    }
}
