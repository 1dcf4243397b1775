//! Asks each other server what time it is, again and again. That also keeps the line for what is short open: the first vote or
//! entry after an election is not to wait until TCP and TLS have gone back and forth between two sites.

use std::{sync::Arc, time::Duration};

use openraft::RaftMetrics;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    RaftCall, Server,
    clocks::Clocks,
    leader::{Answer, Ask},
    network::Peers,
};

/// Time between two questions to each server.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Asks each other member; ends with Raft.
pub(super) async fn keep_open(
    peers: Arc<Peers>,
    clocks: Arc<Clocks>,
    metrics: watch::Receiver<RaftMetrics<u64, Server>>,
) {
    let mut turn = interval(ASK_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        if metrics.has_changed().is_err() {
            return;
        }
        let others: Vec<(u64, Server)> = {
            let metrics = metrics.borrow();
            let all = metrics.membership_config.nodes().map(|(id, server)| (*id, server.clone()));
            all.filter(|(id, _)| *id != metrics.id).collect()
        };
        for (id, server) in others {
            let (peers, clocks) = (Arc::clone(&peers), Arc::clone(&clocks));
            // Nobody waits for one that is down; at most a few questions to it are under way.
            tokio::spawn(async move {
                let asked = Instant::now();
                // Any server answers this, at once. Who does not is asked again.
                let answer = peers.ask((id, &server), RaftCall::Forward, &Ask::Clock, ANSWER_WITHIN).await;
                if let Ok(Answer::Clock(theirs)) = answer {
                    clocks.heard(id, theirs, asked);
                }
            });
        }
    }
}
