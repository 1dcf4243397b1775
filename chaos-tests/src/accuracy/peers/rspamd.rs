//! Rspamd with Bayes in a Redis of its own: alone, without what asks the network, or as the filter of a mail server.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use node::smtp::transaction::ClientName;
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

/// What it is there for.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    /// It is asked what it thinks of the content; it asks nobody.
    Alone,
    /// It is a mail server's filter with its own defaults, but that it rejects nothing.
    Filter {
        /// Scans each message as a whole.
        clamd: SocketAddr,
        /// Answers what it asks of the DNS.
        resolver: SocketAddr,
    },
}

/// Modules that ask servers of Rspamd's makers by other ways than a look-up of names that each message brings.
const REMOTE: [&str; 2] = ["fuzzy_check", "rspamd_update"];
/// It may look for servers of its makers for as long, where there is no network.
const START_TRIES: usize = 6;

/// A running one.
#[derive(Debug)]
pub struct Rspamd {
    /// CPU time and memory of its own processes.
    pub account: Account,
    /// Those of its Redis.
    pub store: Account,
    /// Where a mail server asks.
    pub milter: SocketAddr,
    scanner: SocketAddr,
    controller: SocketAddr,
    processes: [Process; 2],
}

impl Rspamd {
    /// Starts it.
    ///
    /// # Errors
    /// When it, or Redis, is not installed or does not start.
    pub async fn start(ground: &Ground, used: Use) -> anyhow::Result<Self> {
        let (Some(rspamd), Some(redis)) = (installed("rspamd"), installed("redis-server")) else {
            bail!("install the packages rspamd and redis-server");
        };
        let folder = ground.folder.join("rspamd");
        let reserved = (0..4).map(|_| ports::reserve(None)).collect::<anyhow::Result<Vec<_>>>()?;
        let [scanner, controller, milter, store] = [0, 1, 2, 3].map(|at: usize| reserved[at].address());
        configure(&folder, [scanner, controller, milter, store], used).context("configure Rspamd")?;
        run(Command::new("chown").arg("-R").arg("_rspamd").arg(&folder)).await?;
        let [account, store_account] = ["rspamd", "redis"].map(Account::open);
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
            store_account.member(redis).start_foreign(&ground.janitor)?,
            account.member(rspamd.clone()).start_foreign(&ground.janitor)?,
        ];
        for (account, process) in [&store_account, &account].into_iter().zip(&processes) {
            account.started(process.pid());
        }
        let peer = Self { account, store: store_account, milter, scanner, controller, processes };
        for address in [scanner, controller] {
            let ping = || async { exchange(address, &post("/ping", "", b"")).await.ok() };
            let mut listens = until("Rspamd listens", ping).await;
            for _ in 1..START_TRIES {
                if listens.is_err() {
                    listens = until("Rspamd listens", ping).await;
                }
            }
            listens.with_context(|| rspamd.log_end())?;
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
            json(&exchange(self.controller, &post(path, "", &sorted.arrival.bytes)).await?)
                .with_context(|| format!("teach Rspamd {}", sorted.name))?;
            progress.inc(1);
        }
        self.quiet().await
    }

    /// Waits until it has compiled its patterns: until it uses no CPU.
    ///
    /// # Errors
    /// When the system does not tell what it uses.
    pub async fn quiet(&self) -> anyhow::Result<()> {
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

    fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(self.account.cpu()? + self.store.cpu()?)
    }

    fn address(&self) -> SocketAddr {
        self.scanner
    }

    /// It is told who the client was, as a mail server does.
    fn question(&self, sorted: &Sorted) -> Vec<u8> {
        let (client, message) = (&sorted.arrival.client, &sorted.arrival.bytes);
        let name = match &client.name {
            ClientName::Unasked => return post("/checkv2", "", message),
            ClientName::Known(name) => format!("Hostname: {name}\r\n"),
            ClientName::None => "Hostname: unknown\r\n".to_owned(),
            ClientName::Unanswered => String::new(),
        };
        let client = format!("IP: {}\r\nHelo: {}\r\n{name}", client.address, client.helo);
        post("/checkv2", &client, message)
    }

    fn points(&self, answer: &[u8]) -> anyhow::Result<f64> {
        json(answer)?.get("score").and_then(serde_json::Value::as_f64).context("Rspamd's answer has a score")
    }
}

/// Debian's settings but for addresses, folders, no learning of its own, and what its use asks for.
fn configure(folder: &Path, [scanner, controller, milter, store]: [SocketAddr; 4], used: Use) -> anyhow::Result<()> {
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
    put("logging.inc", format!("type = \"file\";\nfilename = \"{here}/rspamd.log\";\nlevel = \"warning\";\n"))?;
    put("greylist.conf", "enabled = false;\n".to_owned())?;
    let bayes = format!("servers = \"{store}\";\nbackend = \"redis\";\nautolearn = false;\n");
    put("classifier-bayes.conf", bayes)?;
    let Use::Filter { clamd, resolver } = used else {
        put("worker-proxy.inc", "enabled = false;\n".to_owned())?;
        return Ok(ONLINE
            .iter()
            .try_for_each(|module| put(&format!("{module}.conf"), "enabled = false;\n".to_owned()))?);
    };
    let proxy = format!(
        "bind_socket = \"{milter}\";\nmilter = yes;\ntimeout = 120s;\ncount = 2;\n\
         upstream \"local\" {{ default = yes; self_scan = yes; }}\n"
    );
    put("worker-proxy.inc", proxy)?;
    let (host, port) = (resolver.ip(), resolver.port());
    put("options.inc", format!("dns {{ nameserver = [\"{host}:{port}:1\"]; timeout = 1s; retransmits = 2; }}\n"))?;
    put("actions.conf", "reject = 9999;\nadd_header = 6;\ngreylist = null;\nrewrite_subject = null;\n".to_owned())?;
    let scan = format!(
        "clamav {{ type = \"clamav\"; servers = \"{clamd}\"; scan_mime_parts = false; symbol = \"CLAM_VIRUS\"; \
         log_clean = false; max_size = 26214400; timeout = 15; }}\n"
    );
    put("antivirus.conf", scan)?;
    REMOTE.iter().try_for_each(|module| put(&format!("{module}.conf"), "enabled = false;\n".to_owned()))?;
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
