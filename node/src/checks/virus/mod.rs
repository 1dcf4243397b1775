//! Asks a pool of clamds about a message and its parts. Only the exact words for clean are clean; everything else, silence
//! too, is "unavailable" or "unscannable" with the reason.
//!
//! - Each distinct part is scanned once, and what was said of it is remembered for a while, for the signatures that said it.
//! - A clamd that cannot be reached, or answers a look with nonsense, rests (`rest`); another one is asked.
//! - A clamd that breaks off over a message is looked at before the next one. Bytes that it happened with so often in a row
//!   are not handed to any clamd again (`tries`): they are unscannable, and everybody else's mail goes on.

mod clamd;
#[cfg(test)]
mod fake;
mod memory;
mod nest;
pub mod reply;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use proto::time::UnixMs;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

#[cfg(test)]
pub(crate) use self::fake::clamd;
pub use self::wire::ClamdAddress;
use self::{
    clamd::Clamd,
    memory::{Item, Verdicts, distinct},
    reply::Version,
    wire::Failure,
};
use super::{
    rest::Rest,
    tries::{Digest, Tries},
};
use crate::{limits::Limits, policy::evidence::Virus};

/// Time from one look at a clamd in service to the next.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is seen whether a look is due.
const TURN: Duration = Duration::from_secs(1);
/// Stands before a message for clamd, which takes for mail what begins as mail: a field named `%PDF-1.4` would else make it a
/// document, whose parts nobody decodes. clamav-milter does the same.
const MAIL_HEAD: &[u8] = b"Received: by postern\r\n";
/// A clamd that is not busy scans something small sooner.
const PROMPT: Duration = Duration::from_secs(1);
/// A scan for which less than this part of the time is left is not begun.
const SHARE_MIN: u32 = 5;

/// Between a failure of a clamd and the next try: a second, up to a minute.
type ClamdRest = Rest<1_000, 60_000>;

/// A client of some clamds. Each question is one connection. Cheap to clone; clones share what they know.
#[derive(Clone, Debug)]
pub struct VirusScanner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clamds: Vec<Clamd>,
    /// Whose turn it is among those that are equally busy.
    turn: AtomicUsize,
    verdicts: Verdicts,
    tries: Tries,
    counts: Counts,
    time_max: Duration,
    bytes_max: usize,
    age_max: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    remembered: AtomicU64,
    broke_off: AtomicU64,
    given_up: AtomicU64,
}

/// How one clamd stands, for health and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// As the settings write its address.
    pub clamd: String,
    /// Whether it gets mail. One that was not looked at yet would.
    pub in_service: bool,
    /// What went wrong last, until it answers again.
    pub problem: Option<String>,
    /// Number of the official database that it has loaded, where it tells one.
    pub database: Option<u64>,
    /// The database's age in seconds, to within clamd's time zone; `None` where nobody can say.
    pub database_age_s: Option<u64>,
}

impl VirusScanner {
    /// Without an address every scan is unavailable.
    #[must_use]
    pub fn new(addresses: Vec<ClamdAddress>, limits: &Limits) -> Self {
        Self(Arc::new(Inner {
            clamds: addresses.into_iter().map(Clamd::new).collect(),
            turn: AtomicUsize::new(0),
            verdicts: Verdicts::new(limits),
            tries: Tries::new(limits.virus_tries_max),
            counts: Counts::default(),
            // A scan that the end of all checks cuts off could not be counted.
            time_max: limits.virus_time_max.min(limits.checks_time_max / 10 * 9),
            bytes_max: limits.virus_bytes_max,
            age_max: limits.virus_signatures_age_max,
        }))
    }

