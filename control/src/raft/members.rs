//! Changes of the membership, as only the leader can make them: one at a time, each with its trace in the audit log before Raft
//! is asked, none that would put the quorum at risk. Each may be repeated: what is done already stays done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use openraft::{
    ChangeMembers,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
};
use proto::{
    held::MutationId,
    member::{Member, MemberAct},
    mutation::{Change, Grounds, Mutation, Outcome, Principal},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, RwLock},
    time::Instant,
};

use super::{
    Group, ProposeError, Server,
    about::{self, About},
    leader::{Answer, Ask, Leader},
};
use crate::state::members::is_free;

/// How long the leader may take for one change.
pub(super) const CHANGE_LIMIT: Duration = Duration::from_secs(12);
/// How long an operator waits in all, also while leadership moves: less than a client waits for its answer.
const PATIENCE: Duration = Duration::from_secs(25);
/// A learner that lacks more entries than this has not caught up: under load some are always on their way.
pub const LAG_MAX: u64 = 200;
/// Most servers in a group; each write waits for a majority of the voters.
pub const SERVERS_MAX: usize = 9;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberStep {
    /// A new server becomes a learner.
    Add(Member),
    /// A learner that has caught up gets its vote.
    Promote {
        /// Its name.
        name: String,
    },
    /// A server leaves for good.
    Remove {
        /// Its name.
        name: String,
        /// Whether warnings are overruled.
        force: bool,
    },
    /// Another voter leads.
    Transfer {
        /// Id of the server that leads when this is asked; when another one leads by then, it is done.
        from: u64,
        /// Its name; without one, whoever has come furthest.
        to: Option<String>,
    },
}

/// A step with who wants it and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAsk {
    /// What.
    pub step: MemberStep,
    /// Id of the mutation that leaves the trace, however often this is asked.
    pub id: MutationId,
    /// Who.
    pub by: Principal,
    /// Why.
    pub grounds: Grounds,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// It is so now.
    Done {
        /// What the operator should know.
        notes: Vec<String>,
    },
    /// Nothing changed.
    Refused {
        /// Why, and what to do.
        why: String,
        /// Of a learner that has not caught up: entries that it lacks.
        lag: Option<u64>,
    },
}

/// Who may change or write at a time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    /// Held by the one change that is being made.
    pub(super) changing: Arc<Mutex<()>>,
    /// Read by each write and linearizable read; held while leadership is handed over.
    pub(super) gate: Arc<RwLock<()>>,
}

/// Why a step ends early.
pub(super) enum Stop {
    Refused {
        why: String,
        lag: Option<u64>,
    },
    /// Ask again, there or elsewhere.
    Again(Answer),
}

pub(super) fn refused<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Refused { why: why.into(), lag: None })
}

type Notes = Result<Vec<String>, Stop>;

/// The membership as the leader knows it.
pub(super) struct Known {
    pub(super) members: BTreeMap<u64, Server>,
    pub(super) voters: BTreeSet<u64>,
    pub(super) last_log_index: u64,
    pub(super) matched: BTreeMap<u64, u64>,
    pub(super) term: u64,
}

impl Known {
    pub(super) fn named(&self, name: &str) -> Option<(u64, &Server)> {
        self.members.iter().find(|(_, server)| server.name == name).map(|(id, server)| (*id, server))
    }

    /// Entries that the log of a member lacks, as far as the leader knows.
    pub(super) fn lag(&self, id: u64) -> u64 {
        self.last_log_index.saturating_sub(self.matched.get(&id).copied().unwrap_or_default())
    }
}

fn member_of(id: u64, server: &Server) -> Member {
    let Server { name, site, address } = server.clone();
    Member { id, name, site, address }
}

