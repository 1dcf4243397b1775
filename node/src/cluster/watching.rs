//! Follows the view: one stream at a time, from one server after the other, never back. A view is decoded, built and taken
//! down beside the runtime's threads; the mail path sees the swap of one pointer.

use std::{sync::Arc, time::Duration};

use proto::{
    codec,
    reputation::SUBJECTS_MAX,
    view::{View, ViewChange},
    wire::edge::{ViewUpdate, WatchRequest},
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{Server, pause};

/// Most subjects that a view may have, its parts still being of different moments.
const VIEW_SUBJECTS_MAX: usize = 2 * SUBJECTS_MAX as usize;
/// Most departments; the state holds ten thousand.
const VIEW_TENANTS_MAX: usize = 20_000;

/// Why a stream was left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("no update for {0:?}")]
    Quiet(Duration),
    #[error("it ended the stream")]
    Ended,
    #[error("it stands at index {theirs}, behind our {ours}")]
    Behind { theirs: u64, ours: u64 },
    #[error(transparent)]
    Nonsense(#[from] codec::DecodeError),
    #[error("a change came before the first whole view")]
    NotWhole,
    #[error("its view is larger than any that a control server keeps")]
    TooLarge,
    #[error("build the view: {0}")]
    Build(#[from] tokio::task::JoinError),
}

impl From<tonic::Status> for Left {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Where views go, and those that went.
struct Views {
    view: watch::Sender<Arc<View>>,
    confirmed: watch::Sender<Option<Instant>>,
    /// Whether a whole view has come.
    known: bool,
    /// A view whose last part has not come; not to be used.
    pending: Option<View>,
    /// Views that transactions may still use. Who drops the last handle pays for taking it down, and that shall not be a
    /// transaction.
    retired: Vec<Arc<View>>,
}

impl Views {
    /// Takes an update in; a part is kept until the last one has come.
    async fn take(&mut self, update: ViewUpdate) -> Result<(), Left> {
        let current = Arc::clone(&self.view.borrow());
        if update.index < current.index {
            return Err(Left::Behind { theirs: update.index, ours: current.index });
        }
        if !update.change.is_empty() {
            let (known, pending) = (self.known, self.pending.take());
            let (next, more) = spawn_blocking(move || next(&current, known, pending, &update.change)).await??;
            if more {
                self.pending = Some(next);
            } else {
                self.publish(next);
            }
        }
        // A server that has lost its quorum may go on with what it has, but the view grows old meanwhile.
        if update.confirmed && self.known && self.pending.is_none() {
            self.confirmed.send_replace(Some(Instant::now()));
        }
        self.clear();
        Ok(())
    }

    fn publish(&mut self, next: View) {
        let (index, policy_version, rules) = (next.index, next.policy_version, Arc::clone(&next.rules));
        let old = self.view.send_replace(Arc::new(next));
        if !self.known || old.policy_version != policy_version {
            tracing::info!(index, policy_version, "a new view is in force");
            if let Some(problem) = rules.warning() {
                tracing::warn!(%problem, "not all rules of the policy are in force at this node: update it, or change them");
            }
        }
        self.known = true;
        self.retired.push(old);
    }

    /// Takes down the views that nobody uses any more.
    fn clear(&mut self) {
        let unused: Vec<_> = self.retired.extract_if(.., |view| Arc::strong_count(view) == 1).collect();
        if !unused.is_empty() {
            spawn_blocking(move || drop(unused));
        }
    }

    /// Ends a stream: half a view is no view.
    fn abandon(&mut self) {
        self.retired.extend(self.pending.take().map(Arc::new));
        self.clear();
    }
}

/// Keeps `view` and `confirmed` up to date until nobody looks at the view any more.
pub(super) async fn follow(
    servers: Arc<[Server]>,
    request: WatchRequest,
    view: watch::Sender<Arc<View>>,
    confirmed: watch::Sender<Option<Instant>>,
    quiet_max: Duration,
) {
    let closing = view.clone();
    let mut views = Views { view, confirmed, known: false, pending: None, retired: Vec::new() };
    let mut misses: u32 = 0;
    for server in servers.iter().cycle() {
        let mut updates: u64 = 0;
        let left = tokio::select! {
            () = closing.closed() => return,
            left = stream(server, request.clone(), &mut views, quiet_max, &mut updates) => left,
        };
        views.abandon();
        tracing::warn!(server = server.name, updates, reason = %left, "the watch of a control server ended; trying the next");
        // A round over all servers costs one step of back-off; a server that did serve costs none.
        misses = if updates > 0 { 0 } else { misses.saturating_add(1) };
        let round = misses / u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        tokio::select! {
            () = closing.closed() => return,
            () = tokio::time::sleep(pause(round)) => {}
        }
    }
}

async fn stream(
    server: &Server,
    request: WatchRequest,
    views: &mut Views,
    quiet_max: Duration,
    updates: &mut u64,
) -> Left {
    // Without a view that was whole once, everything is wanted.
    let from_index = if views.known { views.view.borrow().index } else { 0 };
    let mut client = match server.client() {
        Ok(client) => client,
        Err(status) => return status.into(),
    };
    let mut stream = match timeout(quiet_max, client.watch(WatchRequest { from_index, ..request })).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status.into(),
        Err(_) => return Left::Quiet(quiet_max),
    };
    loop {
        let update = match timeout(quiet_max, stream.message()).await {
            Ok(Ok(Some(update))) => update,
            Ok(Ok(None)) => return Left::Ended,
            Ok(Err(status)) => return status.into(),
            Err(_) => return Left::Quiet(quiet_max),
        };
        if let Err(left) = views.take(update).await {
            return left;
        }
        *updates += 1;
    }
}

/// What a change, or a part of one, makes of the view, and whether more parts must come before it may be used.
fn next(current: &View, known: bool, pending: Option<View>, change: &[u8]) -> Result<(View, bool), Left> {
    let change: ViewChange = codec::decode("view change", change)?;
    if !known && pending.is_none() && !change.whole {
        return Err(Left::NotWhole);
    }
    let mut next = pending.unwrap_or_else(|| current.clone());
    if change.index < next.index {
        return Err(Left::Behind { theirs: change.index, ours: next.index });
    }
    let more = change.more;
    next.change(change);
    if next.reputation.subjects() > VIEW_SUBJECTS_MAX || next.tenant_count() > VIEW_TENANTS_MAX {
        return Err(Left::TooLarge);
    }
    Ok((next, more))
}

#[cfg(test)]
mod tests {
    use proto::{
        codec,
        reputation::{Levels, SubjectKey},
        view::{StateSettings, View, ViewChange},
    };

    use super::{Left, next};

    fn change(index: u64, whole: bool, more: bool) -> ViewChange {
        let settings = whole.then(StateSettings::default);
        ViewChange { index, policy_version: index, whole, more, settings, ..ViewChange::default() }
    }

    fn bytes(index: u64, whole: bool) -> Vec<u8> {
        codec::encode(&change(index, whole, false))
    }

    #[test]
    fn the_view_takes_a_whole_one_first_and_then_only_newer_ones() {
        let empty = View::empty();
        assert!(matches!(next(&empty, false, None, &bytes(4, false)), Err(Left::NotWhole)));
        let (first, more) = next(&empty, false, None, &bytes(4, true)).expect("a view");
        assert_eq!((first.index, more), (4, false));
        assert!(matches!(next(&first, true, None, &bytes(3, true)), Err(Left::Behind { theirs: 3, ours: 4 })));
        assert_eq!(next(&first, true, None, &bytes(6, false)).expect("a view").0.index, 6);
    }

    #[test]
    fn parts_add_up_and_the_view_before_them_stays_as_it_was() {
        let key = |n: u8| SubjectKey([n; 16]);
        let part = |index, whole, more, n: u8| {
            let subjects = vec![(key(n), Some(Levels { good: 1, bad: 1 }))];
            codec::encode(&ViewChange { subjects, ..change(index, whole, more) })
        };
        let (current, _) = next(&View::empty(), false, None, &part(4, true, false, 1)).expect("a view");
        let (half, more) = next(&current, true, None, &part(5, true, true, 2)).expect("a part");
        assert!(more && half.reputation.subjects() == 1);
        let (all, more) = next(&current, true, Some(half), &part(6, false, false, 3)).expect("the last part");
        assert!(!more);
        let known = |view: &View| [1, 2, 3].map(|n| view.reputation.levels(key(n)).is_some());
        assert_eq!((known(&all), known(&current)), ([false, true, true], [true, false, false]));
    }

    #[test]
    fn a_change_that_cannot_be_read_ends_the_stream() {
        assert!(matches!(next(&View::empty(), false, None, b"garbage"), Err(Left::Nonsense(_))));
    }
}
