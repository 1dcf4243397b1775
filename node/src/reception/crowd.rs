//! How much of something is under way at once: a bound for each key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::rates::Counted;

/// How many there are of each key now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<HashMap<Counted, u32>>>);

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub struct Presence {
    crowd: Crowd,
    key: Counted,
}

impl Crowd {
    /// One more of at most `most`; `None` when there are that many.
    pub(super) fn enter(&self, key: Counted, most: u32) -> Option<Presence> {
        let mut present = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = present.entry(key.clone()).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Presence { crowd: self.clone(), key })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut present = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = present.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                present.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counted, Crowd};

    #[test]
    fn so_many_are_there_at_once_and_who_leaves_makes_room() {
        let (crowd, key) = (Crowd::default(), |last: u8| Counted::Unknown([192, 0, 2, last].into()));
        let (first, second) = (crowd.enter(key(1), 2), crowd.enter(key(1), 2));
        assert!(first.is_some() && second.is_some() && crowd.enter(key(1), 2).is_none());
        assert!(crowd.enter(key(2), 2).is_some(), "each key for itself");
        drop(first);
        assert!(crowd.enter(key(1), 2).is_some());
        drop(second);
        assert!(crowd.0.lock().expect("a lock").is_empty(), "nothing stays of who has gone");
    }
}
