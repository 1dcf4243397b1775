//! Who may say what: a Raft message must speak for the server that its sender's certificate names. What does not is dropped
//! before Raft sees it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use proto::codec;
use serde::{Deserialize, de::IgnoredAny};

use super::{Group, RaftCall, Server, types::Vote};

/// How far a message's term may be ahead of ours: a century of elections. Without a bound one message could use up all terms, so
/// that nobody could ever be elected again.
const TERM_LEAP_MAX: u64 = 1 << 32;

/// A message that its sender may not send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abuse {
    /// It cannot be read.
    #[error("the message cannot be read")]
    Unreadable,
    /// It is meant for another server.
    #[error("the message is meant for node {0}, not for this one")]
    Target(u64),
    /// The sender speaks for another server than itself.
    #[error("node {0} is another server than the one that the certificate names")]
    Forged(u64),
    /// The sender, or whom it speaks for, is no member while this server knows the members.
    #[error("neither a member of the group nor its leader")]
    Stranger,
    /// The sender, or whom it speaks for, was a member and has been removed.
    #[error("it was removed from the cluster: switch it off")]
    Removed,
    /// A vote that a leader would send comes from a candidate, or the other way round.
    #[error("the vote does not belong into this message")]
    Vote,
    /// The term is too far ahead.
    #[error("term {0} is not believable")]
    Term(u64),
}

impl Abuse {
    /// The word for counters.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable => "raft-unreadable",
            Self::Target(_) => "raft-target",
            Self::Forged(_) => "raft-forged",
            Self::Stranger => "raft-stranger",
            Self::Removed => "raft-removed",
            Self::Vote => "raft-vote",
            Self::Term(_) => "raft-term",
        }
    }
}

/// The leader that a server follows though its own membership does not name it, because it has yet to catch up.
pub(super) type Followed = (u64, String);

/// What a server knows when it judges a message.
struct Known<'a> {
    me: u64,
    term: u64,
    members: BTreeMap<u64, &'a str>,
    /// It leads, or has just heard from a leader: then its membership is that of the group, but for what it has yet to receive
    /// from the leader that it follows.
    in_touch: bool,
    followed: Option<&'a Followed>,
    /// Whether the server with this id, if one is given, or with this name was removed. Asked of those who are no members.
    removed: &'a dyn Fn(Option<u64>, &str) -> bool,
}

impl Known<'_> {
    /// Whether this caller may be a server of the group.
    fn is_peer(&self, caller: &str) -> Result<(), Abuse> {
        if self.members.values().any(|name| *name == caller) {
            return Ok(());
        }
        self.may_be_new(caller, None, self.followed.is_some_and(|(_, name)| name == caller))
    }

    /// Whether this caller may be the server `id`.
    fn speaks_for(&self, caller: &str, id: u64) -> Result<(), Abuse> {
        if let Some(name) = self.members.get(&id) {
            return if *name == caller { Ok(()) } else { Err(Abuse::Forged(id)) };
        }
        if id == self.me {
            return Err(Abuse::Forged(id));
        }
        self.may_be_new(caller, Some(id), self.followed.is_some_and(|(leader, name)| *leader == id && name == caller))
    }

    /// Whether somebody whom this server does not know may be a member all the same: a server without members has yet to be
    /// told of them, and one that is out of touch may not know them all. Whoever was removed never comes back.
    fn may_be_new(&self, caller: &str, id: Option<u64>, is_followed: bool) -> Result<(), Abuse> {
        if (self.removed)(id, caller) {
            return Err(Abuse::Removed);
        }
        if self.members.is_empty() || !self.in_touch || is_followed { Ok(()) } else { Err(Abuse::Stranger) }
    }

    fn judge(&self, caller: &str, to: u64, call: RaftCall, vote: Option<&Vote>) -> Result<(), Abuse> {
        if to != self.me {
            return Err(Abuse::Target(to));
        }
        let leads = match call {
            RaftCall::AppendEntries | RaftCall::Snapshot => true,
            RaftCall::Vote => false,
            RaftCall::Forward => return self.is_peer(caller),
        };
        let vote = vote.ok_or(Abuse::Unreadable)?;
        let leader = vote.leader_id();
        self.speaks_for(caller, leader.node_id)?;
        // A candidate's vote that claims to be granted would make a leader that nobody has elected.
        if vote.is_committed() != leads {
            return Err(Abuse::Vote);
        }
        if leader.term > self.term.saturating_add(TERM_LEAP_MAX) {
            return Err(Abuse::Term(leader.term));
        }
        Ok(())
    }
}

