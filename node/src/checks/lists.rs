//! Asks lists over DNS (RFC 5782) about addresses and names. A list is used only while it answers its own tests as it should; one that
//! does not answer in time speaks neither for nor against anybody.

use std::{
    collections::HashMap,
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
use proto::{
    address::Domain,
    client_rules::{DNS_LISTS_MAX, DnsList},
    score::Score,
    verdict::Reason,
};
use tokio::time::{Instant, timeout};

use super::listing::{Entry, lists};
use crate::policy::score::reason;

/// From one test of a list to the next, when the last one was answered.
const TEST_EVERY: Duration = Duration::from_secs(600);
/// The same when it was not, or the list was left out.
const TEST_AGAIN: Duration = Duration::from_secs(60);

/// What DNS says of a name.
#[derive(Clone, Debug)]
pub enum Answer<T> {
    /// This.
    Found(T),
    /// There is no such name, or nothing of that kind.
    Nothing,
    /// Nobody knows now.
    Unknown,
}

impl<T> Answer<T> {
    /// Out of what the resolver says.
    pub fn of(result: Result<T, NetError>) -> Self {
        match result {
            Ok(found) => Self::Found(found),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Self::Nothing,
            Err(_) => Self::Unknown,
        }
    }
}

/// The last test of a list.
struct Tested {
    /// Whether it is usable, once that is known.
    verdict: Shared<BoxFuture<'static, bool>>,
    /// What the test before showed.
    before: Option<bool>,
    since: Instant,
}

/// Lists of one kind. Cheap to clone.
#[derive(Clone)]
pub struct Lists {
    resolver: TokioResolver,
    time_max: Duration,
    /// What every list of this kind has, and what none has.
    probes: (Entry, Entry),
    tested: Arc<Mutex<HashMap<Domain, Tested>>>,
}

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lists").field("probes", &self.probes).finish_non_exhaustive()
    }
}

impl Lists {
    /// Lists of addresses, which have 127.0.0.2 and never 127.0.0.1 (RFC 5782 section 5). Each question has `time_max`.
    #[must_use]
    pub fn of_addresses(resolver: TokioResolver, time_max: Duration) -> Self {
        let probe = |last| Entry::Address(IpAddr::from([127, 0, 0, last]));
        Self { resolver, time_max, probes: (probe(2), probe(1)), tested: Arc::default() }
    }

    /// Lists of names, which have TEST and never INVALID (RFC 5782 section 5). Each question has `time_max`.
    #[must_use]
    pub fn of_names(resolver: TokioResolver, time_max: Duration) -> Self {
        let probe = |name: &str| Entry::Name(name.to_owned());
        Self { resolver, time_max, probes: (probe("test"), probe("invalid")), tested: Arc::default() }
    }

    /// What these lists have of these entries, each list once: who is on a list many times is on it. `rule` names the reason.
    pub async fn reasons(&self, rule: fn(&DnsList) -> &'static str, entries: &[Entry], of: &[DnsList]) -> Vec<Reason> {
        let asked = of.iter().map(|list| async move {
            let found = join_all(entries.iter().map(|entry| self.has(entry, list))).await;
            let entry = entries.iter().zip(found).find_map(|(entry, listed)| listed.then_some(entry))?;
            Some(reason(rule(list), list.points, format!("{entry} is listed by {}", list.zone)))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn has(&self, entry: &Entry, list: &DnsList) -> bool {
        let asked = async {
            if !self.is_usable(&list.zone).await {
                return false;
            }
            match self.answers(entry, &list.zone).await {
                Answer::Found(answers) => lists(list, &answers),
                Answer::Nothing | Answer::Unknown => false,
            }
        };
        timeout(self.time_max, asked).await.unwrap_or(false)
    }

    async fn answers(&self, entry: &Entry, zone: &Domain) -> Answer<Vec<Ipv4Addr>> {
        match Answer::of(self.resolver.ipv4_lookup(entry.question(zone)).await) {
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
            if tested.len() >= 2 * DNS_LISTS_MAX && !tested.contains_key(zone) {
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
                let (this, list) = (self.clone(), zone.clone());
                let verdict = async move { this.test(&list, found).await }.boxed().shared();
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

    /// Whether a list is what it says. One that lists everything has given up and wants to be noticed; one that lists nothing is
    /// gone, or does not serve us. `before` is what the last test showed.
    async fn test(&self, zone: &Domain, before: Option<bool>) -> bool {
        let all = DnsList { zone: zone.clone(), points: Score::ZERO, answers: Vec::new() };
        let has = |answer: Answer<Vec<Ipv4Addr>>| match answer {
            Answer::Found(answers) => Some(lists(&all, &answers)),
            Answer::Nothing => Some(false),
            Answer::Unknown => None,
        };
        let (always, never) = &self.probes;
        let (listed, unlisted) = tokio::join!(self.answers(always, zone), self.answers(never, zone));
        let (listed, unlisted) = (has(listed), has(unlisted));
        let usable = (listed, unlisted) == (Some(true), Some(false));
        if usable != before.unwrap_or(true) {
            match (listed, unlisted) {
                (_, Some(true)) => tracing::warn!(list = %zone, "a DNS list lists everything: it is left out"),
                (Some(false), _) => {
                    tracing::warn!(list = %zone, "a DNS list does not list its test entry {always}: it is left out");
                }
                (Some(true), Some(false)) => tracing::info!(list = %zone, "a DNS list is used again"),
                (None, _) | (_, None) => tracing::warn!(list = %zone, "a DNS list does not answer: it is left out"),
            }
        }
        usable
    }
}