    /// Scans a message: each distinct one of `parts`, as they are when they are decoded, and then the message as it came.
    /// All of that ends within `Limits::virus_time_max`.
    pub async fn scan(&self, message: &Bytes, parts: &[&Bytes]) -> Virus {
        let inner = &*self.0;
        if inner.clamds.is_empty() {
            return unavailable("no clamd is configured");
        }
        let deadline = Instant::now() + inner.time_max;
        let sizes = parts.iter().map(|part| part.len()).chain([MAIL_HEAD.len() + message.len()]);
        if sizes.max().is_some_and(|size| size > inner.bytes_max) {
            return unscannable(format!("the message is larger than {} bytes", inner.bytes_max));
        }
        // Parts come first: they come again in other messages, and so does what a clamd breaks off over.
        let bare: &[u8] = b"";
        let items = parts.iter().map(|part| (bare, *part));
        let all = distinct(items.chain(std::iter::once((MAIL_HEAD, message)))).await;
        if all.iter().any(|(digest, _)| inner.tries.are_used_up(*digest)) {
            return inner.given_up();
        }
        let whole = all.last().map(|(digest, _)| *digest);
        let suspected = whole.is_some_and(|whole| inner.tries.of(whole) > 0);
        let (mut found, mut asked) = (Virus::Clean, false);
        for (digest, item) in &all {
            let suspected = inner.tries.of(*digest) > 0 || suspected && !asked;
            let said = match inner.scan_one(*digest, *item, suspected, deadline).await {
                Some(said) => said,
                // clamd answered, and the message is too much for the time that one has: another try would end alike.
                None if asked => return inner.took_too_long(whole).await,
                None => return out_of_time(),
            };
            asked = true;
            match said {
                Virus::Clean => {}
                // The rest may hold malware: that is the stronger word.
                over @ Virus::Unscannable { .. } if !inner.tries.are_used_up(*digest) => found = over,
                stop @ (Virus::Infected { .. }
                | Virus::Unavailable { .. }
                | Virus::Unscannable { .. }
                | Virus::NotScanned) => return stop,
            }
        }
        found
    }

    /// Looks at each clamd now and then until `stop` is true or its sender gone, and says in the log what is wrong with them.
    pub async fn keep_watch(self, mut stop: watch::Receiver<bool>) {
        let (mut told, mut turn) = (BTreeSet::new(), interval(TURN));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turn.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.look().await;
            let warnings: BTreeSet<String> = self.warnings().into_iter().collect();
            for warning in warnings.difference(&told) {
                tracing::warn!("{warning}");
            }
            told = warnings;
        }
    }

    /// Looks at those clamds that it is time for. Ends within a few seconds.
    async fn look(&self) {
        let due = self.0.clamds.iter().filter(|clamd| clamd.is_due(LOOK_EVERY));
        join_all(due.map(Clamd::look)).await;
    }

    /// Whether any clamd gets mail.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.clamds.iter().any(|clamd| !clamd.standing().is_resting)
    }

    /// How each clamd stands.
    #[must_use]
    pub fn standing(&self) -> Vec<Standing> {
        let now = UnixMs::now();
        let one = |clamd: &Clamd| {
            let standing = clamd.standing();
            let database = standing.version.and_then(|version| version.database);
            Standing {
                clamd: clamd.address.to_string(),
                in_service: !standing.is_resting,
                problem: standing.problem,
                database: database.map(|database| database.number),
                database_age_s: database.and_then(|database| database.age_ms(now)).map(|age_ms| age_ms / 1000),
            }
        };
        self.0.clamds.iter().map(one).collect()
    }

    /// What people should look after, a line each: a clamd that rests, signatures that are old or of unknown age.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let of = |(clamd, standing): (&Clamd, Standing)| {
            let name = &standing.clamd;
            if !standing.in_service {
                let why = standing.problem.unwrap_or_default();
                return Some(format!("clamd {name} rests: {why}"));
            }
            // Nothing is known before the first look.
            clamd.standing().version?;
            match standing.database_age_s {
                None => Some(format!("clamd {name} does not tell the age of its signatures")),
                Some(age_s) if age_s > self.0.age_max.as_secs() => Some(format!(
                    "the signatures of clamd {name} are {} days old: see that freshclam runs",
                    age_s / 86_400
                )),
                Some(_) => None,
            }
        };
        self.0.clamds.iter().zip(self.standing()).filter_map(of).collect()
    }

    /// Since the start: scans that clamd answered (`asked`), answers from memory (`remembered`), scans that a clamd broke off
    /// (`broke_off`), messages that no clamd is asked about any more (`given_up`).
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let Counts { asked, remembered, broke_off, given_up } = &self.0.counts;
        [("asked", asked), ("remembered", remembered), ("broke_off", broke_off), ("given_up", given_up)]
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

