//! Places: so many in all and so many for each caller, so that no caller takes those of the others. Whoever finds none is
//! refused at once; nobody waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Places of one kind. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Admission {
    max: usize,
    each_max: usize,
    taken: Arc<Mutex<Taken>>,
}

/// `each` has only callers that hold a place, so it is bounded as `all` is.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<String, usize>,
}

/// No place is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// For this caller.
    #[error("this caller has too much under way here: try again later or ask another control server")]
    Each,
    /// For anybody.
    #[error("too much is under way here: try again later or ask another control server")]
    All,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    caller: String,
    taken: Arc<Mutex<Taken>>,
}

impl Admission {
    /// `max` places, of which one caller may hold `each_max`.
    #[must_use]
    pub fn new(max: usize, each_max: usize) -> Self {
        Self { max, each_max, taken: Arc::default() }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `Full`.
    pub fn enter(&self, caller: &str) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.each.get(caller).is_some_and(|places| *places >= self.each_max) {
            return Err(Full::Each);
        }
        if taken.all >= self.max {
            return Err(Full::All);
        }
        taken.all += 1;
        *taken.each.entry(caller.to_owned()).or_default() += 1;
        Ok(Place { caller: caller.to_owned(), taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(places) = taken.each.get_mut(&self.caller) {
            *places -= 1;
            if *places == 0 {
                taken.each.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Admission, Full};

    #[test]
    fn one_caller_cannot_take_the_places_of_the_others() {
        let admission = Admission::new(3, 2);
        let mut greedy: Vec<_> = (0..2).map(|_| admission.enter("n1").expect("a place")).collect();
        assert_eq!(admission.enter("n1").expect_err("no third"), Full::Each);
        let other = admission.enter("n2").expect("a place");
        assert_eq!(admission.enter("n3").expect_err("none left"), Full::All);
        greedy.pop();
        let third = admission.enter("n3").expect("the place that was left");
        drop((greedy, other, third));
        assert!(admission.taken.lock().expect("a lock").each.is_empty(), "who has left is forgotten");
    }
}
