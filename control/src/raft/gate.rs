//! The start-up gate: a pure judgement over what was found on disk. A server whose log or state is less than it has
//! promised must not vote or acknowledge again; it says why, and what the operator does next.

use super::{
    high_water::{HighWater, Mark},
    log_error::Damage,
    log_file::LogFacts,
    stamp::Stamp,
    types::{LogId, Vote},
};
use crate::state::digest::StateDigest;

/// What was found in the data folder.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Who this server is by its configuration and certificate.
    pub wanted: Stamp,
    /// The identity file.
    pub identity: Option<Stamp>,
    /// The high-water file.
    pub mark: Mark,
    /// The log.
    pub log: LogFacts,
    /// The state.
    pub state: StateFacts,
}

/// What was found of the state.
#[derive(Clone, Debug, Default)]
pub struct StateFacts {
    /// Whose state; `None` in a new store.
    pub stamp: Option<Stamp>,
    /// Last applied entry.
    pub applied: Option<LogId>,
    /// Whether a snapshot was installed last: then the log may still end before it.
    pub installed: bool,
    /// Whether a snapshot was being installed and could not be finished.
    pub torn: bool,
    /// The digest kept with the state, and that of what is there.
    pub digests: (StateDigest, StateDigest),
    /// What this server wrote down when it found that its state is not that of the majority.
    pub diverged: Option<String>,
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was ever promised here: stamp everything and begin.
    Fresh,
    /// Go on where it was.
    Resume,
}

/// Why this server stays out of Raft.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Wrong folder or wrong configuration.
    #[error(
        "the data folder belongs to {found}, but this server is {wanted}: correct data folder, node id or certificate"
    )]
    OtherIdentity {
        /// In the folder.
        found: Stamp,
        /// Configured.
        wanted: Stamp,
    },
    /// Somebody removed the identity file.
    #[error("the identity file is gone, but log, state or high-water mark are not new; {WAY_OUT}")]
    IdentityLost,
    /// A disk that is not mounted looks like this.
    #[error(
        "the data folder is empty, and nothing says that this server has never run. If it has, look whether its disk is mounted; if \
         its data is lost, {WAY_OUT}. If it has not, and {node} was never used as a node id, make an empty file {new} and start \
         again"
    )]
    Empty {
        /// The server's.
        node: u64,
        /// The file that would say that it may begin.
        new: String,
    },
    /// redb came back new, or the log of another server was put here.
    #[error("the log came back new or is another server's; {WAY_OUT}")]
    LogNotOurs,
    /// sled came back new, or the state of another server was put here.
    #[error("the state came back new or is another server's; {WAY_OUT}")]
    StateNotOurs,
    /// Without the mark nobody knows whether the log is whole.
    #[error("the high-water mark is missing, damaged or another server's; {WAY_OUT}")]
    MarkNotOurs,
    /// A vote was given that is no longer known.
    #[error("the vote is older than the high-water mark says: redb has lost a transaction; {WAY_OUT}")]
    VoteBehind,
    /// Entries were acknowledged that are no longer there.
    #[error("the log ends before the high-water mark: redb has lost a transaction; {WAY_OUT}")]
    LogBehind,
    /// redb or sled cannot read what it has written.
    #[error("{what} cannot be read: {problem}; {WAY_OUT}")]
    Unreadable {
        /// The log or the state.
        what: &'static str,
        /// What was said.
        problem: String,
    },
    /// sled or redb runs in circles, or the disk does not answer.
    #[error(
        "{what} could not be read within {seconds} s: the disk does not answer, or its files are damaged in such a way that \
         reading them never ends. Look at the disk, and start again with more time (--open-within); if that does not help, \
         {WAY_OUT}"
    )]
    Endless {
        /// What was being read.
        what: &'static str,
        /// How long was waited for.
        seconds: u64,
    },
    /// A bit has changed on the disk.
    #[error("{0} is not as it was written: the disk has changed it; {WAY_OUT}")]
    LogDamaged(Damage),
    /// Pairs are missing, changed or too many.
    #[error(
        "the state is not as it was written: its digest should be {kept} and is {found}, so the disk has lost or changed \
         some of it; {WAY_OUT}"
    )]
    StateDamaged {
        /// Written with the last entry.
        kept: StateDigest,
        /// Of what is there.
        found: StateDigest,
    },
    /// The majority has another state at the same index.
    #[error("this server left because its state was not that of the others ({0}); {WAY_OUT}")]
    Diverged(String),
    /// An earlier version of Postern was put back.
    #[error(
        "the state was made by entries of version {used}, and this server knows them up to version {knows}: start the \
         version of Postern that ran here last, or a later one"
    )]
    Newer {
        /// Latest version of an entry that was applied.
        used: u32,
        /// Latest that this server knows.
        knows: u32,
    },
    /// Entries in between are missing.
    #[error("the log has a hole at index {at}; {WAY_OUT}")]
    Hole {
        /// First missing index.
        at: u64,
    },
    /// The entries that would bring the state up to date are gone.
    #[error("the state ends before what was purged from the log, which cannot rebuild it; {WAY_OUT}")]
    AppliedBehindPurged,
    /// The state knows entries that the log does not.
    #[error("the state is further than the log: the log has lost its end; {WAY_OUT}")]
    AppliedBeyondLog,
    /// A snapshot was half installed and its file is gone.
    #[error("a snapshot was half installed and cannot be finished; {WAY_OUT}")]
    Torn,
}

