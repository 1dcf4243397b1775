//! Asks DNS about a client: the name of its address, the name that it calls itself by, and the lists. What does not answer in
//! time speaks neither for nor against it.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, join_all},
};
use hickory_resolver::{
    TokioResolver,
    net::{DnsError, NetError},
    proto::rr::RData,
};
use moka::sync::Cache;
use proto::{
    address::Domain,
    client_rules::{ClientRules, DnsList},
    verdict::Reason,
};
use tokio::time::{Instant, timeout};

use super::names;
use crate::policy::score::reason;

/// Names of one address that are looked at.
const NAMES_MAX: usize = 5;
/// From one test of a list to the next, when the last one was answered.
const TEST_EVERY: Duration = Duration::from_secs(600);
/// The same when it was not, or the list was left out.
const TEST_AGAIN: Duration = Duration::from_secs(60);

/// Of each kind, what was found out is remembered of so many.
const REMEMBERED_MAX: u64 = 50_000;
/// And for so long.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// The last test of a list.
struct Tested {
    /// Whether it is usable, once that is known.
    verdict: Shared<BoxFuture<'static, bool>>,
    /// What the test before showed.
    before: Option<bool>,
    since: Instant,
}

/// The look-ups. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lookups {
    resolver: TokioResolver,
    time_max: Duration,
    tested: Arc<Mutex<HashMap<Domain, Tested>>>,
    /// What was found out in the last minute: of addresses, and whether what clients call themselves is unknown. DNS answers of
    /// all kinds are in the resolver's cache, but to put a question together costs more than the answer.
    named: Cache<IpAddr, Named>,
    unknown: Cache<Domain, bool>,
}

/// How an address is named.
#[derive(Clone, Debug)]
enum Named {
    /// By a name of its own that leads back to it.
    Well,
    /// By this one, which is made of it.
    ByAddress(String),
    /// Not; why.
    Not(&'static str),
}

/// What DNS says of a name.
enum Answer<T> {
    Found(T),
    /// There is no such name, or nothing of that kind.
    Nothing,
    /// Nobody knows now.
    Unknown,
}

impl<T> Answer<T> {
    fn of(result: Result<T, NetError>) -> Self {
        match result {
            Ok(found) => Self::Found(found),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Self::Nothing,
            Err(_) => Self::Unknown,
        }
    }
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
        Self { resolver, time_max, tested: Arc::default(), named, unknown }
    }

    /// What speaks for or against an address.
    pub(super) async fn address(&self, client: IpAddr, rules: &ClientRules) -> Vec<Reason> {
        let lists = join_all(rules.dns_lists.iter().map(|list| self.listed(client, list)));
        let (name, lists) = tokio::join!(self.reverse_name(client, rules), lists);
        name.into_iter().chain(lists.into_iter().flatten()).collect()
    }

    async fn reverse_name(&self, client: IpAddr, rules: &ClientRules) -> Option<Reason> {
        let points = rules.points;
        if points.no_reverse_name.0 == 0 && points.generic_reverse_name.0 == 0 {
            return None;
        }
        let named = match self.named.get(&client) {
            Some(named) => named,
            None => match self.within(self.name_of(client)).await {
                Answer::Found(named) => {
                    self.named.insert(client, named.clone());
                    named
                }
                Answer::Nothing | Answer::Unknown => return None,
            },
        };
        let (rule, points, text) = match named {
            Named::Well => return None,
            Named::ByAddress(name) => {
                ("GENERIC_REVERSE_NAME", points.generic_reverse_name, format!("{name} is made of the address"))
            }
            Named::Not(why) => ("NO_REVERSE_NAME", points.no_reverse_name, format!("{client}: {why}")),
        };
        (points.0 != 0).then(|| reason(rule, points, text))
    }

    /// Looks for a name that leads back to the address.
    async fn name_of(&self, client: IpAddr) -> Answer<Named> {
        let names = match self.names(client).await {
            Answer::Found(names) => names,
            Answer::Nothing => return Answer::Found(Named::Not("the address has no name")),
            Answer::Unknown => return Answer::Unknown,
        };
        let generic = names.iter().find(|name| names::is_generic(name, client)).cloned();
        match self.leads_back(client, names).await {
            Answer::Found(()) => Answer::Found(generic.map_or(Named::Well, Named::ByAddress)),
            Answer::Nothing => Answer::Found(Named::Not("the name of the address does not lead back to it")),
            Answer::Unknown => Answer::Unknown,
        }
    }

    async fn names(&self, client: IpAddr) -> Answer<Vec<String>> {
        match Answer::of(self.resolver.reverse_lookup(client).await) {
            Answer::Found(lookup) => {
                let names = lookup.answers().iter().filter_map(|record| {
                    let RData::PTR(name) = &record.data else { return None };
                    Some(name.0.to_ascii().trim_end_matches('.').to_owned())
                });
                let names: Vec<String> = names.take(NAMES_MAX).collect();
                if names.is_empty() { Answer::Nothing } else { Answer::Found(names) }
            }
            Answer::Nothing => Answer::Nothing,
            Answer::Unknown => Answer::Unknown,
        }
    }

