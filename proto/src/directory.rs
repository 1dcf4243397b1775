//! The departments as a node looks them up: by id, by domain, by the address that their servers send from.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    address::Domain,
    department::{Department, DepartmentId},
    policy::{Layer, Policy},
};

/// A department with the policy that its layers add up to.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// As its file says.
    pub department: Department,
    /// All layers.
    pub policy: Arc<Policy>,
}

/// All departments. A change rebuilds those that it names and shares the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    tenants: BTreeMap<DepartmentId, Arc<Tenant>>,
    by_domain: HashMap<Domain, DepartmentId>,
    by_source: Sources,
}

impl Directory {
    /// Puts a department in the place of the one with its id.
    pub(crate) fn insert(&mut self, department: Department, state_policy: &Arc<Policy>) {
        self.remove(&department.id);
        for domain in &department.domains {
            self.by_domain.insert(domain.clone(), department.id.clone());
        }
        for net in &department.sources {
            self.by_source.insert(*net, &department.id);
        }
        let policy = policy(&department, state_policy);
        self.tenants.insert(department.id.clone(), Arc::new(Tenant { department, policy }));
    }

    /// Takes a department out. A domain or net that has gone to another one meanwhile stays with that.
    pub(crate) fn remove(&mut self, id: &DepartmentId) {
        let Some(old) = self.tenants.remove(id) else { return };
        for domain in &old.department.domains {
            if self.by_domain.get(domain) == Some(id) {
                self.by_domain.remove(domain);
            }
        }
        for net in &old.department.sources {
            self.by_source.remove(*net, id);
        }
    }

    /// Adds the layers up anew, over another state's policy.
    pub(crate) fn over(&mut self, state_policy: &Arc<Policy>) {
        for tenant in self.tenants.values_mut() {
            let department = tenant.department.clone();
            *tenant = Arc::new(Tenant { policy: policy(&department, state_policy), department });
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.tenants.len()
    }

    pub(crate) fn by_id(&self, id: &DepartmentId) -> Option<&Arc<Tenant>> {
        self.tenants.get(id)
    }

    pub(crate) fn of_domain(&self, domain: &Domain) -> Option<&Arc<Tenant>> {
        self.by_domain.get(domain).and_then(|id| self.tenants.get(id))
    }

    pub(crate) fn at(&self, client: IpAddr) -> Option<&Arc<Tenant>> {
        self.by_source.narrowest(client).and_then(|id| self.tenants.get(id))
    }
}

/// The state's own `Arc` where the department adds nothing: most do not.
fn policy(department: &Department, state_policy: &Arc<Policy>) -> Arc<Policy> {
    let policy = Policy::clone(state_policy).with(&department.policy, Layer::Department);
    if policy == **state_policy { Arc::clone(state_policy) } else { Arc::new(policy) }
}

/// Nets with whose they are. A look-up takes one step for each length of prefix that occurs, not one for each department.
#[derive(Clone, Debug, Default)]
struct Sources {
    /// Departments of a net in the order of their ids.
    nets: HashMap<IpNet, Vec<DepartmentId>>,
    /// How many nets there are of each length, for IPv4 and IPv6.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl Sources {
    fn insert(&mut self, net: IpNet, id: &DepartmentId) {
        let net = net.trunc();
        let ids = self.nets.entry(net).or_default();
        if ids.is_empty() {
            *self.lengths[family(net.addr())].entry(net.prefix_len()).or_default() += 1;
        }
        if let Err(place) = ids.binary_search(id) {
            ids.insert(place, id.clone());
        }
    }

    fn remove(&mut self, net: IpNet, id: &DepartmentId) {
        let net = net.trunc();
        let Some(ids) = self.nets.get_mut(&net) else { return };
        ids.retain(|other| other != id);
        if !ids.is_empty() {
            return;
        }
        self.nets.remove(&net);
        let lengths = &mut self.lengths[family(net.addr())];
        if let Some(count) = lengths.get_mut(&net.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&net.prefix_len());
            }
        }
    }

    /// Whose is the narrowest net around an address; of several with the same net the first by id.
    fn narrowest(&self, client: IpAddr) -> Option<&DepartmentId> {
        self.lengths[family(client)].keys().rev().find_map(|length| {
            let net = IpNet::new(client, *length).ok()?.trunc();
            self.nets.get(&net)?.first()
        })
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, net::IpAddr, sync::Arc};

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::Directory;
    use crate::{
        department::{Department, DepartmentId, Verification},
        policy::{Policy, PolicyLayer},
    };

    fn department(id: u8, sources: Vec<IpNet>) -> Department {
        Department {
            id: DepartmentId::parse(&format!("d{id}")).expect("an id"),
            name: String::new(),
            domains: std::collections::BTreeSet::new(),
            next_hops: Vec::new(),
            sources,
            services: Vec::new(),
            recipients: None,
            verification: Verification::None,
            policy: PolicyLayer::default(),
        }
    }

    /// Few addresses in few nets, so that nets meet.
    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (0_u8..4, 0_u8..4, prop::sample::select(vec![0_u8, 8, 16, 24, 30, 32]));
        let v4 = v4.prop_map(|(a, b, length)| IpNet::new_assert(IpAddr::from([10, a, 0, b]), length));
        let v6 = (0_u16..4, prop::sample::select(vec![32_u8, 64, 128]));
        let v6 = v6.prop_map(|(a, length)| IpNet::new_assert(IpAddr::from([0x2001, a, 0, 0, 0, 0, 0, a]), length));
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn the_look_up_finds_what_a_scan_over_all_nets_finds(
            steps in prop::collection::vec((0_u8..6, prop::option::of(prop::collection::vec(net(), 0..4))), 0..20),
            clients in prop::collection::vec(net(), 1..10),
        ) {
            let state_policy = Arc::new(Policy::built_in());
            let (mut directory, mut all) = (Directory::default(), std::collections::BTreeMap::new());
            for (id, sources) in steps {
                let department = department(id, sources.clone().unwrap_or_default());
                if sources.is_some() {
                    all.insert(department.id.clone(), department.clone());
                    directory.insert(department, &state_policy);
                } else {
                    all.remove(&department.id);
                    directory.remove(&department.id);
                }
            }
            for client in clients.into_iter().map(|net| net.addr()) {
                let nets = all.values().flat_map(|one| one.sources.iter().map(move |net| (net, &one.id)));
                let around = nets.filter(|(net, _)| net.contains(&client));
                let expected = around.min_by_key(|(net, id)| (Reverse(net.prefix_len()), (*id).clone()));
                let found = directory.at(client).map(|tenant| &tenant.department.id);
                prop_assert_eq!(found, expected.map(|(_, id)| id));
            }
        }
    }

    #[test]
    fn a_department_without_policy_of_its_own_shares_the_states() {
        let state_policy = Arc::new(Policy::built_in());
        let mut directory = Directory::default();
        directory.insert(department(1, Vec::new()), &state_policy);
        let tenant = directory.all().next().expect("a tenant");
        assert!(Arc::ptr_eq(&tenant.policy, &state_policy));
    }
}
