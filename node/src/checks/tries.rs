//! How often in a row something could not be found out about some bytes: what may be chance once is not chance each time. In this
//! node's memory alone, bounded.

use std::time::Duration;

use moka::{policy::EvictionPolicy, sync::Cache};

/// Bytes whose failures are counted, at a time.
const TRIES_MAX: u64 = 10_000;
/// How long a failure counts: senders come again for days, but at least every few hours.
const TRIES_FOR: Duration = Duration::from_secs(24 * 3600);

/// A SHA-256.
pub(super) type Digest = [u8; 32];

/// Failures in a row, by the bytes.
#[derive(Clone, Debug)]
pub(super) struct Tries {
    counts: Cache<Digest, u32>,
    max: u32,
}

impl Tries {
    /// After `max` failures nobody tries again.
    pub(super) fn new(max: u32) -> Self {
        let counts = Cache::builder().max_capacity(TRIES_MAX).time_to_live(TRIES_FOR);
        Self { counts: counts.eviction_policy(EvictionPolicy::lru()).build(), max }
    }

    /// How many so far.
    pub(super) fn of(&self, digest: Digest) -> u32 {
        self.counts.get(&digest).unwrap_or_default()
    }

    /// Whether nobody tries again.
    pub(super) fn are_used_up(&self, digest: Digest) -> bool {
        self.of(digest) >= self.max
    }

    /// One more; gives how many there are.
    pub(super) fn failed(&self, digest: Digest) -> u32 {
        let entry = self.counts.entry(digest);
        entry.and_upsert_with(|old| old.map_or(1, |old| old.into_value().saturating_add(1))).into_value()
    }

    /// Whether nothing has failed lately.
    pub(super) fn are_none(&self) -> bool {
        self.counts.iter().next().is_none()
    }

    /// It was found out.
    pub(super) fn forget(&self, digest: Digest) {
        self.counts.invalidate(&digest);
    }
}
