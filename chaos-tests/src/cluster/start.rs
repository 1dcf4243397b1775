//! Starting the box, step by step.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use tokio::{process::Command, sync::Mutex};

use super::{
    Cluster, Member, Options,
    clamd::{self, Clamd},
    layout::{self, NodePlan, ServerPlan, Surroundings, folder},
    operator::Operator,
};
use crate::{
    binaries::{Programs, programs},
    janitor::Janitor,
    ports::{self, Reserved},
    process::Program,
    sink_feed::{DnsPeer, SinkPeer},
    zones::{self, SigningKey},
};

const SERVERS: [(&str, &str); 3] = [("alpha", "north"), ("beta", "south"), ("gamma", "west")];
const NODES: [(&str, &str); 2] = [("mx1", "north"), ("mx2", "south")];

struct Site<'a> {
    root: &'a Path,
    programs: &'a Programs,
    janitor: &'a Janitor,
}

impl Site<'_> {
    fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    fn peer(&self, name: &str, arguments: Vec<OsString>) -> Program {
        let path = self.programs.peer.clone();
        Program { name: name.to_owned(), path, arguments, environment: Vec::new(), log: self.log(name) }
    }

    async fn sink(&self, name: &str, refuse: &[&str], store: bool, tls: bool) -> anyhow::Result<SinkPeer> {
        let mut arguments: Vec<OsString> = vec!["sink".into(), "--name".into(), format!("{name}.sink.test").into()];
        if store {
            arguments.extend(["--folder".into(), folder(self.root, &format!("mail/{name}"))?.into()]);
        }
        if tls {
            arguments.extend(["--tls".into(), folder(self.root, "tls")?.into()]);
        }
        arguments.extend(refuse.iter().flat_map(|refused| ["--refuse".into(), (*refused).into()]));
        // A sink that is stopped and started again must come back where the policy looks for it.
        let port = ports::reserve(None)?;
        arguments.extend(["--listen".into(), port.address().to_string().into()]);
        drop(port);
        SinkPeer::start(name, &self.peer(name, arguments), self.janitor).await
    }

    async fn dns(&self, signing: &SigningKey) -> anyhow::Result<DnsPeer> {
        let records = self.root.join("dns.json");
        let text = serde_json::to_vec_pretty(&zones::records(signing)).context("encode the DNS records")?;
        std::fs::write(&records, text).with_context(|| format!("write {}", records.display()))?;
        let arguments = vec!["dns".into(), "--records".into(), records.into()];
        DnsPeer::start(&self.peer("dns", arguments), self.janitor).await
    }

    async fn clamd(&self, wanted: bool) -> anyhow::Result<Option<Clamd>> {
        let Some(path) = clamd::installed().filter(|_| wanted) else { return Ok(None) };
        let clamd = Clamd::start(&path, &folder(self.root, "clamd")?, self.log("clamd"), self.janitor).await?;
        Ok(Some(clamd))
    }

    fn member(&self, name: &str, path: &Path, settings: PathBuf, reserved: Vec<Reserved>) -> Member {
        let program = Program {
            name: name.to_owned(),
            path: path.to_owned(),
            arguments: vec!["--config".into(), settings.into()],
            environment: Vec::new(),
            log: self.log(name),
        };
        Member { program, reserved: Mutex::new(reserved), process: Mutex::new(None) }
    }

    /// `posternctl cluster init`: certificates and settings of everybody.
    async fn init(&self, directory: &Path, servers: &[ServerPlan]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.programs.ctl);
        command.args(["cluster", "init"]).arg(directory).kill_on_drop(true);
        for server in servers {
            command.arg("--server").arg(format!("{}={}@{}", server.name, server.site, server.address));
        }
        for (name, site) in NODES {
            command.arg("--node").arg(format!("{name}={site}"));
        }
        command.args(["--operator", "anna"]);
        let output = command.output().await.context("run posternctl cluster init")?;
        if !output.status.success() {
            bail!("posternctl cluster init failed:\n{}{}", super::text(&output.stdout), super::text(&output.stderr));
        }
        Ok(())
    }
}

fn root(keep: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let Some(keep) = keep else {
        // The janitor removes it, also when this program is killed.
        return Ok(tempfile::Builder::new().prefix("postern-").tempdir().context("make a folder")?.keep());
    };
    std::fs::create_dir(keep).with_context(|| format!("make {} (it must not exist yet)", keep.display()))?;
    keep.canonicalize().with_context(|| format!("find {}", keep.display()))
}

