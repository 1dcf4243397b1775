//! SpamAssassin's daemon with Debian's rules and a Bayes database of its own, without a network.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use tokio::process::Command;

use super::{Ground, Peer, exchange, run};
use crate::{
    accuracy::corpus::Sorted,
    cluster::operator::until,
    commits::installed,
    edge::usage::Account,
    ports,
    process::{Process, Program},
};

const USER: &str = "debian-spamd";

/// A running one.
#[derive(Debug)]
pub struct SpamAssassin {
    address: SocketAddr,
    account: Account,
    process: Process,
}

impl SpamAssassin {
    /// Teaches it by these messages, and starts it.
    ///
    /// # Errors
    /// When it is not installed, cannot be taught or does not start.
    pub async fn start(ground: &Ground, learnt: &[Sorted]) -> anyhow::Result<Self> {
        let (Some(daemon), Some(learner)) = (installed("spamd"), installed("sa-learn")) else {
            bail!("install the packages spamassassin and spamd");
        };
        let folder = ground.folder.join("spamassassin");
        std::fs::create_dir_all(&folder).context("make a folder for SpamAssassin")?;
        run(Command::new("chown").arg(USER).arg(&folder)).await?;
        let database = folder.join("bayes");
        for (kind, is_bad) in [("--spam", true), ("--ham", false)] {
            let lessons = folder.join(if is_bad { "bad" } else { "wanted" });
            std::fs::create_dir_all(&lessons).with_context(|| format!("make {}", lessons.display()))?;
            // As they came in, and as it is asked about others.
            for (at, one) in learnt.iter().enumerate().filter(|(_, one)| one.class.is_bad() == is_bad) {
                std::fs::write(lessons.join(at.to_string()), one.arrival.received())
                    .context("write a message to learn")?;
            }
            let mut command = Command::new("runuser");
            command.args(["-u", USER, "--"]).arg(&learner).args([kind, "--no-sync", "-L", "--dbpath"]);
            run(command.arg(&database).arg(lessons)).await?;
        }
        let mut command = Command::new("runuser");
        command.args(["-u", USER, "--"]).arg(&learner).args(["--sync", "-L", "--dbpath"]);
        run(command.arg(&database)).await?;
        let reserved = ports::reserve(None)?;
        let address = reserved.address();
        let port = address.port().to_string();
        let mut arguments: Vec<std::ffi::OsString> =
            ["-L", "-x", "-u", USER, "-i", "127.0.0.1", "-p", &port, "-m", "2", "--min-children=2"]
                .map(Into::into)
                .into();
        arguments.extend(["--max-spare=2".into(), "-H".into(), folder.clone().into_os_string(), "-s".into()]);
        arguments.push(folder.join("spamd.log").into_os_string());
        arguments.push(format!("--cf=bayes_path {}", database.display()).into());
        arguments.extend(["--cf=use_bayes 1".into(), "--cf=bayes_auto_learn 0".into()]);
        let program = Program {
            name: "spamd".into(),
            path: daemon,
            arguments,
            environment: Vec::new(),
            log: folder.join("spamd.out"),
        };
        let account = Account::open("spamassassin");
        drop(reserved);
        let process = account.member(program.clone()).start_foreign(&ground.janitor)?;
        account.started(process.pid());
        let ping = b"PING SPAMC/1.5\r\n\r\n";
        let listens = until("spamd listens", || async { exchange(address, ping).await.ok() });
        listens.await.with_context(|| program.log_end())?;
        Ok(Self { address, account, process })
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }
}

impl Peer for SpamAssassin {
    fn name(&self) -> &'static str {
        "SpamAssassin"
    }

    fn thresholds(&self) -> (f64, f64) {
        (5.0, f64::INFINITY)
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        self.account.cpu()
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    /// It reads who the client was from a `Received` field, which a mail server writes before it asks.
    fn question(&self, sorted: &Sorted) -> Vec<u8> {
        let message = sorted.arrival.received();
        let head = format!("CHECK SPAMC/1.5\r\nContent-length: {}\r\nUser: nobody\r\n\r\n", message.len());
        [head.as_bytes(), &message].concat()
    }

    fn points(&self, answer: &[u8]) -> anyhow::Result<f64> {
        points(answer)
    }
}

/// Of an answer like `Spam: True ; 12.3 / 5.0`.
fn points(answer: &[u8]) -> anyhow::Result<f64> {
    let text = String::from_utf8_lossy(answer);
    let said = text.lines().find_map(|line| line.strip_prefix("Spam: ")).context("SpamAssassin says Spam:")?;
    let points = said.split([';', '/']).nth(1).context("SpamAssassin gives points")?;
    points.trim().parse().with_context(|| format!("SpamAssassin's {said:?} has points"))
}

#[cfg(test)]
mod tests {
    use super::points;

    #[test]
    fn points_are_read_and_nothing_else_is_taken_for_them() {
        let answer = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; -1.9 / 5.0\r\n\r\n";
        assert_eq!(points(answer).ok(), Some(-1.9));
        for wrong in [&b""[..], b"SPAMD/1.0 76 Bad header line\r\n", b"Spam: True", b"Spam: True ; many / 5.0"] {
            assert!(points(wrong).is_err());
        }
    }
}
