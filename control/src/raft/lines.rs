//! Keeps the line for what is short to each other server open: the first vote or entry after an election is not to wait until
//! TCP and TLS have gone back and forth between two sites.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use openraft::RaftMetrics;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    RaftCall, Server,
    leader::{Answer, Ask},
    network::Peers,
};

/// Time between two questions to each server; in between HTTP/2 keeps the line alive.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Asks each other member something small, again and again; ends with Raft.
pub(super) async fn keep_open(peers: Arc<Peers>, metrics: watch::Receiver<RaftMetrics<u64, Server>>) {
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
            // Any server answers this, at once. Who does not is asked again.
            let question = Ask::DigestAt(0);
            drop(peers.ask::<_, Answer>((*id, server), RaftCall::Forward, &question, ANSWER_WITHIN).await);
        });
        join_all(asked).await;
    }
}
