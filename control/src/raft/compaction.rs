//! Keeps the log short in bytes: Raft itself counts entries, and those may be large.

use tokio::sync::watch;

use super::types::Raft;

/// Has a snapshot made whenever the log has grown by more than `bytes_max` since the last time. `held` is what it held when
/// the server started; `appended` counts what has come since. Ends with the log.
pub(super) async fn run(raft: Raft, held: u64, mut appended: watch::Receiver<u64>, bytes_max: u64) {
    let mut at_last = 0;
    loop {
        let grown = |appended: &u64| held.saturating_add(*appended).saturating_sub(at_last) > bytes_max;
        let Ok(now) = appended.wait_for(grown).await.map(|appended| held.saturating_add(*appended)) else { return };
        at_last = now;
        // Raft counts by itself when a snapshot is being made already.
        if let Err(fatal) = raft.trigger().snapshot().await {
            tracing::debug!("no snapshot: {fatal}");
            return;
        }
    }
}
