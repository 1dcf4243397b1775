//! The watch of a node: what it lacks of the view first, then each change, and a beat in between while this server is in
//! touch with its quorum. Driven by the applied index; a stream that nobody reads does nothing and holds no view, only how
//! far its node has come: each part is read when it is wanted.

use std::{fmt, sync::Arc, time::Duration};

use futures::{Stream, future::BoxFuture, stream};
use proto::{codec, view::ViewChange, wire::edge::ViewUpdate};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};
use tonic::Status;

use super::ending;
use crate::{raft::Applied, state::feed::Cursor};

/// Time from one empty update to the next.
const BEAT: Duration = Duration::from_secs(1);
/// How long a node that has seen more than this server waits for it to catch up, before it should ask another one.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Shortest time between two changes that are not of policy: what hundreds of nodes report each second goes out together.
const PACE: Duration = Duration::from_millis(200);
/// How long the quorum's answer holds for what is read after it.
const TOUCH_HOLDS: Duration = Duration::from_secs(1);

/// A part of the view, and where its reader stands then.
pub type Part = (ViewChange, Cursor);

/// Where the views come from.
#[derive(Clone)]
pub struct Feed {
    /// Moves with each applied entry.
    pub applied: watch::Receiver<Applied>,
    /// Becomes true when the server ends.
    pub stopping: watch::Receiver<bool>,
    /// The next part for a reader, as of now.
    pub part: Arc<dyn Fn(Cursor) -> BoxFuture<'static, Result<Part, Status>> + Send + Sync>,
    /// Whether a view that is read after the answer is known to be the quorum's.
    pub in_touch: Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("applied", &self.applied).finish_non_exhaustive()
    }
}

/// The updates for a node that stands at `from_index`. The stream ends with the server; who drops it ends it at once,
/// since no task stands behind it.
pub fn updates(feed: Feed, from_index: u64) -> impl Stream<Item = Result<ViewUpdate, Status>> + Send {
    let watch = Watch {
        feed,
        from_index,
        cursor: Cursor::from_index(from_index),
        index: 0,
        policy_version: 0,
        begun: false,
        more: false,
        touched: None,
        sent: Instant::now(),
        beat: None,
    };
    stream::unfold(Some(watch), async |watch| {
        let mut watch = watch?;
        match watch.next().await {
            Ok(update) => Some((Ok(update), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

struct Watch {
    feed: Feed,
    from_index: u64,
    cursor: Cursor,
    /// What the node's view stands at, after the last change that was sent to its end.
    index: u64,
    policy_version: u64,
    /// Whether the node has got anything.
    begun: bool,
    /// Whether the node waits for more parts.
    more: bool,
    /// When the quorum was asked, and answered; until it is told to the node.
    touched: Option<Instant>,
    /// When the last change was sent to its end.
    sent: Instant,
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
        if !self.begun {
            self.catch_up().await?;
            self.touch().await;
            self.begun = true;
            return self.part().await;
        }
        loop {
            if self.more {
                return self.part().await;
            }
            let applied = *self.feed.applied.borrow_and_update();
            let behind = self.is_behind(&applied);
            let due = if applied.policy_version == self.policy_version { self.sent + PACE } else { self.sent };
            if behind && due <= Instant::now() {
                // Without a question to the quorum: the next beat confirms it.
                return self.part().await;
            }
            let beat = self.beat.get_or_insert_with(|| {
                let mut beat = interval_at(Instant::now() + BEAT, BEAT);
                beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                beat
            });
            tokio::select! {
                moved = self.feed.applied.changed() => moved.map_err(|_| ending())?,
                () = sleep_until(due), if behind => {}
                _ = beat.tick() => if self.touch().await {
                    let applied = *self.feed.applied.borrow();
                    // A change that came with the quorum's answer goes first, and is confirmed by it.
                    if self.is_behind(&applied) {
                        return self.part().await;
                    }
                    let index = applied.index.max(self.index);
                    return Ok(ViewUpdate { index, change: Vec::new(), confirmed: self.is_confirmed() });
                },
            }
        }
    }

    fn is_behind(&self, applied: &Applied) -> bool {
        applied.view_index > self.index
    }

    /// Waits until this server is not behind the node.
    async fn catch_up(&mut self) -> Result<(), Status> {
        let from_index = self.from_index;
        let reached = self.feed.applied.wait_for(|applied| applied.index >= from_index);
        match tokio::time::timeout(CATCH_UP, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ending()),
            Err(_) => Err(Status::unavailable("this control server is behind; ask another one")),
        }
    }

    /// Asks the quorum; what is committed after the question need not be in the answer.
    async fn touch(&mut self) -> bool {
        let asked = Instant::now();
        let answered = (self.feed.in_touch)().await;
        self.touched = answered.then_some(asked);
        answered
    }

    /// Whether the quorum has answered just now, before what is about to be sent was read. Once for each answer.
    fn is_confirmed(&mut self) -> bool {
        self.touched.take().is_some_and(|asked| asked.elapsed() < TOUCH_HOLDS)
    }

    async fn part(&mut self) -> Result<ViewUpdate, Status> {
        let (change, cursor) = (self.feed.part)(self.cursor.clone()).await?;
        self.cursor = cursor;
        let was_more = std::mem::replace(&mut self.more, change.more);
        let index = change.index;
        if change.more {
            return Ok(ViewUpdate { index, change: codec::encode(&change), confirmed: false });
        }
        (self.index, self.policy_version, self.sent) = (index, change.policy_version, Instant::now());
        // The last part must be seen by a node that waits for it, though nothing be in it.
        let nothing = change.is_empty() && !was_more;
        let change = if nothing { Vec::new() } else { codec::encode(&change) };
        Ok(ViewUpdate { index, change, confirmed: self.is_confirmed() })
    }
}

#[cfg(test)]
mod tests;
