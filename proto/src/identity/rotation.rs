//! Takes new certificates, keys, CAs and revocation lists into use while the process runs: looks at its files now and then, and at
//! once on SIGHUP.

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval_at},
};

use super::{Credentials, Reread};
use crate::time::UnixMs;

/// Time from one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A certificate that ends sooner is worth a warning: a tenth of its year is left.
const ENDS_SOON_MS: u64 = 30 * 24 * 3600 * 1000;
/// Looks between two such warnings: a day's.
const LOOKS_A_WARNING: u64 = 2880;

/// Looks at the credentials of a process in a task of its own, which ends when `stopping` becomes true. Needs a tokio runtime.
///
/// # Errors
/// When the system does not let a process listen for SIGHUP.
pub fn keep_fresh(credentials: Credentials, mut stopping: watch::Receiver<bool>) -> std::io::Result<JoinHandle<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        for turn in 0_u64.. {
            if turn.is_multiple_of(LOOKS_A_WARNING) {
                warn_of_end(&credentials);
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                _ = looks.tick() => {}
                Some(()) = hangup.recv() => {}
            }
            look(credentials.clone()).await;
        }
    }))
}

/// Looks once, off the runtime's threads.
async fn look(credentials: Credentials) {
    match tokio::task::spawn_blocking(move || credentials.reread(UnixMs::now())).await {
        Ok(Ok(Reread::Unchanged)) => {}
        Ok(Ok(Reread::Taken { serial, not_after, revoked })) => {
            tracing::info!(serial, %not_after, revoked, "new credentials are in use");
        }
        Ok(Err(problem)) => {
            tracing::warn!(%problem, "the credentials on disk are not usable; the old ones stay in use")
        }
        Err(problem) => tracing::error!(%problem, "look at the credentials"),
    }
}

fn warn_of_end(credentials: &Credentials) {
    let not_after = credentials.leaf().not_after;
    if not_after.since_ms(UnixMs::now()) < ENDS_SOON_MS {
        tracing::warn!(%not_after, "the certificate ends soon: posternctl cluster issue --renew makes a new one");
    }
}
