//! Keeps who was put off for the first time, and when: so a second try passes at any site.
//!
//! A try is known by a hash alone. Beyond the cap, and after their time, the oldest go; all of it by log time.

use proto::{
    greylist::{REPORT_TRIES_MAX, is_over},
    mutation::{Outcome, Refused},
    reputation::SubjectKey,
    time::UnixMs,
};

use super::{
    Step,
    keys::{Keys, Kind, behind, key, read, stored},
    policy::full,
};

/// Tries that are over are taken out so many at a time, with each report.
const FORGOTTEN_MAX: usize = 4_000;
/// Beyond the cap, one of so many goes beside those that are too many.
const EVICTED_PART: u64 = 1_000;

fn try_place(tried: SubjectKey) -> Vec<u8> {
    key(Kind::Try, &[&tried.0])
}

/// In the order of the first tries.
fn first_place(first: UnixMs, tried: SubjectKey) -> Vec<u8> {
    key(Kind::ByTry, &[&first.0.to_be_bytes(), &tried.0])
}

/// A try and its first time, out of a pair of the state.
pub(super) fn first_of(key: &[u8], value: &[u8]) -> Option<(SubjectKey, UnixMs)> {
    Some((SubjectKey(*key.last_chunk()?), stored("a first try", value)))
}

/// The first time and the try at the end of a key.
fn place_of(key: &[u8]) -> Option<(UnixMs, SubjectKey)> {
    let first = u64::from_be_bytes(*key.get(1..)?.first_chunk()?);
    Some((UnixMs(first), SubjectKey(*key.last_chunk()?)))
}

impl<K: Keys> Step<'_, K> {
    pub(super) fn put_off(&mut self, tries: &[SubjectKey]) -> Result<Outcome, Refused> {
        full("tries of a report", tries.len(), REPORT_TRIES_MAX)?;
        let now = self.meta.now;
        let number = key(Kind::Tried, &[]);
        let mut known: u64 = read(&self.keys, "the number of first tries", &number).unwrap_or_default();
        for tried in tries {
            let place = try_place(*tried);
            let first: Option<UnixMs> = read(&self.keys, "a first try", &place);
            // Two nodes may report the same try: the first one counts.
            if first.is_some_and(|first| !is_over(first, now)) {
                continue;
            }
            match first {
                Some(first) => self.keys.remove(first_place(first, *tried)),
                None => known += 1,
            }
            self.keys.put(place, &now);
            self.keys.put_bytes(first_place(now, *tried), Vec::new());
            self.moved.tries.insert(*tried, Some(now));
        }
        known = known.saturating_sub(self.forget_tries(known));
        self.keys.put(number, &known);
        Ok(Outcome::Done)
    }

    /// Takes out what is over, and the oldest beyond the cap; how many.
    fn forget_tries(&mut self, known: u64) -> u64 {
        let cap = self.caps.tries;
        let over = known.checked_sub(cap).filter(|over| *over > 0).map_or(0, |over| over + cap / EVICTED_PART);
        let over = usize::try_from(over).unwrap_or(usize::MAX);
        let all = key(Kind::ByTry, &[]);
        let now = self.meta.now;
        let to = behind(&all);
        let oldest = self.keys.range(&all, &to).filter_map(|(key, _)| place_of(&key)).enumerate();
        let gone: Vec<_> = oldest
            .take_while(|(number, (first, _))| *number < over || (*number < FORGOTTEN_MAX && is_over(*first, now)))
            .map(|(_, place)| place)
            .collect();
        for (first, tried) in &gone {
            self.keys.remove(try_place(*tried));
            self.keys.remove(first_place(*first, *tried));
            self.moved.tries.insert(*tried, None);
        }
        u64::try_from(gone.len()).unwrap_or(u64::MAX)
    }
}
