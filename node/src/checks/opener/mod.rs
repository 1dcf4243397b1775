//! Opens attachments in processes of their own, so that whatever a message does to a reader of archives and documents costs that
//! message and not the node.
//!
//! - An opener is this program, started anew: it shuts itself off (`confine`), is given the parts of one message at a time, and
//!   says what is in them (`inside`). It has no file, no network, no key, and nothing of other messages.
//! - What it says is untrusted too (`frame`).
//! - One that is late, dies or talks nonsense is killed and replaced, and its message counts as one that cannot be read. That no
//!   opener is free or can be started says nothing of the message: it is put off. So is, twice, what an opener was late with, or
//!   was ended over by others: that may be chance.
//! - One client has a quarter of the openers at most, and one site of clients half of them (`shares`).

mod confine;
mod frame;
mod inside;
mod process;
mod shares;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

pub use self::{
    confine::{ConfineError, Confined, confine},
    inside::run,
    process::{ARGUMENT, Cause, Program},
};
use self::{
    frame::{QUESTION_BYTES_MAX, Question, framed},
    process::{MESSAGE_TIME_MAX, Opener},
    shares::Shares,
};
use super::{
    attachments::{Analysis, Unwanted},
    rest::Rest,
    tries::{Digest, Tries},
};
use crate::{limits::Limits, message::Message};

/// Between the failure of one opener and the start of the next: a row of bad messages must not keep the machine busy with
/// starting processes. Two seconds at most, or a few bad messages a minute would keep attachments from everybody.
type StartRest = Rest<50, 2_000>;

/// From one try to start an opener to the next, while it cannot be done.
const TRIED_EVERY: Duration = Duration::from_secs(5);

/// Failures over the same bytes in a row that are more than chance.
const TRIES_MAX: u32 = 3;

/// Why the attachments of a message were not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// An opener failed over it, and would again.
    BrokeOff(Cause),
    /// None was free in time, or none could be started, or one failed in a way that may be chance: in words for the operator.
    NotNow(String),
}

/// Places among those of a client and of its site, and one among all.
type Place<'o> = ([OwnedSemaphorePermit; 2], SemaphorePermit<'o>);

/// The openers of a node. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Openers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: Program,
    /// A tenth of what all checks of a message may take together.
    tenth: Duration,
    /// For one message.
    time_max: Duration,
    openers_max: usize,
    places: Semaphore,
    of_clients: Shares,
    of_sites: Shares,
    tries: Tries,
    state: Mutex<State>,
    opened: AtomicU64,
    not_now: AtomicU64,
    broke_off: [AtomicU64; Cause::ALL.len()],
}

#[derive(Debug, Default)]
struct State {
    /// The last one that worked comes first: the others may be forgotten by the processor's caches.
    idle: Vec<Opener>,
    rest: StartRest,
    /// Why the last start failed.
    problem: Option<String>,
    without_landlock: bool,
}

impl Openers {
    /// No process is started before it is needed. All that is asked ends within nine tenths of `Limits::checks_time_max`.
    #[must_use]
    pub fn new(program: Program, limits: &Limits) -> Self {
        Self(Arc::new(Inner {
            program,
            tenth: limits.checks_time_max / 10,
            time_max: limits.opener_time_max.min(limits.checks_time_max * 4 / 10).min(MESSAGE_TIME_MAX),
            openers_max: limits.openers_max,
            places: Semaphore::new(limits.openers_max),
            of_clients: Shares::new(limits.openers_max, 4),
            of_sites: Shares::new(limits.openers_max, 2),
            tries: Tries::new(TRIES_MAX),
            state: Mutex::default(),
            opened: AtomicU64::new(0),
            not_now: AtomicU64::new(0),
            broke_off: Default::default(),
        }))
    }

    /// Starts one, which then waits for mail.
    ///
    /// # Errors
    /// Why openers cannot be started here.
    pub async fn prove(&self) -> Result<(), String> {
        let opener = self.start().await?;
        self.back(opener);
        Ok(())
    }

    /// Tries again every few seconds while none can be started, also without mail: a balancer sends none while it is told so.
    pub async fn keep_watch(self, mut stop: watch::Receiver<bool>) {
        let mut turn = interval(TRIED_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turn.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if !self.can_start() {
                // Why not stands among the warnings.
                drop(self.prove().await);
            }
        }
    }