const WAY_OUT: &str = "this server takes no part in Raft, because it could break what it has promised. The way out: keep \
    the other servers up and replace this one: start a server with an empty data folder under a node id that was never \
    used, bring it in (posternctl cluster add, then promote), and take this one out (posternctl cluster remove). No \
    older copy and no empty folder under this node id: the server would vote again where it has voted";

/// Whether this server may take part in Raft.
///
/// # Errors
/// The first reason why not.
pub fn judge(facts: &Facts) -> Result<Start, Refusal> {
    let Facts { wanted, log, state, .. } = facts;
    let Some(identity) = &facts.identity else {
        // The identity file is written last, so without it nothing was ever promised, unless somebody removed it.
        let is_new = |mark: &HighWater| mark.vote.is_none() && mark.last.is_none() && mark.purged.is_none();
        let unmarked = match &facts.mark {
            Mark::Found(mark) => is_new(mark),
            // The process may have ended while it made the file.
            Mark::Missing | Mark::Unreadable => true,
        };
        let empty = log.last.is_none() && log.vote.is_none() && log.damaged.is_none() && state.applied.is_none();
        let untouched = unmarked && empty && state.digests == Default::default();
        return if untouched { Ok(Start::Fresh) } else { Err(Refusal::IdentityLost) };
    };
    if identity != wanted {
        return Err(Refusal::OtherIdentity { found: identity.clone(), wanted: wanted.clone() });
    }
    if let Some(told) = &state.diverged {
        return Err(Refusal::Diverged(told.clone()));
    }
    if let Some(damage) = log.damaged {
        return Err(Refusal::LogDamaged(damage));
    }
    if log.stamp.as_ref() != Some(wanted) {
        return Err(Refusal::LogNotOurs);
    }
    if state.stamp.as_ref() != Some(wanted) {
        return Err(Refusal::StateNotOurs);
    }
    let Mark::Found(mark) = &facts.mark else { return Err(Refusal::MarkNotOurs) };
    if mark.stamp != *wanted {
        return Err(Refusal::MarkNotOurs);
    }
    // Votes are only partly ordered: what cannot be compared counts as behind.
    let reached = |mark: Vote| log.vote.is_some_and(|vote| vote >= mark);
    if !mark.vote.is_none_or(reached) {
        return Err(Refusal::VoteBehind);
    }
    if log.last < mark.last {
        return Err(Refusal::LogBehind);
    }
    if let Some(at) = log.hole {
        return Err(Refusal::Hole { at });
    }
    if state.torn {
        return Err(Refusal::Torn);
    }
    let (kept, found) = state.digests;
    if kept != found {
        return Err(Refusal::StateDamaged { kept, found });
    }
    if state.applied < log.purged.max(mark.purged) {
        return Err(Refusal::AppliedBehindPurged);
    }
    if state.applied > log.last && !state.installed {
        return Err(Refusal::AppliedBeyondLog);
    }
    Ok(Start::Resume)
}

#[cfg(test)]
mod tests {
    use openraft::testing::log_id;

    use super::{Damage, Facts, LogFacts, Refusal, Stamp, Start, StateDigest, StateFacts, judge};
    use crate::raft::{
        high_water::{HighWater, Mark},
        types::Vote,
    };

    fn healthy() -> Facts {
        let me = Stamp::new("c1", 2);
        let (vote, last, purged) = (Some(Vote::new(4, 1)), Some(log_id(4, 1, 90)), Some(log_id(3, 1, 50)));
        Facts {
            wanted: me.clone(),
            identity: Some(me.clone()),
            mark: Mark::Found(HighWater { stamp: me.clone(), vote, last, purged }),
            log: LogFacts { stamp: Some(me.clone()), vote, last, purged, ..LogFacts::default() },
            state: StateFacts { stamp: Some(me), applied: Some(log_id(4, 1, 88)), ..StateFacts::default() },
        }
    }

