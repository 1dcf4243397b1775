//! Starting the servers in their sites, step by step.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use fastrand::Rng;
use proto::wire::operator::{FormRequest, Server as Member};
use tokio::{process::Command, sync::Mutex};

use super::{
    NODES, OPERATORS, Options, SERVERS, Server, Sites,
    doors::{Credentialed, Doors},
};
use crate::{
    binaries::{Programs, programs},
    janitor::Janitor,
    process::Program,
    shim::{Library, Shim},
    wan::{self, Wan},
};

/// Size of a small disk: room for log and state of a long run, and soon full.
const SMALL_DISK: &str = "size=256m,mode=0700";
/// What makes a short log and many comparisons of it.
const SHORT_LOG: [&str; 9] =
    ["control", "--log-bytes-max", "100000", "--logs-kept", "20", "--purged-at-once", "5", "--compare-every", "25"];
fn root(keep: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let Some(keep) = keep else {
        // The janitor removes it, also when this program is killed.
        return Ok(tempfile::Builder::new().prefix("postern-chaos-").tempdir().context("make a folder")?.keep());
    };
    std::fs::create_dir_all(keep).with_context(|| format!("make {}", keep.display()))?;
    keep.canonicalize().with_context(|| format!("find {}", keep.display()))
}

/// Runs a program to its end.
async fn run(program: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} {arguments:?} failed:\n{}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// `posternctl cluster init`: certificates and settings of everybody.
async fn init(programs: &Programs, directory: &Path, count: usize) -> anyhow::Result<()> {
    let mut arguments = vec!["cluster".to_owned(), "init".to_owned(), directory.display().to_string()];
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    for (number, (name, site)) in SERVERS.iter().take(count).enumerate() {
        option("--server", format!("{name}={site}@{}", wan::address(number)));
    }
    NODES.iter().for_each(|name| option("--node", format!("{name}=north")));
    OPERATORS.iter().for_each(|name| option("--operator", (*name).to_owned()));
    run(&programs.ctl, &arguments).await
}

pub(super) async fn sites(options: &Options) -> anyhow::Result<Sites> {
    let progress = &options.progress;
    let count = options.servers;
    anyhow::ensure!(count == 3 || count == SERVERS.len(), "three or five servers, not {count}");
    let programs = programs(progress).await?;
    let root = root(options.keep.as_ref())?;
    let janitor = Janitor::start(&programs.peer, options.keep.is_none().then(|| root.clone()))?;
    progress.set_message("making network namespaces");
    let mut rng = Rng::with_seed(options.seed);
    let wan = Wan::make(count, &janitor, || Duration::from_millis(rng.u64(options.delay_ms.clone()))).await?;
    progress.set_message("making certificates");
    let directory = root.join("cluster");
    init(programs, &directory, count).await?;
    std::fs::create_dir_all(root.join("logs")).context("make the folder of the logs")?;
    let library = if options.shims { Some(Library::compile(&root)?) } else { None };
    let (control, arguments) = match options.short_logs {
        false => (&programs.control, Vec::new()),
        true => (&programs.peer, SHORT_LOG.to_vec()),
    };
    let name = control.file_name().context("a program has a name")?;
    let control = options.programs.as_ref().map_or_else(|| control.clone(), |folder| folder.join(name));
    let mut servers = Vec::new();
    for (number, (name, _)) in SERVERS.iter().take(count).enumerate() {
        let folder = directory.join("servers").join(name);
        let data = folder.join("data");
        std::fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
        if options.small_disks {
            mount(&data, &janitor).await?;
        }
        let shim = library.as_ref().map(|library| Shim::new(library, &root, name, &data)).transpose()?;
        let settings = folder.join("control.yaml").display().to_string();
        let namespace = &wan.inside(number).name;
        let program = Program {
            name: (*name).to_owned(),
            path: "ip".into(),
            arguments: ["netns", "exec", namespace, &control.display().to_string()]
                .into_iter()
                .chain(arguments.iter().copied())
                .chain(["--config", &settings])
                .map(Into::into)
                .collect(),
            environment: shim.as_ref().map(Shim::environment).unwrap_or_default(),
            log: root.join("logs").join(format!("{name}.log")),
        };
        servers.push(Server { program, data, shim, process: Mutex::new(None) });
    }
    let credentials = Credentialed::load(&directory)?;
    let doors: Vec<Doors> = (0..count)
        .map(|site| Doors::open(&credentials, wan.inside(site), wan::address(site)))
        .collect::<Result<_, _>>()?;
    let sites = Sites { root, wan, doors, servers, janitor };
    bring_up(&sites, options).await?;
    Ok(sites)
}

async fn mount(data: &Path, janitor: &Janitor) -> anyhow::Result<()> {
    janitor.mounts(data);
    let arguments = ["-t", "tmpfs", "-o", SMALL_DISK, "none", &data.display().to_string()].map(str::to_owned);
    run(Path::new("mount"), &arguments).await.context("mount a small file system in memory, which root may do")
}

async fn bring_up(sites: &Sites, options: &Options) -> anyhow::Result<()> {
    options.progress.set_message("starting the control servers");
    for server in 0..sites.count() {
        sites.start_again(server).await?;
    }
    options.progress.set_message("forming the cluster");
    let member = |(number, (name, site)): (usize, &(&str, &str))| Member {
        id: number as u64 + 1,
        name: (*name).to_owned(),
        site: (*site).to_owned(),
        address: wan::address(number).to_string(),
    };
    let members = SERVERS.iter().take(sites.count()).enumerate().map(member).collect();
    sites.doors[0].operator(0).form(FormRequest { servers: members }).await.context("form the cluster")?;
    sites.settled(Duration::from_secs(30)).await?;
    Ok(())
}
