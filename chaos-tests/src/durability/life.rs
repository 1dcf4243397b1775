//! The life of one data folder: load, a fault, a restart, and the question whether everything is there that was acknowledged; many
//! times over, and at the end an orderly stop and a look at every record.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use control::state::{query::HeldFilter, store::StateStore};
use fastrand::Rng;
use indicatif::ProgressBar;
use tokio::sync::watch;

use super::{
    Bench, Figures,
    ledger::{self, Fate, Ledger},
    load,
    solo::Solo,
};
use crate::{
    power_loss::{Loss, forget, lose_power},
    process::Process,
    shim::{Cut, Faults, Shim},
};

/// The server makes a snapshot after so many bytes of log: some in each life.
const LOG_BYTES_MAX: u64 = 64 * 1024;
/// Entries that stay in the log then.
const LOGS_KEPT: u64 = 20;
/// Operations on the disk within which the server is cut off while it starts.
const START_OPERATIONS: u64 = 120;
/// The same under load: about as many as the proposals of a cycle need.
const LOAD_OPERATIONS: u64 = 600;
/// Longest time from the last acknowledgement that is waited for to SIGKILL, in microseconds.
const KILL_DELAY_US: u64 = 20_000;
/// Acknowledged mutations of a cycle that are proposed again with another content.
const REPEATED: usize = 3;

/// How the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL, from outside or at a chosen operation on the disk; what was written stays.
    Kill,
    /// The power goes at a chosen operation; what was not fsynced goes with it.
    PowerCut,
}

/// When it ends.
#[derive(Clone, Copy, Debug)]
enum When {
    /// At an operation on the disk, counted from the start of the process.
    Starting(u64),
    /// At an operation on the disk, counted from the begin of the load.
    Loaded(u64),
    /// After this many answers and microseconds.
    Answered(u32, u64),
}

/// One data folder and what is known of it.
struct Life<'b> {
    bench: &'b Bench,
    end: End,
    solo: Solo,
    shim: Shim,
    journal: PathBuf,
    ledger: Arc<Ledger>,
    rng: Rng,
    cycle: u32,
    /// Cycles that have not been looked at since.
    unseen: Vec<u32>,
    figures: Figures,
}

/// Lives through `faults` faults, or until the first violation.
///
/// # Errors
/// When the harness itself fails: no program, no disk. What the server does wrong is in the figures.
pub async fn live(bench: &Bench, end: End, number: u64, faults: u64, bar: &ProgressBar) -> anyhow::Result<Figures> {
    let home = bench.root.join(format!("{end:?}-{number}").to_lowercase());
    std::fs::create_dir(&home).with_context(|| format!("make {}", home.display()))?;
    let mut solo = Solo::make(&bench.programs, &home).await?;
    solo.keep_short_log(&bench.programs, LOG_BYTES_MAX, LOGS_KEPT);
    let journal = home.join("journal");
    let mut shim = Shim::new(&bench.library, &home, "solo", &solo.folder)?;
    if end == End::PowerCut {
        shim = shim.with_journal(journal.clone());
    }
    solo.set_environment(shim.environment());
    let rng = Rng::with_seed(bench.seed.wrapping_mul(1_000_003).wrapping_add(number));
    let (ledger, figures) = (Arc::default(), Figures::default());
    let mut life = Life { bench, end, solo, shim, journal, ledger, rng, cycle: 0, unseen: Vec::new(), figures };
    for _ in 0..faults {
        life.fault().await.with_context(|| format!("{end:?}, life {number}"))?;
        bar.inc(1);
        if !life.figures.violations.is_empty() || bench.ending() {
            break;
        }
    }
    if life.figures.violations.is_empty() {
        life.last_look().await.with_context(|| format!("{end:?}, life {number}, last look"))?;
    }
    let mut figures = life.figures;
    for (_, fate) in life.ledger.all() {
        match fate {
            Fate::Acknowledged => figures.acknowledged += 1,
            Fate::Refused => figures.refused += 1,
            Fate::Unknown => figures.unknown += 1,
        }
    }
    for violation in &mut figures.violations {
        *violation = format!("{end:?}, life {number}, fault {}: {violation}", figures.faults);
    }
    if figures.violations.is_empty() && !bench.keep {
        std::fs::remove_dir_all(&home).with_context(|| format!("remove {}", home.display()))?;
    }
    Ok(figures)
}