impl Leader {
    /// Makes a step, also when who asked has gone meanwhile: half a change is worse than a whole one.
    pub(super) async fn member(&self, ask: MemberAsk, deadline: Instant) -> Answer {
        let Ok(turn) = Arc::clone(&self.turn.changing).try_lock_owned() else {
            let why = "another change of the membership is being made: wait for its end and repeat the command".into();
            return Answer::Member(Changed::Refused { why, lag: None });
        };
        let leader = self.clone();
        let change = tokio::spawn(async move {
            let made = leader.step(&ask, deadline).await;
            drop(turn);
            match made {
                Ok(notes) => Answer::Member(Changed::Done { notes }),
                Err(Stop::Refused { why, lag }) => Answer::Member(Changed::Refused { why, lag }),
                Err(Stop::Again(answer)) => answer,
            }
        });
        match tokio::time::timeout_at(deadline, change).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Answer::Unknown,
        }
    }

    async fn step(&self, ask: &MemberAsk, deadline: Instant) -> Notes {
        match &ask.step {
            MemberStep::Add(member) => self.add(ask, member, deadline).await,
            MemberStep::Promote { name } => self.promote(ask, name, deadline).await,
            MemberStep::Remove { name, force } => self.remove(ask, name, *force, deadline).await,
            MemberStep::Transfer { from, to } => self.transfer(ask, *from, to.as_deref(), deadline).await,
        }
    }

    pub(super) fn known(&self) -> Known {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let matched = metrics.replication.iter().flatten();
        Known {
            members: metrics.membership_config.nodes().map(|(id, server)| (*id, server.clone())).collect(),
            voters: metrics.membership_config.voter_ids().collect(),
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            matched: matched.filter_map(|(id, last)| Some((*id, last.as_ref()?.index))).collect(),
            term: metrics.current_term,
        }
    }

    /// Leaves the trace. Asked again under the same id it is one trace.
    pub(super) async fn trace(&self, ask: &MemberAsk, act: MemberAct, deadline: Instant) -> Result<(), Stop> {
        let change = Change::Member { act, grounds: ask.grounds.clone() };
        let mutation = Mutation { id: ask.id, by: ask.by.clone(), change };
        let answer = self.commit(vec![mutation], deadline).await;
        let Answer::Outcomes(outcomes) = answer else { return Err(Stop::Again(answer)) };
        match outcomes.first() {
            Some(Outcome::Done) => Ok(()),
            Some(Outcome::Refused(why)) => refused(why.to_string()),
            Some(Outcome::PolicyApplied { .. } | Outcome::Leased(_)) | None => Err(Stop::Again(Answer::Unknown)),
        }
    }

    /// Asks Raft.
    async fn change(&self, changes: ChangeMembers<u64, Server>) -> Result<(), Stop> {
        match self.raft.change_membership(changes, false).await {
            Ok(_) => Ok(()),
            Err(error) => Err(stop(error)),
        }
    }

    async fn add(&self, ask: &MemberAsk, member: &Member, deadline: Instant) -> Notes {
        let known = self.known();
        let server = Server { name: member.name.clone(), site: member.site.clone(), address: member.address.clone() };
        if known.members.get(&member.id) == Some(&server) {
            let role = if known.voters.contains(&member.id) { "voter" } else { "learner" };
            return Ok(vec![format!("{} is a member already, as a {role}.", member.name)]);
        }
        for (id, other) in &known.members {
            if *id == member.id || other.name == member.name || other.address == member.address {
                return refused(format!(
                    "id, name and address must be new, but {} (id {id}, {}) is a member: see `posternctl cluster status`",
                    other.name, other.address
                ));
            }
        }
        if known.members.len() >= SERVERS_MAX {
            return refused(format!("a group has at most {SERVERS_MAX} servers: remove one first"));
        }
        if let Err(why) = is_free(&self.state.members(), member) {
            return refused(why.to_string());
        }
        match about::ask(&self.peers, member.id, &server).await {
            Err(problem) => {
                return refused(format!(
                    "{} does not answer at {} ({problem}): start postern-control there with id {} and an empty data folder",
                    member.name, member.address, member.id
                ));
            }
            Ok(about) => fits(&about, &server)?,
        }
        self.trace(ask, MemberAct::Add { member: member.clone() }, deadline).await?;
        if let Err(error) = self.raft.add_learner(member.id, server, false).await {
            return Err(stop(error));
        }
        tracing::info!(by = %ask.by, id = member.id, name = member.name, "a control server is added as a learner");
        Ok(vec![format!("{} is a learner now and is being filled; it has no vote yet.", member.name)])
    }

    async fn promote(&self, ask: &MemberAsk, name: &str, deadline: Instant) -> Notes {
        let known = self.known();
        let Some((id, server)) = known.named(name) else {
            return refused(format!("no member is called {name}: add it first with `posternctl cluster add`"));
        };
        if !known.voters.contains(&id) {
            if let Err(problem) = about::ask(&self.peers, id, server).await {
                return refused(format!("{name} does not answer ({problem}): a voter must be up"));
            }
            let lag = known.lag(id);
            // Of a server that nothing has come to yet even a short log is not there.
            if lag > LAG_MAX || !known.matched.contains_key(&id) {
                let why =
                    format!("{name} lacks {lag} of {} entries; at most {LAG_MAX} may be missing", known.last_log_index);
                return Err(Stop::Refused { why, lag: Some(lag) });
            }
            self.trace(ask, MemberAct::Promote { member: member_of(id, server) }, deadline).await?;
        }
        // Also where it is a voter: a change that was broken off in the middle is brought to its end.
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await?;
        let voters = self.known().voters.len();
        tracing::info!(by = %ask.by, id, name, voters, "a control server has a vote");
        let mut notes = vec![format!("{name} has a vote: {voters} voters.")];
        notes.extend(even(voters));
        Ok(notes)
    }

    async fn remove(&self, ask: &MemberAsk, name: &str, force: bool, deadline: Instant) -> Notes {
        let known = self.known();
        let Some((id, server)) = known.named(name) else {
            let gone = self.state.members().iter().any(|record| record.removed && record.member.name == name);
            return if gone {
                Ok(vec![format!("{name} is removed already.")])
            } else {
                refused(format!("no member is called {name}: see `posternctl cluster status`"))
            };
        };
        let mut notes = Vec::new();
        let voter = known.voters.contains(&id);
        if voter {
            let near = self.near_without(&known, id, force).await?;
            if id == self.me {
                let (to, server) = best(&known, &near).ok_or(Stop::Again(Answer::NotLeader))?;
                self.hand_over(&known, to, server).await?;
                // The one that leads now makes the change.
                return Err(Stop::Again(Answer::NotLeader));
            }
        }
        self.trace(ask, MemberAct::Remove { member: member_of(id, server), forced: force }, deadline).await?;
        let ids = BTreeSet::from([id]);
        let changes = if voter { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
        self.change(changes).await?;
        let voters = self.known().voters.len();
        tracing::info!(by = %ask.by, id, name, voters, "a control server is removed");
        notes.push(format!(
            "{name} is removed: {voters} voters are left. Switch it off and do not start it again; id {id} and the name \
             {name} are not used again."
        ));
        notes.extend(even(voters));
        Ok(notes)
    }

    async fn answers(&self, known: &Known, id: u64) -> bool {
        match known.members.get(&id) {
            Some(server) => id == self.me || about::ask(&self.peers, id, server).await.is_ok(),
            None => false,
        }
    }

    /// The voters that answer and have caught up, of those that are left without one; refuses when they are too few.
    async fn near_without(&self, known: &Known, leaves: u64, force: bool) -> Result<BTreeSet<u64>, Stop> {
        let left: BTreeMap<u64, &Server> = known
            .members
            .iter()
            .filter(|(id, _)| known.voters.contains(*id) && **id != leaves)
            .map(|(id, it)| (*id, it))
            .collect();
        if left.is_empty() {
            return refused("it is the last voter: the cluster would be gone");
        }
        let asked = left.keys().map(async |id| {
            let answers = self.answers(known, *id).await;
            (*id, answers && (*id == self.me || known.lag(*id) <= LAG_MAX))
        });
        let near: BTreeSet<u64> =
            join_all(asked).await.into_iter().filter(|(_, near)| *near).map(|(id, _)| id).collect();
        let needed = left.len() / 2 + 1;
        if near.len() < needed {
            let away: Vec<&str> =
                left.iter().filter(|(id, _)| !near.contains(id)).map(|(_, server)| server.name.as_str()).collect();
            return refused(format!(
                "it would cost the quorum: of the {} voters that would be left {needed} must be up and have caught up, but {} \
                 are away: bring them back, or add and promote a new server first",
                left.len(),
                away.join(", ")
            ));
        }
        if left.len() == 2 && !force && self.answers(known, leaves).await {
            return refused(
                "it is up, and with the two voters that would be left the cluster stops when either is down: add and promote \
                 another server first, or say --force",
            );
        }
        let sites: BTreeSet<&str> = left.values().map(|server| server.site.as_str()).collect();
        if sites.len() < 2 && !force {
            return refused(
                "the voters that would be left stand in one site, and a held message must be kept in two: add and promote a \
                 server in another site first, or say --force",
            );
        }
        Ok(near)
    }
}

