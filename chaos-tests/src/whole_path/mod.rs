//! The whole path of mail from the Internet to a department: this node with clamd beside Postfix with Rspamd and clamd. The same
//! messages, connections, settings of clamd, name server and next hop; one after the other on one machine.

pub mod mails;
pub mod report;
pub mod rows;

use std::{net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
use indicatif::ProgressBar;
use rustix::process::geteuid;

use crate::{
    accuracy::{
        corpus::Sorted,
        peers::{self, Rspamd, Use},
    },
    cluster::clamd::{self, Clamd},
    commits::{Ground, installed},
    edge::{drain::Drain, keys::Key, ours::Ours, postfix, postfix::Postfix, usage::Account},
    zones::SigningKey,
};

/// The same for both, as are temporary files in memory: what the manual asks for, and a line in the log for each scan, which are
/// counted by it.
const CLAMD_LINES: &str = "ScanArchive yes\nAlertExceedsMax yes\nStreamMaxLength 25M\nMaxFileSize 25M\nMaxScanSize 25M\n\
                           MaxScanTime 10000\nLogClean yes\n";

/// A clamd, what it uses, and how often it was asked.
#[derive(Debug)]
pub struct Scanner {
    clamd: Clamd,
    account: Account,
    log: std::path::PathBuf,
}

impl Scanner {
    async fn start(ground: &Ground, name: &str) -> anyhow::Result<Self> {
        let path = clamd::installed().context("install the package clamav-daemon")?;
        let folder = ground.fresh(name)?;
        let (account, log) = (Account::open(name), folder.join("clamd.log"));
        let member = |program| account.member(program);
        let clamd = Clamd::start_as(CLAMD_LINES, &path, &folder, log.clone(), &ground.janitor, member).await?;
        account.started(clamd.pid().await?);
        Ok(Self { clamd, account, log })
    }

    /// Scans of mail so far: what it has logged as clean or infected.
    fn scans(&self) -> anyhow::Result<u64> {
        let text = std::fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        let lines = text.split(|byte| *byte == b'\n');
        Ok(lines.filter(|line| is_scan(&String::from_utf8_lossy(line))).count() as u64)
    }
}

/// The nest by which a node looks at its clamd is over the limits, and no mail.
fn is_scan(line: &str) -> bool {
    line.contains("instream(")
        && (line.ends_with(": OK") || line.ends_with("FOUND") && !line.contains("Limits.Exceeded"))
}

/// Both servers and what surrounds them.
#[derive(Debug)]
pub struct World {
    drain: Drain,
    ours: Ours,
    our_clamd: Scanner,
    postfix: Postfix,
    filtered: SocketAddr,
    rspamd: Rspamd,
    their_clamd: Scanner,
}

impl World {
    /// Starts all; Rspamd learns these messages.
    ///
    /// # Errors
    /// When something is not installed or does not start.
    pub async fn start(ground: &Ground, learnt: &[Sorted], progress: &ProgressBar) -> anyhow::Result<Self> {
        ensure!(geteuid().is_root(), "Postfix and Rspamd must be started by root: run it as root");
        let there = |name| installed(name).is_some();
        ensure!(
            postfix::installed() && there("rspamd") && there("redis-server") && clamd::installed().is_some(),
            "install the packages postfix, rspamd, redis-server and clamav-daemon"
        );
        // Other users' processes live in it.
        open_to_all(&ground.folder)?;
        let drain = Drain::start()?;
        let [key, _] = Key::both(&ground.fresh("keys")?)?;
        progress.set_message("starting clamd, a node, a control server and a name server");
        let our_clamd = Scanner::start(ground, "clamd-of-the-node").await?;
        let ours = Ours::start(ground, drain.address, Some(our_clamd.clamd.address), &key).await?;
        progress.set_message("starting clamd, Rspamd, Redis and Postfix");
        let their_clamd = Scanner::start(ground, "clamd-of-rspamd").await?;
        let used = Use::Filter { clamd: their_clamd.clamd.address, resolver: ours.resolver };
        let peers = peers::Ground { folder: ground.folder.clone(), janitor: ground.janitor.clone() };
        let rspamd = Rspamd::start(&peers, used).await?;
        progress.set_length(learnt.len() as u64);
        progress.set_message("Rspamd learns");
        rspamd.learn(learnt, progress).await?;
        let postfix = Postfix::start(ground, drain.address, Some(rspamd.milter), &[]).await?;
        let filtered = postfix.filtered.context("Postfix has a service with a filter")?;
        Ok(Self { drain, ours, our_clamd, postfix, filtered, rspamd, their_clamd })
    }

    /// Signs for the domain whose records are in order.
    #[must_use]
    pub fn signing(&self) -> Arc<SigningKey> {
        Arc::clone(&self.ours.signing)
    }

    /// Stops all.
    ///
    /// # Errors
    /// When a process had to be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.postfix.stop().await?;
        self.rspamd.stop().await?;
        self.ours.stop().await?;
        self.our_clamd.clamd.stop().await?;
        self.their_clamd.clamd.stop().await
    }
}

fn open_to_all(folder: &Path) -> anyhow::Result<()> {
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, open).with_context(|| format!("open {} to the peers", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::is_scan;

    #[test]
    fn scans_of_mail_are_told_from_looks_at_clamd() {
        assert!(is_scan("instream(127.0.0.1@42): OK"));
        assert!(is_scan("Mon Nov 23 01:00:00 2026 -> instream(local): Local.EICAR.UNOFFICIAL FOUND"));
        assert!(!is_scan("instream(127.0.0.1@42): Heuristics.Limits.Exceeded.MaxRecursion FOUND"));
        assert!(!is_scan("Self checking every 3600 seconds."));
    }
}
