//! What the clients of a window do: they compete for held messages and for the policy, at all servers, while something goes wrong.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use fastrand::Rng;
use proto::{
    address::{Address, ReversePath},
    department::DepartmentId,
    held::{BodyRef, Held, HeldId, HeldKind, HeldStatus, TransactionId},
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Verdict},
};
use tokio::{task::JoinSet, time::sleep};
use ulid::Ulid;

use crate::{
    histories::{
        History,
        held::{HeldAnswer, HeldMessage, HeldOp, HeldState},
        policy::{InForce, Policy, PolicyAnswer, PolicyOp},
    },
    oracle::{Clock, Told},
    sites::{NODES, OPERATORS, Sites, doors::Doors},
};

/// Held messages of a window. Half of them are kept before the fault, half while it lasts.
pub const MESSAGES: usize = 20;
/// Clients that compete for the policy.
const POLICY_CLIENTS: usize = 4;
/// How long a healed cluster may take to take a write.
const BARRIER_MAX: Duration = Duration::from_secs(20);
/// Between two looks at something that must come.
const AGAIN: Duration = Duration::from_millis(100);

/// What an operation on the policy brought.
type PolicyTold = Told<PolicyOp, PolicyAnswer>;
/// What an operation on a held message brought.
type HeldTold = Told<HeldOp, HeldAnswer>;

/// What all clients need. Cheap to clone.
#[derive(Clone, Debug)]
struct Clients {
    doors: Vec<Doors>,
    clock: Clock,
}

/// Everything that clients were told in a window.
#[derive(Debug)]
pub struct Histories {
    /// The policy.
    pub policy: History<Policy>,
    /// Each held message.
    pub messages: Vec<History<HeldMessage>>,
}

/// Clients at work.
#[derive(Debug)]
pub struct Workload {
    clients: Clients,
    window: usize,
    began: InForce,
    records: Vec<Arc<Held>>,
    kept: Vec<HeldTold>,
    policy: JoinSet<Vec<PolicyTold>>,
    messages: JoinSet<(usize, Vec<HeldTold>)>,
    stop: Arc<AtomicBool>,
}

/// A record in quarantine; all of it from the seed but the time.
pub(crate) fn record(rng: &mut Rng) -> anyhow::Result<Held> {
    let address = Address::parse("anna@interior.gov.test").ok().context("an address")?;
    let verdict = Verdict {
        disposition: Disposition::Quarantine,
        score: Score::points(7, 0),
        tagged: false,
        reasons: Vec::new(),
        policy_version: 1,
    };
    let digest: String = (0..64).map(|_| rng.digit(16)).collect();
    Ok(Held {
        id: HeldId(Ulid(rng.u128(..))),
        transaction: TransactionId(Ulid(rng.u128(..))),
        kind: HeldKind::Quarantined,
        status: HeldStatus::Waiting,
        department: DepartmentId::parse("interior").ok(),
        from_department: None,
        reverse_path: ReversePath::Null,
        recipients: vec![address],
        body: BodyRef { digest, size_bytes: 1_000, servers: vec!["alpha".into(), "beta".into()] },
        verdict,
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        subject: "chaos".into(),
        received_at: UnixMs::now(),
        lease: None,
        attempts: 0,
        next_attempt: UnixMs(0),
        last_problem: String::new(),
        handling: Default::default(),
        notifications: Default::default(),
    })
}

impl Clients {
    fn any(&self, rng: &mut Rng) -> usize {
        rng.usize(0..self.doors.len())
    }

    async fn hold(&self, server: usize, node: usize, record: &Held) -> HeldTold {
        let asked = self.doors[server].hold(node, record.clone());
        Told::by(&self.clock, server, HeldOp::Hold, asked).await
    }

    async fn release(&self, server: usize, operator: usize, held: HeldId) -> HeldTold {
        let by = OPERATORS[operator % OPERATORS.len()].to_owned();
        Told::by(&self.clock, server, HeldOp::Release { by }, self.doors[server].release(operator, held)).await
    }

    async fn show(&self, server: usize, held: HeldId) -> HeldTold {
        Told::by(&self.clock, server, HeldOp::Show, self.doors[server].show(0, held)).await
    }