impl Life<'_> {
    fn when(&mut self) -> When {
        match self.rng.u8(..8) {
            0 | 1 => When::Starting(self.rng.u64(1..=START_OPERATIONS)),
            2..5 if self.end == End::Kill => {
                When::Answered(self.rng.u32(1..load::PROPOSALS_MAX), self.rng.u64(..KILL_DELAY_US))
            }
            _ => When::Loaded(self.rng.u64(1..=LOAD_OPERATIONS)),
        }
    }

    fn arm(&mut self, operations: u64) -> anyhow::Result<()> {
        let at = self.shim.counters()?.operations + operations;
        self.shim.cut(Some(Cut { at, after: self.rng.bool() }))
    }

    fn was_cut(&self) -> anyhow::Result<bool> {
        Ok(self.shim.counters()?.cut_kind != 0)
    }

    /// One start, load and fault.
    async fn fault(&mut self) -> anyhow::Result<()> {
        let when = self.when();
        self.shim.cut(None)?;
        // A slow fsync is one during which others write.
        let slow_fsync_ms = if self.end == End::PowerCut { self.rng.u64(..3) } else { 0 };
        self.shim.set(&Faults { slow_fsync_ms, lie_fsync: self.bench.lie_fsync, ..Faults::default() })?;
        if let When::Starting(operations) = when {
            self.arm(operations)?;
        }
        self.figures.faults += 1;
        let begun = Instant::now();
        let process = match self.solo.start(&self.bench.janitor).await {
            Ok(process) => process,
            Err(_) if self.was_cut()? => return self.strike(),
            Err(error) => {
                self.violation(format!("it does not start: {error:#}"));
                return Ok(());
            }
        };
        let ended = self.serve(process, when, begun).await;
        match ended {
            Ok(()) => self.strike(),
            Err(error) => {
                self.violation(format!("{error:#}\n{}", self.solo.log_end()));
                Ok(())
            }
        }
    }

    fn violation(&mut self, violation: String) {
        self.figures.violations.push(violation);
    }

    /// What the fault does to the disk.
    fn strike(&mut self) -> anyhow::Result<()> {
        match self.end {
            End::Kill => Ok(()),
            End::PowerCut => {
                let loss = match self.rng.u8(..4) {
                    0 | 1 => Loss::Everything,
                    2 => Loss::Torn(50),
                    _ => Loss::Torn(self.rng.u8(5..=95)),
                };
                let taken = lose_power(self.shim.watched(), &self.journal, loss, &mut self.rng)?;
                self.figures.taken_back += taken.contents + taken.names;
                Ok(())
            }
        }
    }

    /// Looks at what came back, and goes on until the server has ended.
    async fn serve(&mut self, process: Process, when: When, begun: Instant) -> anyhow::Result<()> {
        if let Err(error) = self.look(begun).await {
            if !self.was_cut()? {
                return Err(error.context("after a restart"));
            }
            return expect_kill(process).await;
        }
        match when {
            When::Answered(count, delay_us) => return self.kill_under_load(process, count, delay_us).await,
            When::Starting(_) => {}
            When::Loaded(operations) => self.arm(operations)?,
        }
        loop {
            let (acknowledged, _) = watch::channel(0);
            if self.load(&acknowledged).await.broken_off {
                return expect_kill(process).await;
            }
        }
    }

    async fn load(&mut self, acknowledged: &watch::Sender<u32>) -> load::Loaded {
        self.cycle += 1;
        self.unseen.push(self.cycle);
        let loaded = load::run(&self.solo, &self.ledger, self.cycle, acknowledged).await;
        self.figures.violations.extend(loaded.faults.iter().cloned());
        loaded
    }

    async fn kill_under_load(&mut self, process: Process, count: u32, delay_us: u64) -> anyhow::Result<()> {
        let (acknowledged, mut counted) = watch::channel(0);
        let killing = async {
            // An error says that all clients have ended.
            let _ = counted.wait_for(|so_far| *so_far >= count).await;
            tokio::time::sleep(Duration::from_micros(delay_us)).await;
            process.kill9().await
        };
        let (killed, _) = tokio::join!(killing, self.load(&acknowledged));
        killed
    }

    /// Is everything there that was acknowledged? Then what is unknown is proposed again.
    async fn look(&mut self, begun: Instant) -> anyhow::Result<()> {
        self.solo.form().await?;
        for cycle in self.unseen.clone() {
            self.look_at(cycle).await?;
        }
        self.unseen.clear();
        self.figures.restarts.push(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        Ok(())
    }

    async fn listed(&mut self, cycle: u32) -> anyhow::Result<()> {
        let listed = self.solo.held_of(&ledger::recipient(cycle)).await?;
        let listed: BTreeMap<_, _> = listed.into_iter().map(|held| (held.id.clone(), held)).collect();
        let faults = self.ledger.faults([cycle], listed, |record, summary| {
            (&record.subject, record.transaction.to_string(), record.body.size_bytes)
                == (&summary.subject, summary.transaction.clone(), summary.size_bytes)
        });
        self.figures.violations.extend(faults);
        Ok(())
    }

    async fn look_at(&mut self, cycle: u32) -> anyhow::Result<()> {
        self.listed(cycle).await?;
        let mut repeated = 0;
        for (proposal, fate) in self.ledger.of_cycle(cycle) {
            let change = match fate {
                Fate::Unknown => proposal.change(),
                // The id must be remembered, so that nothing comes of another content under it.
                Fate::Acknowledged if repeated < REPEATED => {
                    repeated += 1;
                    proto::mutation::Change::Hold { records: vec![proposal.stranger()] }
                }
                Fate::Acknowledged | Fate::Refused => continue,
            };
            let outcome = self.solo.propose(proposal.mutation(), &change).await?;
            match load::fate(proposal, &outcome) {
                Ok(fate) => self.ledger.note(proposal, fate),
                Err(fault) => self.violation(fault),
            }
            self.figures.asked_again += u64::from(fate == Fate::Unknown);
        }
        self.listed(cycle).await
    }

    /// After an orderly stop: every record of this life as it was proposed, and no other.
    async fn last_look(&mut self) -> anyhow::Result<()> {
        self.shim.cut(None)?;
        self.shim.set(&Faults::default())?;
        match self.solo.start(&self.bench.janitor).await {
            Ok(process) => {
                self.look(Instant::now()).await?;
                process.stop().await?;
            }
            Err(error) => {
                self.violation(format!("it does not start for the last look: {error:#}"));
                return Ok(());
            }
        }
        if self.end == End::PowerCut {
            forget(&self.journal)?;
        }
        let folder = self.solo.data().join("state");
        let all = tokio::task::spawn_blocking(move || records(&folder)).await??;
        let faults = self.ledger.faults(1..=self.cycle, all, |record, held| {
            ledger::timeless(record.clone()) == ledger::timeless(held.clone())
        });
        self.figures.violations.extend(faults);
        Ok(())
    }
}

/// All held records of a state that nobody has open.
fn records(folder: &Path) -> anyhow::Result<BTreeMap<String, proto::held::Held>> {
    let state = StateStore::open(folder).context("open the state")?;
    let filter = HeldFilter { department: None, recipient: None, ended: true, max: usize::MAX };
    Ok(state.held_list(&filter).into_iter().map(|held| (held.id.to_string(), held)).collect())
}

async fn expect_kill(process: Process) -> anyhow::Result<()> {
    use std::os::unix::process::ExitStatusExt as _;
    let status = process.ended().await?;
    if status.signal() != Some(9) {
        bail!("it ended by itself: {status}");
    }
    Ok(())
}
