//! Repairs bodies: each server looks, slowly, at the bodies that it must have, and fetches what is missing or damaged from
//! another one. At its start, once a day, after a restore, and whenever the membership has changed.
//!
//! The sweep deletes only what no record needs, and this looks only at what a record needs: they cannot be at odds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::{held::BodyRef, time::UnixMs};
use tokio::{sync::watch, task::JoinError};

use crate::{
    bodies::{
        copies::Copies,
        duty::keepers_of,
        keep::{BodyHealth, Kept},
        peers::Keeper,
    },
    raft::Group,
};

/// From the end of a round to the next one when all is well.
const ROUND_EVERY: Duration = Duration::from_secs(24 * 3600);
/// The same when something could not be repaired.
const AGAIN_AFTER: Duration = Duration::from_secs(300);
/// Time between two looks at the membership.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How much is read and checked in a second, in bytes: mail comes first.
const BYTES_A_SECOND: u64 = 32 * 1024 * 1024;
/// Missing bodies that are named in a round; the others are counted.
const NAMED_MAX: u64 = 20;
/// Bodies that are read out of the state at once.
const PAGE: usize = 200;

/// The health of the bodies here, for whoever asks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BodyHealth>>);

impl Health {
    /// As of now.
    #[must_use]
    pub fn now(&self) -> BodyHealth {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut BodyHealth)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Makes rounds until the server ends.
pub async fn run(copies: Copies, group: Group, health: Health, mut stopping: watch::Receiver<bool>) {
    let ended = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
    let rounds = async {
        loop {
            let members = keepers(&group);
            // A server that has been away must not judge by an old state.
            let up_to_date = group.linearize().await.is_ok() && group.state().restoring().is_none();
            if up_to_date && !members.is_empty() {
                let found = round(&copies, &group, &health).await;
                // What was not looked at to its end is not well: the last round stays the one that counts, and grows old.
                let Ok(found) = found.inspect_err(|error| tracing::error!(%error, "look at the bodies")) else {
                    wait(&group, &members, AGAIN_AFTER).await;
                    continue;
                };
                let lacking = found.lacking;
                if lacking > 0 {
                    tracing::error!(
                        lacking,
                        nowhere = found.nowhere,
                        "bodies of held messages are missing on this server"
                    );
                }
                health.change(|health| *health = BodyHealth { repaired: health.repaired, ..found });
                wait(&group, &members, if lacking > 0 { AGAIN_AFTER } else { ROUND_EVERY }).await;
            } else {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = rounds => {}
    }
}

fn keepers(group: &Group) -> Vec<Keeper> {
    group.status().members.into_values().map(Keeper::from).collect()
}

/// Waits this long, or until the membership has changed or a restore has begun.
async fn wait(group: &Group, members: &[Keeper], how_long: Duration) {
    let changed = async {
        while keepers(group) == members && group.state().restoring().is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // Either is a reason to look again.
    drop(tokio::time::timeout(how_long, changed).await);
}

/// Looks at everything once.
async fn round(copies: &Copies, group: &Group, health: &Health) -> Result<BodyHealth, JoinError> {
    let mut found = BodyHealth::default();
    let mut after = String::new();
    loop {
        let (reading, from) = (group.clone(), after.clone());
        let page = tokio::task::spawn_blocking(move || reading.state().bodies_after(&from, PAGE)).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.digest);
        let members = keepers(group);
        for body in page {
            look(copies, group, &members, &body, &mut found, health).await;
        }
    }
    found.round_at = UnixMs::now();
    Ok(found)
}

async fn look(
    copies: &Copies,
    group: &Group,
    members: &[Keeper],
    body: &BodyRef,
    found: &mut BodyHealth,
    health: &Health,
) {
    let keepers = keepers_of(body, members);
    if !keepers.iter().any(|keeper| keeper.name == copies.me.name) {
        return;
    }
    found.kept += 1;
    if keepers.iter().all(|keeper| keeper.site == copies.me.site) {
        found.one_site += 1;
    }
    match copies.keep(&body.digest, body.size_bytes, members).await {
        Kept::Whole => {}
        Kept::Repaired => health.change(|health| health.repaired += 1),
        // Its record may have ended meanwhile.
        Kept::Lacking { nowhere, why } if group.state().needs_body(&body.digest) => {
            if found.lacking < NAMED_MAX {
                tracing::error!(
                    digest = body.digest,
                    why,
                    "a body is missing on this server and cannot be repaired now"
                );
            }
            found.lacking += 1;
            found.nowhere += u64::from(nowhere);
        }
        Kept::Lacking { .. } => {}
    }
    tokio::time::sleep(Duration::from_millis(body.size_bytes.saturating_mul(1_000) / BYTES_A_SECOND)).await;
}
