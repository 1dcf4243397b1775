//! Members as operators see and change them: status, adding, promoting, removing, handing over leadership.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use proto::{
    held::MutationId,
    identity::Identity,
    member::{self, Member as ProtoMember, MemberAct},
    mutation::{Change, Grounds, Outcome, Principal},
    wire::operator::{
        About as WireAbout, BodyHealth as WireBodies, Member, MemberAddRequest, MemberChanged, MemberRequest,
        Server as WireServer, StatusResponse,
    },
};
use tokio::{net::TcpStream, time::timeout};
use tonic::Status;

use super::{Shared, operator::grounds};
use crate::{
    bodies::keep::BodyHealth,
    raft::{
        GroupStatus, Server,
        about::About,
        members::{Changed, MemberAsk, MemberStep},
    },
    state::store::StateStore,
};

/// How long a member may take to accept a connection before `Status` calls it down.
const ALIVE_WITHIN: Duration = Duration::from_millis(500);
/// Why of a hand-over for which the operator gave none: nothing is changed by it but who leads.
const HAND_OVER: &str = "leadership handed over";

/// A server as the wire names it.
#[must_use]
pub fn wire_server(id: u64, server: &Server) -> WireServer {
    let Server { name, site, address } = server.clone();
    WireServer { id, name, site, address }
}

/// What this server knows of the group. `ask`: also what each member says of itself.
pub(super) async fn status(shared: &Shared, ask: bool) -> Result<StatusResponse, Status> {
    let group = &shared.group;
    let held = shared.read(StateStore::held_count).await?;
    let (id, me) = group.me();
    let said = if ask { group.about_all().await } else { BTreeMap::new() };
    let mut status = group.status();
    // A follower hears from the leader how long ago the quorum answered and how far the others are.
    if let Some(Ok(leader)) = status.leader.and_then(|leader| said.get(&leader)) {
        status.quorum_age_ms = leader.quorum_age_ms;
        status.matched.clone_from(&leader.matched);
    }
    let members = if ask { asked(&status, said) } else { touched(&status, id).await };
    Ok(StatusResponse {
        answering: Some(wire_server(id, me)),
        leader: status.leader.unwrap_or(0),
        term: status.term,
        applied_index: status.applied_index,
        last_log_index: status.last_log_index,
        policy_version: group.applied().borrow().policy_version,
        held,
        quorum_age_ms: status.quorum_age_ms,
        members,
        under_way: under_way(&status),
        refused: shared.guard.refusals.snapshot().into_iter().map(|(why, n)| (why.to_owned(), n)).collect(),
    })
}

/// Which voters to which, while a change of the membership is neither done nor given up.
fn under_way(status: &GroupStatus) -> String {
    let name = |id: &u64| status.members.get(id).map_or_else(|| id.to_string(), |server| server.name.clone());
    let voters = status.joint.iter().map(|voters| voters.iter().map(name).collect::<Vec<_>>().join(", "));
    voters.collect::<Vec<_>>().join(" -> ")
}

fn shown(status: &GroupStatus, id: u64, server: &Server) -> Member {
    let role = match (status.leader == Some(id), status.voters.contains(&id)) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    };
    Member {
        server: Some(wire_server(id, server)),
        role: role.to_owned(),
        matched_index: status.matched.get(&id).copied(),
        ..Member::default()
    }
}

/// The members, each asked for a sign of life; `me` is the one that answers.
async fn touched(status: &GroupStatus, me: u64) -> Vec<Member> {
    let members = status.members.iter().map(async |(id, server)| {
        let address = server.address.clone();
        let answers = *id == me || matches!(timeout(ALIVE_WITHIN, TcpStream::connect(address)).await, Ok(Ok(_)));
        Member { answers, ..shown(status, *id, server) }
    });
    join_all(members).await
}

/// The members with what they have said of themselves.
fn asked(status: &GroupStatus, mut said: BTreeMap<u64, Result<About, String>>) -> Vec<Member> {
    let member = |(id, server): (&u64, &Server)| {
        let member = shown(status, *id, server);
        // The membership may have moved since it was asked.
        match said.remove(id).unwrap_or_else(|| Err("it was not a member when the others were asked".into())) {
            Ok(about) => Member { answers: true, about: Some(wire_about(about)), ..member },
            Err(problem) => Member { problem, ..member },
        }
    };
    status.members.iter().map(member).collect()
}

fn wire_about(about: About) -> WireAbout {
    WireAbout {
        term: about.term,
        leader: about.leader.unwrap_or(0),
        applied_index: about.applied_index,
        last_log_index: about.last_log_index,
        policy_version: about.policy_version,
        version: about.version,
        encoding: about.encoding,
        uptime_ms: about.uptime_ms,
        disk_free_bytes: about.disk.map(|disk| disk.free_bytes),
        disk_bytes: about.disk.map(|disk| disk.size_bytes),
        used_bytes: about.disk.map(|disk| disk.used_bytes),
        now_ms: about.now.0,
        certificate_until_ms: about.vitals.certificate_until.0,
        bodies: Some(wire_bodies(&about.vitals.bodies)),
        refused: about.vitals.refused.into_iter().collect(),
        log_time_ms: about.log_time.0,
        undecided_at: about.undecided_at,
    }
}

