//! Asks each other server what time it is, again and again. That also keeps the line for what is short open: the first vote or
//! entry after an election is not to wait until TCP and TLS have gone back and forth between two sites.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
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

/// Time between two questions to each server; in between HTTP/2 keeps the line alive.
const ASK_EVERY: Duration = Duration::from_secs(2);
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
        let asked = others.iter().map(async |(id, server)| {
            let asked = Instant::now();
            // Any server answers this, at once. Who does not is asked again.
            let answer = peers.ask((*id, server), RaftCall::Forward, &Ask::Clock, ANSWER_WITHIN).await;
            if let Ok(Answer::Clock(theirs)) = answer {
                clocks.heard(*id, theirs, asked);
            }
        });
        join_all(asked).await;
    }
}