    /// What [`attachments::analyse`](super::attachments::analyse) says of the message, found out in an opener. `client` are
    /// its net and that of its site, which may have many of them.
    ///
    /// # Errors
    /// When it could not be found out.
    pub async fn analyse(
        &self,
        message: &Message,
        unwanted: Unwanted,
        client: [IpNet; 2],
    ) -> Result<Analysis, Unopened> {
        let opened = self.open(message, unwanted, client).await;
        let count = match &opened {
            Ok(_) => &self.0.opened,
            Err(Unopened::NotNow(why)) => {
                tracing::warn!(why, "attachments could not be opened now: the message is left with its sender (451)");
                &self.0.not_now
            }
            Err(Unopened::BrokeOff(cause)) => {
                tracing::warn!(cause = cause.as_str(), "an opener failed over the attachments of a message");
                let at = Cause::ALL.iter().position(|other| other == cause).unwrap_or_default();
                &self.0.broke_off[at]
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.remembered(message, opened).await
    }

    /// What may be chance is so until the same message has met it so often in a row.
    async fn remembered(&self, message: &Message, opened: Result<Analysis, Unopened>) -> Result<Analysis, Unopened> {
        match opened {
            Err(Unopened::BrokeOff(cause)) if cause.may_be_chance() => {
                let digest = digest(message).await;
                self.0.tries.failed(digest);
                let is_used_up = self.0.tries.are_used_up(digest);
                let why = || format!("an opener failed over it ({}), which may be chance", cause.as_str());
                Err(if is_used_up { Unopened::BrokeOff(cause) } else { Unopened::NotNow(why()) })
            }
            Ok(analysis) => {
                if !self.0.tries.are_none() {
                    self.0.tries.forget(digest(message).await);
                }
                Ok(analysis)
            }
            Err(why @ (Unopened::BrokeOff(_) | Unopened::NotNow(_))) => Err(why),
        }
    }

    async fn open(&self, message: &Message, unwanted: Unwanted, client: [IpNet; 2]) -> Result<Analysis, Unopened> {
        let (place, mut opener) = self.free(client).await.map_err(Unopened::NotNow)?;
        let question = Question { parts: message.parts.clone(), unwanted };
        let framed = framed(&question).filter(|framed| framed.len() <= QUESTION_BYTES_MAX);
        let Some(framed) = framed else {
            self.back(opener);
            return Err(Unopened::BrokeOff(Cause::TooLong));
        };
        // Whoever asked may go away meanwhile: then the opener is dropped, and with that killed.
        let answer = opener.ask(&framed, (question.parts.len(), &question.unwanted), self.0.time_max).await;
        match &answer {
            Ok(_) | Err(Cause::Panic) if !opener.is_worn() => self.back(opener),
            Ok(_) | Err(Cause::Panic) => opener.end().await,
            Err(_) => {
                opener.end().await;
                self.state().rest.failed(now());
            }
        }
        drop(place);
        answer.map_err(Unopened::BrokeOff)
    }

    /// A place, and an opener for it: within five tenths of the time.
    async fn free(&self, client: [IpNet; 2]) -> Result<(Place<'_>, Opener), String> {
        let entering = async {
            // First its own: what waits for that keeps nobody else from a place.
            let of_client = self.0.of_clients.enter(client[0]).await?;
            let of_site = self.0.of_sites.enter(client[1]).await?;
            Ok::<_, AcquireError>(([of_client, of_site], self.0.places.acquire().await?))
        };
        let place = match timeout(self.0.tenth * 2, entering).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) | Err(_) => return Err("none was free in time".to_owned()),
        };
        while let Some(mut opener) = self.idle() {
            if opener.is_alive() {
                return Ok((place, opener));
            }
        }
        let rest = self.state().rest.left(now());
        if rest > self.0.tenth {
            return Err("the last ones failed, and the next is not started yet".to_owned());
        }
        sleep(rest).await;
        Ok((place, self.start().await?))
    }

    fn idle(&self) -> Option<Opener> {
        self.state().idle.pop()
    }

    fn back(&self, opener: Opener) {
        let mut state = self.state();
        state.rest.ends();
        if state.idle.len() < self.0.openers_max {
            state.idle.push(opener);
        }
    }

    async fn start(&self) -> Result<Opener, String> {
        let started = match timeout(self.0.tenth * 2, Opener::start(&self.0.program)).await {
            Ok(started) => started,
            Err(_) => Err("it did not say that it is ready in time".to_owned()),
        };
        let mut state = self.state();
        state.problem = started.as_ref().err().cloned();
        match &started {
            Ok(opener) => state.without_landlock = !opener.landlock,
            Err(_) => state.rest.failed(now()),
        }
        started
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether openers can be started, as far as is known.
    #[must_use]
    pub fn can_start(&self) -> bool {
        self.state().problem.is_none()
    }

    /// What people should look after, a line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let state = self.state();
        let landlock = "openers are held by seccomp alone: this kernel has no Landlock".to_owned();
        let problem = state.problem.as_ref().map(|why| format!("no opener can be started: {why}"));
        state.without_landlock.then_some(landlock).into_iter().chain(problem).collect()
    }

    /// Messages whose attachments were opened, put off, or cost an opener, by what became of them.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let Inner { opened, not_now, broke_off, .. } = &*self.0;
        let words = ["opened", "not_now"].into_iter().chain(Cause::ALL.map(Cause::as_str));
        let counts = [opened, not_now].into_iter().chain(broke_off);
        words.zip(counts.map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

/// The message's SHA-256; of a long one it takes some milliseconds a megabyte.
async fn digest(message: &Message) -> Digest {
    let bytes = message.bytes.clone();
    let hashed = tokio::task::spawn_blocking(move || Sha256::digest(&bytes).into()).await;
    hashed.unwrap_or_default()
}

/// For tests without attachments: a program that is not there.
#[cfg(test)]
pub(crate) fn no_openers(limits: &Limits) -> Openers {
    Openers::new(Program { path: "/nowhere/postern-node".into(), arguments: Vec::new() }, limits)
}

fn now() -> Instant {
    Instant::now()
}