    #[test]
    fn each_case_of_the_gate_is_judged_as_the_plan_says() {
        let other = Stamp::new("c1", 3);
        let me = Stamp::new("c1", 2);
        let identity = Refusal::OtherIdentity { found: other.clone(), wanted: me };
        type Harm = Box<dyn Fn(&mut Facts)>;
        let lower_mark = |facts: &mut Facts| {
            if let Mark::Found(mark) = &mut facts.mark {
                (mark.vote, mark.last) = (Some(Vote::new(3, 3)), Some(log_id(3, 3, 80)));
            }
        };
        let foreign = other.clone();
        let foreign_mark = move |facts: &mut Facts| {
            if let Mark::Found(mark) = &mut facts.mark {
                mark.stamp = foreign.clone();
            }
        };
        let foreign = other.clone();
        let (kept, mut found) = (StateDigest::default(), StateDigest::default());
        found.add(b"a key", b"its value");
        let table: Vec<(&str, Harm, Result<Start, Refusal>)> = vec![
            ("healthy", Box::new(|_| ()), Ok(Start::Resume)),
            ("mark below the log", Box::new(lower_mark), Ok(Start::Resume)),
            (
                "new",
                Box::new(|f| {
                    (f.identity, f.log, f.state) = Default::default();
                    f.mark = Mark::Missing;
                }),
                Ok(Start::Fresh),
            ),
            (
                "all but the mark new",
                Box::new(|f| (f.identity, f.log, f.state) = Default::default()),
                Err(Refusal::IdentityLost),
            ),
            ("no identity file", Box::new(|f| f.identity = None), Err(Refusal::IdentityLost)),
            ("another's folder", Box::new(move |f| f.identity = Some(other.clone())), Err(identity)),
            ("log new", Box::new(|f| f.log = LogFacts::default()), Err(Refusal::LogNotOurs)),
            ("state new", Box::new(|f| f.state = StateFacts::default()), Err(Refusal::StateNotOurs)),
            ("another's state", Box::new(move |f| f.state.stamp = Some(foreign.clone())), Err(Refusal::StateNotOurs)),
            ("no mark", Box::new(|f| f.mark = Mark::Missing), Err(Refusal::MarkNotOurs)),
            ("mark damaged", Box::new(|f| f.mark = Mark::Unreadable), Err(Refusal::MarkNotOurs)),
            ("another's mark", Box::new(foreign_mark), Err(Refusal::MarkNotOurs)),
            ("vote lost", Box::new(|f| f.log.vote = Some(Vote::new(3, 9))), Err(Refusal::VoteBehind)),
            ("no vote", Box::new(|f| f.log.vote = None), Err(Refusal::VoteBehind)),
            ("last entry lost", Box::new(|f| f.log.last = Some(log_id(4, 1, 89))), Err(Refusal::LogBehind)),
            ("longer log of an older term", Box::new(|f| f.log.last = Some(log_id(3, 1, 99))), Err(Refusal::LogBehind)),
            ("hole", Box::new(|f| f.log.hole = Some(60)), Err(Refusal::Hole { at: 60 })),
            (
                "entry damaged",
                Box::new(|f| f.log = LogFacts { damaged: Some(Damage::Entry(60)), ..LogFacts::default() }),
                Err(Refusal::LogDamaged(Damage::Entry(60))),
            ),
            (
                "state damaged",
                Box::new(move |f| f.state.digests = (kept, found)),
                Err(Refusal::StateDamaged { kept, found }),
            ),
            (
                "left the others",
                Box::new(|f| f.state.diverged = Some("at 7".into())),
                Err(Refusal::Diverged("at 7".into())),
            ),
            ("torn", Box::new(|f| f.state.torn = true), Err(Refusal::Torn)),
            ("state lost", Box::new(|f| f.state.applied = None), Err(Refusal::AppliedBehindPurged)),
            ("state old", Box::new(|f| f.state.applied = Some(log_id(3, 1, 49))), Err(Refusal::AppliedBehindPurged)),
            (
                "purge lost",
                Box::new(|f| (f.log.purged, f.state.applied) = (None, None)),
                Err(Refusal::AppliedBehindPurged),
            ),
            ("state ahead", Box::new(|f| f.state.applied = Some(log_id(4, 1, 91))), Err(Refusal::AppliedBeyondLog)),
            (
                "killed between snapshot and purge",
                Box::new(|f| (f.state.applied, f.state.installed) = (Some(log_id(5, 1, 200)), true)),
                Ok(Start::Resume),
            ),
        ];
        for (name, harm, expected) in table {
            let mut facts = healthy();
            harm(&mut facts);
            assert_eq!(judge(&facts), expected, "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_way_out() {
        let text = Refusal::LogBehind.to_string();
        assert!(
            text.contains("cluster add") && text.contains("cluster remove") && text.contains("never used"),
            "{text}"
        );
    }
}
