//! What a node knows of senders: counts of a million subjects, and what operators say.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{Levels, Manual, Repute, SubjectKey};
use crate::{shards::Shards, time::UnixMs};

/// Reputation as a node holds it. Cheap to clone.
#[derive(Clone, Default, PartialEq)]
pub struct Known {
    levels: Shards<Levels>,
    manual: Arc<HashMap<SubjectKey, Manual>>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subjects, manual) = (self.levels.len(), self.manual.len());
        f.debug_struct("Known").field("subjects", &subjects).field("manual", &manual).finish_non_exhaustive()
    }
}

impl Known {
    /// Subjects that are counted.
    #[must_use]
    pub fn subjects(&self) -> usize {
        self.levels.len()
    }

    /// What is known of a subject now.
    #[must_use]
    pub fn repute(&self, key: SubjectKey, now: UnixMs) -> Repute {
        let manual = self.manual.get(&key).filter(|manual| now < manual.until);
        let score = self.levels(key).map_or(0, |levels| levels.score(now));
        Repute { stance: manual.map(|manual| manual.stance), score }
    }

    /// The counts of a subject.
    #[must_use]
    pub fn levels(&self, key: SubjectKey) -> Option<Levels> {
        self.levels.value(key)
    }

    /// Takes changes in; `None` takes a subject out. Of several for one subject the last one counts.
    pub(crate) fn change(&mut self, subjects: Vec<(SubjectKey, Option<Levels>)>) {
        self.levels.change(subjects);
    }

    /// Takes changes of what operators say in.
    pub(crate) fn change_manual(&mut self, entries: Vec<(SubjectKey, Option<Manual>)>) {
        if entries.is_empty() {
            return;
        }
        let manual = Arc::make_mut(&mut self.manual);
        for (key, entry) in entries {
            match entry {
                Some(entry) => manual.insert(key, entry),
                None => manual.remove(&key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Known;
    use crate::{
        reputation::{Manual, Repute, Stance, SubjectKey},
        time::UnixMs,
    };

    #[test]
    fn what_an_operator_says_holds_until_its_end() {
        let mut known = Known::default();
        let key = SubjectKey([9; 16]);
        known.change_manual(vec![(key, Some(Manual { stance: Stance::Block, until: UnixMs(10) }))]);
        assert_eq!(known.repute(key, UnixMs(9)), Repute { stance: Some(Stance::Block), score: 0 });
        assert_eq!(known.repute(key, UnixMs(10)), Repute::default());
        known.change_manual(vec![(key, None)]);
        assert_eq!(known.repute(key, UnixMs(9)), Repute::default());
    }
}
