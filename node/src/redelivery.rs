//! Delivers held messages that are due: leased, fetched, handed over, and what became of them put down. A message that was
//! deferred or released is delivered as it is held; it is not scanned again.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use proto::{
    address::{Address, Domain},
    department::DepartmentId,
    held::{Held, HeldId},
    mutation::{Change, Outcome},
    time::UnixMs,
    view::View,
};
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::Instant,
};

use crate::{
    actions::relay::{Handed, Relay},
    cluster::Cluster,
    limits::Limits,
    smtp::transaction::Route,
};

/// Held messages that one node delivers at once: each holds its bytes in memory.
const AT_ONCE_MAX: usize = 8;
/// How long a node has a message for itself.
const LEASE: Duration = Duration::from_secs(120);
/// How long a control server may let us wait for work.
const WAIT: Duration = Duration::from_secs(10);
/// Between two questions while nothing moves.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest time between two attempts.
const DELAY_MAX: Duration = Duration::from_secs(3600);
/// Characters of a problem that are put down.
const PROBLEM_MAX: usize = 500;

/// The worker. One a node.
#[derive(Clone, Debug)]
pub struct Redelivery {
    node: String,
    cluster: Cluster,
    relay: Relay,
    delay: Duration,
    relay_time_max: Duration,
}

/// What came of one attempt.
#[derive(Debug, Default, PartialEq, Eq)]
struct Attempt {
    delivered: Vec<Address>,
    refused: Vec<Address>,
    /// What was said last to those who have not got it.
    problem: String,
}

impl Redelivery {
    /// A worker of the node of this name.
    #[must_use]
    pub fn new(node_name: &str, cluster: Cluster, relay: Relay, limits: &Limits) -> Self {
        Self {
            node: node_name.to_owned(),
            cluster,
            relay,
            delay: limits.redelivery_delay,
            relay_time_max: limits.relay_time_max,
        }
    }

