//! The short form of `cargo durability`, with a fixed seed; and its negative controls, which must find what is wrong.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use chaos_tests::{
    durability::{Bench, Figures, corruption, ledger::Proposal, life::End, solo::Solo},
    runtime,
    shim::{DiskError, Faults, Shim},
};
use indicatif::ProgressBar;

const SEED: u64 = 20_261_121;
/// `end_process` of the control server.
const DISK_FAILED: i32 = 70;

async fn faults(end: End, count: u64, lie_fsync: bool) -> anyhow::Result<Figures> {
    let mut bench = Bench::new(SEED, None, &ProgressBar::hidden()).await?;
    bench.lie_fsync = lie_fsync;
    Arc::new(bench).faults(end, count, 2, &ProgressBar::hidden()).await
}

#[test]
fn a_killed_server_comes_back_with_all_that_it_acknowledged() {
    let figures = runtime::run(faults(End::Kill, 12, false)).expect("the harness works");
    assert_eq!((figures.faults, figures.violations), (12, Vec::<String>::new()));
    assert!(figures.acknowledged > 100 && figures.asked_again > 0);
}

#[test]
fn a_server_that_lost_its_power_comes_back_with_all_that_it_acknowledged() {
    let figures = runtime::run(faults(End::PowerCut, 16, false)).expect("the harness works");
    assert_eq!((figures.faults, figures.violations), (16, Vec::<String>::new()));
    assert!(figures.acknowledged > 100 && figures.taken_back > 0);
}

#[test]
fn without_fsync_a_loss_of_power_is_found_to_lose_what_was_acknowledged() {
    let figures = runtime::run(faults(End::PowerCut, 16, true)).expect("the harness works");
    assert!(!figures.violations.is_empty(), "{} power cuts without an fsync lost nothing", figures.faults);
}

#[test]
fn a_damaged_file_changes_nothing_or_is_refused_with_the_way_out() {
    let found = runtime::run(async {
        let bench = Arc::new(Bench::new(SEED, None, &ProgressBar::hidden()).await?);
        corruption::run(&bench, 60, 2, &ProgressBar::hidden()).await
    })
    .expect("the harness works");
    assert_eq!(found.violations, Vec::<String>::new());
    let times = |wanted| found.counts.iter().filter(|((_, _, verdict), _)| *verdict == wanted).count();
    assert!(times(corruption::Verdict::AsItWas) > 0 && times(corruption::Verdict::Refused) > 0, "{found:?}");
}

/// An fsync that fails once and works from then on: whoever asks again is told that all is well, and it is not.
#[test]
fn a_server_whose_fsync_failed_once_ends_and_does_not_ask_again() {
    runtime::run(async {
        let bench = Bench::new(SEED, None, &ProgressBar::hidden()).await?;
        let mut solo = Solo::make(&bench.programs, &bench.root).await?;
        let shim = Shim::new(&bench.library, &bench.root, "solo", &solo.folder)?;
        solo.set_environment(shim.environment());
        let process = solo.start(&bench.janitor).await?;
        solo.form().await?;
        let proposed = |number| {
            let (solo, proposal) = (solo.clone(), Proposal { cycle: 1, number });
            async move { solo.propose(proposal.mutation(), &proposal.change()).await }
        };
        proposed(0).await.context("before the fault")?;
        shim.set(&Faults { fsync: Some(DiskError::Broken), errors_max: Some(1), ..Faults::default() })?;
        assert!(proposed(1).await.is_err(), "what is not on the disk is not acknowledged");
        assert_eq!(process.ended().await?.code(), Some(DISK_FAILED));
        let counters = shim.counters()?;
        assert_eq!((counters.errors, counters.retries), (1, 0), "{counters:?}");
        assert!(solo.log_end().contains("this server ends here"), "{}", solo.log_end());
        // It comes back with what it had, and takes the rest again.
        let process = solo.start(&bench.janitor).await?;
        solo.form().await?;
        proposed(1).await.context("after the restart")?;
        assert!(Path::exists(&solo.data()));
        process.stop().await
    })
    .expect("the harness works");
}