    async fn leads_back(&self, client: IpAddr, names: Vec<String>) -> Answer<()> {
        let mut unknown = false;
        for found in join_all(names.into_iter().map(|name| self.resolver.lookup_ip(name + "."))).await {
            match Answer::of(found) {
                Answer::Found(addresses) if addresses.iter().any(|address| address.to_canonical() == client) => {
                    return Answer::Found(());
                }
                Answer::Found(_) | Answer::Nothing => {}
                Answer::Unknown => unknown = true,
            }
        }
        if unknown { Answer::Unknown } else { Answer::Nothing }
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

    async fn listed(&self, client: IpAddr, list: &DnsList) -> Option<Reason> {
        let asked = async {
            if !self.is_usable(&list.zone).await {
                return Answer::Unknown;
            }
            match self.answers(client, &list.zone).await {
                Answer::Found(answers) if names::lists(list, &answers) => Answer::Found(()),
                Answer::Found(_) | Answer::Nothing => Answer::Nothing,
                Answer::Unknown => Answer::Unknown,
            }
        };
        match self.within(asked).await {
            Answer::Found(()) => {
                let rule = if list.points.0 < 0 { "DNS_ALLOW_LIST" } else { "DNS_LIST" };
                Some(reason(rule, list.points, format!("{client} is listed by {}", list.zone)))
            }
            Answer::Nothing | Answer::Unknown => None,
        }
    }

    async fn answers(&self, client: IpAddr, zone: &Domain) -> Answer<Vec<Ipv4Addr>> {
        match Answer::of(self.resolver.ipv4_lookup(names::question(client, zone)).await) {
            Answer::Found(lookup) => {
                let addresses = lookup.answers().iter().filter_map(|record| {
                    let RData::A(address) = &record.data else { return None };
                    Some(address.0)
                });
                Answer::Found(addresses.collect())
            }
            Answer::Nothing => Answer::Nothing,
            Answer::Unknown => Answer::Unknown,
        }
    }

    /// What the last test of a list showed; while it is tested anew what the one before did. Only the first one is waited for.
    async fn is_usable(&self, zone: &Domain) -> bool {
        let (testing, before) = {
            let mut tested = self.tested.lock().unwrap_or_else(PoisonError::into_inner);
            if tested.len() >= 2 * proto::client_rules::DNS_LISTS_MAX && !tested.contains_key(zone) {
                // Lists of policies that were.
                tested.clear();
            }
            let last = tested.get(zone);
            let found = last.and_then(|last| last.verdict.peek().copied());
            let due = last.is_none_or(|last| {
                let every = if found == Some(false) { TEST_AGAIN } else { TEST_EVERY };
                last.since.elapsed() >= every
            });
            if due {
                let (lookups, list) = (self.clone(), zone.clone());
                let verdict = async move { lookups.test(&list, found).await }.boxed().shared();
                // A task of its own brings it to its end: who asks may wait for less, or not at all.
                tokio::spawn(verdict.clone());
                tested.insert(zone.clone(), Tested { verdict, before: found, since: Instant::now() });
            }
            tested.get(zone).map_or((None, None), |tested| (Some(tested.verdict.clone()), tested.before))
        };
        match (testing, before) {
            (Some(verdict), Some(before)) => verdict.peek().copied().unwrap_or(before),
            (Some(verdict), None) => verdict.await,
            (None, _) => false,
        }
    }

    /// Whether a list is what it says: it lists 127.0.0.2 and does not list 127.0.0.1 (RFC 5782 section 5). One that lists everything
    /// has given up and wants to be noticed; one that lists nothing is gone, or does not serve us. `before` is what the last test
    /// showed.
    async fn test(&self, zone: &Domain, before: Option<bool>) -> bool {
        let all = DnsList { zone: zone.clone(), points: proto::score::Score::ZERO, answers: Vec::new() };
        let ask = |last: u8| self.answers(IpAddr::from([127, 0, 0, last]), zone);
        let has = |answer: Answer<Vec<Ipv4Addr>>| match answer {
            Answer::Found(answers) => Some(names::lists(&all, &answers)),
            Answer::Nothing => Some(false),
            Answer::Unknown => None,
        };
        let (listed, unlisted) = tokio::join!(ask(2), ask(1));
        let (listed, unlisted) = (has(listed), has(unlisted));
        let usable = (listed, unlisted) == (Some(true), Some(false));
        if usable != before.unwrap_or(true) {
            match (listed, unlisted) {
                (_, Some(true)) => tracing::warn!(list = %zone, "a DNS list lists everything: it is left out"),
                (Some(false), _) => {
                    tracing::warn!(list = %zone, "a DNS list does not list its test address 127.0.0.2: it is left out");
                }
                (Some(true), Some(false)) => tracing::info!(list = %zone, "a DNS list is used again"),
                (None, _) | (_, None) => tracing::warn!(list = %zone, "a DNS list does not answer: it is left out"),
            }
        }
        usable
    }

    async fn within<T>(&self, asked: impl Future<Output = Answer<T>>) -> Answer<T> {
        timeout(self.time_max, asked).await.unwrap_or(Answer::Unknown)
    }
}
