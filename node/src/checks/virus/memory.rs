//! What is remembered of bytes by their SHA-256: what clamd said of them, and how often it broke off over them. In this
//! node's memory alone, bounded.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use moka::{policy::EvictionPolicy, sync::Cache};
use sha2::{Digest as _, Sha256};

use crate::{limits::Limits, policy::evidence::Virus};

/// Bytes whose failed scans are counted, at a time.
const TRIES_MAX: u64 = 10_000;
/// How long a failed scan counts: senders come again for days, but at least every few hours.
const TRIES_FOR: Duration = Duration::from_secs(24 * 3600);
/// Longer bytes are hashed on a thread of their own, some milliseconds a megabyte.
const SHORT_BYTES_MAX: usize = 256 * 1024;

/// A SHA-256.
pub(super) type Digest = [u8; 32];

/// What a scanner gets: a head of ours and some bytes.
pub(super) type Item<'b> = (&'static [u8], &'b Bytes);

/// The SHA-256 of what a scanner gets: the same bytes with another head are another thing to it.
async fn digest((head, bytes): Item<'_>) -> Digest {
    let of = move |bytes: &[u8]| Digest::from(Sha256::new().chain_update(head).chain_update(bytes).finalize());
    let long = (bytes.len() > SHORT_BYTES_MAX).then(|| bytes.clone());
    let threaded = match long {
        Some(bytes) => tokio::task::spawn_blocking(move || of(&bytes)).await.ok(),
        None => None,
    };
    threaded.unwrap_or_else(|| of(bytes))
}

/// These with their digests, each distinct one once, in their order.
pub(super) async fn distinct<'b>(all: impl Iterator<Item = Item<'b>>) -> Vec<(Digest, Item<'b>)> {
    let (mut seen, mut distinct) = (HashSet::new(), Vec::new());
    for item in all {
        let digest = digest(item).await;
        if seen.insert(digest) {
            distinct.push((digest, item));
        }
    }
    distinct
}

/// What clamd said, kept by the bytes and by the line of the version that said it. Only clean and infected are kept.
#[derive(Clone, Debug)]
pub(super) struct Verdicts(Cache<(Digest, Arc<str>), Option<Arc<str>>>);

impl Verdicts {
    pub(super) fn new(limits: &Limits) -> Self {
        let entries_max = u64::try_from(limits.virus_cache_max).unwrap_or(u64::MAX);
        Self(Cache::builder().max_capacity(entries_max).time_to_live(limits.virus_cache_time).build())
    }

    pub(super) fn of(&self, digest: Digest, version: &Arc<str>) -> Option<Virus> {
        let name = self.0.get(&(digest, version.clone()))?;
        Some(name.map_or(Virus::Clean, |name| Virus::Infected { name: name.as_ref().to_owned() }))
    }

    pub(super) fn keep(&self, digest: Digest, version: &Arc<str>, said: &Virus) {
        let name = match said {
            Virus::Clean => None,
            Virus::Infected { name } => Some(Arc::from(name.as_str())),
            Virus::Unavailable { .. } | Virus::Unscannable { .. } | Virus::NotScanned => return,
        };
        self.0.insert((digest, version.clone()), name);
    }
}

/// How often in a row a scan of some bytes got no answer from a clamd that had taken them.
#[derive(Clone, Debug)]
pub(super) struct Tries {
    counts: Cache<Digest, u32>,
    max: u32,
}

impl Tries {
    pub(super) fn new(limits: &Limits) -> Self {
        let counts = Cache::builder().max_capacity(TRIES_MAX).time_to_live(TRIES_FOR);
        Self { counts: counts.eviction_policy(EvictionPolicy::lru()).build(), max: limits.virus_tries_max }
    }

    /// How many so far.
    pub(super) fn of(&self, digest: Digest) -> u32 {
        self.counts.get(&digest).unwrap_or_default()
    }

    /// Whether nobody asks clamd about them any more.
    pub(super) fn are_used_up(&self, digest: Digest) -> bool {
        self.of(digest) >= self.max
    }

    /// One more; gives how many there are.
    pub(super) fn failed(&self, digest: Digest) -> u32 {
        let entry = self.counts.entry(digest);
        entry.and_upsert_with(|old| old.map_or(1, |old| old.into_value().saturating_add(1))).into_value()
    }

    /// clamd answered.
    pub(super) fn forget(&self, digest: Digest) {
        self.counts.invalidate(&digest);
    }
}
