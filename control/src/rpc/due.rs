//! The long poll for held messages that are due.

use std::time::Duration;

use proto::{held::Held, time::UnixMs};
use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::ending;
use crate::raft::Applied;

/// Most records in one answer.
const MAX: u32 = 64;
/// Longest wait, in milliseconds.
const WAIT_MS_MAX: u64 = 30_000;
/// Shortest sleep, so that a wall clock that stands still or disagrees with the state cannot make the loop spin.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// What is due now, and when the next record falls due.
pub type Look = (Vec<Held>, Option<UnixMs>);

/// Waits until something is due: looks again at each applied entry and when the next record falls due.
///
/// # Errors
/// `UNAVAILABLE` when the server ends, and those of `look`.
pub async fn due<F>(
    mut applied: watch::Receiver<Applied>,
    mut stopping: watch::Receiver<bool>,
    clock: impl Fn() -> UnixMs,
    look: impl Fn(UnixMs, usize) -> F,
    max: u32,
    wait_ms: u64,
) -> Result<Vec<Held>, Status>
where
    F: Future<Output = Result<Look, Status>>,
{
    let end = Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
    loop {
        applied.mark_unchanged();
        let now = clock();
        let (found, next) = look(now, max.clamp(1, MAX) as usize).await?;
        if !found.is_empty() || Instant::now() >= end {
            return Ok(found);
        }
        let until = next.map_or(end, |at| {
            let pause = Duration::from_millis(at.since_ms(now).min(WAIT_MS_MAX)).max(PAUSE_MIN);
            end.min(Instant::now() + pause)
        });
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return Err(ending()),
            moved = applied.changed() => moved.map_err(|_| ending())?,
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        future::ready,
        sync::atomic::{AtomicBool, Ordering},
    };

    use proto::{
        held::{Held, HeldId, TransactionId},
        time::UnixMs,
    };
    use tokio::sync::watch;

    use super::due;
    use crate::raft::Applied;

    /// A deferred record, due at once.
    pub(crate) fn record() -> Held {
        serde_json::from_value(serde_json::json!({
            "id": HeldId::fresh(), "transaction": TransactionId::fresh(), "kind": "deferred",
            "status": { "Due": { "released": null } }, "department": null, "from_department": null,
            "reverse_path": "", "recipients": ["anna@interior.gov.test"],
            "body": { "digest": "0".repeat(64), "size_bytes": 1, "servers": ["alpha", "beta"] },
            "verdict": { "disposition": "accept", "score": 0, "tagged": false, "reasons": [], "policy_version": 1 },
            "client": "127.0.0.1", "subject": "", "received_at": 0, "lease": null, "attempts": 0, "next_attempt": 0,
            "last_problem": "",
        }))
        .expect("a record")
    }

    #[tokio::test]
    async fn a_poll_wakes_when_an_entry_makes_something_due() {
        let (applied, watching) = watch::channel(Applied::default());
        let (_stop, stopping) = watch::channel(false);
        let there = AtomicBool::new(false);
        let look = |_, _| ready(Ok((if there.load(Ordering::SeqCst) { vec![record()] } else { Vec::new() }, None)));
        let poll = due(watching, stopping, UnixMs::now, look, 8, 30_000);
        let apply = async {
            there.store(true, Ordering::SeqCst);
            applied.send_replace(Applied { index: 1, ..Applied::default() });
        };
        let (found, ()) = tokio::join!(poll, apply);
        assert_eq!(found.expect("records").len(), 1);
    }

    #[tokio::test]
    async fn a_poll_wakes_when_the_next_record_falls_due() {
        let (_applied, watching) = watch::channel(Applied::default());
        let (_stop, stopping) = watch::channel(false);
        let at = UnixMs::now().plus_ms(60);
        let look = |now, _| ready(Ok(if now >= at { (vec![record()], None) } else { (Vec::new(), Some(at)) }));
        let found = due(watching, stopping, UnixMs::now, look, 8, 30_000).await;
        assert_eq!(found.expect("records").len(), 1);
    }

    #[tokio::test]
    async fn a_poll_ends_empty_after_its_wait_and_with_an_error_when_the_server_ends() {
        let (_applied, watching) = watch::channel(Applied::default());
        let (stop, stopping) = watch::channel(false);
        let nothing = |_, _| ready(Ok((Vec::new(), None)));
        let found = due(watching.clone(), stopping.clone(), UnixMs::now, nothing, 8, 1).await;
        assert!(found.expect("no record").is_empty());
        stop.send_replace(true);
        assert!(due(watching, stopping, UnixMs::now, nothing, 8, 30_000).await.is_err());
    }

    #[tokio::test]
    async fn a_poll_may_not_ask_for_more_than_the_cap_or_for_none() {
        let (_applied, watching) = watch::channel(Applied::default());
        let (_stop, stopping) = watch::channel(false);
        let look = |_, max| ready(Ok(((0..max).map(|_| record()).collect(), None)));
        let count = async |max| {
            let found = due(watching.clone(), stopping.clone(), UnixMs::now, look, max, 0).await;
            found.expect("records").len()
        };
        assert_eq!((count(u32::MAX).await, count(5).await, count(0).await), (64, 5, 1));
    }
}
