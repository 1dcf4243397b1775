//! Greylisting: who has tried before, as this node remembers and as the cluster does.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use proto::{
    greylist::{REPORT_TRIES_MAX, may_pass},
    reputation::SubjectKey,
    shards::Shards,
    time::UnixMs,
};

/// First tries of one generation of this node's own memory: it holds two.
const OWN_MAX: usize = 50_000;

/// What this node remembers by itself, so that mail passes also while the cluster cannot agree on anything.
#[derive(Debug, Default)]
struct Own {
    young: HashMap<SubjectKey, UnixMs>,
    old: HashMap<SubjectKey, UnixMs>,
    /// Not yet reported.
    new: HashSet<SubjectKey>,
}

/// First tries. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tries(Arc<Mutex<Own>>);

impl fmt::Debug for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tries").finish_non_exhaustive()
    }
}

impl Tries {
    /// Whether this try comes late enough after the first one, which may have been at another node. One that is the first is
    /// remembered and reported, if it `has_room`. The wall clocks of nodes and log time differ by less than what anybody is put
    /// off for.
    pub(super) fn passes(
        &self,
        tried: SubjectKey,
        cluster: &Shards<UnixMs>,
        (now, delay_ms): (UnixMs, u64),
        has_room: impl FnOnce() -> bool,
    ) -> bool {
        if cluster.value(tried).is_some_and(|first| may_pass(first, now, delay_ms)) {
            return true;
        }
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = own.young.get(&tried).or_else(|| own.old.get(&tried)).copied();
        if let Some(first) = first.filter(|first| !proto::greylist::is_over(*first, now)) {
            return may_pass(first, now, delay_ms);
        }
        if !has_room() {
            return false;
        }
        if own.young.len() >= OWN_MAX {
            own.old = std::mem::take(&mut own.young);
        }
        own.young.insert(tried, now);
        let known = cluster.value(tried).is_some_and(|first| !proto::greylist::is_over(first, now));
        if !known && own.new.len() < REPORT_TRIES_MAX {
            own.new.insert(tried);
        }
        false
    }

    /// What is to be reported.
    pub(crate) fn take(&self) -> Vec<SubjectKey> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).new).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        reputation::SubjectKey,
        time::UnixMs,
        view::{View, ViewChange},
    };

    use super::Tries;

    const DELAY_MS: u64 = 300_000;

    #[test]
    fn the_second_try_passes_when_it_is_late_enough_and_the_first_is_reported_once() {
        let (tries, view, key) = (Tries::default(), View::empty(), SubjectKey([1; 16]));
        let passes = |at: u64| tries.passes(key, &view.tries, (UnixMs(1_000_000 + at), DELAY_MS), || true);
        assert!(!passes(0) && !passes(1_000) && !passes(DELAY_MS - 1));
        assert_eq!(tries.take(), [key]);
        assert!(passes(DELAY_MS) && tries.take().is_empty());
        let other = SubjectKey([9; 16]);
        let without_room = |at: u64| tries.passes(other, &view.tries, (UnixMs(at), DELAY_MS), || false);
        assert!(!without_room(0) && tries.take().is_empty() && !without_room(DELAY_MS), "it was not remembered");
    }

    #[test]
    fn what_another_site_has_put_off_passes_here() {
        let (tries, key) = (Tries::default(), SubjectKey([2; 16]));
        let first = UnixMs(5_000_000);
        let change = ViewChange { index: 1, tries: vec![(key, Some(first))], ..ViewChange::default() };
        let view = View::empty().after(change);
        assert!(!tries.passes(key, &view.tries, (first.plus_ms(1_000), DELAY_MS), || true));
        assert!(tries.take().is_empty(), "the cluster knows it");
        assert!(tries.passes(key, &view.tries, (first.plus_ms(DELAY_MS), DELAY_MS), || true));
    }
}
