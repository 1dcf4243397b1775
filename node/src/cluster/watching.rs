//! Follows the view: one stream at a time, from one server after the other, never back.

use std::{sync::Arc, time::Duration};

use proto::{
    codec,
    view::{View, ViewChange},
    wire::edge::{ViewUpdate, WatchRequest},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{Server, pause};

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
}

impl From<tonic::Status> for Left {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
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
    let mut misses: u32 = 0;
    let mut known = false;
    for server in servers.iter().cycle() {
        let mut updates: u64 = 0;
        let left = tokio::select! {
            () = view.closed() => return,
            left = stream(server, request.clone(), &view, &confirmed, quiet_max, &mut known, &mut updates) => left,
        };
        tracing::warn!(server = server.name, updates, reason = %left, "the watch of a control server ended; trying the next");
        // A round over all servers costs one step of back-off; a server that did serve costs none.
        misses = if updates > 0 { 0 } else { misses.saturating_add(1) };
        let round = misses / u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        tokio::select! {
            () = view.closed() => return,
            () = tokio::time::sleep(pause(round)) => {}
        }
    }
}

async fn stream(
    server: &Server,
    request: WatchRequest,
    view: &watch::Sender<Arc<View>>,
    confirmed: &watch::Sender<Option<Instant>>,
    quiet_max: Duration,
    known: &mut bool,
    updates: &mut u64,
) -> Left {
    let from_index = view.borrow().index;
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
        // A statement of its own: the borrow is a lock that `send_replace` needs.
        let next = next_view(&view.borrow(), *known, &update);
        match next {
            Ok(next) => {
                if let Some(next) = next {
                    tracing::info!(index = next.index, policy_version = next.policy_version, "a new view is in force");
                    view.send_replace(Arc::new(next));
                    *known = true;
                }
                // A server that has lost its quorum may go on with what it has, but the view grows old meanwhile.
                if update.confirmed && *known {
                    confirmed.send_replace(Some(Instant::now()));
                }
            }
            Err(left) => return left,
        }
        *updates += 1;
    }
}

/// What an update makes of the view: a new one, or nothing new. `known` says whether a whole view came before.
fn next_view(view: &View, known: bool, update: &ViewUpdate) -> Result<Option<View>, Left> {
    if update.index < view.index {
        return Err(Left::Behind { theirs: update.index, ours: view.index });
    }
    if update.change.is_empty() {
        return Ok(None);
    }
    let change: ViewChange = codec::decode("view change", &update.change)?;
    if !known && !change.whole {
        return Err(Left::NotWhole);
    }
    if change.index < view.index {
        return Err(Left::Behind { theirs: change.index, ours: view.index });
    }
    // The whole view once more, as each new stream begins: same log, same state.
    if known && change.whole && change.index == view.index && change.policy_version == view.policy_version {
        return Ok(None);
    }
    Ok(Some(view.after(change)))
}

#[cfg(test)]
mod tests {
    use proto::{
        codec,
        view::{StateSettings, View, ViewChange},
        wire::edge::ViewUpdate,
    };

    use super::{Left, next_view};

    fn update(index: u64, whole: bool) -> ViewUpdate {
        let settings = whole.then(StateSettings::default);
        let change = ViewChange {
            index,
            policy_version: index,
            whole,
            settings,
            departments: Vec::new(),
            ..ViewChange::default()
        };
        ViewUpdate { index, change: codec::encode(&change), confirmed: true }
    }

    #[test]
    fn the_view_takes_a_whole_one_first_and_then_only_newer_ones() {
        let empty = View::empty();
        assert!(matches!(next_view(&empty, false, &update(4, false)), Err(Left::NotWhole)));
        let first = next_view(&empty, false, &update(4, true)).expect("a view").expect("a new one");
        assert_eq!(first.index, 4);
        assert!(matches!(next_view(&first, true, &update(3, true)), Err(Left::Behind { theirs: 3, ours: 4 })));
        assert!(next_view(&first, true, &update(4, true)).expect("the same").is_none());
        assert!(next_view(&first, true, &ViewUpdate { index: 9, ..ViewUpdate::default() }).expect("empty").is_none());
        assert_eq!(next_view(&first, true, &update(6, false)).expect("a view").expect("a new one").index, 6);
    }

    #[test]
    fn a_change_that_cannot_be_read_ends_the_stream() {
        let garbage = ViewUpdate { index: 9, change: b"garbage".to_vec(), confirmed: true };
        assert!(matches!(next_view(&View::empty(), false, &garbage), Err(Left::Nonsense(_))));
    }
}
