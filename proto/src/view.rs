//! The view: policies, departments, routes and reputation at one log index, as nodes hold it in memory.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

pub use crate::directory::Tenant;
use crate::{
    address::Domain,
    client_rules::ClientRules,
    content_rules::ContentRules,
    department::{Department, DepartmentId, NextHop},
    directory::Directory,
    guard::Guard,
    learning::{LearningRules, Learnt},
    policy::{Layer, Policy, PolicyLayer},
    reputation::{Levels, Manual, SubjectKey, known::Known},
    rules::{RuleSet, engine::Engine},
    shards::Shards,
    time::UnixMs,
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
    /// A client whose reputation has a worse score is sent away with 421 when it connects; [`CLIENT_SCORE_MAX`] when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_score_max: Option<i16>,
    /// What is asked of clients before they have sent a message; the built-in rules when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Box<ClientRules>>,
    /// What is asked about the content of messages, and who is guarded; nothing beyond departments when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Box<ContentRules>>,
    /// Rules on content that people have written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Arc<RuleSet>>,
    /// What the state's policy says on top of the built-in one.
    pub policy: PolicyLayer,
}

impl StateSettings {
    /// When and from how much the cluster learns.
    #[must_use]
    pub fn learning(&self) -> LearningRules {
        self.content.as_ref().and_then(|content| content.learning).unwrap_or_default()
    }
}

/// The worst score of reputation that a client may come with: some two hundred messages of which none was good.
pub const CLIENT_SCORE_MAX: i16 = 950;

/// A step from one view to the next, or a part of it. A whole view begins with a part that says so, and what comes
/// before the last part must not be used: it may be of different moments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewChange {
    /// Log index after the change; of a part that is not the last, when it was read.
    pub index: u64,
    /// Policy version after the change.
    pub policy_version: u64,
    /// Whether what is not named here and in the parts that follow is gone.
    pub whole: bool,
    /// Whether other parts follow before the view may be used.
    #[serde(default)]
    pub more: bool,
    /// The state's settings, when they changed.
    pub settings: Option<StateSettings>,
    /// Departments that are new or changed.
    pub departments: Vec<Department>,
    /// Departments that are gone.
    pub removed: Vec<DepartmentId>,
    /// Names of all drained nodes, when they changed.
    #[serde(default)]
    pub drained: Option<BTreeSet<String>>,
    /// Subjects whose counts have moved, or that are gone.
    #[serde(default)]
    pub subjects: Vec<(SubjectKey, Option<Levels>)>,
    /// What operators say of subjects, or say no more.
    #[serde(default)]
    pub manual: Vec<(SubjectKey, Option<Manual>)>,
    /// First tries that were put off, or that are forgotten.
    #[serde(default)]
    pub tries: Vec<(SubjectKey, Option<UnixMs>)>,
    /// The model that the cluster has learnt, when it changed.
    #[serde(default)]
    pub learnt: Option<Learnt>,
}

impl ViewChange {
    /// Whether it changes nothing but the index.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.whole
            && self.settings.is_none()
            && self.departments.is_empty()
            && self.removed.is_empty()
            && self.subjects.is_empty()
            && self.manual.is_empty()
            && self.tries.is_empty()
            && self.drained.is_none()
            && self.learnt.is_none()
    }
}

/// What a node knows at one log index. Immutable once in use: a transaction keeps the one that it began with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    /// Log index.
    pub index: u64,
    /// Policy version, named by each verdict. Zero: no policy yet, and no mail is accepted.
    pub policy_version: u64,
    /// The state's settings.
    pub settings: Arc<StateSettings>,
    /// The state's own policy, for mail to the Internet.
    pub state_policy: Arc<Policy>,
    /// Names of the nodes that take no new mail.
    pub drained: Arc<BTreeSet<String>>,
    /// What is known of senders.
    pub reputation: Known,
    /// When who was put off first.
    pub tries: Shards<UnixMs>,
    /// What is asked of clients.
    pub clients: Arc<ClientRules>,
    /// Who must not be imitated.
    pub guard: Arc<Guard>,
    /// The rules that people have written, compiled.
    pub rules: Arc<Engine>,
    /// The model that the cluster has learnt.
    pub learnt: Arc<Learnt>,
    directory: Arc<Directory>,
}

fn client_rules(settings: &StateSettings) -> Arc<ClientRules> {
    Arc::new(settings.clients.as_deref().cloned().unwrap_or_else(ClientRules::built_in))
}

/// The rules of the settings, compiled; `now` where they are those already, as in most changes of a policy.
fn compiled(settings: &StateSettings, now: &Arc<Engine>) -> Arc<Engine> {
    match &settings.rules {
        None => Arc::default(),
        Some(set) if **set == **now.set() => Arc::clone(now),
        Some(set) => Arc::new(Engine::new(Arc::clone(set))),
    }
}

fn state_policy(settings: &StateSettings) -> Arc<Policy> {
    Arc::new(Policy::built_in().with(&settings.policy, Layer::State))
}

