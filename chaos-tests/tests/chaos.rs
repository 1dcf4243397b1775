//! A short form of `cargo chaos` with a fixed seed: one cluster in network namespaces, killed, paused and cut, with every invariant
//! checked. It needs the rights of root and says so where they are missing: silence is not a pass.

use std::time::Duration;

use chaos_tests::{
    campaign::{self, Plan},
    runtime::run,
    schedule::FaultKind,
};
use indicatif::ProgressBar;

#[test]
fn nothing_is_lost_or_done_twice_while_servers_are_killed_paused_and_cut_off() -> anyhow::Result<()> {
    run(async {
        let plan = Plan {
            runs: 1,
            seed: 20_261_121,
            kinds: vec![FaultKind::Kill, FaultKind::Pause, FaultKind::Cut, FaultKind::Oneway],
            lasts: Duration::from_secs(45),
            servers: 3,
            programs: None,
            keep: None,
            until_found: true,
            progress: ProgressBar::hidden(),
        };
        let tally = campaign::run(&plan).await?;
        eprintln!("{}", tally.text());
        assert!(tally.found.is_empty(), "{}", tally.text());
        assert!(tally.healed.len() == plan.kinds.len(), "each kind of fault had its turn: {}", tally.text());
        assert!(tally.overlapped > 0, "histories overlapped faults");
        Ok(())
    })
}
