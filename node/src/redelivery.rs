//! Delivers held messages that are due: leased, fetched, handed over, and what became of them put down. A message that was
//! deferred or released is delivered as it is held, and not judged again; but what is not known to be free of malware is
//! scanned before.

mod lesson;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use proto::{
    address::{Address, Domain},
    department::DepartmentId,
    held::{Held, HeldId, HeldKind},
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
    actions::{
        hold::PROBLEM_CHARS_MAX,
        relay::{Envelope, Handed, Relay},
    },
    cluster::Cluster,
    examine::Examiner,
    limits::Limits,
    policy::evidence::Virus,
    smtp::transaction::Route,
};

/// Held messages that one node delivers at once: each holds its bytes in memory.
const AT_ONCE_MAX: usize = 32;
/// Routes of one message that are tried at once.
const ROUTES_AT_ONCE_MAX: usize = 8;
/// How long a node has a message for itself when it dies.
const LEASE: Duration = Duration::from_secs(120);
/// A node that lives asks for its lease anew after this.
const LEASE_RENEWED_AFTER: Duration = Duration::from_secs(30);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(600);
/// The end of an attempt, in which no next hop is waited for.
const ATTEMPT_REST: Duration = Duration::from_secs(60);
/// The longest time for one route. RFC 5321 section 4.5.3.2.6 asks for ten minutes after the final dot alone; a sender that
/// gives up earlier leaves a copy with each attempt.
const ROUTE_TIME_MAX: Duration = Duration::from_secs(480);
/// A route that can have no more than this waits for the next attempt. Inline deliveries, whose rest comes here, must have
/// less.
pub const ROUTE_TIME_MIN: Duration = Duration::from_secs(300);
/// How long a control server may let us wait for work.
const WAIT: Duration = Duration::from_secs(10);
/// Between two questions while nothing moves.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest time between two attempts.
const DELAY_MAX: Duration = Duration::from_secs(3600);
/// The longest time between two proposals of what came of an attempt.
const PUT_DOWN_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The worker. One a node.
#[derive(Clone, Debug)]
pub struct Redelivery {
    node: String,
    cluster: Cluster,
    relay: Relay,
    examiner: Examiner,
    attempt_max: Duration,
    delay: Duration,
    /// After a stop next hops are waited for as long as a sender would be kept waiting.
    stop_hops_after: Duration,
    /// After a stop the cluster is waited for so long.
    stop_all_after: Duration,
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
    pub fn new(node_name: &str, cluster: Cluster, relay: Relay, examiner: Examiner, limits: &Limits) -> Self {
        Self {
            node: node_name.to_owned(),
            cluster,
            relay,
            examiner,
            attempt_max: ATTEMPT,
            delay: limits.redelivery_delay,
            stop_hops_after: limits.relay_time_max,
            stop_all_after: limits.drain_time_max,
        }
    }

