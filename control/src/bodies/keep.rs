//! Makes sure that this server has a body that it must have, whole.

use proto::time::UnixMs;
use serde::{Deserialize, Serialize};

use super::{BodyError, Sender, copies::Copies, peers::Keeper};

/// What a look at a body on this disk came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is there and right.
    Whole,
    /// It was missing or damaged, and is there again.
    Repaired,
    /// It is not there or damaged, and cannot be repaired now.
    Lacking {
        /// All other members answered, and none of them has it.
        nowhere: bool,
        /// Why, in words.
        why: String,
    },
}

/// What the rounds of the repair have found here. A later version may add fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BodyHealth {
    /// When the last round ended, by this server's clock; zero before the first.
    pub round_at: UnixMs,
    /// Bodies that this server must have, and that the last round looked at.
    pub kept: u64,
    /// Bodies repaired since the start.
    pub repaired: u64,
    /// Bodies of the last round that this server should have and has not, or has damaged.
    pub lacking: u64,
    /// Of these: bodies that no member has.
    pub nowhere: u64,
    /// Bodies of the last round that must stand in two sites, where the members stand in one.
    pub one_site: u64,
}

impl Copies {
    /// Reads a body here, from end to end, and fetches it from another member when it is missing or damaged.
    pub async fn keep(&self, digest: &str, size_bytes: u64, members: &[Keeper]) -> Kept {
        let problem = match self.bodies.read(Sender::Peer, digest, size_bytes).await {
            Ok(_) => return Kept::Whole,
            Err(problem) => problem,
        };
        let mut nowhere = true;
        let mut why = vec![format!("{}: {problem}", self.me.name)];
        for keeper in members.iter().filter(|keeper| keeper.name != self.me.name) {
            match self.peers.fetch(keeper, &self.bodies, digest, size_bytes).await {
                Ok(body) => match self.bodies.put(&body).await {
                    Ok(()) => {
                        tracing::warn!(digest, %problem, from = keeper.name, "a body on this disk is repaired");
                        return Kept::Repaired;
                    }
                    Err(error) => return Kept::Lacking { nowhere: false, why: error.to_string() },
                },
                Err(problem) => {
                    nowhere &= matches!(problem, BodyError::Missing);
                    why.push(format!("{}: {problem}", keeper.name));
                }
            }
        }
        Kept::Lacking { nowhere, why: why.join("; ") }
    }
}
