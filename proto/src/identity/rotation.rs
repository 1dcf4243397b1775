//! Takes new certificates, keys, CAs and revocation lists into use while the process runs: looks at its files now and then, and at
//! once on SIGHUP.

use std::{fmt, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval_at},
};

use super::{Credentials, IdentityError, Reread};
use crate::time::UnixMs;

/// Time from one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A certificate that ends sooner is worth a warning: a tenth of its year is left.
const ENDS_SOON_MS: u64 = 30 * 24 * 3600 * 1000;
/// Looks between two such warnings: a day's.
const LOOKS_A_WARNING: u64 = 2880;

/// A certificate with what belongs to it, as it is in use; cheap to clone, and each clone sees what another one has read again.
pub trait Renewable: Clone + Send + Sync + 'static {
    /// What is wrong with the files.
    type Problem: fmt::Display + Send + 'static;

    /// For the log: what it is.
    fn what(&self) -> &'static str;

    /// For the log: how people make a new one.
    fn renewed_by(&self) -> &'static str;

    /// Last second of its validity.
    fn not_after(&self) -> UnixMs;

    /// Looks at the files again and takes them if all is well; otherwise the old ones stay in use. Reads files.
    ///
    /// # Errors
    /// What is wrong with them; for the same contents only the first time.
    fn reread(&self, now: UnixMs) -> Result<Reread, Self::Problem>;
}

impl Renewable for Credentials {
    type Problem = IdentityError;

    fn what(&self) -> &'static str {
        "the credentials"
    }

    fn renewed_by(&self) -> &'static str {
        "posternctl cluster issue --renew makes a new one"
    }

    fn not_after(&self) -> UnixMs {
        self.leaf().not_after
    }

    fn reread(&self, now: UnixMs) -> Result<Reread, IdentityError> {
        Self::reread(self, now)
    }
}

/// Looks at the files in a task of its own, which ends when `stopping` becomes true. Needs a tokio runtime.
///
/// # Errors
/// When the system does not let a process listen for SIGHUP.
pub fn keep_fresh(it: impl Renewable, mut stopping: watch::Receiver<bool>) -> std::io::Result<JoinHandle<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        for turn in 0_u64.. {
            if turn.is_multiple_of(LOOKS_A_WARNING) {
                warn_of_end(&it, UnixMs::now());
            }
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                _ = looks.tick() => {}
                Some(()) = hangup.recv() => {}
            }
            look(it.clone()).await;
        }
    }))
}

/// Looks once, off the runtime's threads.
async fn look(it: impl Renewable) {
    let what = it.what();
    match tokio::task::spawn_blocking(move || it.reread(UnixMs::now())).await {
        Ok(Ok(Reread::Unchanged)) => {}
        Ok(Ok(Reread::Taken { serial, not_after, revoked })) => {
            tracing::info!(what, serial, %not_after, revoked, "new files are in use");
        }
        Ok(Err(problem)) => {
            tracing::error!(what, %problem, "the files on disk are not usable; the old ones stay in use");
        }
        Err(problem) => tracing::error!(what, %problem, "look at the files"),
    }
}

fn warn_of_end(it: &impl Renewable, now: UnixMs) {
    let (what, not_after, renewed_by) = (it.what(), it.not_after(), it.renewed_by());
    if not_after < now {
        tracing::error!(what, %not_after, renewed_by, "the certificate has ended");
    } else if not_after.since_ms(now) < ENDS_SOON_MS {
        tracing::warn!(what, %not_after, renewed_by, "the certificate ends soon");
    }
}