/// Why it cannot be the server that is to be added.
fn fits(about: &About, wanted: &Server) -> Result<(), Stop> {
    let Server { name, site, address } = &about.server;
    if about.server != *wanted {
        return refused(format!(
            "the server at {} calls itself {name}={site}@{address}: write the same here and in its control.yaml",
            wanted.address
        ));
    }
    if about.voter {
        return refused(format!("{name} is a voter of another group: it must begin with an empty data folder"));
    }
    Ok(())
}

/// Of these voters the one whose log has come furthest, other than the leader.
pub(super) fn best<'k>(known: &'k Known, near: &BTreeSet<u64>) -> Option<(u64, &'k Server)> {
    let id = near.iter().copied().max_by_key(|id| (known.matched.get(id).copied(), std::cmp::Reverse(*id)))?;
    known.members.get(&id).map(|server| (id, server))
}

/// What there is to say about a number of voters.
fn even(voters: usize) -> Option<String> {
    match voters {
        1 => Some("With one voter nothing is safe from the loss of a disk: add and promote two more.".into()),
        2 => Some("With two voters the cluster stops when either is down: add and promote a third.".into()),
        _ if voters.is_multiple_of(2) => Some(format!(
            "{voters} voters survive no more losses than {}: remove the one that is to leave, or add one more.",
            voters - 1
        )),
        _ => None,
    }
}