fn plan_servers() -> anyhow::Result<(Vec<ServerPlan>, Vec<Reserved>)> {
    let mut plans = Vec::new();
    let mut reserved = Vec::new();
    for (name, site) in SERVERS {
        let port = ports::reserve(None)?;
        plans.push(ServerPlan { name, site, address: port.address() });
        reserved.push(port);
    }
    Ok((plans, reserved))
}

fn plan_nodes(first_port: Option<u16>) -> anyhow::Result<Vec<(NodePlan, Vec<Reserved>)>> {
    let mut plans = Vec::new();
    let mut preferred = first_port;
    for (name, site) in NODES {
        let internet = ports::reserve(preferred)?;
        let departments = ports::reserve(preferred.map(|port| port.saturating_add(1)))?;
        preferred = preferred.map(|port| port.saturating_add(2));
        let (inspect, health) = (ports::reserve(None)?, ports::reserve(None)?);
        let plan = NodePlan {
            name,
            site,
            internet: internet.address(),
            departments: departments.address(),
            inspect: inspect.address(),
            health: health.address(),
        };
        plans.push((plan, vec![internet, departments, inspect, health]));
    }
    Ok(plans)
}

pub(super) async fn cluster(options: Options) -> anyhow::Result<Cluster> {
    let progress = &options.progress;
    let programs = programs(progress).await?;
    let root = root(options.keep.as_ref())?;
    let janitor = Janitor::start(&programs.peer, options.keep.is_none().then(|| root.clone()))?;
    let site = Site { root: &root, programs, janitor: &janitor };
    folder(&root, "logs")?;

    progress.set_message("starting mail sinks, test DNS and virus scanner");
    let signing = Arc::new(SigningKey::fresh()?);
    let interior = site.sink("interior", &["nobody=550"], options.store_mail, false).await?;
    let health = site.sink("health", &["full=452", "nobody=550"], options.store_mail, true).await?;
    let internet = site.sink("internet", &["nobody=550"], options.store_mail, false).await?;
    let dns = site.dns(&signing).await?;
    let clamd = site.clamd(options.clamd).await?;

    progress.set_message("making certificates");
    let (servers, reserved) = plan_servers()?;
    let directory = root.join("cluster");
    site.init(&directory, &servers).await?;
    let around = Surroundings {
        control: servers.iter().map(|server| server.address).collect(),
        dns: dns.address,
        clamd: clamd.as_ref().map(|clamd| clamd.address),
        interior: interior.address,
        health: health.address,
        internet: internet.address,
    };
    let policy = folder(&root, "policy")?;
    layout::write_policy(&policy, &around)?;
    let mut members = BTreeMap::new();
    for (server, port) in servers.iter().zip(reserved) {
        let settings = directory.join("servers").join(server.name).join("control.yaml");
        members.insert(server.name.to_owned(), site.member(server.name, &programs.control, settings, vec![port]));
    }
    let mut nodes = Vec::new();
    for (plan, reserved) in plan_nodes(options.smtp_port)? {
        let settings = layout::write_node(&directory, &plan, &around, (&options.node_settings, &options.node_limits))?;
        let mut member = site.member(plan.name, &programs.node, settings, reserved);
        member.program.environment.clone_from(&options.node_environment);
        members.insert(plan.name.to_owned(), member);
        nodes.push(plan);
    }
    let named = |name: &str, at: SocketAddr| (name.to_owned(), at);
    let operator = Operator::open(
        &directory.join("operators/anna"),
        servers.iter().map(|server| named(server.name, server.address)),
        nodes.iter().map(|node| named(node.name, node.inspect)),
    )?;
    let cluster = Cluster {
        directory,
        policy,
        servers,
        nodes,
        interior,
        health,
        internet,
        dns,
        clamd,
        signing,
        operator,
        programs: programs.clone(),
        members,
        janitor: janitor.clone(),
        root: root.clone(),
    };
    bring_up(&cluster, &options).await?;
    Ok(cluster)
}

async fn bring_up(cluster: &Cluster, options: &Options) -> anyhow::Result<()> {
    let progress = &options.progress;
    progress.set_message("starting three control servers in three sites");
    for server in &cluster.servers {
        cluster.restart(server.name).await?;
    }
    progress.set_message("forming the cluster");
    let form: [OsString; 3] = ["cluster".into(), "form".into(), cluster.directory.clone().into()];
    cluster.posternctl_ok(form).await?;
    cluster.leader().await?;
    progress.set_message("starting two nodes");
    for node in &cluster.nodes {
        cluster.restart(node.name).await?;
    }
    if options.first_policy {
        progress.set_message("applying the first policy");
        cluster.apply_policy(&cluster.policy, "the first policy").await?;
    }
    Ok(())
}