    /// Takes it, and says that it is delivered.
    async fn lease(&self, server: usize, node: usize, record: &Held, deliver: bool) -> Vec<HeldTold> {
        let name = || NODES[node % NODES.len()].to_owned();
        let leased = self.doors[server].lease(node, record.id);
        let mut told = vec![Told::by(&self.clock, server, HeldOp::Lease { node: name() }, leased).await];
        if deliver && told[0].answer == Some(HeldAnswer::Done) {
            let delivered = self.doors[server].deliver(node, record);
            told.push(Told::by(&self.clock, server, HeldOp::Deliver { node: name() }, delivered).await);
        }
        told
    }

    async fn policy(&self, server: usize, operator: usize) -> PolicyTold {
        Told::by(&self.clock, server, PolicyOp::Read, self.doors[server].policy(operator)).await
    }

    async fn apply(&self, server: usize, operator: usize, base: u64, tag: String) -> PolicyTold {
        let applied = self.doors[server].apply(operator, base, &tag);
        Told::by(&self.clock, server, PolicyOp::Apply { base, tag: tag.clone() }, applied).await
    }

    /// Puts a version of its own in force: writes of earlier windows that are still on their way were planned against an
    /// earlier version, and can take effect no more.
    async fn barrier(&self, window: usize) -> anyhow::Result<InForce> {
        let start = self.clock.now();
        for round in 0.. {
            for server in 0..self.doors.len() {
                if let Some(PolicyAnswer::Read(now)) = self.policy(server, 0).await.answer {
                    let tag = format!("w{window}-barrier-{round}-{server}");
                    if let Some(PolicyAnswer::Applied(version)) =
                        self.apply(server, 0, now.version, tag.clone()).await.answer
                    {
                        return Ok(InForce { version, tag });
                    }
                }
            }
            if self.clock.now().at > start.at + BARRIER_MAX {
                break;
            }
            sleep(AGAIN).await;
        }
        bail!("window {window}: a cluster without a fault took no policy within {BARRIER_MAX:?}")
    }

    /// Reads and replaces the policy until it is told to stop.
    async fn compete(self, number: usize, window: usize, mut rng: Rng, stop: Arc<AtomicBool>) -> Vec<PolicyTold> {
        let mut told: Vec<PolicyTold> = Vec::new();
        let mut seen = 0;
        while !stop.load(Ordering::Relaxed) {
            let server = self.any(&mut rng);
            let next = if seen == 0 || rng.bool() {
                self.policy(server, number).await
            } else {
                let tag = format!("w{window}-{number}-{}", told.len());
                self.apply(server, number, seen, tag).await
            };
            match &next.answer {
                Some(PolicyAnswer::Read(now)) => seen = now.version,
                Some(PolicyAnswer::Applied(version) | PolicyAnswer::Moved(version)) => seen = *version,
                Some(PolicyAnswer::Strange(_)) | None => {}
            }
            told.push(next);
            sleep(Duration::from_millis(rng.u64(30..200))).await;
        }
        told
    }
}