/// The part of a message that says for whom it speaks.
#[derive(Deserialize)]
struct Head {
    vote: Vote,
}

impl Group {
    /// Whether a message of the holder of a control server's certificate may reach Raft. `data` is the payload of the call.
    ///
    /// # Errors
    /// `Abuse`.
    pub fn hear(&self, caller: &str, call: RaftCall, data: &[u8]) -> Result<(), Abuse> {
        let (to, vote) = match call {
            RaftCall::AppendEntries | RaftCall::Vote | RaftCall::Snapshot => {
                let head: (u64, Head) = codec::decode("a message", data).map_err(|_| Abuse::Unreadable)?;
                (head.0, Some(head.1.vote))
            }
            RaftCall::Forward => {
                let head: (u64, IgnoredAny) = codec::decode("a message", data).map_err(|_| Abuse::Unreadable)?;
                (head.0, None)
            }
        };
        let leader = self.judged(|known| {
            known.judge(caller, to, call, vote.as_ref())?;
            // Remembered until it is in the membership that this server receives from it.
            let leader = vote.filter(|vote| vote.is_committed()).map(|vote| vote.leader_id().node_id);
            Ok(leader.filter(|leader| !known.members.contains_key(leader)))
        })?;
        if let Some(leader) = leader {
            let mut followed = self.inner.followed.lock().unwrap_or_else(PoisonError::into_inner);
            *followed = Some((leader, caller.to_owned()));
        }
        Ok(())
    }

    /// Whether the holder of a control server's certificate may ask for what peers ask each other, such as bodies.
    ///
    /// # Errors
    /// `Abuse::Stranger`, `Abuse::Removed`.
    pub fn admit_peer(&self, caller: &str) -> Result<(), Abuse> {
        self.judged(|known| known.is_peer(caller))
    }