/// What an error of Raft means for the step.
fn stop(error: RaftError<u64, ClientWriteError<u64, Server>>) -> Stop {
    let why = match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))) => {
            "another change of the membership is not committed yet: repeat the command; when that does not help, see \
             `posternctl cluster status` for who is down"
                .to_owned()
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            error @ (ChangeMembershipError::EmptyMembership(_) | ChangeMembershipError::LearnerNotFound(_)),
        )) => format!("{error}: the membership has moved; see `posternctl cluster status`"),
        // Not the leader any more; the entry may live on and be committed by another.
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) | RaftError::Fatal(_) => {
            return Stop::Again(Answer::Unknown);
        }
    };
    Stop::Refused { why, lag: None }
}

impl Group {
    /// Makes a step, wherever the leader is.
    ///
    /// # Errors
    /// See `ProposeError`. After `Unknown` the same step may be asked for again without harm.
    pub async fn change_members(&self, ask: MemberAsk) -> Result<Changed, ProposeError> {
        self.running()?;
        let answer = self.inner.leader.ask(&Ask::Member(ask), Instant::now() + PATIENCE).await?;
        let Answer::Member(changed) = answer else {
            tracing::error!(?answer, "a change of the membership got an answer that does not fit");
            return Err(ProposeError::Unknown);
        };
        Ok(changed)
    }
}
