//! What only the leader can do: commit mutations, and name the index that a linearizable read needs. Here if this server
//! leads, else by asking the one that does, over and over until the time is up.

use std::{sync::Arc, time::Duration};

use openraft::{RaftMetrics, error::RaftError};
use proto::{
    mutation::{Batch, Mutation, Outcome, Refused},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    ProposeError, RaftCall, Server,
    about::About,
    clocks::Clocks,
    comparison::Comparison,
    contact::{Contact, has_quorum},
    members::{CHANGE_LIMIT, Changed, MemberAsk, Turn},
    network::Peers,
    state_machine::Standing,
    types::{Contents, LogId, Proposal, Raft},
};
use crate::state::{
    digest::StateDigest,
    store::{StateStore, end_process},
};

/// How long a caller waits in all, as long as this server is in touch with the group: longer than an election or two.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long one call to a leader may take before the leader is looked up again.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Each member is asked for its clock twice a second: one that has not answered for longer does not hear this server.
const UNANSWERED_MAX: Duration = Duration::from_millis(1_500);
/// Between two looks whether this server is lost.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Pause before the next try when nothing has told us that something changed.
const PAUSE: Duration = Duration::from_millis(100);

/// A batch that moves log time on by more is worth a warning, in milliseconds.
const JUMP_MS: u64 = 10 * 60 * 1000;

/// What a server asks its leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Commit these, in one entry.
    Commit(Vec<Mutation>),
    /// Up to which index must a read have applied?
    ReadIndex,
    /// The digest of the state after the entry at this index; any server answers that.
    DigestAt(u64),
    /// Change the membership, or hand over leadership.
    Member(MemberAsk),
    /// Of any server: how are you?
    About,
    /// Of any server: what time is it?
    Clock,
    /// Of a follower: stand for election, if this is still the term.
    Elect {
        /// The term in which the leader asks.
        term: u64,
    },
}

impl Ask {
    /// How long one answer may take.
    fn limit(&self) -> Duration {
        match self {
            Self::Member(_) => CHANGE_LIMIT,
            Self::Commit(_) | Self::ReadIndex => CALL_LIMIT,
            Self::DigestAt(_) | Self::About | Self::Clock | Self::Elect { .. } => CALL_LIMIT,
        }
    }

    /// How long who is asked may work on it.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Member(_) => CHANGE_LIMIT,
            Self::Commit(_) | Self::ReadIndex => PATIENCE,
            Self::DigestAt(_) | Self::About | Self::Clock | Self::Elect { .. } => PATIENCE,
        }
    }
}

/// What the leader answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// One for each mutation, in order.
    Outcomes(Vec<Outcome>),
    /// The index.
    ReadIndex(u64),
    /// The digest; `None` when it is not there, or not yet.
    Digest(Option<StateDigest>),
    /// What became of the change.
    Member(Changed),
    /// What the server says of itself.
    About(Box<About>),
    /// Its clock.
    Clock(UnixMs),
    /// It stands for election.
    Standing,
    /// Not the leader, or without a quorum: nothing was written.
    NotLeader,
    /// It may have been written.
    Unknown,
    /// Out of service: nothing was written.
    Stopped,
}

/// The way to the leader. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leader {
    pub(super) me: u64,
    pub(super) raft: Raft,
    pub(super) peers: Arc<Peers>,
    pub(super) contact: Arc<Contact>,
    pub(super) clocks: Arc<Clocks>,
    pub(super) state: Arc<StateStore>,
    pub(super) comparison: Arc<Comparison>,
    /// Latest version of entries that this server knows.
    pub(super) knows: u32,
    pub(super) turn: Turn,
}