fn wire_bodies(bodies: &BodyHealth) -> WireBodies {
    WireBodies {
        round_at_ms: bodies.round_at.0,
        kept: bodies.kept,
        repaired: bodies.repaired,
        lacking: bodies.lacking,
        nowhere: bodies.nowhere,
        one_site: bodies.one_site,
    }
}

/// Leaves the trace of the first membership, once there is a leader.
pub(super) fn formed(members: &BTreeMap<u64, Server>) -> Change {
    let member = |(id, server): (&u64, &Server)| {
        let Server { name, site, address } = server.clone();
        ProtoMember { id: *id, name, site, address }
    };
    let grounds = Grounds { why: "the first members of the cluster".into(), ticket: String::new() };
    Change::Member { act: MemberAct::Form { members: members.iter().map(member).collect() }, grounds }
}

/// What became of that trace: who was first does not matter.
pub(super) fn is_traced(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done | Outcome::Refused(_) => true,
        Outcome::PolicyApplied { .. } | Outcome::Leased(_) => false,
    }
}

/// Adds a server.
pub(super) async fn add(shared: &Shared, by: Identity, request: MemberAddRequest) -> Result<MemberChanged, Status> {
    let MemberAddRequest { server, why, ticket } = request;
    let WireServer { id, name, site, address } = server.unwrap_or_default();
    let invalid = |what: &str, problem: &str| Status::invalid_argument(format!("{what}: {problem}"));
    if id == 0 || id > u64::from(u32::MAX) {
        return Err(invalid("id", "a number from 1 is needed"));
    }
    let member = ProtoMember {
        id,
        name: member::name(&name).map_err(|problem| invalid("name", problem))?,
        site: member::name(&site).map_err(|problem| invalid("site", problem))?,
        address: member::address(&address).map_err(|problem| invalid("address", problem))?,
    };
    change(shared, by, MemberStep::Add(member), grounds(&why, &ticket)?).await
}

/// Promotes a learner.
pub(super) async fn promote(shared: &Shared, by: Identity, request: MemberRequest) -> Result<MemberChanged, Status> {
    let grounds = grounds(&request.why, &request.ticket)?;
    change(shared, by, MemberStep::Promote { name: named(&request.name)? }, grounds).await
}

/// Removes a member.
pub(super) async fn remove(shared: &Shared, by: Identity, request: MemberRequest) -> Result<MemberChanged, Status> {
    let grounds = grounds(&request.why, &request.ticket)?;
    let step = MemberStep::Remove { name: named(&request.name)?, force: request.force };
    change(shared, by, step, grounds).await
}

/// Hands leadership over.
pub(super) async fn transfer(shared: &Shared, by: Identity, request: MemberRequest) -> Result<MemberChanged, Status> {
    let why = if request.why.is_empty() { HAND_OVER } else { &request.why };
    let grounds = grounds(why, &request.ticket)?;
    let to = if request.name.is_empty() { None } else { Some(named(&request.name)?) };
    // Who leads now: asked again after a broken connection, leadership does not move on to a third.
    shared.group.linearize().await?;
    let Some(from) = shared.group.status().leader else {
        return Err(Status::unavailable("nobody leads now: a majority of the members must be up and reach each other"));
    };
    change(shared, by, MemberStep::Transfer { from, to }, grounds).await
}

fn named(name: &str) -> Result<String, Status> {
    member::name(name).map_err(|problem| Status::invalid_argument(format!("name: {problem}")))
}

async fn change(
    shared: &Shared,
    caller: Identity,
    step: MemberStep,
    grounds: Grounds,
) -> Result<MemberChanged, Status> {
    tracing::info!(%caller, ?step, "an operator changes the membership");
    let by = Principal { role: caller.role, name: caller.name };
    let ask = MemberAsk { step, id: MutationId::fresh(), by, grounds };
    Ok(match shared.group.change_members(ask).await? {
        Changed::Done { notes } => MemberChanged { done: true, notes, ..MemberChanged::default() },
        Changed::Refused { why, lag } => MemberChanged { refused: why, lag, ..MemberChanged::default() },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{asked, under_way};
    use crate::raft::{GroupStatus, Server, about::About};

    #[test]
    fn a_member_that_cannot_be_asked_is_shown_with_the_reason() {
        let server = |name: &str| Server { name: name.into(), ..Server::default() };
        let members = BTreeMap::from([(1, server("alpha")), (2, server("beta")), (3, server("gamma"))]);
        let voters = BTreeSet::from([1, 2]);
        let mut status = GroupStatus { leader: Some(1), members, voters, ..GroupStatus::default() };
        let said =
            BTreeMap::from([(1, Ok(About::default())), (2, Err("refused".to_owned())), (3, Ok(About::default()))]);
        let shown = asked(&status, said);
        let roles: Vec<&str> = shown.iter().map(|member| member.role.as_str()).collect();
        assert_eq!(roles, ["leader", "voter", "learner"]);
        assert!(!shown[1].answers && shown[1].problem == "refused" && shown[1].about.is_none());
        assert!(shown[2].answers && shown[2].about.is_some());
        assert_eq!(under_way(&status), "");
        status.joint = vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 3])];
        assert_eq!(under_way(&status), "alpha, beta -> alpha, gamma");
    }
}
