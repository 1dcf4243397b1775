//! Greylisting, known to all nodes: who has tried to send what to whom for the first time, and when.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::{
    address::{Address, ReversePath},
    reputation::{Subject, SubjectKey},
    time::UnixMs,
};

/// First tries that the state keeps at most.
pub const TRIES_MAX: u64 = 500_000;
/// First tries that a node reports at once, at most.
pub const REPORT_TRIES_MAX: usize = 2_000;
/// How long a first try is remembered, in milliseconds: a week.
pub const TRY_LIFE_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// What a try is called in state and view: the head of a SHA-256, so that no address is kept. Clients of one net count as one,
/// because large senders try again from another address.
#[must_use]
pub fn try_key(client: IpAddr, from: &ReversePath, to: &Address) -> SubjectKey {
    let [_, net] = Subject::of_client(client);
    let from = from.address().map(Address::key).unwrap_or_default();
    let digest: [u8; 32] = Sha256::digest(format!("try:{net} {from} {}", to.key())).into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    SubjectKey(key)
}

/// Whether a try that comes again at `now` is late enough.
#[must_use]
pub fn may_pass(first: UnixMs, now: UnixMs, delay_ms: u64) -> bool {
    (delay_ms..=TRY_LIFE_MS).contains(&now.since_ms(first))
}

/// Whether a first try counts as forgotten.
#[must_use]
pub fn is_over(first: UnixMs, now: UnixMs) -> bool {
    now.since_ms(first) > TRY_LIFE_MS
}

#[cfg(test)]
mod tests {
    use super::{TRY_LIFE_MS, is_over, may_pass, try_key};
    use crate::{
        address::{Address, ReversePath},
        time::UnixMs,
    };

    #[test]
    fn a_try_is_the_same_from_the_whole_net_and_in_any_case_of_letters() {
        let address = |text: &str| Address::parse(text).expect("an address");
        let key = |client: &str, from: &str, to: &str| {
            let from = if from.is_empty() { ReversePath::Null } else { ReversePath::Address(address(from)) };
            try_key(client.parse().expect("an address"), &from, &address(to))
        };
        let first = key("192.0.2.7", "a@b.example", "Anna@health.gov.test");
        assert_eq!(first, key("192.0.2.200", "a@B.example", "anna@HEALTH.gov.test"));
        for other in [
            key("192.0.3.7", "a@b.example", "anna@health.gov.test"),
            key("192.0.2.7", "", "anna@health.gov.test"),
            key("192.0.2.7", "a@b.example", "ben@health.gov.test"),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_try_passes_between_its_delay_and_its_end() {
        let first = UnixMs(1_000);
        let table = [(0, false), (999, false), (1_000, true), (TRY_LIFE_MS, true), (TRY_LIFE_MS + 1, false)];
        for (after, passes) in table {
            assert_eq!(may_pass(first, first.plus_ms(after), 1_000), passes, "{after}");
        }
        assert!(!may_pass(first, UnixMs(0), 1_000), "a clock that went back");
        assert!(is_over(first, first.plus_ms(TRY_LIFE_MS + 1)) && !is_over(first, first.plus_ms(TRY_LIFE_MS)));
    }
}
