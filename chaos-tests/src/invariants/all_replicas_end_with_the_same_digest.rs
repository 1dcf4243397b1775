//! Same log, same state: when all servers have applied everything and are stopped, the states on their disks are equal, key by key.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use control::state::store::StateStore;

use super::Violation;

/// Log index and digest of a state that no server has open, read key by key: what is kept beside the position may be right
/// where a key is not.
fn state(data: &Path) -> anyhow::Result<(u64, String)> {
    let store =
        StateStore::open(&data.join("state")).with_context(|| format!("open the state in {}", data.display()))?;
    let index = store.position().context("read the position")?.map_or(0, |position| position.index);
    Ok((index, store.measure().context("read all keys")?.to_string()))
}

/// Compares the states in these data folders. An index may differ by the entries of an election among those who were stopped
/// last, which change no key. Reads everything: call it off the runtime's threads.
///
/// # Errors
/// When one cannot be read.
pub fn check(data: &[PathBuf]) -> anyhow::Result<Vec<Violation>> {
    let states = data.iter().map(|data| state(data)).collect::<anyhow::Result<Vec<_>>>()?;
    let equal = states.windows(2).all(|two| two[0].1 == two[1].1);
    let seen = format!("index and digest of each: {states:?}");
    Ok(if equal { Vec::new() } else { vec![Violation { invariant: "all replicas end with the same digest", seen }] })
}

#[cfg(test)]
mod tests {
    use control::state::{
        State,
        store::{Position, StateStore},
    };
    use proto::{mutation::Batch, time::UnixMs};

    use super::check;

    #[test]
    fn a_state_that_differs_in_one_key_is_found() {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        // An empty batch moves nothing but log time.
        let write = |at: usize, index: u64, now: u64| {
            let store = StateStore::open(&folders[at].path().join("state")).expect("a store");
            let (writes, _) = State::apply(&store, index, &Batch { at: UnixMs(now), mutations: Vec::new() });
            store.commit(&writes, &Position { index, ..Position::default() }).expect("written");
        };
        let paths = folders.each_ref().map(|folder| folder.path().to_owned());
        write(0, 3, 100);
        write(1, 4, 100);
        assert_eq!(check(&paths).expect("readable"), []);
        write(1, 4, 101);
        assert_eq!(check(&paths).expect("readable").len(), 1);
    }
}
