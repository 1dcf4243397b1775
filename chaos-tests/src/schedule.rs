//! What goes wrong, when, where and for how long: all of it from a seed, so that a run can be repeated.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use fastrand::Rng;

/// A leader without a majority refuses after the longest election time-out and a second.
const LEADER_REFUSES: Duration = Duration::from_secs(2);
/// Others wait for an election, also for one that has to be repeated.
const FOLLOWER_REFUSES: Duration = Duration::from_secs(3);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum FaultKind {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// A site's bytes stop in both directions; or its line is down.
    Cut,
    /// Only what a site sends stops, or only what it receives.
    Oneway,
    /// Cut and healed again and again.
    Flap,
    /// The data folder's disk is full.
    Diskfull,
    /// Each fsync takes long.
    Slowdisk,
    /// Each fsync fails.
    Eio,
    /// The wall clock jumps.
    Clock,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Cut => "cut",
            Self::Oneway => "oneway",
            Self::Flap => "flap",
            Self::Diskfull => "diskfull",
            Self::Slowdisk => "slowdisk",
            Self::Eio => "eio",
            Self::Clock => "clock",
        })
    }
}

/// A fault in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// See `FaultKind`.
    Kill,
    /// See `FaultKind`.
    Pause,
    /// Bytes stop and nothing is closed.
    Cut,
    /// The line is down, and TCP finds out by itself.
    LineDown,
    /// One direction stops.
    Deaf {
        /// Whether it is what the site sends that stops, or what it receives.
        sends: bool,
    },
    /// Times for which it is cut and open in turn.
    Flap {
        /// The first one is cut.
        turns: Vec<Duration>,
    },
    /// See `FaultKind`.
    Diskfull,
    /// Each fsync takes this much longer.
    Slowdisk {
        /// At most seconds.
        delay: Duration,
    },
    /// See `FaultKind`.
    Eio,
    /// The wall clock is off by this many seconds.
    Clock {
        /// Forward or back.
        seconds: i64,
    },
}

/// Whom it strikes. Who leads is known only when the time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whoever leads then.
    Leader,
    /// The follower of this number, counted from the leader on.
    Follower(usize),
}

impl Target {
    /// The struck server, when `leader` leads `count` servers.
    #[must_use]
    pub fn server(self, leader: usize, count: usize) -> usize {
        match self {
            Self::Leader => leader,
            Self::Follower(number) => (leader + 1 + number % (count - 1)) % count,
        }
    }
}

/// A part of a run: clients at work, and one fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Counts from 0 in a run.
    pub number: usize,
    /// What goes wrong.
    pub fault: Fault,
    /// Where.
    pub target: Target,
    /// From the clients' start.
    pub after: Duration,
    /// How long.
    pub lasts: Duration,
    /// For all that the clients choose.
    pub seed: u64,
}

impl Fault {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Kill => FaultKind::Kill,
            Self::Pause => FaultKind::Pause,
            Self::Cut | Self::LineDown => FaultKind::Cut,
            Self::Deaf { .. } => FaultKind::Oneway,
            Self::Flap { .. } => FaultKind::Flap,
            Self::Diskfull => FaultKind::Diskfull,
            Self::Slowdisk { .. } => FaultKind::Slowdisk,
            Self::Eio => FaultKind::Eio,
            Self::Clock { .. } => FaultKind::Clock,
        }
    }

    /// Whether its target can reach nobody, or nobody can reach it: then it has no quorum.
    #[must_use]
    pub fn cuts_off(&self) -> bool {
        match self {
            Self::Cut | Self::LineDown | Self::Deaf { .. } => true,
            Self::Kill
            | Self::Pause
            | Self::Flap { .. }
            | Self::Diskfull
            | Self::Slowdisk { .. }
            | Self::Eio
            | Self::Clock { .. } => false,
        }
    }

    /// How long after its start, at the latest, its target says no at once to whatever needs a majority. None where it still may
    /// have a majority, or hears a leader that cannot hear it.
    #[must_use]
    pub fn refuses_after(&self, led: bool) -> Option<Duration> {
        match self {
            Self::Cut | Self::LineDown | Self::Deaf { .. } if led => Some(LEADER_REFUSES),
            Self::Cut | Self::LineDown | Self::Deaf { sends: false } => Some(FOLLOWER_REFUSES),
            Self::Deaf { sends: true }
            | Self::Kill
            | Self::Pause
            | Self::Flap { .. }
            | Self::Diskfull
            | Self::Slowdisk { .. }
            | Self::Eio
            | Self::Clock { .. } => None,
        }
    }

    fn from_seed(kind: FaultKind, rng: &mut Rng, lasts: Duration) -> Self {
        match kind {
            FaultKind::Kill => Self::Kill,
            FaultKind::Pause => Self::Pause,
            FaultKind::Cut if rng.u8(0..3) == 0 => Self::LineDown,
            FaultKind::Cut => Self::Cut,
            FaultKind::Oneway => Self::Deaf { sends: rng.bool() },
            FaultKind::Flap => {
                let mut turns = Vec::new();
                let mut left = lasts;
                while !left.is_zero() {
                    let turn = Duration::from_millis(rng.u64(80..900)).min(left);
                    left -= turn;
                    turns.push(turn);
                }
                Self::Flap { turns }
            }
            FaultKind::Diskfull => Self::Diskfull,
            FaultKind::Slowdisk => Self::Slowdisk { delay: Duration::from_millis(rng.u64(50..2000)) },
            FaultKind::Eio => Self::Eio,
            FaultKind::Clock => {
                let (hour, year) = (3600, 365 * 24 * 3600);
                let far = *rng.choice(&[60, hour, 10 * year]).unwrap_or(&hour);
                Self::Clock { seconds: if rng.bool() { far } else { -far } }
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, fault, target, after, lasts, seed } = self;
        write!(f, "window {number}: after {after:?} {fault:?} at {target:?} for {lasts:?} (clients' seed {seed})")
    }
}

