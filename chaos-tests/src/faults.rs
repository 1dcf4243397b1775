//! Brings a fault about, and takes it away again.

use std::{io::Write as _, path::Path, time::Duration};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::{
    oracle::{Clock, Moment},
    schedule::{Fault, FaultKind, Window},
    shim::{self, DiskError},
    sites::Sites,
};

/// Written at once to fill a disk.
const FILLING_BYTES: usize = 64 * 1024;

/// A fault as it came about.
#[derive(Clone, Debug)]
pub struct Spell {
    /// What kind.
    pub kind: FaultKind,
    /// Number of the struck server.
    pub server: usize,
    /// From here on it was in full force.
    pub from: Moment,
    /// Up to here it was in full force; then it was taken away.
    pub to: Moment,
    /// Whether the struck server could reach nobody, or nobody it, all the time.
    pub cut_off: bool,
    /// So long after `from` at the latest the struck server says no at once to whatever needs a majority.
    pub refuses_after: Option<Duration>,
    /// The term of whoever led with a quorum at its end; zero when nobody did.
    pub term: u64,
    /// The server has ended by itself.
    pub ended_by_itself: bool,
}

/// Waits for the window's moment, strikes, waits, and heals. With `leader` in the place of a leader that cannot be found then.
///
/// # Errors
/// When the system refuses, or a server does not start again.
pub async fn strike(sites: &Sites, clock: &Clock, window: &Window, leader: usize) -> anyhow::Result<Spell> {
    sleep(window.after).await;
    let leader = sites.leader().await.unwrap_or(leader);
    let server = window.target.server(leader, sites.count());
    begin(sites, server, &window.fault).await?;
    let from = clock.now();
    last(sites, server, window).await;
    let term = sites.leading_term().await;
    let to = clock.now();
    end(sites, server, &window.fault).await?;
    let started = sites.start_again(server).await?;
    Ok(Spell {
        kind: window.fault.kind(),
        server,
        from,
        to,
        cut_off: window.fault.cuts_off(),
        refuses_after: window.fault.refuses_after(server == leader),
        term,
        ended_by_itself: started && window.fault != Fault::Kill,
    })
}

async fn begin(sites: &Sites, server: usize, fault: &Fault) -> anyhow::Result<()> {
    let wan = &sites.wan;
    match fault {
        Fault::Kill => sites.kill9(server).await?,
        Fault::Pause => sites.freeze(server, true).await?,
        Fault::Cut => {
            wan.set_sends(server, false);
            wan.set_receives(server, false);
        }
        Fault::LineDown => wan.set_line(server, false).await?,
        Fault::Deaf { sends: true } => wan.set_sends(server, false),
        Fault::Deaf { sends: false } => wan.set_receives(server, false),
        Fault::Flap { .. } => {}
        Fault::Diskfull => {
            let file = sites.data(server).join(FILLING);
            tokio::task::spawn_blocking(move || fill(&file)).await.context("fill the disk")??;
        }
        Fault::Slowdisk { delay } => {
            sites.shim(server, &shim::Faults { slow_fsync_ms: millis(*delay), ..shim::Faults::default() })?;
        }
        Fault::Eio => {
            sites.shim(server, &shim::Faults { fsync: Some(DiskError::Broken), ..shim::Faults::default() })?;
        }
        Fault::Clock { seconds } => {
            sites.shim(server, &shim::Faults { clock_offset_ms: seconds * 1000, ..shim::Faults::default() })?;
        }
    }
    Ok(())
}

async fn last(sites: &Sites, server: usize, window: &Window) {
    let Fault::Flap { turns } = &window.fault else { return sleep(window.lasts).await };
    for (number, turn) in turns.iter().enumerate() {
        let open = number % 2 == 1;
        sites.wan.set_sends(server, open);
        sites.wan.set_receives(server, open);
        sleep(*turn).await;
    }
}

async fn end(sites: &Sites, server: usize, fault: &Fault) -> anyhow::Result<()> {
    match fault {
        // Started again by the caller.
        Fault::Kill => Ok(()),
        Fault::Pause => sites.freeze(server, false).await,
        Fault::Cut | Fault::LineDown | Fault::Deaf { .. } | Fault::Flap { .. } => sites.wan.heal().await,
        Fault::Diskfull => std::fs::remove_file(sites.data(server).join(FILLING)).context("free the disk"),
        Fault::Slowdisk { .. } | Fault::Eio | Fault::Clock { .. } => sites.shim(server, &shim::Faults::default()),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The file that fills a disk.
const FILLING: &str = "filling";

/// Writes until the disk is full.
fn fill(path: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
    let mut bytes = vec![0; FILLING_BYTES];
    // The last bytes one by one: a file system with room for a page is not full.
    while !bytes.is_empty() {
        match file.write_all(&bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => bytes.truncate(bytes.len() / 2),
            Err(error) => return Err(error).with_context(|| format!("fill {}", path.display())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FILLING_BYTES, fill};

    #[test]
    fn a_disk_that_cannot_be_written_at_all_is_not_a_full_one() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(fill(&folder.path().join("missing/filling")).is_err());
        assert!(FILLING_BYTES.is_power_of_two(), "halved down to nothing");
    }
}
