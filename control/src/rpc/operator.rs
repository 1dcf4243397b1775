//! The `operator` service: what people with an operator's certificate do to the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proto::{
    archive::ArchiveAct,
    held::MutationId,
    identity::Identity,
    mutation::{Change, Grounds, Outcome},
    time::UnixMs,
    wire::operator::{
        ActRequest, ActResponse, ApplyRequest, ApplyResponse, AuditEntry, AuditRequest, AuditResponse, BackupRequest,
        BodyPart, BodyRestored, ForgetReputationRequest, FormRequest, FormResponse, HeldDetail, HeldRequest,
        HistoryRequest, HistoryResponse, LearningForgetRequest, LearningRequest, LearningResponse, ListRequest,
        ListResponse, MemberAddRequest, MemberChanged, MemberRequest, NodeDrainRequest, NodeDrained, NodeListRequest,
        NodeListResponse, Plan, PolicyFiles, ReportMailRequest, Reputation, RestoreStepDone, RestoreStepRequest,
        Server as WireServer, SetReputationRequest, StatusRequest, StatusResponse, SubjectRequest,
        operator_server::Operator,
    },
};
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, again::again, backup, caller, learning, members, nodes, policy, quarantine, reputation, restore};
use crate::{
    raft::{Server, members::SERVERS_MAX},
    state::{audit::check_grounds, store::StateStore},
};

/// How long a change is proposed again, under the same id, while a leader is being elected.
const PROPOSE_FOR: Duration = Duration::from_secs(10);
/// Most records in one answer.
const RECORDS_MAX: u32 = 1000;
/// Records in one answer when the request does not say.
const RECORDS_DEFAULT: u32 = 100;

/// Answers operators.
#[derive(Clone, Debug)]
pub struct OperatorService {
    shared: Shared,
    /// One at a time: each reads everything.
    backups: Arc<Semaphore>,
    /// One at a time: each may take a processor for seconds.
    policies: Arc<Semaphore>,
}

impl OperatorService {
    /// Over the group.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self { shared, backups: Arc::new(Semaphore::new(1)), policies: Arc::new(Semaphore::new(1)) }
    }

    async fn linearize(&self) -> Result<(), Status> {
        Ok(self.shared.group.linearize().await?)
    }

    /// Files of many MiB take a processor for seconds: beside the threads that carry heartbeats, and one at a time.
    async fn policy_work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let ended = |_| Status::unavailable("the server is ending");
        let turn = Arc::clone(&self.policies).acquire_owned().await.map_err(ended)?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| Status::internal(error.to_string()))
    }

    /// Proposes a change, again under the same id while there is no leader.
    async fn propose(&self, caller: &Identity, change: Change) -> Result<Outcome, Status> {
        if !change.allowed_for(caller.role) {
            return Err(Status::permission_denied(format!("a {} may not do this", caller.role)));
        }
        let id = MutationId::fresh();
        let end = Instant::now() + PROPOSE_FOR;
        let lost = || self.shared.group.is_lost();
        Ok(again(end, lost, || self.shared.propose(id, caller, change.clone())).await?)
    }

    /// Releases or deletes: a refusal is an answer in words, not an error.
    async fn act(
        &self,
        request: Request<ActRequest>,
        change: impl FnOnce(proto::held::HeldId, Grounds) -> Change,
    ) -> Result<Response<ActResponse>, Status> {
        let caller = caller(&request)?;
        let ActRequest { id, why, ticket } = request.into_inner();
        let (id, grounds) = (quarantine::held_id(&id)?, grounds(&why, &ticket)?);
        self.linearize().await?;
        self.done(&caller, change(id, grounds)).await
    }

    /// Proposes what is done or refused.
    async fn done(&self, caller: &Identity, change: Change) -> Result<Response<ActResponse>, Status> {
        let response = match self.propose(caller, change).await? {
            Outcome::Done => ActResponse { done: true, refused: String::new() },
            Outcome::Refused(refused) => ActResponse { done: false, refused: refused.to_string() },
            Outcome::PolicyApplied { .. } | Outcome::Leased(_) => {
                return Err(Status::internal("the state answered something else than was asked"));
            }
        };
        Ok(Response::new(response))
    }
}

/// Why it was not done, if it was not.
fn done(outcome: Outcome) -> Result<Option<String>, Status> {
    match outcome {
        Outcome::Done => Ok(None),
        Outcome::Refused(refused) => Ok(Some(refused.to_string())),
        Outcome::PolicyApplied { .. } | Outcome::Leased(_) => {
            Err(Status::internal("the state answered something else than was asked"))
        }
    }
}