impl Workload {
    /// Starts the clients of a window, whose choices follow from `seed` and which ask for something new for about as long as
    /// `span`.
    ///
    /// # Errors
    /// When the cluster takes no writes, though nothing is wrong yet.
    pub async fn begin(
        sites: &Sites,
        clock: &Clock,
        (window, seed): (usize, u64),
        span: Duration,
    ) -> anyhow::Result<Self> {
        let clients = Clients { doors: sites.doors.clone(), clock: clock.clone() };
        let began = clients.barrier(window).await?;
        let mut rng = Rng::with_seed(seed);
        let records = (0..MESSAGES).map(|_| record(&mut rng).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let mut keeping = JoinSet::new();
        for (number, record) in records.iter().enumerate().take(MESSAGES / 2) {
            let (clients, record, server) = (clients.clone(), Arc::clone(record), clients.any(&mut rng));
            keeping.spawn(async move { (number, clients.hold(server, number, &record).await) });
        }
        let mut kept = keeping.join_all().await;
        kept.sort_by_key(|(number, _)| *number);
        let stop = Arc::new(AtomicBool::new(false));
        let mut policy = JoinSet::new();
        for number in 0..POLICY_CLIENTS {
            policy.spawn(clients.clone().compete(number, window, rng.fork(), Arc::clone(&stop)));
        }
        let mut messages = JoinSet::new();
        for (number, record) in records.iter().enumerate() {
            plan(&mut messages, &clients, (number, record), span, &mut rng);
        }
        let kept = kept.into_iter().map(|(_, told)| told).collect();
        Ok(Self { clients, window, began, records, kept, policy, messages, stop })
    }

    /// Lets the clients finish what they are at, and gives what they were told.
    pub async fn end(self) -> Ended {
        self.stop.store(true, Ordering::Relaxed);
        let policy = self.policy.join_all().await.into_iter().flatten().collect();
        let mut messages: Vec<Vec<HeldTold>> = self.records.iter().map(|_| Vec::new()).collect();
        for (number, told) in self.kept.into_iter().enumerate() {
            messages[number].push(told);
        }
        for (number, told) in self.messages.join_all().await {
            messages[number].extend(told);
        }
        let object = format!("policy in window {}", self.window);
        let messages = messages.into_iter().zip(&self.records).map(|(told, record)| History {
            object: format!("held message {} of window {}", record.id, self.window),
            initial: HeldState::Absent,
            told,
        });
        let messages = messages.collect();
        let histories = Histories { policy: History { object, initial: self.began, told: policy }, messages };
        Ended { clients: self.clients, records: self.records, histories }
    }
}

/// Spawns what clients do with one message.
fn plan(
    tasks: &mut JoinSet<(usize, Vec<HeldTold>)>,
    clients: &Clients,
    (number, record): (usize, &Arc<Held>),
    span: Duration,
    rng: &mut Rng,
) {
    let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
    let later = |share_from: u64, rng: &mut Rng| {
        let wait = Duration::from_millis(rng.u64(span_ms * share_from / 100..=span_ms));
        (clients.clone(), Arc::clone(record), clients.any(rng), wait)
    };
    if number >= MESSAGES / 2 {
        let (clients, record, server, wait) = later(0, rng);
        tasks.spawn(async move {
            sleep(wait).await;
            (number, vec![clients.hold(server, number, &record).await])
        });
    }
    for operator in 0..OPERATORS.len() {
        let (clients, record, server, wait) = later(0, rng);
        tasks.spawn(async move {
            sleep(wait).await;
            (number, vec![clients.release(server, operator, record.id).await])
        });
        let (clients, record, server, wait) = later(0, rng);
        tasks.spawn(async move {
            sleep(wait).await;
            (number, vec![clients.show(server, record.id).await])
        });
    }
    for node in 0..NODES.len() {
        let ((clients, record, server, wait), deliver) = (later(40, rng), rng.bool());
        tasks.spawn(async move {
            sleep(wait).await;
            (number, clients.lease(server, node, &record, deliver).await)
        });
    }
}

/// Clients that have finished.
#[derive(Debug)]
pub struct Ended {
    clients: Clients,
    records: Vec<Arc<Held>>,
    /// What they were told.
    pub histories: Histories,
}

impl Ended {
    /// Looks at every object once more, when the cluster is well again; each look becomes a part of its history.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn look_again(&mut self) -> anyhow::Result<()> {
        let mut looks = JoinSet::new();
        for (number, record) in self.records.iter().enumerate() {
            let (clients, id) = (self.clients.clone(), record.id);
            let server = number % clients.doors.len();
            looks.spawn(async move { (number, until_answered(&clients, || clients.show(server, id)).await) });
        }
        for (number, told) in looks.join_all().await {
            self.histories.messages[number].told.extend(told?);
        }
        let clients = &self.clients;
        let told = until_answered(clients, || clients.policy(clients.doors.len() - 1, 0)).await?;
        self.histories.policy.told.extend(told);
        Ok(())
    }
}

/// Asks until there is an answer; all that was told counts.
async fn until_answered<Op, Answer, F>(clients: &Clients, ask: impl Fn() -> F) -> anyhow::Result<Vec<Told<Op, Answer>>>
where
    F: Future<Output = Told<Op, Answer>>,
{
    let start = clients.clock.now();
    let mut all = Vec::new();
    while clients.clock.now().at <= start.at + BARRIER_MAX {
        let told = ask().await;
        let answered = told.answer.is_some();
        all.push(told);
        if answered {
            return Ok(all);
        }
        sleep(AGAIN).await;
    }
    bail!("a cluster without a fault did not answer a read within {BARRIER_MAX:?}")
}