impl Leader {
    /// Asks until there is an answer, `deadline` has come, or this server has lost touch with the group: then at once. Mutations
    /// carry their ids, so asking twice is harmless.
    pub(super) async fn ask(&self, ask: &Ask, deadline: Instant) -> Result<Answer, ProposeError> {
        let writes = matches!(ask, Ask::Commit(_) | Ask::Member(_));
        let mut maybe_written = false;
        let metrics = self.raft.metrics();
        // Moves with leader, vote and membership, not with each entry.
        let mut moves = self.raft.server_metrics();
        loop {
            moves.mark_unchanged();
            if self.is_lost() {
                return Err(ProposeError::NoLeader.after(maybe_written));
            }
            let answer = tokio::select! {
                answer = self.ask_once(ask, deadline) => answer,
                () = self.lost() => Answer::Unknown,
            };
            match answer {
                Answer::Outcomes(outcomes) if maybe_written && is_doubtful(&outcomes) => {
                    return Err(ProposeError::Unknown);
                }
                // The earlier try may be what stands in the way, and come to its end.
                Answer::Member(Changed::Refused { .. }) if maybe_written => return Err(ProposeError::Unknown),
                Answer::Outcomes(_) | Answer::ReadIndex(_) | Answer::Digest(_) | Answer::Member(_) => {
                    return Ok(answer);
                }
                Answer::Unknown => maybe_written = writes,
                // Another server that has stopped will be followed by another leader.
                Answer::NotLeader | Answer::Stopped | Answer::About(_) | Answer::Clock(_) | Answer::Standing => {}
            }
            // This one will not lead or follow any more.
            if let Err(fatal) = &metrics.borrow().running_state {
                return Err(ProposeError::Stopped(fatal.to_string()).after(maybe_written));
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(ProposeError::NoLeader.after(maybe_written));
            }
            tokio::select! {
                // Fails when Raft has ended, which is seen above.
                Ok(()) = moves.changed() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Whether nothing that needs a majority can be done from here.
    pub(super) fn is_lost(&self) -> bool {
        self.contact.is_lost(&self.raft.metrics().borrow()) || self.is_heard_by_nobody()
    }

    /// Resolves once that is so.
    async fn lost(&self) {
        while !self.is_lost() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether this server hears the leader, and the leader has not answered it for long: the line carries one way only.
    fn is_heard_by_nobody(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let Some(leader) = metrics.current_leader.filter(|leader| *leader != self.me) else { return false };
        self.contact.in_touch(&metrics) && self.clocks.answered(leader).is_some_and(|since| since > UNANSWERED_MAX)
    }

    /// Asks whoever is known to lead.
    async fn ask_once(&self, ask: &Ask, deadline: Instant) -> Answer {
        let known = leader_of(&self.raft.metrics().borrow());
        match known {
            Some((leader, _)) if leader == self.me => self.answer(ask.clone(), deadline).await,
            Some((leader, server)) => {
                let limit = ask.limit().min(deadline.saturating_duration_since(Instant::now()));
                match self.peers.ask((leader, &server), RaftCall::Forward, ask, limit).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        tracing::debug!(leader, "{error}");
                        if error.maybe_arrived { Answer::Unknown } else { Answer::NotLeader }
                    }
                }
            }
            None => Answer::NotLeader,
        }
    }

    /// Answers as the leader, if this server is.
    pub(super) async fn answer(&self, ask: Ask, deadline: Instant) -> Answer {
        // A leader that has lost its quorum does not know yet that it may have been replaced.
        if !has_quorum(&self.raft.metrics().borrow()) {
            return Answer::NotLeader;
        }
        let gate = match &ask {
            Ask::Member(_) | Ask::About | Ask::Clock | Ask::DigestAt(_) | Ask::Elect { .. } => None,
            // Closed while leadership is handed over.
            Ask::Commit(_) | Ask::ReadIndex => match self.turn.gate.try_read() {
                Ok(open) => Some(open),
                Err(_) => return Answer::NotLeader,
            },
        };
        let answer = self.answer_within(ask, deadline).await;
        drop(gate);
        answer
    }

    async fn answer_within(&self, ask: Ask, deadline: Instant) -> Answer {
        match ask {
            Ask::Commit(mutations) => self.commit(mutations, deadline).await,
            Ask::Member(ask) => self.member(ask, deadline).await,
            // Not only a leader answers these: the group does.
            Ask::DigestAt(_) | Ask::About | Ask::Clock | Ask::Elect { .. } => Answer::NotLeader,
            Ask::ReadIndex => match self.raft.get_read_log_id().await {
                Ok((read, _)) => Answer::ReadIndex(read.map_or(0, |id: LogId| id.index)),
                Err(RaftError::APIError(_)) => Answer::NotLeader,
                Err(RaftError::Fatal(_)) => Answer::Stopped,
            },
        }
    }

    /// Commits those whose kind all members know, and refuses the others.
    pub(super) async fn commit(&self, mutations: Vec<Mutation>, deadline: Instant) -> Answer {
        let (known, refused) = sorted_out(mutations, |mutation| {
            let version = mutation.change.version();
            self.unknown_to(version).map(|server| Refused::Version { version, server })
        });
        if known.is_empty() {
            return Answer::Outcomes(put_back(refused, Vec::new()));
        }
        let batch = Batch { at: self.clocks.time(UnixMs::now()), mutations: known };
        self.look_at_clock(batch.at);
        let answer = self.write(&Contents::Batch(batch), deadline).await;
        if let Answer::Outcomes(committed) = answer { Answer::Outcomes(put_back(refused, committed)) } else { answer }
    }

    /// The name of a member that is not known to know entries of this version; none when all do, or when such an entry has
    /// been applied already: then there is nothing left to wait for.
    pub(super) fn unknown_to(&self, version: u32) -> Option<String> {
        if version <= 1 || (version <= self.knows && version <= self.used()) {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let knows = |id: u64| if id == self.me { Some(self.knows) } else { self.peers.knows(id) };
        let mut nodes = metrics.membership_config.nodes();
        nodes.find(|(id, _)| knows(**id).is_none_or(|knows| knows < version)).map(|(_, server)| server.name.clone())
    }

    /// The latest version of any entry that was applied.
    pub(super) fn used(&self) -> u32 {
        Standing::of(&self.state).unwrap_or_else(|error| end_process("read the state", &error)).used
    }

    /// Writes an entry whose version has been looked at.
    pub(super) async fn write(&self, contents: &Contents, deadline: Instant) -> Answer {
        let writing = self.raft.client_write(Proposal::new(contents));
        match tokio::time::timeout_at(deadline, writing).await {
            Err(_) => Answer::Unknown,
            Ok(Ok(written)) => Answer::Outcomes(written.data.0),
            // Not the leader any more. openraft says the same of an entry that it never took and of one that a new leader
            // has overwritten here; the latter may live on elsewhere and be committed by yet another leader.
            Ok(Err(RaftError::APIError(_))) => Answer::Unknown,
            Ok(Err(RaftError::Fatal(fatal))) => {
                // The entry may have been replicated before this server stopped.
                tracing::error!("commit a batch: {fatal}");
                Answer::Unknown
            }
        }
    }

    /// Log time never goes back, so one clock that is far ahead moves leases and attempts for everybody.
    fn look_at_clock(&self, at: UnixMs) {
        let before = self.state.log_time();
        if jumps(before, at) {
            let minutes = at.since_ms(before) / 60_000;
            tracing::warn!(
                minutes,
                "log time moves on by more than ten minutes at once: either nothing was proposed meanwhile, or the clocks of \
                 most servers are wrong"
            );
        }
    }
}

/// The mutations that may be committed, and for all of them in order why not.
fn sorted_out(
    mutations: Vec<Mutation>,
    why_not: impl Fn(&Mutation) -> Option<Refused>,
) -> (Vec<Mutation>, Vec<Option<Refused>>) {
    let refused: Vec<Option<Refused>> = mutations.iter().map(why_not).collect();
    let known = mutations.into_iter().zip(&refused).filter(|(_, refused)| refused.is_none());
    (known.map(|(mutation, _)| mutation).collect(), refused)
}

/// Whether a refusal was made before Raft was asked, so that an earlier try of the same mutation may still be committed.
fn is_doubtful(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(Refused::Version { .. })))
}

/// Outcomes in the order in which the mutations came.
fn put_back(refused: Vec<Option<Refused>>, committed: Vec<Outcome>) -> Vec<Outcome> {
    let mut committed = committed.into_iter();
    refused.into_iter().filter_map(|refused| refused.map(Outcome::Refused).or_else(|| committed.next())).collect()
}

/// Whether a batch moves log time on by much; the first one of all moves it from zero.
fn jumps(before: UnixMs, at: UnixMs) -> bool {
    before > UnixMs(0) && at.since_ms(before) > JUMP_MS
}

/// The leader that this server knows of.
fn leader_of(metrics: &RaftMetrics<u64, Server>) -> Option<(u64, Server)> {
    let leader = metrics.current_leader?;
    let server = metrics.membership_config.membership().get_node(&leader)?;
    Some((leader, server.clone()))
}

#[cfg(test)]
mod tests {
    use proto::{
        held::MutationId,
        mutation::{Mutation, Outcome, Refused},
        time::UnixMs,
    };