/// Checked before anything is proposed, as the state will check it.
pub(super) fn grounds(why: &str, ticket: &str) -> Result<Grounds, Status> {
    let grounds = Grounds { why: why.trim().to_owned(), ticket: ticket.trim().to_owned() };
    check_grounds(&grounds).map_err(|refused| Status::invalid_argument(refused.to_string()))?;
    Ok(grounds)
}

/// How many records to answer with.
fn bounded(max: u32) -> usize {
    let max = if max == 0 { RECORDS_DEFAULT } else { max.min(RECORDS_MAX) };
    max as usize
}

/// The membership that a request names: each id, name and address once, and this server among them.
fn membership(request: FormRequest, me: (u64, &Server)) -> Result<BTreeMap<u64, Server>, Status> {
    let invalid = |problem: String| Err(Status::invalid_argument(problem));
    let count = request.servers.len();
    if !(1..=SERVERS_MAX).contains(&count) {
        return invalid(format!("a group has 1 to {SERVERS_MAX} servers, 3 or 5 in practice, not {count}"));
    }
    let (mut names, mut addresses, mut members) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for WireServer { id, name, site, address } in request.servers {
        if id == 0 || name.is_empty() || site.is_empty() || address.is_empty() {
            return invalid("each server needs an id from 1, a name, a site and an address".to_owned());
        }
        if !names.insert(name.clone()) || !addresses.insert(address.clone()) {
            return invalid(format!("the name {name} or the address {address} is there twice"));
        }
        if members.insert(id, Server { name, site, address }).is_some() {
            return invalid(format!("the id {id} is there twice"));
        }
    }
    let (id, server) = me;
    if members.get(&id) != Some(server) {
        return invalid(format!(
            "the server that answers must be one of them: id {id}, name {}, site {}, address {}",
            server.name, server.site, server.address
        ));
    }
    Ok(members)
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn form(&self, request: Request<FormRequest>) -> Result<Response<FormResponse>, Status> {
        let caller = caller(&request)?;
        let group = &self.shared.group;
        let members = membership(request.into_inner(), group.me())?;
        let known = group.status().members;
        // Asked again after a first leader was long in coming, it only leaves the trace.
        let again = known == members && self.shared.read(StateStore::members).await?.is_empty();
        if !known.is_empty() && !again {
            return Err(Status::failed_precondition("the group is formed already; posternctl cluster status shows it"));
        }
        if !again {
            group.form(members.clone()).await.map_err(|error| Status::failed_precondition(format!("{error:#}")))?;
            tracing::info!(%caller, count = members.len(), "the group is formed");
        }
        match self.propose(&caller, members::formed(&members)).await {
            Ok(outcome) if members::is_traced(&outcome) => Ok(Response::new(FormResponse {})),
            Ok(_) => Err(Status::internal("the state answered something else than was asked")),
            Err(status) => Err(Status::unavailable(format!(
                "the group is formed, but has no leader yet ({}): do all servers run and reach each other? Then repeat the \
                 command, so that it leaves its trace",
                status.message()
            ))),
        }
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(members::status(&self.shared, false).await?))
    }

    async fn members(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(members::status(&self.shared, true).await?))
    }

    async fn policy_plan(&self, request: Request<PolicyFiles>) -> Result<Response<Plan>, Status> {
        self.linearize().await?;
        let current = self.shared.read(StateStore::view).await?;
        let files = request.into_inner();
        let plan = self.policy_work(move || policy::plan(files, current)).await?;
        Ok(Response::new(plan))
    }

    async fn policy_apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = caller(&request)?;
        let ApplyRequest { files, base_version, why, ticket } = request.into_inner();
        let grounds = grounds(&why, &ticket)?;
        self.linearize().await?;
        let current = self.shared.read(StateStore::view).await?;
        let files = files.unwrap_or_default();
        match self.policy_work(move || policy::apply(files, base_version, current, grounds)).await?? {
            policy::Apply::Answer(response) => Ok(Response::new(response)),
            policy::Apply::Propose { change, changes } => {
                let outcome = self.propose(&caller, *change).await?;
                Ok(Response::new(ApplyResponse { version: policy::applied(outcome)?, changes, faults: Vec::new() }))
            }
        }
    }

    async fn policy_history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        self.linearize().await?;
        let max = bounded(request.into_inner().max);
        let mut records = self.shared.read(move |state| state.history(max + 1)).await?;
        let more = records.len() > max;
        records.truncate(max);
        Ok(Response::new(HistoryResponse { entries: records.into_iter().map(policy::entry).collect(), more }))
    }

    async fn quarantine_list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let request = request.into_inner();
        let max = bounded(request.max);
        let filter = quarantine::filter(&request, max + 1)?;
        self.linearize().await?;
        let held = self.shared.read(move |state| state.held_list(&filter)).await?;
        let more = held.len() > max;
        Ok(Response::new(ListResponse { held: held.iter().take(max).map(quarantine::summary).collect(), more }))
    }

    async fn quarantine_show(&self, request: Request<HeldRequest>) -> Result<Response<HeldDetail>, Status> {
        let id = quarantine::held_id(&request.into_inner().id)?;
        self.linearize().await?;
        let held = self.shared.read(move |state| state.held(id)).await?;
        let held = held.ok_or_else(|| Status::not_found("no such held message"))?;
        Ok(Response::new(quarantine::detail(&held)))
    }

    async fn quarantine_release(&self, request: Request<ActRequest>) -> Result<Response<ActResponse>, Status> {
        self.act(request, |held, grounds| Change::Release { held, grounds }).await
    }

    async fn quarantine_delete(&self, request: Request<ActRequest>) -> Result<Response<ActResponse>, Status> {
        self.act(request, |held, grounds| Change::Delete { held, grounds }).await
    }

    async fn reputation_show(&self, request: Request<SubjectRequest>) -> Result<Response<Reputation>, Status> {
        let subject = reputation::subject(&request.into_inner().subject)?;
        self.linearize().await?;
        let key = subject.key();
        let (known, log_time) = self.shared.read(move |state| (state.reputation(key), state.log_time())).await?;
        Ok(Response::new(reputation::shown(&subject, known, UnixMs::now().max(log_time))))
    }

    async fn reputation_set(&self, request: Request<SetReputationRequest>) -> Result<Response<ActResponse>, Status> {
        let caller = caller(&request)?;
        let SetReputationRequest { subject, stance, until_ms, why, ticket } = request.into_inner();
        let change = reputation::set(&subject, &stance, until_ms, grounds(&why, &ticket)?)?;
        self.done(&caller, change).await
    }

    async fn reputation_forget(
        &self,
        request: Request<ForgetReputationRequest>,
    ) -> Result<Response<ActResponse>, Status> {
        let caller = caller(&request)?;
        let ForgetReputationRequest { subject, why, ticket } = request.into_inner();
        let subject = reputation::subject(&subject)?;
        self.done(&caller, Change::ForgetReputation { subject, grounds: grounds(&why, &ticket)? }).await
    }

    async fn learning_show(&self, _: Request<LearningRequest>) -> Result<Response<LearningResponse>, Status> {
        self.linearize().await?;
        let (rules, known) = self.shared.read(|state| (state.settings().learning(), state.learning())).await?;
        Ok(Response::new(learning::shown(rules, known)))
    }

    async fn learning_forget(&self, request: Request<LearningForgetRequest>) -> Result<Response<ActResponse>, Status> {
        let caller = caller(&request)?;
        let LearningForgetRequest { why, ticket } = request.into_inner();
        self.done(&caller, Change::ForgetLearning { grounds: grounds(&why, &ticket)? }).await
    }

    async fn report_mail(&self, request: Request<ReportMailRequest>) -> Result<Response<ActResponse>, Status> {
        let caller = caller(&request)?;
        let ReportMailRequest { bad, lessons, why, ticket } = request.into_inner();
        let grounds = grounds(&why, &ticket)?;
        self.done(&caller, Change::ReportMail { lessons: learning::lessons(&lessons, bad)?, grounds }).await
    }

    async fn audit(&self, request: Request<AuditRequest>) -> Result<Response<AuditResponse>, Status> {
        self.linearize().await?;
        let AuditRequest { max, before_seq } = request.into_inner();
        let page = self.shared.read(move |state| state.audit(before_seq, bounded(max))).await?;
        let entry = |record: proto::audit::AuditRecord| AuditEntry {
            hash: record.hash(),
            seq: record.seq,
            at_ms: record.at.0,
            by: record.by,
            what: record.what,
            why: record.why,
            ticket: record.ticket,
            previous: record.previous,
        };
        let entries = page.records.into_iter().map(entry).collect();
        Ok(Response::new(AuditResponse { entries, head_seq: page.head_seq, head_hash: page.head_hash }))
    }

    async fn member_add(&self, request: Request<MemberAddRequest>) -> Result<Response<MemberChanged>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(members::add(&self.shared, caller, request.into_inner()).await?))
    }

    async fn member_promote(&self, request: Request<MemberRequest>) -> Result<Response<MemberChanged>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(members::promote(&self.shared, caller, request.into_inner()).await?))
    }

    async fn member_remove(&self, request: Request<MemberRequest>) -> Result<Response<MemberChanged>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(members::remove(&self.shared, caller, request.into_inner()).await?))
    }

    async fn transfer_leader(&self, request: Request<MemberRequest>) -> Result<Response<MemberChanged>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(members::transfer(&self.shared, caller, request.into_inner()).await?))
    }

    async fn node_list(&self, _: Request<NodeListRequest>) -> Result<Response<NodeListResponse>, Status> {
        self.linearize().await?;
        Ok(Response::new(nodes::list(&self.shared).await?))
    }

    async fn node_drain(&self, request: Request<NodeDrainRequest>) -> Result<Response<NodeDrained>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let refused = match self.propose(&caller, nodes::drain(&request)?).await? {
            Outcome::Done => String::new(),
            Outcome::Refused(refused) => refused.to_string(),
            Outcome::PolicyApplied { .. } | Outcome::Leased(_) => {
                return Err(Status::internal("the state answered something else than was asked"));
            }
        };
        let seen = nodes::is_seen(&self.shared, &request.node).await;
        Ok(Response::new(NodeDrained { done: refused.is_empty(), refused, seen }))
    }

    type BackupStream = backup::Parts;

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let caller = caller(&request)?;
        let BackupRequest { why, ticket } = request.into_inner();
        let change = Change::Archive { act: ArchiveAct::Backup, grounds: grounds(&why, &ticket)? };
        let turn = Arc::clone(&self.backups).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("this server is sending a backup already: wait, or ask another one")
        })?;
        done(self.propose(&caller, change).await?)?
            .map_or_else(|| Ok(()), |why| Err(Status::failed_precondition(why)))?;
        // So that the archive holds its own trace.
        self.linearize().await?;
        Ok(Response::new(backup::send(self.shared.clone(), turn)))
    }

    async fn restore_step(&self, request: Request<RestoreStepRequest>) -> Result<Response<RestoreStepDone>, Status> {
        let caller = caller(&request)?;
        let change = restore::step(request.into_inner())?;
        let refused = done(self.propose(&caller, change).await?)?;
        Ok(Response::new(RestoreStepDone { done: refused.is_none(), refused: refused.unwrap_or_default() }))
    }

    async fn restore_body(&self, request: Request<Streaming<BodyPart>>) -> Result<Response<BodyRestored>, Status> {
        Ok(Response::new(restore::body(&self.shared, request.into_inner()).await?))
    }
}