impl View {
    /// Before the first policy.
    #[must_use]
    pub fn empty() -> Self {
        let settings = StateSettings::default();
        Self {
            index: 0,
            policy_version: 0,
            state_policy: state_policy(&settings),
            clients: client_rules(&settings),
            guard: Arc::default(),
            rules: Arc::default(),
            learnt: Arc::default(),
            tries: Shards::default(),
            settings: Arc::new(settings),
            drained: Arc::default(),
            reputation: Known::default(),
            directory: Arc::default(),
        }
    }

    /// The view after a change. An index never goes back: an older change is answered with the view as it is.
    #[must_use]
    pub fn after(&self, change: ViewChange) -> Self {
        let mut view = self.clone();
        view.change(change);
        view
    }

    /// Takes a change in; what it does not name is shared with the views that this one was cloned from. An older change
    /// changes nothing.
    pub fn change(&mut self, change: ViewChange) {
        if change.index < self.index {
            return;
        }
        let rules = Arc::clone(&self.rules);
        if change.whole {
            *self = Self::empty();
        }
        (self.index, self.policy_version) = (change.index, change.policy_version);
        let settings = change.settings.filter(|settings| *settings != *self.settings);
        if settings.is_some() || !change.departments.is_empty() || !change.removed.is_empty() {
            let directory = Arc::make_mut(&mut self.directory);
            if let Some(settings) = settings {
                (self.state_policy, self.clients) = (state_policy(&settings), client_rules(&settings));
                self.rules = compiled(&settings, &rules);
                self.settings = Arc::new(settings);
                directory.over(&self.state_policy);
            }
            for id in &change.removed {
                directory.remove(id);
            }
            for department in change.departments {
                directory.insert(department, &self.state_policy);
            }
            let departments = directory.all().map(|tenant| &tenant.department);
            self.guard = Arc::new(Guard::new(self.settings.content.as_deref(), departments));
        }
        self.reputation.change(change.subjects);
        self.reputation.change_manual(change.manual);
        self.tries.change(change.tries);
        if let Some(drained) = change.drained {
            self.drained = Arc::new(drained);
        }
        if let Some(learnt) = change.learnt {
            self.learnt = Arc::new(learnt);
        }
    }

    /// Whether the node of this name is to take no new mail.
    #[must_use]
    pub fn is_drained(&self, node: &str) -> bool {
        self.drained.contains(node)
    }

    /// All departments in the order of their ids.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.directory.all()
    }

    /// How many departments there are.
    #[must_use]
    pub fn tenant_count(&self) -> usize {
        self.directory.len()
    }

    /// A department by its id.
    #[must_use]
    pub fn tenant(&self, id: &DepartmentId) -> Option<&Arc<Tenant>> {
        self.directory.by_id(id)
    }

    /// Whose mail goes to exactly this domain.
    #[must_use]
    pub fn tenant_of(&self, domain: &Domain) -> Option<&Arc<Tenant>> {
        self.directory.of_domain(domain)
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

    /// The department whose own servers send from this address; where nets of several lie around it, that of the narrowest.
    #[must_use]
    pub fn tenant_at(&self, client: IpAddr) -> Option<&Arc<Tenant>> {
        self.directory.at(client)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::{StateSettings, View, ViewChange};
    use crate::{
        address::Domain,
        department::{Department, DepartmentId, Verification},
        policy::PolicyLayer,
        rules::{Condition, Rule, RuleSet},
        score::Score,
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
            verification: Verification::None,
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
    fn rules_are_compiled_again_only_when_they_change() {
        let rule = |pattern: &str| Rule {
            name: "OWN_A".into(),
            group: "own".into(),
            score: Score::ZERO,
            text: "a test".into(),
            all: vec![Condition { field: "subject".into(), value: pattern.into() }],
            any: Vec::new(),
            none: Vec::new(),
        };
        let with = |index, whole, patterns: &[&str], name: &str| {
            let set = RuleSet { rules: patterns.iter().map(|pattern| rule(pattern)).collect(), ..RuleSet::default() };
            let settings = StateSettings { name: name.into(), rules: Some(Arc::new(set)), ..StateSettings::default() };
            ViewChange { settings: Some(settings), ..change(index, whole, Vec::new()) }
        };
        let first = View::empty().after(with(1, true, &["invoice"], "a"));
        assert_eq!(first.rules.counts(), [("in_force", 1), ("left_out", 0)]);
        let renamed = first.after(with(2, false, &["invoice"], "b"));
        let whole = renamed.after(with(3, true, &["invoice"], "b"));
        assert!(Arc::ptr_eq(&first.rules, &renamed.rules) && Arc::ptr_eq(&first.rules, &whole.rules));
        let moved = whole.after(with(4, false, &["invoice", "prize"], "b"));
        assert_eq!(moved.rules.rules().count(), 2);
        let gone = moved.after(ViewChange { settings: Some(StateSettings::default()), ..change(5, false, Vec::new()) });
        assert_eq!(gone.rules.rules().count() + moved.after(change(5, true, Vec::new())).rules.rules().count(), 0);
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
