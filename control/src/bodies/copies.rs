//! Two copies in two sites before a body counts (promise 1), and a damaged or missing one made whole from another.

use std::time::Duration;

use futures::{StreamExt as _, stream::FuturesUnordered};

use super::{
    Bodies, Body, BodyError, Sender,
    peers::{Keeper, Peers},
};

/// When a server has not stored a small copy within this time, the next one is tried beside it.
const NEXT_AFTER: Duration = Duration::from_secs(2);
/// A large copy gets a second more for each of these bytes, so that a slow line is not burdened twice.
const NEXT_AFTER_BYTES: u64 = 4 * 1024 * 1024;

/// Why a body is not in two sites.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Nobody to copy it to.
    #[error("no member of the cluster stands in another site than {site}: a body needs control servers in two sites")]
    OneSite {
        /// Ours.
        site: String,
    },
    /// None took it.
    #[error("no control server in another site has stored the copy: {0}")]
    NoneTook(String),
    /// Our own disk.
    #[error(transparent)]
    Here(#[from] BodyError),
}

/// Why no server gave a body.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The request cannot mean a body.
    #[error(transparent)]
    Asked(BodyError),
    /// Every member was asked and none has it.
    #[error("no control server has this body")]
    Nowhere,
    /// Some could not be asked, or have it damaged; another try may do.
    #[error("no control server can give this body now: {0}")]
    NotNow(String),
}

/// Bodies here and on the other members. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Copies {
    /// This server.
    pub me: Keeper,
    /// Bodies on this disk.
    pub bodies: Bodies,
    /// The way to the others.
    pub peers: Peers,
}

impl Copies {
    /// Makes a body durable here and on a member in another site; returns the names of both.
    ///
    /// # Errors
    /// When one of the two could not be done. A single copy may then be left; no record names it, and a sweep removes it.
    pub async fn store(&self, body: &Body, members: &[Keeper]) -> Result<Vec<String>, CopyError> {
        let turn = body.digest().bytes().map(usize::from).sum();
        let others = candidates(&self.me, members, turn);
        if others.is_empty() {
            return Err(CopyError::OneSite { site: self.me.site.clone() });
        }
        let there = first_to_store(&others, next_after(body.size_bytes()), |keeper| self.peers.put(keeper, body));
        let here = async { self.bodies.put(body).await.map_err(CopyError::Here) };
        let ((), other) = tokio::try_join!(here, there)?;
        Ok(vec![self.me.name.clone(), other])
    }

    /// A body from this server's disk, or, when it is missing or damaged here, from another member; then it is stored
    /// here again.
    ///
    /// # Errors
    /// When no member has it right.
    pub async fn load(&self, digest: &str, size_bytes: u64, members: &[Keeper]) -> Result<Body, LoadError> {
        let mut problems = Vec::new();
        match self.bodies.read(Sender::Node, digest, size_bytes).await {
            Ok(body) => return Ok(body),
            Err(error @ (BodyError::Name | BodyError::TooLarge)) => return Err(LoadError::Asked(error)),
            Err(BodyError::Missing) => {}
            Err(
                problem
                @ (BodyError::Length { .. } | BodyError::Digest | BodyError::BrokenOff(_) | BodyError::Store(_)),
            ) => {
                tracing::error!(digest, %problem, "a body on this disk is damaged; fetching it from another server");
                problems.push(format!("{}: {problem}", self.me.name));
            }
        }
        for keeper in members.iter().filter(|keeper| keeper.name != self.me.name) {
            match self.peers.fetch(keeper, &self.bodies, digest, size_bytes).await {
                Ok(body) => {
                    if let Err(problem) = self.bodies.put(&body).await {
                        tracing::error!(digest, %problem, "a fetched body could not be stored here");
                    }
                    return Ok(body);
                }
                Err(BodyError::Missing) => {}
                Err(problem) => {
                    tracing::warn!(digest, server = keeper.name, %problem, "fetch a body");
                    problems.push(problem.to_string());
                }
            }
        }
        Err(if problems.is_empty() { LoadError::Nowhere } else { LoadError::NotNow(problems.join("; ")) })
    }
}

