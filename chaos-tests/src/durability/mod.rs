//! What was acknowledged survives: a real control server is killed, loses its power or finds its files damaged, and must come
//! back with everything, or say why it does not. Everything follows from a seed.

pub mod corruption;
pub mod ledger;
pub mod life;
pub mod load;
pub mod solo;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use self::life::End;
use crate::{
    binaries::{Programs, programs},
    janitor::Janitor,
    shim::Library,
};

/// Faults that one data folder lives through.
const FAULTS_PER_LIFE: u64 = 20;

/// What all lives share.
#[derive(Debug)]
pub struct Bench {
    /// The programs of the cluster.
    pub programs: Programs,
    /// Ends what is left running.
    pub janitor: Janitor,
    /// The preload shim.
    pub library: Library,
    /// Everything is in here.
    pub root: PathBuf,
    /// Decides about everything that is random.
    pub seed: u64,
    /// Negative control: fsync does nothing and says that it worked.
    pub lie_fsync: bool,
    /// Whoever sets this wants no more faults: those under way end, and what was found so far is said.
    pub end: Arc<AtomicBool>,
    /// Whether folders are kept that have done nothing wrong.
    pub keep: bool,
}

/// What came of a number of faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Kills or power cuts.
    pub faults: u64,
    /// Proposals that were acknowledged.
    pub acknowledged: u64,
    /// Proposals that were refused, as they must be.
    pub refused: u64,
    /// Proposals whose fate nobody has learnt; those of the last cycle.
    pub unknown: u64,
    /// Proposals without an answer that were proposed again.
    pub asked_again: u64,
    /// Writes and names that a loss of power took.
    pub taken_back: u64,
    /// Milliseconds from each start until everything acknowledged was seen.
    pub restarts: Vec<u64>,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.faults += other.faults;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.asked_again += other.asked_again;
        self.taken_back += other.taken_back;
        self.restarts.extend(other.restarts);
        self.violations.extend(other.violations);
    }
}

impl Bench {
    /// Builds programs and shim. Without `keep` everything goes with the bench.
    ///
    /// # Errors
    /// When something cannot be built or made.
    pub async fn new(seed: u64, keep: Option<PathBuf>, progress: &ProgressBar) -> anyhow::Result<Self> {
        let programs = programs(progress).await?.clone();
        let root = match &keep {
            Some(keep) => {
                std::fs::create_dir(keep)
                    .with_context(|| format!("make {} (it must not exist yet)", keep.display()))?;
                keep.canonicalize().with_context(|| format!("find {}", keep.display()))?
            }
            None => tempfile::Builder::new().prefix("postern-durability-").tempdir().context("make a folder")?.keep(),
        };
        let janitor = Janitor::start(&programs.peer, keep.is_none().then(|| root.clone()))?;
        let library = Library::compile(&root)?;
        Ok(Self { programs, janitor, library, root, seed, lie_fsync: false, end: Arc::default(), keep: keep.is_some() })
    }

    fn ending(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    /// Has `count` faults happen, in lives that follow from the seed, `jobs` of them at the same time.
    ///
    /// # Errors
    /// When the harness itself fails.
    pub async fn faults(
        self: &Arc<Self>,
        end: End,
        count: u64,
        jobs: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Figures> {
        let lives = count.div_ceil(FAULTS_PER_LIFE);
        let next = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        for _ in 0..jobs.max(1) {
            let (bench, next, bar) = (Arc::clone(self), Arc::clone(&next), bar.clone());
            running.spawn(async move {
                let mut all = Figures::default();
                loop {
                    let life = next.fetch_add(1, Ordering::Relaxed);
                    if life >= lives || bench.ending() {
                        return anyhow::Ok(all);
                    }
                    let faults = FAULTS_PER_LIFE.min(count - life * FAULTS_PER_LIFE);
                    all.add(life::live(&bench, end, life, faults, &bar).await?);
                }
            });
        }
        let mut all = Figures::default();
        while let Some(figures) = running.join_next().await {
            all.add(figures.context("run a life")??);
        }
        Ok(all)
    }
}