#[cfg(test)]
mod tests {
    use proto::wire::operator::{FormRequest, Server as WireServer};

    use super::{bounded, grounds, membership};
    use crate::raft::Server;

    fn wire(id: u64, name: &str, address: &str) -> WireServer {
        WireServer { id, name: name.into(), site: "north".into(), address: address.into() }
    }

    #[test]
    fn a_membership_names_each_server_once_and_the_one_that_answers() {
        let me = Server { name: "c1".into(), site: "north".into(), address: "127.0.0.1:7001".into() };
        let form = |servers: Vec<WireServer>| membership(FormRequest { servers }, (1, &me));
        let (first, second) = (wire(1, "c1", "127.0.0.1:7001"), wire(2, "c2", "127.0.0.1:7002"));
        assert_eq!(form(vec![first.clone(), second.clone()]).expect("a membership").len(), 2);
        for bad in [
            vec![],
            vec![second.clone()],
            vec![first.clone(), wire(1, "c2", "127.0.0.1:7002")],
            vec![first.clone(), wire(2, "c1", "127.0.0.1:7002")],
            vec![first.clone(), wire(2, "c2", "127.0.0.1:7001")],
            vec![first.clone(), wire(0, "c2", "127.0.0.1:7002")],
            vec![first.clone(), wire(2, "", "127.0.0.1:7002")],
            vec![wire(1, "c1", "127.0.0.1:7009"), second],
        ] {
            assert!(form(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reason_is_needed_and_short_and_cannot_write_to_a_terminal() {
        let kept = grounds(" moved next hop ", "T-1").expect("grounds");
        assert_eq!((kept.why.as_str(), kept.ticket.as_str()), ("moved next hop", "T-1"));
        assert!(grounds(&"ü".repeat(500), "").is_ok());
        assert!(grounds(&"x".repeat(501), "").is_err());
        assert!(grounds("a\u{1b}[2J", "").is_err());
        assert!(grounds("why", "T\n1").is_err());
        let refused = grounds("  ", "T-1").expect_err("no change without a reason");
        assert!(refused.message().contains("a reason is needed"), "{refused}");
    }

    #[test]
    fn an_answer_has_a_bounded_number_of_records() {
        assert_eq!((bounded(0), bounded(7), bounded(u32::MAX)), (100, 7, 1000));
    }
}
