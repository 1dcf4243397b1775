//! One clamd: whether mail is for it now, which signatures it has, and what it says of a message.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clamav_client::PONG;
use tokio::time::timeout;

use super::{
    ClamdRest,
    nest::nest,
    reply::{Version, read_version},
    wire::{self, ClamdAddress, Failure},
};
use crate::policy::evidence::Virus;

/// How long a look may take, all its questions together.
const LOOK_TIME_MAX: Duration = Duration::from_secs(3);
/// How long it counts that clamd says so when it leaves something out.
const LIMITS_FOR: Duration = Duration::from_secs(3600);

/// One clamd of the pool.
#[derive(Debug)]
pub(super) struct Clamd {
    pub(super) address: ClamdAddress,
    state: Mutex<State>,
    looking: tokio::sync::Mutex<()>,
    scans: AtomicUsize,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// What the last look saw; `None` before the first, and after a failure: it is looked at before it gets mail.
    seen: Option<Seen>,
    /// Survives failures, so that each look need not test what it costs more to test.
    limits: Option<(Version, Instant)>,
    rest: ClamdRest,
    problem: Option<String>,
    looks: u64,
}

#[derive(Clone, Debug)]
struct Seen {
    version: Version,
    at: Instant,
}

/// How a clamd stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) is_resting: bool,
    /// What went wrong last, until it answers again.
    pub(super) problem: Option<String>,
    /// What it said of itself when it was looked at last.
    pub(super) version: Option<Version>,
}

impl Clamd {
    pub(super) fn new(address: ClamdAddress) -> Self {
        Self { address, state: Mutex::default(), looking: tokio::sync::Mutex::default(), scans: AtomicUsize::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> Standing {
        let state = self.state();
        Standing {
            is_resting: state.rest.is_on(),
            problem: state.problem.clone(),
            version: state.seen.as_ref().map(|seen| seen.version.clone()),
        }
    }

    /// Scans under way.
    pub(super) fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }

    /// Whether it should be looked at: its pause is over, or the last look was so long ago.
    pub(super) fn is_due(&self, every: Duration) -> bool {
        let (state, now) = (self.state(), Instant::now());
        if state.rest.is_on() {
            return state.rest.is_over(now);
        }
        state.seen.as_ref().is_none_or(|seen| now.duration_since(seen.at) >= every)
    }

    /// Looks at it unless a look since the last failure has found it well. Who waits for another's look takes what that found.
    ///
    /// # Errors
    /// Why it gets no mail now.
    pub(super) async fn ready(&self) -> Result<Version, String> {
        let before = {
            let state = self.state();
            if let Some(seen) = &state.seen {
                return Ok(seen.version.clone());
            }
            state.looks
        };
        let _alone = self.looking.lock().await;
        let others = {
            let state = self.state();
            (state.looks != before).then(|| match (&state.seen, &state.problem) {
                (Some(seen), _) => Ok(seen.version.clone()),
                (None, problem) => Err(problem.clone().unwrap_or_else(|| "clamd broke off".to_owned())),
            })
        };
        match others {
            Some(found) => found,
            None => self.look().await,
        }
    }

    /// Asks whether it lives (PING), what it is (VERSION) and, now and then or when `also_scan`, whether it scans and says so
    /// when it leaves something out. Ends within `LOOK_TIME_MAX`.
    ///
    /// # Errors
    /// What is wrong; it rests then.
    pub(super) async fn look(&self) -> Result<Version, String> {
        self.look_at(false).await
    }

    /// A look that has it scan something too: no thread of its may be stuck.
    ///
    /// # Errors
    /// What is wrong; it rests then.
    pub(super) async fn look_closely(&self) -> Result<Version, String> {
        self.look_at(true).await
    }

    async fn look_at(&self, also_scan: bool) -> Result<Version, String> {
        let asked = timeout(LOOK_TIME_MAX, self.ask(also_scan)).await;
        let found = asked.unwrap_or_else(|_| Err("clamd did not answer in time".to_owned()));
        let mut state = self.state();
        state.looks += 1;
        match found {
            Ok(version) => {
                if state.rest.is_on() {
                    tracing::info!(clamd = %self.address, "clamd answers again: it is back in service");
                }
                state.rest.ends();
                state.problem = None;
                state.seen = Some(Seen { version: version.clone(), at: Instant::now() });
                Ok(version)
            }
            Err(why) => {
                drop(state);
                self.rests(&why);
                Err(why)
            }
        }
    }

    async fn ask(&self, also_scan: bool) -> Result<Version, String> {
        if wire::ping(&self.address).await? != PONG {
            return Err("clamd answered PING with nonsense".to_owned());
        }
        let version = read_version(&wire::version(&self.address).await?)?;
        let is_known = |(of, at): &(Version, Instant)| *of == version && at.elapsed() < LIMITS_FOR;
        if also_scan || !self.state().limits.as_ref().is_some_and(is_known) {
            match wire::scan(&self.address, b"", nest(), LOOK_TIME_MAX).await {
                Ok(Virus::Unscannable { .. }) => self.state().limits = Some((version.clone(), Instant::now())),
                Ok(Virus::Clean | Virus::Infected { .. } | Virus::Unavailable { .. } | Virus::NotScanned) => {
                    self.state().limits = None;
                    return Err(
                        "clamd says nothing of what it leaves out: clamd.conf must have AlertExceedsMax yes and \
                                ScanArchive yes"
                            .to_owned(),
                    );
                }
                Err(failure) => return Err(failure.why()),
            }
        }
        Ok(version)
    }

    /// It could not be asked, or a look went wrong: no mail for it until a look finds it well.
    pub(super) fn rests(&self, why: &str) {
        let mut state = self.state();
        if !state.rest.is_on() {
            tracing::warn!(clamd = %self.address, why, "clamd rests: it gets no mail until it answers PING");
        }
        state.rest.failed(Instant::now());
        state.seen = None;
        state.problem = Some(why.to_owned());
    }

    /// It broke off while it had a message: that may be the message's fault, so it is looked at before the next one, no more.
    fn is_in_doubt(&self, why: &str) {
        let mut state = self.state();
        state.seen = None;
        state.problem = Some(why.to_owned());
    }

    /// Has it scan some bytes after a head, and puts down what a failure says of clamd itself.
    ///
    /// # Errors
    /// Why there is no answer that counts.
    pub(super) async fn scan(&self, head: &'static [u8], bytes: &Bytes, time_max: Duration) -> Result<Virus, Failure> {
        let _one_more = UnderWay::new(&self.scans);
        let said = wire::scan(&self.address, head, bytes, time_max).await;
        match &said {
            Ok(_) => {}
            Err(Failure::Unreached(why)) => self.rests(why),
            Err(Failure::BrokeOff(why)) => {
                tracing::warn!(clamd = %self.address, %why, "clamd broke off over a message");
                self.is_in_doubt(why);
            }
        }
        said
    }
}

/// Counts a scan for as long as it goes on, however it ends.
struct UnderWay<'c>(&'c AtomicUsize);

impl<'c> UnderWay<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
