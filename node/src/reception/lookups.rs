//! Asks DNS about a client: the name of its address, the name that it calls itself by, and the lists. What does not answer in
//! time speaks neither for nor against it.

use std::{hash::Hash, net::IpAddr, time::Duration};

use futures::future::join_all;
use hickory_resolver::{TokioResolver, proto::rr::RData};
use moka::sync::Cache;
use proto::{address::Domain, client_rules::ClientRules, verdict::Reason};
use tokio::time::timeout;

use super::names;
use crate::{
    checks::{
        listing::Entry,
        lists::{Answer, Lists},
        names::is_generic,
    },
    policy::score::reason,
    smtp::transaction::{ClientName, Met},
};

/// Names of one address that are looked at.
const NAMES_MAX: usize = 5;
/// Of each kind, what was found out is remembered of so many.
const REMEMBERED_MAX: u64 = 50_000;
/// And for so long.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// The look-ups. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lookups {
    resolver: TokioResolver,
    time_max: Duration,
    lists: Lists,
    /// What was found out in the last minute: of addresses, and whether what clients call themselves is unknown. DNS answers of
    /// all kinds are in the resolver's cache, but to put a question together costs more than the answer.
    named: Cache<IpAddr, Named>,
    unknown: Cache<Domain, bool>,
}

/// Why an address is not named.
const NAMELESS: &str = "the address has no name";

/// How an address is named.
#[derive(Clone, Debug)]
enum Named {
    /// By this one, in lower case, that leads back to it.
    Well(String),
    /// By this one, which is made of it.
    ByAddress(String),
    /// Not; why.
    Not(&'static str),
}

/// Of the names that lead back to an address the first that somebody gave it.
fn best(names: Vec<String>, client: IpAddr) -> Named {
    let given = names.iter().find(|name| !is_generic(name, client)).cloned();
    given.map(Named::Well).or_else(|| names.into_iter().next().map(Named::ByAddress)).unwrap_or(Named::Not(NAMELESS))
}

fn remembered<K, V>() -> Cache<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED_FOR).build()
}

impl Lookups {
    /// Asks `resolver`; all that is asked about one client at once has `time_max`.
    pub(super) fn new(resolver: TokioResolver, time_max: Duration) -> Self {
        let (named, unknown) = (remembered(), remembered());
        let lists = Lists::of_addresses(resolver.clone(), time_max);
        Self { resolver, time_max, lists, named, unknown }
    }

    /// How an address is named, and what speaks for or against it.
    pub(super) async fn address(&self, client: IpAddr, rules: &ClientRules) -> Met {
        let entry = [Entry::Address(client)];
        let lists = self.lists.reasons(names::list_rule, &entry, &rules.dns_lists);
        let ((name, reason), lists) = tokio::join!(self.reverse_name(client, rules), lists);
        Met { name, reasons: reason.into_iter().chain(lists).collect() }
    }

    async fn reverse_name(&self, client: IpAddr, rules: &ClientRules) -> (ClientName, Option<Reason>) {
        let points = rules.points;
        if points.no_reverse_name.0 == 0 && points.generic_reverse_name.0 == 0 {
            return (ClientName::Unasked, None);
        }
        let named = match self.named.get(&client) {
            Some(named) => named,
            None => match self.within(self.name_of(client)).await {
                Answer::Found(named) => {
                    self.named.insert(client, named.clone());
                    named
                }
                Answer::Nothing | Answer::Unknown => return (ClientName::Unanswered, None),
            },
        };
        let (name, rule, points, text) = match named {
            Named::Well(name) => return (ClientName::Known(name), None),
            Named::ByAddress(name) => {
                let text = format!("{name} is made of the address");
                (ClientName::Known(name), "GENERIC_REVERSE_NAME", points.generic_reverse_name, text)
            }
            Named::Not(why) => {
                (ClientName::None, "NO_REVERSE_NAME", points.no_reverse_name, format!("{client}: {why}"))
            }
        };
        (name, (points.0 != 0).then(|| reason(rule, points, text)))
    }