    fn judged<T>(&self, judge: impl FnOnce(&Known<'_>) -> Result<T, Abuse>) -> Result<T, Abuse> {
        let in_touch = self.in_touch();
        let followed = self.inner.followed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let metrics = self.inner.leader.raft.metrics();
        let (term, membership) = {
            let metrics = metrics.borrow();
            (metrics.current_term, Arc::clone(&metrics.membership_config))
        };
        judge(&Known {
            me: self.inner.leader.me,
            term,
            members: membership.nodes().map(|(id, server): (&u64, &Server)| (*id, server.name.as_str())).collect(),
            in_touch,
            followed: followed.as_ref(),
            removed: &|id, name| self.state().is_removed(id, name),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Abuse, Followed, Known, TERM_LEAP_MAX};
    use crate::raft::{RaftCall, types::Vote};

    const MEMBERS: [(u64, &str); 3] = [(1, "alpha"), (2, "beta"), (3, "gamma")];

    fn known<'a>(members: &[(u64, &'a str)], in_touch: bool, followed: Option<&'a Followed>) -> Known<'a> {
        let members = BTreeMap::from_iter(members.iter().copied());
        Known { me: 1, term: 7, members, in_touch, followed, removed: &|id, name| id == Some(6) || name == "zeta" }
    }

    fn append(known: &Known<'_>, caller: &str, leader: u64) -> Result<(), Abuse> {
        known.judge(caller, 1, RaftCall::AppendEntries, Some(&Vote::new_committed(8, leader)))
    }

    fn ask_vote(known: &Known<'_>, caller: &str, candidate: u64) -> Result<(), Abuse> {
        known.judge(caller, 1, RaftCall::Vote, Some(&Vote::new(8, candidate)))
    }

    #[test]
    fn a_member_speaks_for_itself_alone() {
        for in_touch in [true, false] {
            let known = known(&MEMBERS, in_touch, None);
            for ask in [append, ask_vote] {
                assert_eq!(ask(&known, "beta", 2), Ok(()));
                for (caller, id) in [("gamma", 2), ("beta", 3), ("delta", 2), ("beta", 1)] {
                    assert_eq!(ask(&known, caller, id), Err(Abuse::Forged(id)), "{caller} as {id}");
                }
            }
        }
    }

    #[test]
    fn whoever_is_no_member_is_heard_only_by_a_server_that_may_not_know_the_members() {
        let (removed, new) = (("delta", 4), ("beta", 9));
        for (caller, id) in [removed, new] {
            let healthy = known(&MEMBERS, true, None);
            assert_eq!(append(&healthy, caller, id), Err(Abuse::Stranger), "{caller}");
            assert_eq!(ask_vote(&healthy, caller, id), Err(Abuse::Stranger));
            for unsure in [known(&MEMBERS, false, None), known(&[], true, None)] {
                assert_eq!(append(&unsure, caller, id), Ok(()));
                assert_eq!(ask_vote(&unsure, caller, id), Ok(()));
            }
        }
        assert_eq!(append(&known(&[], true, None), "beta", 1), Err(Abuse::Forged(1)), "nobody is this server itself");
        let forward = |known: &Known<'_>, caller| known.judge(caller, 1, RaftCall::Forward, None);
        assert_eq!(forward(&known(&MEMBERS, true, None), "delta"), Err(Abuse::Stranger));
        assert_eq!(forward(&known(&MEMBERS, true, None), "gamma"), Ok(()));
        assert_eq!(forward(&known(&[], true, None), "delta"), Ok(()));
    }

    #[test]
    fn whoever_was_removed_is_heard_by_nobody_under_its_id_or_its_name() {
        let leader = (6, "zeta".to_owned());
        for known in [
            known(&MEMBERS, true, None),
            known(&MEMBERS, false, None),
            known(&[], true, None),
            known(&MEMBERS, true, Some(&leader)),
        ] {
            for (caller, id) in [("zeta", 6), ("eta", 6), ("zeta", 9)] {
                assert_eq!(append(&known, caller, id), Err(Abuse::Removed), "{caller} as {id}");
                assert_eq!(ask_vote(&known, caller, id), Err(Abuse::Removed), "{caller} as {id}");
            }
            assert_eq!(known.judge("zeta", 1, RaftCall::Forward, None), Err(Abuse::Removed));
        }
        // A removal that was broken off: it is a member until Raft has taken it out.
        let still = known(&[(1, "alpha"), (6, "zeta")], true, None);
        assert_eq!(append(&still, "zeta", 6), Ok(()));
        assert_eq!(still.judge("zeta", 1, RaftCall::Forward, None), Ok(()));
    }

    #[test]
    fn a_server_that_catches_up_goes_on_with_the_leader_that_it_began_with() {
        let leader = (5, "epsilon".to_owned());
        let catching_up = known(&MEMBERS, true, Some(&leader));
        assert_eq!(append(&catching_up, "epsilon", 5), Ok(()));
        assert_eq!(append(&catching_up, "delta", 5), Err(Abuse::Stranger));
        assert_eq!(append(&catching_up, "epsilon", 7), Err(Abuse::Stranger));
    }

    #[test]
    fn a_vote_is_only_what_its_call_makes_it_and_its_term_is_bounded() {
        let known = known(&MEMBERS, true, None);
        let judge = |to, call, vote: Option<Vote>| known.judge("beta", to, call, vote.as_ref());
        assert_eq!(judge(1, RaftCall::Vote, Some(Vote::new_committed(8, 2))), Err(Abuse::Vote));
        assert_eq!(judge(1, RaftCall::AppendEntries, Some(Vote::new(8, 2))), Err(Abuse::Vote));
        assert_eq!(judge(1, RaftCall::Snapshot, Some(Vote::new(8, 2))), Err(Abuse::Vote));
        assert_eq!(judge(1, RaftCall::Vote, None), Err(Abuse::Unreadable));
        assert_eq!(judge(2, RaftCall::Vote, Some(Vote::new(8, 2))), Err(Abuse::Target(2)));
        assert_eq!(judge(1, RaftCall::Vote, Some(Vote::new(7 + TERM_LEAP_MAX, 2))), Ok(()));
        assert_eq!(judge(1, RaftCall::Vote, Some(Vote::new(u64::MAX, 2))), Err(Abuse::Term(u64::MAX)));
    }
}
