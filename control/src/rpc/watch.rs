//! The watch of a node: the whole view first, then each change, and a beat in between while this server is in touch with
//! its quorum. Driven by the applied index; a stream that nobody reads does nothing and holds one view.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures::{Stream, future::BoxFuture, stream};
use proto::{codec, department::Department, view::ViewChange, wire::edge::ViewUpdate};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tonic::Status;

use super::ending;
use crate::raft::Applied;

/// Time from one empty update to the next.
const BEAT: Duration = Duration::from_secs(1);
/// How long a node that has seen more than this server waits for it to catch up, before it should ask another one.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Where the views come from.
#[derive(Clone)]
pub struct Feed {
    /// Moves with each applied entry.
    pub applied: watch::Receiver<Applied>,
    /// Becomes true when the server ends.
    pub stopping: watch::Receiver<bool>,
    /// The whole view as of now.
    pub view: Arc<dyn Fn() -> BoxFuture<'static, Result<ViewChange, Status>> + Send + Sync>,
    /// Whether a view that is read after the answer is known to be the quorum's.
    pub in_touch: Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// What leads from one whole view to another: to apply it to the old one gives the new one.
#[must_use]
pub fn between(old: &ViewChange, new: &ViewChange) -> ViewChange {
    let before: BTreeMap<_, &Department> = old.departments.iter().map(|one| (&one.id, one)).collect();
    let after: BTreeMap<_, &Department> = new.departments.iter().map(|one| (&one.id, one)).collect();
    ViewChange {
        index: new.index,
        policy_version: new.policy_version,
        whole: false,
        settings: if old.settings == new.settings { None } else { new.settings.clone() },
        departments: new.departments.iter().filter(|one| before.get(&one.id) != Some(one)).cloned().collect(),
        drains: new.drains,
        drained: if old.drained == new.drained { None } else { new.drained.clone() },
        removed: before.keys().filter(|id| !after.contains_key(*id)).map(|id| (*id).clone()).collect(),
    }
}

/// The updates for a node that stands at `from_index`. The stream ends with the server; who drops it ends it at once,
/// since no task stands behind it.
pub fn updates(feed: Feed, from_index: u64) -> impl Stream<Item = Result<ViewUpdate, Status>> + Send {
    stream::unfold(Some(Watch { feed, from_index, sent: None, beat: None }), async |watch| {
        let mut watch = watch?;
        match watch.next().await {
            Ok(update) => Some((Ok(update), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

/// Whether the view has changed since this one was sent.
fn moves(applied: &Applied, sent: &ViewChange) -> bool {
    applied.policy_version != sent.policy_version || applied.drains != sent.drains
}

struct Watch {
    feed: Feed,
    from_index: u64,
    sent: Option<ViewChange>,
    beat: Option<tokio::time::Interval>,
}

impl Watch {
    async fn next(&mut self) -> Result<ViewUpdate, Status> {
        let mut stopping = self.feed.stopping.clone();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => Err(ending()),
            update = self.update() => update,
        }
    }

    async fn update(&mut self) -> Result<ViewUpdate, Status> {
        let Some(sent) = self.sent.take() else { return self.first().await };
        let beat = self.beat.get_or_insert_with(|| {
            let mut beat = interval_at(Instant::now() + BEAT, BEAT);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat
        });
        loop {
            let applied = *self.feed.applied.borrow_and_update();
            // Only a policy and a drained node change the view; held messages and the like move no more than the index.
            if moves(&applied, &sent) {
                let now = (self.feed.view)().await?;
                if now.index > sent.index {
                    // At once and without a question to the quorum: the next beat confirms it.
                    let change = codec::encode(&between(&sent, &now));
                    let update = ViewUpdate { index: now.index, change, confirmed: false };
                    self.sent = Some(now);
                    return Ok(update);
                }
            }
            tokio::select! {
                moved = self.feed.applied.changed() => moved.map_err(|_| ending())?,
                _ = beat.tick() => if (self.feed.in_touch)().await {
                    let applied = *self.feed.applied.borrow();
                    // A change that came with the quorum's answer goes first: what was sent before is not confirmed.
                    if !moves(&applied, &sent) {
                        let index = applied.index.max(sent.index);
                        self.sent = Some(sent);
                        return Ok(ViewUpdate { index, change: Vec::new(), confirmed: true });
                    }
                },
            }
        }
    }

    async fn first(&mut self) -> Result<ViewUpdate, Status> {
        let from_index = self.from_index;
        let reached = self.feed.applied.wait_for(|applied| applied.index >= from_index);
        match tokio::time::timeout(CATCH_UP, reached).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(ending()),
            Err(_) => return Err(Status::unavailable("this control server is behind; ask another one")),
        }
        let confirmed = (self.feed.in_touch)().await;
        let mut view = (self.feed.view)().await?;
        view.whole = true;
        let update = ViewUpdate { index: view.index, change: codec::encode(&view), confirmed };
        self.sent = Some(view);
        Ok(update)
    }
}

#[cfg(test)]
mod tests;
