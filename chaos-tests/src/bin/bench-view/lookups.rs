//! The measured node: the node's client of the cluster, and a task that looks up in its view without end.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use node::{cluster::Cluster as Client, limits::Limits};
use proto::{address::Domain, identity::Credentials, time::UnixMs, view::View};
use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Arguments, subject};

/// How long it looks up without a view, to learn what the machine alone makes it wait.
const IDLE: Duration = Duration::from_secs(5);

/// The longest waits between two rounds of look-ups.
#[derive(Clone, Copy, Default)]
struct Waits {
    rounds: u64,
    /// By the clock.
    longest: Duration,
    /// Without the time in which the thread waited for a core: what this process alone is the cause of.
    longest_own: Duration,
    over_5_ms: u64,
    over_5_ms_own: u64,
}

impl Waits {
    fn add(&mut self, wait: Duration, queued: Duration) {
        let own = wait.saturating_sub(queued);
        self.rounds += 1;
        self.longest = self.longest.max(wait);
        self.longest_own = self.longest_own.max(own);
        self.over_5_ms += u64::from(wait > Duration::from_millis(5));
        self.over_5_ms_own += u64::from(own > Duration::from_millis(5));
    }

    fn shown(self) -> Value {
        let ms = |time: Duration| (time.as_secs_f64() * 1e5).round() / 100.0;
        json!({ "rounds": self.rounds, "longest": ms(self.longest), "longest_without_queue_for_a_core": ms(self.longest_own),
            "over_5_ms": self.over_5_ms, "over_5_ms_without_queue": self.over_5_ms_own })
    }
}

/// How long a thread of this process has waited for a core since it began.
fn queued(thread: Pid) -> Duration {
    let file = format!("/proc/self/task/{}/schedstat", thread.as_raw_nonzero());
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let ns = text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or_default();
    Duration::from_nanos(ns)
}

/// One round: what a transaction asks a view.
fn look_up(view: &View, round: u64, arguments: &Arguments) -> bool {
    let now = UnixMs::now();
    let number = u32::try_from(round * 31 % u64::from(arguments.subjects.max(1))).unwrap_or_default();
    let n = round % u64::try_from(arguments.departments.max(1)).unwrap_or(1);
    let domain = Domain::parse(&format!("d{n}.gov.test")).ok();
    let known = view.reputation.repute(subject(number).key(), now).score != 0;
    let owner = domain.and_then(|domain| view.tenant_of(&domain)).is_some();
    let source = view.tenant_at([10, u8::try_from(n / 256).unwrap_or(0), u8::try_from(n % 256).unwrap_or(0), 7].into());
    known && owner && source.is_some()
}

async fn task(
    views: watch::Receiver<Arc<View>>,
    arguments: Arguments,
    waits: Arc<Mutex<Waits>>,
    stop: Arc<AtomicBool>,
) {
    let mut before: Option<(Pid, Instant, Duration)> = None;
    for round in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (thread, at) = (rustix::thread::gettid(), Instant::now());
        if let Some((then, was, queued_then)) = before {
            // In which queue it stood: the thread that was busy, not the one that took it over.
            let queued = queued(then).saturating_sub(queued_then);
            waits.lock().unwrap_or_else(PoisonError::into_inner).add(at - was, queued);
        }
        before = Some((thread, at, queued(thread)));
        let view = Arc::clone(&views.borrow());
        for step in 0..20 {
            std::hint::black_box(look_up(&view, round * 20 + step, &arguments));
        }
        drop(view);
        tokio::task::yield_now().await;
    }
}

fn take(waits: &Mutex<Waits>) -> Waits {
    std::mem::take(&mut *waits.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Is the node: says when it is filled, and what came of the changes that follow.
pub(crate) async fn node(folder: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let (waits, stop) = (Arc::new(Mutex::new(Waits::default())), Arc::new(AtomicBool::new(false)));
    let empty = watch::Sender::new(Arc::new(View::empty()));
    let status = Path::new("/proc/self/status");
    let idle = tokio::spawn(task(empty.subscribe(), arguments.clone(), Arc::clone(&waits), Arc::clone(&stop)));
    tokio::time::sleep(IDLE).await;
    stop.store(true, Ordering::Relaxed);
    idle.await?;
    let idle = take(&waits).shown();

    stop.store(false, Ordering::Relaxed);
    let (before_mib, begun) = (status_mib(status, "VmRSS:")?, Instant::now());
    let credentials = Credentials::load(folder).context("load credentials")?;
    let client = Client::connect(credentials, arguments.control.clone(), "north", &Limits::default())?;
    let looking = tokio::spawn(task(client.view(), arguments.clone(), Arc::clone(&waits), Arc::clone(&stop)));
    let mut views = client.view();
    let subjects = usize::try_from(arguments.subjects)?;
    views
        .wait_for(|view| view.reputation.subjects() >= subjects && view.tenant_count() >= arguments.departments)
        .await?;
    let ms = u64::try_from(begun.elapsed().as_millis())?;
    // What was taken down on the way is given back by now, or never.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rss_mib = status_mib(status, "VmRSS:")?;
    println!(
        "{}",
        json!({ "ms": ms, "before_mib": before_mib, "rss_mib": rss_mib, "waits": take(&waits).shown(), "idle": idle })
    );

    let end = tokio::time::Instant::now() + Duration::from_secs(arguments.seconds);
    let mut used = 0_u64;
    while tokio::time::timeout_at(end, views.changed()).await.is_ok_and(|changed| changed.is_ok()) {
        used += 1;
    }
    stop.store(true, Ordering::Relaxed);
    looking.await?;
    let peak_mib = status_mib(status, "VmHWM:")?;
    println!("{}", json!({ "views": used, "peak_mib": peak_mib, "waits": take(&waits).shown() }));
    Ok(())
}

/// A line of a process's status, in MiB.
pub(crate) fn status_mib(file: &Path, key: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let line = text.lines().find(|line| line.starts_with(key)).with_context(|| format!("no {key}"))?;
    let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib / 1024)
}
