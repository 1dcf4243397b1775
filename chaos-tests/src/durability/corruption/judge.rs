//! What a server says of a folder: `postern-control --check`, and, where that leaves a doubt, a server that runs.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use control::{
    config::Config,
    raft::{Group, GroupConfig, Rules, Server},
    server::Look,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::process::Command;

use crate::durability::Bench;

/// A server that has not read its folder within this time gives up, in seconds.
const OPEN_WITHIN_S: u64 = 60;
/// A server that has neither opened nor refused a folder after this time hangs.
const HANGS_AFTER: Duration = Duration::from_secs(120);
/// What a server was at that was let pass and did not come to serve.
pub(super) const APPLY: &str = "apply the log that the gate has let pass";

/// What a server that runs on a folder has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Term of the last vote.
    pub term: u64,
    /// Index of the last entry.
    pub last: u64,
    /// Digest of the replicated state.
    pub digest: String,
}

/// Runs a server on a folder, waits until the log is applied, and says what is there.
///
/// # Errors
/// When the server would refuse, with its reason.
pub async fn run(config: Config) -> anyhow::Result<Contents> {
    let server = Server { name: config.name, site: config.site, address: config.advertise };
    let rules = Rules { open_within: Duration::from_secs(OPEN_WITHIN_S), ..Rules::default() };
    let (id, data_dir, credentials) = (config.id, config.data, config.credentials);
    let group = Group::open(GroupConfig { id, server, data_dir, credentials, rules }).await;
    let group = group.context("open the Raft group")?;
    group.linearize().await.context(APPLY)?;
    let (status, digest) = (group.status(), group.state().digest());
    Ok(Contents { term: status.term, last: status.last_log_index, digest: digest.to_string() })
}

/// What came of opening a folder.
pub(super) enum Opened<T> {
    Well(Box<T>),
    /// With what it said. A code of its own: not a panic, not a signal.
    Ended {
        orderly: bool,
        said: String,
    },
    Hung,
}

/// Settings like the template's, for another data folder; beside them, because of the credentials.
fn settings_for(settings: &Path, data: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(settings).context("read the template's settings")?;
    let line = |line: &str| match line.starts_with("data:") {
        true => format!("data: \"{}\"\n", data.display()),
        false => format!("{line}\n"),
    };
    let name = data.file_name().context("a data folder has a name")?;
    let path = settings.with_file_name(name).with_extension("yaml");
    std::fs::write(&path, text.lines().map(line).collect::<String>()).context("write settings")?;
    Ok(path)
}

/// `postern-control --check`, with more in its environment.
pub(super) async fn look(
    bench: &Bench,
    settings: &Path,
    data: &Path,
    environment: Vec<(String, String)>,
) -> anyhow::Result<Opened<Look>> {
    let mut command = Command::new(&bench.programs.control);
    command.args(["--check", "--open-within", &OPEN_WITHIN_S.to_string()]).envs(environment);
    ask(command, settings, data).await
}

/// A server that runs.
pub(super) async fn serve(bench: &Bench, settings: &Path, data: &Path) -> anyhow::Result<Opened<Contents>> {
    let mut command = Command::new(&bench.programs.peer);
    command.arg("judge");
    ask(command, settings, data).await
}

async fn ask<T: DeserializeOwned>(mut command: Command, settings: &Path, data: &Path) -> anyhow::Result<Opened<T>> {
    let settings = settings_for(settings, data)?;
    // What it says last is to be its reason, not where in the code it arose.
    command
        .env_remove("RUST_BACKTRACE")
        .process_group(0)
        .arg("--config")
        .arg(&settings)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(HANGS_AFTER, command.output()).await;
    std::fs::remove_file(&settings).context("remove settings")?;
    let output = match ended {
        Err(_) => return Ok(Opened::Hung),
        Ok(output) => output.context("run the judge")?,
    };
    if output.status.success() {
        let found = serde_json::from_slice(&output.stdout).context("read what the judge found")?;
        return Ok(Opened::Well(Box::new(found)));
    }
    // A panic ends the process with 101, an abort with a signal.
    let orderly = matches!(output.status.code(), Some(1 | 70));
    Ok(Opened::Ended { orderly, said: String::from_utf8_lossy(&output.stderr).into_owned() })
}
