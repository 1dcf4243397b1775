//! Asks DNS about a client: the name of its address, the name that it calls itself by, and the lists. What does not answer in
//! time speaks neither for nor against it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use hickory_resolver::{
    TokioResolver,
    net::{DnsError, NetError},
    proto::rr::RData,
};
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

/// What the last test of a list showed.
#[derive(Clone, Copy, Debug)]
struct Tested {
    usable: bool,
    next: Instant,
}

/// The look-ups. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lookups {
    resolver: TokioResolver,
    time_max: Duration,
    tested: Arc<Mutex<HashMap<Domain, Tested>>>,
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

impl Lookups {
    /// Asks `resolver`; all that is asked about one client at once has `time_max`.
    pub(super) fn new(resolver: TokioResolver, time_max: Duration) -> Self {
        Self { resolver, time_max, tested: Arc::default() }
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
        let none = |text: &str| {
            let wanted = points.no_reverse_name.0 != 0;
            wanted.then(|| reason("NO_REVERSE_NAME", points.no_reverse_name, format!("{client}: {text}")))
        };
        let names = match self.within(self.names(client)).await {
            Answer::Found(names) => names,
            Answer::Nothing => return none("the address has no name"),
            Answer::Unknown => return None,
        };
        let generic = names.iter().find(|name| names::is_generic(name, client)).cloned();
        match self.within(self.leads_back(client, names)).await {
            Answer::Found(()) => {
                let name = generic.filter(|_| points.generic_reverse_name.0 != 0)?;
                let text = format!("{name} is made of the address");
                Some(reason("GENERIC_REVERSE_NAME", points.generic_reverse_name, text))
            }
            Answer::Nothing => none("the name of the address does not lead back to it"),
            Answer::Unknown => None,
        }
    }

    async fn names(&self, client: IpAddr) -> Answer<Vec<String>> {
        match Answer::of(self.resolver.reverse_lookup(client).await) {
            Answer::Found(lookup) => {
                let names = lookup.answers().iter().filter_map(|record| {
                    let RData::PTR(name) = &record.data else { return None };
                    Some(name.0.to_ascii())
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
        for found in join_all(names.into_iter().map(|name| self.resolver.lookup_ip(name))).await {
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
        let name = format!("{domain}.");
        let asked = async {
            let (address, mx) = tokio::join!(self.resolver.lookup_ip(name.clone()), self.resolver.mx_lookup(name));
            match (Answer::of(address), Answer::of(mx)) {
                (Answer::Nothing, Answer::Nothing) => Answer::Nothing,
                (Answer::Found(_), _) | (_, Answer::Found(_)) => Answer::Found(()),
                (Answer::Unknown, _) | (_, Answer::Unknown) => Answer::Unknown,
            }
        };
        matches!(self.within(asked).await, Answer::Nothing)
    }

    async fn listed(&self, client: IpAddr, list: &DnsList) -> Option<Reason> {
        let asked = async {
            let (usable, answers) = tokio::join!(self.is_usable(&list.zone), self.answers(client, &list.zone));
            match answers {
                Answer::Found(answers) if usable && names::lists(list, &answers) => Answer::Found(()),
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

    /// Whether a list is what it says: it lists 127.0.0.2 and does not list 127.0.0.1 (RFC 5782 section 5). One that lists everything
    /// has given up and wants to be noticed; one that lists nothing is gone, or does not serve us.
    async fn is_usable(&self, zone: &Domain) -> bool {
        let now = Instant::now();
        let last = self.tested.lock().unwrap_or_else(PoisonError::into_inner).get(zone).copied();
        if let Some(Tested { usable, next }) = last
            && now < next
        {
            return usable;
        }
        let all = DnsList { zone: zone.clone(), points: proto::score::Score::ZERO, answers: Vec::new() };
        let test = |last: u8| self.answers(IpAddr::from([127, 0, 0, last]), zone);
        let usable = match tokio::join!(test(2), test(1)) {
            (Answer::Unknown, _) | (_, Answer::Unknown) => None,
            (listed, unlisted) => {
                let has = |answer: Answer<Vec<Ipv4Addr>>| matches!(answer, Answer::Found(answers) if names::lists(&all, &answers));
                Some((has(listed), has(unlisted)))
            }
        };
        let was = last.is_none_or(|last| last.usable);
        let is = usable == Some((true, false));
        if was != is || last.is_none() && !is {
            match usable {
                Some((_, true)) => tracing::warn!(list = %zone, "a DNS list lists everything: it is left out"),
                Some((false, false)) => {
                    tracing::warn!(list = %zone, "a DNS list does not list its test address 127.0.0.2: it is left out");
                }
                Some((true, false)) => tracing::info!(list = %zone, "a DNS list is used again"),
                None => tracing::warn!(list = %zone, "a DNS list does not answer: it is left out"),
            }
        }
        let next = now + if is { TEST_EVERY } else { TEST_AGAIN };
        let mut tested = self.tested.lock().unwrap_or_else(PoisonError::into_inner);
        if tested.len() >= 2 * proto::client_rules::DNS_LISTS_MAX {
            // Lists of policies that were.
            tested.clear();
        }
        tested.insert(zone.clone(), Tested { usable: is, next });
        is
    }

    async fn within<T>(&self, asked: impl Future<Output = Answer<T>>) -> Answer<T> {
        timeout(self.time_max, asked).await.unwrap_or(Answer::Unknown)
    }
}