    use super::{JUMP_MS, is_doubtful, jumps, put_back, sorted_out};
    use crate::state::testing::{lease, node, release};

    #[test]
    fn a_kind_that_somebody_does_not_know_is_refused_and_holds_up_no_other_of_its_batch() {
        let mutation = |change| Mutation { id: MutationId::fresh(), by: node("n1"), change };
        let all = vec![mutation(release(1)), mutation(lease(2)), mutation(release(3)), mutation(lease(4))];
        let version = Refused::Version { version: 9, server: "control-2".into() };
        let why_not = |mutation: &Mutation| (mutation.change == lease(2)).then(|| version.clone());
        let (known, refused) = sorted_out(all, why_not);
        let changes: Vec<_> = known.into_iter().map(|mutation| mutation.change).collect();
        assert_eq!(changes, [release(1), release(3), lease(4)]);
        let committed =
            vec![Outcome::Done, Outcome::PolicyApplied { version: 3 }, Outcome::PolicyApplied { version: 4 }];
        let outcomes = put_back(refused, committed.clone());
        let [first, third, fourth] = committed.try_into().expect("three");
        assert_eq!(outcomes, [first, Outcome::Refused(version), third, fourth]);
    }

    #[test]
    fn only_what_was_refused_before_the_log_is_doubtful_after_an_earlier_try() {
        let version = Refused::Version { version: 9, server: "control-2".into() };
        assert!(is_doubtful(&[Outcome::Done, Outcome::Refused(version)]));
        assert!(!is_doubtful(&[Outcome::Done, Outcome::Refused(Refused::Invalid("empty".into()))]));
    }

    #[test]
    fn only_a_clock_far_ahead_of_log_time_is_worth_a_warning() {
        let before = UnixMs(5_000_000);
        assert!(jumps(before, before.plus_ms(JUMP_MS + 1)));
        assert!(!jumps(before, before.plus_ms(JUMP_MS)) && !jumps(before, UnixMs(1)) && !jumps(UnixMs(0), before));
    }
}
