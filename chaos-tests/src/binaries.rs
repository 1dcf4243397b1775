//! The programs of the cluster: built once, in the profile and target folder of the program that is running.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    sync::OnceCell,
};

/// Where they are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `postern-control`.
    pub control: PathBuf,
    /// `postern-node`.
    pub node: PathBuf,
    /// `posternctl`.
    pub ctl: PathBuf,
    /// `peer`: sinks, the test DNS, the janitor.
    pub peer: PathBuf,
}

impl Programs {
    /// Those in a folder, built before.
    ///
    /// # Errors
    /// When one is not there.
    pub fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let program = |name: &str| {
            let path = folder.join(name);
            if path.is_file() { Ok(path) } else { bail!("there is no {}", path.display()) }
        };
        Ok(Self {
            control: program("postern-control")?,
            node: program("postern-node")?,
            ctl: program("posternctl")?,
            peer: program("peer")?,
        })
    }
}

static PROGRAMS: OnceCell<Programs> = OnceCell::const_new();

/// Builds them, unless that was done before, and says what it is at.
///
/// # Errors
/// When cargo fails, with what it said.
pub async fn programs(progress: &ProgressBar) -> anyhow::Result<&'static Programs> {
    PROGRAMS.get_or_try_init(|| build(progress)).await
}

/// The folder with the programs of this build, `target/debug` or the like, and the name of its profile.
pub(crate) fn profile() -> anyhow::Result<(PathBuf, String)> {
    let me = std::env::current_exe().context("find the running program")?;
    let folder = me.parent().context("the running program lies in a folder")?;
    // Tests lie in `deps` below it.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let name = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => bail!("{} has no name", folder.display()),
    };
    Ok((folder.to_owned(), name.to_owned()))
}

async fn build(progress: &ProgressBar) -> anyhow::Result<Programs> {
    let (folder, profile) = profile()?;
    let target = folder.parent().context("a profile's folder lies in the target folder")?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate lies in the workspace")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    progress.set_message("building postern-control, postern-node and posternctl");
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["build", "--workspace", "--profile", &profile]);
    // These alone: each program more is linked for minutes in a release build.
    command
        .args(["postern-control", "postern-node", "posternctl", "peer"].into_iter().flat_map(|name| ["--bin", name]));
    command.arg("--target-dir").arg(target);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("start cargo")?;
    let mut said = Vec::new();
    if let Some(output) = child.stderr.take() {
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await.context("read cargo's output")? {
            progress.set_message(line.trim().to_owned());
            said.push(line);
        }
    }
    if !child.wait().await.context("wait for cargo")?.success() {
        bail!("cargo could not build the programs:\n{}", said.join("\n"));
    }
    Programs::of_folder(&folder).context("cargo built not all of them")
}