impl Inner {
    /// Those in service first, the least busy of them before the others, and in turn those that are as busy; then those that
    /// rest, which matter only when no other answers.
    fn order(&self) -> Vec<&Clamd> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.clamds.len().max(1);
        let (before, from) = self.clamds.split_at_checked(turn).unwrap_or_default();
        let mut order: Vec<&Clamd> = from.iter().chain(before).collect();
        order.sort_by_cached_key(|clamd| (clamd.standing().is_resting, clamd.scans()));
        order
    }

    /// The version of the newest signatures in service; what older ones said does not count beside them.
    fn newest(&self) -> Option<Version> {
        let standing = self.clamds.iter().map(Clamd::standing).filter(|standing| !standing.is_resting);
        let versions = standing.filter_map(|standing| standing.version);
        versions.filter(|version| version.database.is_some()).max_by_key(|version| version.database.map(|of| of.number))
    }

    /// `None` when what was scanned before has left too little time to begin.
    async fn scan_one(
        &self,
        digest: Digest,
        (head, bytes): Item<'_>,
        suspected: bool,
        deadline: Instant,
    ) -> Option<Virus> {
        let known = self.newest().and_then(|version| self.verdicts.of(digest, &version.line));
        if let Some(known) = known {
            count(&self.counts.remembered);
            return Some(known);
        }
        let mut why = "no clamd was asked in time".to_owned();
        for clamd in self.order() {
            // What a clamd has broken off over is handed only to one that scans well right now: when that one breaks off too,
            // it was not because of its load.
            let look = async { if suspected { clamd.look_closely().await } else { clamd.ready().await } };
            let version = match timeout_at(deadline, look).await {
                Ok(Ok(version)) => version,
                Ok(Err(problem)) => {
                    why = problem;
                    continue;
                }
                Err(_) => break,
            };
            // What parts before it have left may be too little for a sound clamd: that is not its fault.
            let left = deadline.saturating_duration_since(Instant::now());
            if left < self.time_max / SHARE_MIN {
                return None;
            }
            match clamd.scan(head, bytes, left).await {
                Ok(found) => {
                    count(&self.counts.asked);
                    self.tries.forget(digest);
                    // A clamd that does not name its database may have another one at any time.
                    if version.database.is_some() {
                        self.verdicts.keep(digest, &version.line, &found);
                    }
                    return Some(found);
                }
                Err(Failure::Unreached(problem)) => why = problem,
                Err(Failure::BrokeOff(problem)) => {
                    count(&self.counts.broke_off);
                    why = problem;
                    let tries = self.tries.failed(digest);
                    if self.tries.are_used_up(digest) {
                        return Some(self.given_up());
                    }
                    // The first time it is probably not the message's fault. After that no other clamd is put at risk now.
                    if tries > 1 || Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        Some(unavailable(&why))
    }

    /// The message as a whole took all its time, though clamd answered each question. Where it has no time for something small
    /// either it was busy with others, and that is not the message's fault.
    async fn took_too_long(&self, whole: Option<Digest>) -> Virus {
        let Some(whole) = whole else { return out_of_time() };
        let Some(clamd) = self.order().first().copied() else { return out_of_time() };
        if !matches!(timeout(PROMPT, clamd.look_closely()).await, Ok(Ok(_))) {
            return out_of_time();
        }
        self.tries.failed(whole);
        if self.tries.are_used_up(whole) { self.given_up() } else { out_of_time() }
    }

    fn given_up(&self) -> Virus {
        count(&self.counts.given_up);
        unscannable("each clamd that was asked about it broke off, or it took all the time".to_owned())
    }
}

fn count(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn out_of_time() -> Virus {
    unavailable("the time for the message was up before all of it was scanned")
}

fn unavailable(why: &str) -> Virus {
    Virus::Unavailable { why: why.to_owned() }
}

fn unscannable(why: String) -> Virus {
    Virus::Unscannable { why }
}
