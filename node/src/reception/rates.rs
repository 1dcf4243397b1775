//! How much of something came in the last minute: a bound for each key, in one number each (the generic cell rate algorithm).

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proto::{address::Domain, department::DepartmentId};
use tokio::time::Instant;

/// Keys that are remembered at most; each is some hundred bytes.
const KEYS_MAX: usize = 200_000;
/// What the bounds are for.
const MINUTE: Duration = Duration::from_secs(60);

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// Connections of a client or a net, by its first address and length of prefix.
    Connections(IpAddr, u8),
    /// Transactions of a sender's domain.
    Messages(Domain),
    /// Recipients of a department.
    Recipients(DepartmentId),
    /// Recipients that a department's servers name.
    RecipientsFrom(DepartmentId),
    /// Recipients that nobody knows, by the first address of a client.
    Unknown(IpAddr),
    /// Of one of these, what one client has, by its first address.
    OfClient(Box<Counted>, IpAddr),
    /// What greylisting remembers, by the first address of a net.
    FirstTries(IpAddr),
}

/// When each key's account is even again.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<HashMap<Counted, Instant>>);

impl Meter {
    /// Takes one of at most `a_minute`; false when that many have come within the last minute, and then nothing is taken. Beyond
    /// the keys that can be remembered nothing is counted: who floods us with new keys must not have old ones forgotten.
    pub(super) fn take(&self, key: Counted, a_minute: u32, now: Instant) -> bool {
        let each = MINUTE / a_minute.max(1);
        let mut even_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if even_at.len() >= KEYS_MAX && !even_at.contains_key(&key) {
            even_at.retain(|_, at| *at > now);
            if even_at.len() >= KEYS_MAX {
                tracing::warn!(keys = KEYS_MAX, "too many clients at once to bound the rate of a new one");
                return true;
            }
        }
        let at = even_at.entry(key).or_insert(now);
        let next = (*at).max(now) + each;
        if next.duration_since(now) > MINUTE {
            return false;
        }
        *at = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Counted, Meter};

    #[test]
    fn so_many_pass_in_a_minute_and_no_more() {
        let (meter, start) = (Meter::default(), Instant::now());
        let key = |last: u8| Counted::Unknown([192, 0, 2, last].into());
        let taken = |last: u8, after: u64| {
            let now = start + Duration::from_secs(after);
            (0..9).filter(|_| meter.take(key(last), 4, now)).count()
        };
        assert_eq!(taken(1, 0), 4);
        assert_eq!(taken(2, 0), 4, "each key for itself");
        assert_eq!(taken(1, 14), 0);
        assert_eq!(taken(1, 15), 1, "a quarter of a minute earns one of four");
        assert_eq!(taken(1, 600), 4, "and a long time earns no more than a minute");
    }
}