    /// Works until `stop` is true or its sender gone, and then ends what is under way: next hops have `Limits::relay_time_max`
    /// to answer, and what came of it is proposed until `Limits::drain_time_max` has passed, once at least.
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
                let (worker, stop) = (self.clone(), stop.clone());
                under_way.begin(held.id, async move { worker.take(&held, stop).await });
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
        let mut view = self.cluster.view();
        if view.borrow_and_update().is_drained(&self.node) {
            tracing::info!(node = self.node, "this node is drained: no new mail, no new deliveries of held mail");
            tokio::select! {
                moved = view.wait_for(|view| !view.is_drained(&self.node)) => {
                    // The watch ends with the last handle, and `self` is one.
                    drop(moved);
                    tracing::info!(node = self.node, "this node is no longer drained");
                }
                true = under_way.end_one() => {}
            }
            return Vec::new();
        }
        let due = tokio::select! {
            _ = view.wait_for(|view| view.is_drained(&self.node)) => return Vec::new(),
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
    async fn take(&self, due: &Held, stop: watch::Receiver<bool>) {
        let id = due.id;
        let ends = Instant::now() + self.attempt_max;
        let held = match self.cluster.propose(lease(id)).await {
            Ok(Outcome::Leased(held)) => held,
            Ok(Outcome::Refused(reason)) => return no_lease(id, &reason).await,
            Ok(Outcome::Done | Outcome::PolicyApplied { .. }) => return no_lease(id, &"an unfitting outcome").await,
            Err(error) => {
                // The lease may have been granted all the same; nobody else could take the message until it runs out.
                tracing::warn!(held = %id, %error, "it is not known whether there is a lease: it is given back");
                let problem = "the cluster did not answer when a node asked for the lease".to_owned();
                return self.put_down(due, Attempt { problem, ..Attempt::default() }, stop).await;
            }
        };
        let attempt = tokio::select! {
            attempt = self.attempt(&held, ends, &stop) => attempt,
            never = self.renew(id) => match never {},
        };
        tracing::info!(
            held = %id, transaction = %held.transaction, attempts = held.attempts, delivered = attempt.delivered.len(),
            refused = attempt.refused.len(), recipients = held.recipients.len(), "tried to deliver a held message"
        );
        let teaches = lesson::teaches(&held, &attempt);
        self.put_down(&held, attempt, stop).await;
        if teaches {
            self.teach(&held).await;
        }
    }

    /// Keeps the lease while the message is being delivered, for as long as the cluster answers.
    async fn renew(&self, id: HeldId) -> Infallible {
        loop {
            tokio::time::sleep(LEASE_RENEWED_AFTER).await;
            match self.cluster.propose(lease(id)).await {
                Ok(Outcome::Leased(_)) => {}
                Ok(outcome) => tracing::warn!(held = %id, ?outcome, "the lease is not renewed"),
                Err(error) => tracing::warn!(held = %id, %error, "the lease is not renewed"),
            }
        }
    }

    async fn attempt(&self, held: &Held, ends: Instant, stop: &watch::Receiver<bool>) -> Attempt {
        let body = match self.cluster.body(&held.body).await {
            Ok(body) => body,
            Err(error) => return Attempt { problem: format!("fetch the body: {error}"), ..Attempt::default() },
        };
        if let Some(stopped) = self.scan(held, &body).await {
            return stopped;
        }
        let mut ways = routes(held, &self.cluster.view().borrow().clone());
        // Slow next hops that take up all time of one attempt must not be the first in each.
        let turn = usize::try_from(held.attempts).unwrap_or_default().wrapping_mul(ROUTES_AT_ONCE_MAX);
        let turn = turn % ways.len().max(1);
        ways.rotate_left(turn);
        let deliveries = ways.into_iter().map(|(route, recipients)| async {
            let answers = self.hand_over(route, held, &recipients, &body, ends).await;
            (recipients, answers)
        });
        let mut answered = pin!(stream::iter(deliveries).buffer_unordered(ROUTES_AT_ONCE_MAX));
        let mut stopping = pin!(after_stop(stop.clone(), self.stop_hops_after));
        let mut attempt = Attempt::default();
        loop {
            tokio::select! {
                biased;
                next = answered.next() => match next {
                    Some((recipients, Ok(answers))) => attempt.sort_in(recipients, answers),
                    Some((_, Err(problem))) => attempt.problem = problem,
                    None => return attempt,
                },
                () = &mut stopping => {
                    attempt.problem = "the node was stopped before each next hop had answered".to_owned();
                    return attempt;
                }
            }
        }
    }

    /// What ends the attempt before any delivery: promise 2. A release overrules policy and score; malware it does not. Only
    /// where clamd can never look into a message, and has not found anything in it before, the word of who released it counts;
    /// what nobody has released waits then, until it is given up and left to people.
    async fn scan(&self, held: &Held, body: &Bytes) -> Option<Attempt> {
        let has = |is: fn(&str) -> bool| held.verdict.reasons.iter().any(|reason| is(&reason.rule));
        let was_infected = has(|rule| rule == "MALWARE");
        if !was_infected && !has(|rule| rule.starts_with("VIRUS_")) {
            return None;
        }
        let infected = |name: &str| Attempt {
            refused: held.recipients.clone(),
            problem: clipped(&format!("malware: {name}; it is not delivered")),
            ..Attempt::default()
        };
        let open = |why: &str| Attempt {
            problem: clipped(&format!("it could not be scanned: {why}; it is tried again")),
            ..Attempt::default()
        };
        match self.examiner.scan_held(body.clone()).await {
            Virus::Clean => None,
            Virus::Unscannable { .. } if !was_infected && held.kind == HeldKind::Quarantined => None,
            Virus::Unscannable { why } if !was_infected => Some(open(&why)),
            Virus::Unscannable { .. } => Some(infected("found before, and now it cannot be scanned")),
            Virus::Infected { name } => Some(infected(&name)),
            Virus::Unavailable { why } => Some(open(&why)),
            Virus::NotScanned => Some(open("nobody looked at it")),
        }
    }

    /// The answers of one route for its recipients, or why it was not tried.
    async fn hand_over(
        &self,
        route: Option<Route>,
        held: &Held,
        recipients: &[Address],
        body: &[u8],
        ends: Instant,
    ) -> Result<Vec<Handed>, String> {
        let route = route.ok_or(
            "no department has the recipient's domain now, and its mail does not leave the private network: \
             add the domain again",
        )?;
        let left = ends.saturating_duration_since(Instant::now()).saturating_sub(ATTEMPT_REST);
        if left < ROUTE_TIME_MIN {
            return Err("the time of the attempt was up before this recipient's turn".to_owned());
        }
        let limit = left.min(ROUTE_TIME_MAX);
        let asked = |recipient| held.notifications.get(recipient).cloned().unwrap_or_default();
        let notifications: Vec<_> = recipients.iter().map(asked).collect();
        let (from, handling) = (&held.reverse_path, &held.handling);
        let envelope = Envelope { from, handling, to: recipients, notifications: &notifications };
        Ok(self.relay.deliver_within(limit, &route, envelope, body).await)
    }

    /// Proposes what came of it until the cluster has it: also after the lease, which counts until another node takes the
    /// message over. A second proposal of the same is refused, because the first gave the lease back.
    async fn put_down(&self, held: &Held, attempt: Attempt, stop: watch::Receiver<bool>) {
        let change = Change::Attempted {
            held: held.id,
            delivered: attempt.delivered,
            refused: attempt.refused,
            next_attempt: UnixMs::now().plus_ms(delay_ms(self.delay, held.attempts)),
            problem: attempt.problem,
        };
        let mut stopping = pin!(after_stop(stop, self.stop_all_after));
        let mut pause = PAUSE;
        loop {
            match self.cluster.propose(change.clone()).await {
                Ok(Outcome::Refused(refused)) => {
                    tracing::warn!(held = %held.id, %refused, "an attempt was not put down");
                    return;
                }
                Ok(Outcome::Done | Outcome::PolicyApplied { .. } | Outcome::Leased(_)) => return,
                Err(error) => tracing::warn!(held = %held.id, %error, "an attempt is not put down yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PUT_DOWN_PAUSE_MAX),
                () = &mut stopping => break,
            }
        }
        tracing::error!(held = %held.id, "an attempt could not be put down before the node's end; the message may come twice");
    }
}

fn lease(held: HeldId) -> Change {
    Change::Lease { held, for_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX) }
}

/// Ends this long after the stop, or after the stop's sender is gone.
async fn after_stop(mut stop: watch::Receiver<bool>, grace: Duration) {
    drop(stop.wait_for(|stop| *stop).await);
    tokio::time::sleep(grace).await;
}

fn clipped(problem: &str) -> String {
    problem.chars().take(PROBLEM_CHARS_MAX).collect()
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
                    self.problem = clipped(&reply.for_operators());
                }
                Handed::Deferred(reply) | Handed::Unknown(reply) => self.problem = clipped(&reply.for_operators()),
            }
        }
    }
}

/// Where the recipients go under the view of now, as RCPT would decide it: a department's domain by its next hops, also when
/// it was another's or nobody's then; the others by domain. No route: mail that belongs on the private network, with a domain
/// that no department has now.
fn routes(held: &Held, view: &View) -> Vec<(Option<Route>, Vec<Address>)> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Way {
        Department(DepartmentId),
        Relays,
        Domain(Domain),
        Nowhere,
    }
    let mut ways: BTreeMap<Way, Vec<Address>> = BTreeMap::new();
    for recipient in &held.recipients {
        let domain = recipient.domain();
        let way = match view.tenant_of(domain) {
            Some(tenant) => Way::Department(tenant.department.id.clone()),
            None if held.department.is_some() || view.claimed_by(domain).is_some() => Way::Nowhere,
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
                Way::Nowhere => None,
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