/// The members that stand in other sites, each once; `turn` says with which one to begin, so that not all servers
/// burden the same one.
#[must_use]
pub fn candidates(me: &Keeper, members: &[Keeper], turn: usize) -> Vec<Keeper> {
    let mut others: Vec<Keeper> =
        members.iter().filter(|keeper| keeper.site != me.site && keeper.name != me.name).cloned().collect();
    if !others.is_empty() {
        let begin = turn % others.len();
        others.rotate_left(begin);
    }
    others
}

fn next_after(size_bytes: u64) -> Duration {
    NEXT_AFTER + Duration::from_secs(size_bytes / NEXT_AFTER_BYTES)
}

/// Tries one server after the other, the next one as soon as the one before fails or is slow; the first success counts.
async fn first_to_store<'s, F: Future<Output = Result<String, String>>>(
    keepers: &'s [Keeper],
    next_after: Duration,
    put: impl Fn(&'s Keeper) -> F,
) -> Result<String, CopyError> {
    let mut waiting = keepers.iter();
    let mut trying = FuturesUnordered::new();
    let mut problems = Vec::new();
    loop {
        let more = waiting.next().map(|keeper| trying.push(put(keeper))).is_some();
        let answer = if more {
            match tokio::time::timeout(next_after, trying.next()).await {
                Ok(answer) => answer,
                Err(_slow) => continue,
            }
        } else {
            trying.next().await
        };
        match answer {
            Some(Ok(name)) => return Ok(name),
            Some(Err(problem)) => problems.push(problem),
            None => return Err(CopyError::NoneTook(problems.join("; "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CopyError, candidates, first_to_store};
    use crate::bodies::peers::Keeper;

    fn keeper(name: &str, site: &str) -> Keeper {
        Keeper { name: name.into(), site: site.into(), address: format!("127.0.0.1:{}", name.len()) }
    }

    fn names(keepers: &[Keeper]) -> Vec<&str> {
        keepers.iter().map(|keeper| keeper.name.as_str()).collect()
    }

    #[test]
    fn only_servers_of_other_sites_may_take_the_second_copy() {
        let all = [keeper("a", "north"), keeper("b", "north"), keeper("c", "south"), keeper("d", "west")];
        assert_eq!(names(&candidates(&all[0], &all, 0)), ["c", "d"]);
        assert_eq!(names(&candidates(&all[0], &all, 1)), ["d", "c"]);
        assert_eq!(names(&candidates(&all[2], &all, 0)), ["a", "b", "d"]);
        assert!(candidates(&all[0], &all[..2], 0).is_empty());
    }

    #[tokio::test]
    async fn the_next_server_is_tried_when_one_refuses_and_beside_one_that_is_silent() {
        let servers = [keeper("refuses", "x"), keeper("silent", "y"), keeper("stores", "z")];
        let put = async |keeper: &Keeper| match keeper.name.as_str() {
            "refuses" => Err("disk full".to_owned()),
            "silent" => std::future::pending().await,
            name => Ok(name.to_owned()),
        };
        assert_eq!(
            first_to_store(&servers, Duration::from_millis(20), put).await.expect("the third stores it"),
            "stores"
        );
    }

    #[tokio::test]
    async fn a_body_that_nobody_takes_is_not_stored_and_all_reasons_are_told() {
        let servers = [keeper("a", "x"), keeper("b", "y")];
        let put = async |keeper: &Keeper| Err(format!("{}: disk full", keeper.name));
        let error = first_to_store(&servers, Duration::from_millis(20), put).await.expect_err("nobody took it");
        assert!(matches!(&error, CopyError::NoneTook(why) if why == "a: disk full; b: disk full"), "{error}");
    }
}