/// Endless: the windows of a run.
#[derive(Clone, Debug)]
pub struct Schedule {
    kinds: Vec<FaultKind>,
    rng: Rng,
    next: usize,
}

impl Schedule {
    /// The windows of this seed, with faults of these kinds; each comes in its turn, in an order that the seed shuffles.
    #[must_use]
    pub fn new(seed: u64, kinds: &[FaultKind]) -> Self {
        Self { kinds: kinds.to_vec(), rng: Rng::with_seed(seed), next: 0 }
    }

    /// Mostly one to three seconds; a pause now and then half a minute.
    fn lasts(&mut self, kind: FaultKind) -> Duration {
        let long = self.rng.u8(0..40);
        let milliseconds = match (kind, long) {
            (FaultKind::Pause, 0) => self.rng.u64(15_000..30_000),
            (_, 0..8) => self.rng.u64(3_000..6_000),
            (_, 8..) => self.rng.u64(1_000..3_000),
        };
        Duration::from_millis(milliseconds)
    }
}

impl Iterator for Schedule {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        let number = self.next;
        self.next += 1;
        let turn = number % self.kinds.len().max(1);
        if turn == 0 {
            self.rng.shuffle(&mut self.kinds);
        }
        let kind = *self.kinds.get(turn)?;
        let lasts = self.lasts(kind);
        let fault = Fault::from_seed(kind, &mut self.rng, lasts);
        let target = if self.rng.u8(0..3) < 2 { Target::Leader } else { Target::Follower(self.rng.usize(0..8)) };
        let after = Duration::from_millis(self.rng.u64(100..900));
        Some(Window { number, fault, target, after, lasts, seed: self.rng.u64(..) })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::{Fault, FaultKind, Schedule, Target, Window};

    const KINDS: &[FaultKind] = &[FaultKind::Kill, FaultKind::Pause, FaultKind::Cut, FaultKind::Flap];

    fn windows(seed: u64) -> Vec<Window> {
        Schedule::new(seed, KINDS).take(80).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_one_another() {
        assert_eq!(windows(7), windows(7));
        assert_ne!(windows(7), windows(8));
    }

    #[test]
    fn each_kind_has_its_turn_and_nothing_lasts_for_ever() {
        let all = windows(1);
        for four in all.chunks(4) {
            assert_eq!(four.iter().map(|window| window.fault.kind()).collect::<BTreeSet<_>>().len(), 4);
        }
        assert!(all.iter().all(|window| window.lasts <= Duration::from_secs(30)));
        let turns = |window: &Window| {
            let Fault::Flap { turns } = &window.fault else { return None };
            Some(turns.iter().sum::<Duration>() == window.lasts)
        };
        assert!(all.iter().filter_map(turns).all(|exact| exact));
    }

    #[test]
    fn a_follower_is_never_the_leader() {
        for leader in 0..5 {
            assert!((0..8).all(|number| Target::Follower(number).server(leader, 5) != leader));
            assert_eq!(Target::Leader.server(leader, 5), leader);
        }
    }
}