    /// Works until `stop` is true or its sender gone, and then ends what is under way, which takes two minutes at most.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut under_way = UnderWay::default();
        while !*stop.borrow() {
            let work = tokio::select! {
                changed = stop.changed() => {
                    if changed.is_err() { break }
                    continue;
                }
                work = self.work(&mut under_way) => work,
            };
            for held in work {
                let worker = self.clone();
                let id = held.id;
                under_way.begin(id, async move { worker.take(id).await });
            }
        }
        while under_way.end_one().await {}
    }

    /// Waits for work that is not under way yet; at most as much as there is room for.
    async fn work(&self, under_way: &mut UnderWay) -> Vec<Held> {
        let room = AT_ONCE_MAX.saturating_sub(under_way.by_task.len());
        if room == 0 {
            under_way.end_one().await;
            return Vec::new();
        }
        let due = tokio::select! {
            due = self.cluster.due(u32::try_from(AT_ONCE_MAX).unwrap_or(1), WAIT) => due,
            true = under_way.end_one() => return Vec::new(),
        };
        let mut due = due.unwrap_or_else(|error| {
            tracing::debug!(node = self.node, %error, "cannot ask for work that is due");
            Vec::new()
        });
        due.retain(|held| !under_way.has(held.id));
        due.truncate(room);
        if due.is_empty() {
            // What is due may be ours already, with the lease not yet committed.
            tokio::time::sleep(PAUSE).await;
        }
        due
    }

    /// One message: lease, deliver, put down. Another node may have been first; that is as it should be.
    async fn take(&self, id: HeldId) {
        let lease_ends = Instant::now() + LEASE;
        let for_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let held = match self.cluster.propose(Change::Lease { held: id, for_ms }).await {
            Ok(Outcome::Leased(held)) => held,
            Ok(Outcome::Refused(reason)) => return no_lease(id, &reason).await,
            Ok(Outcome::Done | Outcome::PolicyApplied { .. }) => return no_lease(id, &"an unfitting outcome").await,
            Err(error) => return no_lease(id, &error).await,
        };
        let attempt = self.attempt(&held, lease_ends).await;
        tracing::info!(
            held = %id, transaction = %held.transaction, attempts = held.attempts, delivered = attempt.delivered.len(),
            refused = attempt.refused.len(), recipients = held.recipients.len(), "tried to deliver a held message"
        );
        self.put_down(&held, attempt, lease_ends).await;
    }

    async fn attempt(&self, held: &Held, lease_ends: Instant) -> Attempt {
        let mut attempt = Attempt::default();
        let body = match self.cluster.body(&held.body).await {
            Ok(body) => body,
            Err(error) => {
                attempt.problem = format!("fetch the body: {error}");
                return attempt;
            }
        };
        let view = self.cluster.view().borrow().clone();
        for (route, recipients) in routes(held, &view) {
            let Some(route) = route else {
                attempt.problem =
                    "the department is gone from the policy; add it again, or delete the message".to_owned();
                continue;
            };
            if Instant::now() + self.relay_time_max > lease_ends {
                attempt.problem = "the time of the lease was up before this recipient's turn".to_owned();
                break;
            }
            let answers = self.relay.deliver(&route, &held.reverse_path, &recipients, &body).await;
            attempt.sort_in(recipients, answers);
        }
        attempt.problem = attempt.problem.chars().take(PROBLEM_MAX).collect();
        attempt
    }

    /// Proposes what came of it until the cluster has it or the lease is over. A second proposal of the same is refused,
    /// because the first gave the lease back.
    async fn put_down(&self, held: &Held, attempt: Attempt, lease_ends: Instant) {
        let change = Change::Attempted {
            held: held.id,
            delivered: attempt.delivered,
            refused: attempt.refused,
            next_attempt: UnixMs::now().plus_ms(delay_ms(self.delay, held.attempts)),
            problem: attempt.problem,
        };
        while Instant::now() < lease_ends {
            match self.cluster.propose(change.clone()).await {
                Ok(Outcome::Refused(refused)) => {
                    tracing::warn!(held = %held.id, %refused, "an attempt was not put down");
                    return;
                }
                Ok(Outcome::Done | Outcome::PolicyApplied { .. } | Outcome::Leased(_)) => return,
                Err(error) => tracing::warn!(held = %held.id, %error, "an attempt is not put down yet"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::error!(held = %held.id, "an attempt could not be put down within its lease; the message may come twice");
    }
}

/// Keeps the message to itself for a moment, so that a server which goes on to call it due is not asked without a pause.
async fn no_lease(id: HeldId, reason: &(dyn std::fmt::Display + Sync)) {
    tracing::debug!(held = %id, %reason, "no lease");
    tokio::time::sleep(PAUSE).await;
}

impl Attempt {
    fn sort_in(&mut self, recipients: Vec<Address>, answers: Vec<Handed>) {
        for (recipient, answer) in recipients.into_iter().zip(answers) {
            match answer {
                Handed::Accepted { .. } => self.delivered.push(recipient),
                Handed::Refused(reply) => {
                    self.refused.push(recipient);
                    self.problem = reply.for_operators();
                }
                Handed::Deferred(reply) | Handed::Unknown(reply) => self.problem = reply.for_operators(),
            }
        }
    }
}

/// Where the recipients go under the view of now: a department's by its next hops, the others by domain. A domain that has
/// become a department's since then is reached as one: its mail does not leave the private network. No route: the
/// department is gone.
fn routes(held: &Held, view: &View) -> Vec<(Option<Route>, Vec<Address>)> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Way {
        Department(DepartmentId),
        Relays,
        Domain(Domain),
    }
    let mut ways: BTreeMap<Way, Vec<Address>> = BTreeMap::new();
    for recipient in &held.recipients {
        let domain = recipient.domain();
        let department =
            held.department.clone().or_else(|| view.tenant_of(domain).map(|tenant| tenant.department.id.clone()));
        let way = match department {
            Some(id) => Way::Department(id),
            None if view.settings.internet_relays.is_empty() => Way::Domain(domain.clone()),
            None => Way::Relays,
        };
        ways.entry(way).or_default().push(recipient.clone());
    }
    let relays = || view.settings.internet_relays.clone();
    ways.into_iter()
        .filter_map(|(way, recipients)| {
            let domain = recipients.first()?.domain().clone();
            let route = match way {
                Way::Department(id) => view.tenant(&id).map(|tenant| {
                    let next_hops = tenant.department.next_hops.clone();
                    Route::Department { id, next_hops }
                }),
                Way::Relays => Some(Route::Internet { domain, relays: relays() }),
                Way::Domain(domain) => Some(Route::Internet { domain, relays: Vec::new() }),
            };
            Some((route, recipients))
        })
        .collect()
}

/// Before the next attempt when this many have failed before this one: doubled each time, at most an hour.
fn delay_ms(first: Duration, attempts: u32) -> u64 {
    let delay = first.saturating_mul(2_u32.saturating_pow(attempts)).min(DELAY_MAX);
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

/// The tasks of messages that are being delivered.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    by_task: HashMap<Id, HeldId>,
}

impl UnderWay {
    fn has(&self, id: HeldId) -> bool {
        self.by_task.values().any(|&other| other == id)
    }

    fn begin(&mut self, id: HeldId, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.by_task.insert(task.id(), id);
    }

    /// Waits for the end of one; false when there is none.
    async fn end_one(&mut self) -> bool {
        let ended = match self.tasks.join_next_with_id().await {
            None => return false,
            Some(Ok((task, ()))) => task,
            Some(Err(error)) => {
                tracing::error!(%error, "the delivery of a held message ended badly; its lease runs out");
                error.id()
            }
        };
        self.by_task.remove(&ended);
        true
    }
}
