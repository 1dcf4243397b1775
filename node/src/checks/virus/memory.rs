//! What is remembered of bytes by their SHA-256: what clamd said of them. In this node's memory alone, bounded.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::{checks::tries::Digest, limits::Limits, policy::evidence::Virus};

/// Longer bytes are hashed on a thread of their own, some milliseconds a megabyte.
const SHORT_BYTES_MAX: usize = 256 * 1024;

/// What a scanner gets: a head of ours and some bytes.
pub(super) type Item<'b> = (&'static [u8], &'b Bytes);

/// The SHA-256 of what a scanner gets: the same bytes with another head are another thing to it.
pub(super) async fn digest((head, bytes): Item<'_>) -> Digest {
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