    /// Looks for a name that leads back to the address.
    async fn name_of(&self, client: IpAddr) -> Answer<Named> {
        let names = match self.names(client).await {
            Answer::Found(names) => names,
            Answer::Nothing => return Answer::Found(Named::Not(NAMELESS)),
            Answer::Unknown => return Answer::Unknown,
        };
        match self.leading_back(client, names).await {
            Answer::Found(names) => Answer::Found(best(names, client)),
            Answer::Nothing => Answer::Found(Named::Not("the name of the address does not lead back to it")),
            Answer::Unknown => Answer::Unknown,
        }
    }

    async fn names(&self, client: IpAddr) -> Answer<Vec<String>> {
        match Answer::of(self.resolver.reverse_lookup(client).await) {
            Answer::Found(lookup) => {
                let names = lookup.answers().iter().filter_map(|record| {
                    let RData::PTR(name) = &record.data else { return None };
                    Some(name.0.to_ascii().trim_end_matches('.').to_ascii_lowercase())
                });
                let names: Vec<String> = names.take(NAMES_MAX).collect();
                if names.is_empty() { Answer::Nothing } else { Answer::Found(names) }
            }
            Answer::Nothing => Answer::Nothing,
            Answer::Unknown => Answer::Unknown,
        }
    }

    /// Those of the names that have this address.
    async fn leading_back(&self, client: IpAddr, names: Vec<String>) -> Answer<Vec<String>> {
        let (mut unknown, mut own) = (false, Vec::new());
        let asked = names.iter().map(|name| self.resolver.lookup_ip(format!("{name}.")));
        for (found, name) in join_all(asked).await.into_iter().zip(&names) {
            match Answer::of(found) {
                Answer::Found(addresses) if addresses.iter().any(|address| address.to_canonical() == client) => {
                    own.push(name.clone());
                }
                Answer::Found(_) | Answer::Nothing => {}
                Answer::Unknown => unknown = true,
            }
        }
        match (own.is_empty(), unknown) {
            (false, _) => Answer::Found(own),
            (true, true) => Answer::Unknown,
            (true, false) => Answer::Nothing,
        }
    }

    /// Whether a name that a client calls itself by has neither an address nor an MX record.
    pub(super) async fn is_unknown(&self, name: &str) -> bool {
        let Ok(domain) = Domain::parse(name.trim_end_matches('.')) else { return false };
        if let Some(unknown) = self.unknown.get(&domain) {
            return unknown;
        }
        let name = format!("{domain}.");
        let asked = async {
            let (address, mx) = tokio::join!(self.resolver.lookup_ip(name.clone()), self.resolver.mx_lookup(name));
            match (Answer::of(address), Answer::of(mx)) {
                (Answer::Nothing, Answer::Nothing) => Answer::Nothing,
                (Answer::Found(_), _) | (_, Answer::Found(_)) => Answer::Found(()),
                (Answer::Unknown, _) | (_, Answer::Unknown) => Answer::Unknown,
            }
        };
        let unknown = match self.within(asked).await {
            Answer::Found(()) => false,
            Answer::Nothing => true,
            Answer::Unknown => return false,
        };
        self.unknown.insert(domain, unknown);
        unknown
    }

    async fn within<T>(&self, asked: impl Future<Output = Answer<T>>) -> Answer<T> {
        timeout(self.time_max, asked).await.unwrap_or(Answer::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Named, best};

    #[test]
    fn a_name_that_somebody_gave_goes_before_one_that_is_made_of_the_address() {
        let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
        let named = |names: &[&str]| best(names.iter().map(|name| (*name).to_owned()).collect(), client);
        assert!(
            matches!(named(&["192-0-2-7.isp.test", "mail.firm.test"]), Named::Well(name) if name == "mail.firm.test")
        );
        assert!(matches!(named(&["192-0-2-7.isp.test"]), Named::ByAddress(name) if name == "192-0-2-7.isp.test"));
        assert!(matches!(named(&[]), Named::Not(_)));
    }
}
