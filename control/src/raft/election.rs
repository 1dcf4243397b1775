//! Stands for election as soon as the silent leader's lease is over. openraft adds its election time-out to the lease and looks
//! at both only each 225 ms; a server that has lost an election to a longer log waits two seconds more. The lease itself is kept:
//! nobody votes for another within it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{ELECTION_MS_MAX, contact::Contact, types::Raft};

/// What is waited beyond the lease, in milliseconds, drawn anew for each silence: two that stand at once may both lose. At
/// least as long as heartbeats to two servers may be apart, because the other's lease must be over too, and as whom a leader
/// hands over to needs to be elected: that leader is silent on purpose.
const BEYOND_LEASE_MS: std::ops::Range<u64> = 350..750;
/// Between two looks while there is nothing to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Stands once for each silence of a leader that this server follows; all else is left to openraft. Ends with Raft.
pub(super) async fn run(raft: Raft, contact: Arc<Contact>) {
    let metrics = raft.metrics();
    let mut stood: Option<Instant> = None;
    while metrics.has_changed().is_ok() {
        let Some(since) = contact.silent_since().filter(|since| Some(*since) != stood) else {
            sleep(LOOK_EVERY).await;
            continue;
        };
        let patience = ELECTION_MS_MAX + fastrand::u64(BEYOND_LEASE_MS);
        sleep_until(since + Duration::from_millis(patience)).await;
        if contact.silent_since() != Some(since) {
            continue;
        }
        // A leader that is deposed later hears the next one before it stands again.
        stood = Some(since);
        let follows = {
            let metrics = metrics.borrow();
            metrics.current_leader.is_some_and(|leader| leader != metrics.id)
        };
        if follows {
            tracing::info!(patience, "the leader is silent: standing for election");
            // Fails when Raft has stopped.
            raft.trigger().elect().await.ok();
        }
    }
}
