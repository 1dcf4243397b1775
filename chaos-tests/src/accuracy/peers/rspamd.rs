//! Rspamd with Bayes in a Redis of its own, and without what asks the network.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use tokio::{process::Command, time::sleep};

use super::{Ground, Peer, exchange, json, post, run};
use crate::{
    accuracy::corpus::Sorted,
    cluster::operator::until,
    commits::installed,
    edge::usage::Account,
    ports,
    process::{Process, Program},
};

/// Modules that ask a name server or another one.
const ONLINE: [&str; 13] = [
    "rbl",
    "surbl",
    "spf",
    "dkim",
    "dmarc",
    "arc",
    "mx_check",
    "asn",
    "fuzzy_check",
    "url_redirector",
    "whitelist",
    "rspamd_update",
    "bimi",
];

/// A running one.
#[derive(Debug)]
pub struct Rspamd {
    scanner: SocketAddr,
    controller: SocketAddr,
    account: Account,
    processes: [Process; 2],
}

impl Rspamd {
    /// Starts it.
    ///
    /// # Errors
    /// When it, or Redis, is not installed or does not start.
    pub async fn start(ground: &Ground) -> anyhow::Result<Self> {
        let (Some(rspamd), Some(redis)) = (installed("rspamd"), installed("redis-server")) else {
            bail!("install the packages rspamd and redis-server");
        };
        let folder = ground.folder.join("rspamd");
        let reserved = (0..3).map(|_| ports::reserve(None)).collect::<anyhow::Result<Vec<_>>>()?;
        let [scanner, controller, store] = [0, 1, 2].map(|at: usize| reserved[at].address());
        configure(&folder, scanner, controller, store).context("configure Rspamd")?;
        run(Command::new("chown").arg("-R").arg("_rspamd").arg(&folder)).await?;
        let account = Account::open("rspamd");
        let program = |name: &str, path, arguments: Vec<String>| Program {
            name: name.into(),
            path,
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            log: folder.join(format!("{name}.out")),
        };
        let redis_arguments = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"].map(str::to_owned);
        let port = store.port().to_string();
        let redis = program("redis", redis, redis_arguments.into_iter().chain([port]).collect());
        let here = folder.display();
        let mut arguments: Vec<String> = ["-f", "-u", "_rspamd", "-g", "_rspamd", "-c"].map(str::to_owned).into();
        arguments.push(format!("{here}/etc/rspamd.conf"));
        for (name, at) in
            [("CONFDIR", "etc"), ("LOCAL_CONFDIR", "etc"), ("DBDIR", "db"), ("RUNDIR", "run"), ("LOGDIR", "")]
        {
            arguments.extend(["--var".to_owned(), format!("{name}={here}/{at}")]);
        }
        let rspamd = program("rspamd", rspamd, arguments);
        drop(reserved);
        let processes = [
            account.member(redis).start_foreign(&ground.janitor)?,
            account.member(rspamd.clone()).start_foreign(&ground.janitor)?,
        ];
        processes.iter().for_each(|process| account.started(process.pid()));
        let peer = Self { scanner, controller, account, processes };
        for address in [scanner, controller] {
            let listens = until("Rspamd listens", || async { exchange(address, &post("/ping", b"")).await.ok() });
            listens.await.with_context(|| rspamd.log_end())?;
        }
        Ok(peer)
    }

    /// Teaches it. What it is sure of already it does not learn again.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn learn(&self, all: &[Sorted], progress: &ProgressBar) -> anyhow::Result<()> {
        for sorted in all {
            let path = if sorted.class.is_bad() { "/learnspam" } else { "/learnham" };
            json(&exchange(self.controller, &post(path, &sorted.bytes)).await?)
                .with_context(|| format!("teach Rspamd {}", sorted.name))?;
            progress.inc(1);
        }
        self.quiet().await
    }

    /// Waits until it has compiled its patterns: until it uses no CPU.
    async fn quiet(&self) -> anyhow::Result<()> {
        let mut quiet = 0;
        while quiet < 6 {
            let before = self.account.cpu()?;
            sleep(Duration::from_millis(500)).await;
            let used = self.account.cpu()?.saturating_sub(before);
            quiet = if used < Duration::from_millis(25) { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        for process in self.processes.into_iter().rev() {
            process.stop().await?;
        }
        Ok(())
    }
}

impl Peer for Rspamd {
    fn name(&self) -> &'static str {
        "Rspamd"
    }

    fn thresholds(&self) -> (f64, f64) {
        (6.0, 15.0)
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn address(&self) -> SocketAddr {
        self.scanner
    }

    fn question(&self, message: &[u8]) -> Vec<u8> {
        post("/checkv2", message)
    }

    fn points(&self, answer: &[u8]) -> anyhow::Result<f64> {
        json(answer)?.get("score").and_then(serde_json::Value::as_f64).context("Rspamd's answer has a score")
    }
}

/// Debian's settings but for addresses, folders, no network and no learning of its own.
fn configure(folder: &Path, scanner: SocketAddr, controller: SocketAddr, store: SocketAddr) -> anyhow::Result<()> {
    for name in ["db", "run"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    copy(Path::new("/etc/rspamd"), &folder.join("etc"))?;
    let here = folder.display();
    let local = folder.join("etc/local.d");
    std::fs::create_dir_all(&local)?;
    let put = |name: &str, text: String| std::fs::write(local.join(name), text);
    put("worker-normal.inc", format!("bind_socket = \"{scanner}\";\ncount = 2;\n"))?;
    put("worker-controller.inc", format!("bind_socket = \"{controller}\";\nsecure_ip = \"127.0.0.1\";\ncount = 1;\n"))?;
    put("worker-proxy.inc", "enabled = false;\n".to_owned())?;
    put("logging.inc", format!("type = \"file\";\nfilename = \"{here}/rspamd.log\";\nlevel = \"warning\";\n"))?;
    put("greylist.conf", "enabled = false;\n".to_owned())?;
    let bayes = format!("servers = \"{store}\";\nbackend = \"redis\";\nautolearn = false;\n");
    put("classifier-bayes.conf", bayes)?;
    ONLINE.iter().try_for_each(|module| put(&format!("{module}.conf"), "enabled = false;\n".to_owned()))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
