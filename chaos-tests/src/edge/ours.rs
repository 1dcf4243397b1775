//! This node as it is in production, with a clamd or without a scan for viruses: a process with a control server and a name
//! server of the test world, all on this machine.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use control::config::Config;
use tokio::{process::Command, sync::mpsc};

use super::{DOMAIN, Network, SENDER_DOMAIN, keys::Key, recipients, usage::Account};
use crate::{
    cluster::{
        layout::{BALANCER, folder},
        operator::Operator,
    },
    commits::{
        Ground,
        voters::{self, NAMES},
    },
    dns::Record,
    ports,
    process::{Process, Program},
    sink_feed::DnsPeer,
    zones::{self, SigningKey},
};

/// Connections that the node takes at once: more than any row opens.
const CONNECTIONS_MAX: usize = 60_000;

/// The running processes.
#[derive(Debug)]
pub struct Ours {
    /// The MX side.
    pub internet: SocketAddr,
    /// The departments' side.
    pub departments: SocketAddr,
    /// CPU time and memory of the node.
    pub node: Account,
    /// Those of the control server.
    pub control: Account,
    /// Those of the name server, which is no part of a node's site.
    pub dns: Account,
    /// Where it listens.
    pub resolver: SocketAddr,
    /// Signs for the sender's domain.
    pub signing: Arc<SigningKey>,
    ground: Ground,
    directory: PathBuf,
    program: Program,
    running: Option<Process>,
    server: Process,
    names: DnsPeer,
    _operator: Operator,
}

impl Ours {
    /// Starts all; mail goes to `next_hop`. Without a clamd nothing is scanned.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(
        ground: &Ground,
        next_hop: SocketAddr,
        clamd: Option<SocketAddr>,
        key: &Key,
    ) -> anyhow::Result<Self> {
        let home = ground.fresh("postern")?;
        let directory = home.join("cluster");
        voters::init(&directory, 1)?;
        let [node, control, dns] = ["node", "control", "dns"].map(Account::open);
        let program = |name: &str, path: &Path, arguments: Vec<std::ffi::OsString>| Program {
            name: name.to_owned(),
            path: path.to_owned(),
            arguments,
            environment: Vec::new(),
            log: home.join(format!("{name}.log")),
        };
        let signing = Arc::new(SigningKey::fresh()?);
        let records = home.join("dns.json");
        let text = serde_json::to_vec(&records_of(&signing)).context("encode the DNS records")?;
        std::fs::write(&records, text).context("write the DNS records")?;
        let arguments = vec!["dns".into(), "--for-load".into(), "--records".into(), records.into()];
        let peer = program("dns", &ground.programs.peer, arguments);
        let names = DnsPeer::start(&dns.member(peer), &ground.janitor).await?;

        let (name, _) = NAMES[0];
        let settings = directory.join("servers").join(name).join("control.yaml");
        let at = Config::load(&settings)?.listen;
        let server = program(name, &ground.programs.control, vec!["--config".into(), settings.into()]);
        let (lines, _) = mpsc::channel(1);
        let (server, _) = control.member(server).start(&ground.janitor, lines).await?;
        control.started(server.pid());
        let operator = Operator::open(
            &directory.join("operators/anna"),
            std::iter::once((name.to_owned(), at)),
            std::iter::empty(),
        )?;
        let ports = [ports::reserve(None)?, ports::reserve(None)?];
        let [internet, departments] = [ports[0].address(), ports[1].address()];
        let settings = write_node(&directory, [internet, departments], at, names.address, clamd)?;
        let mut ours = Self {
            internet,
            departments,
            node,
            control,
            dns,
            resolver: names.address,
            signing,
            ground: ground.clone(),
            program: program("mx1", &ground.programs.node, vec!["--config".into(), settings.into()]),
            directory,
            running: None,
            server,
            names,
            _operator: operator.clone(),
        };
        let form = ours.directory.clone().into_os_string();
        ours.posternctl(vec!["cluster".into(), "form".into(), form]).await?;
        operator.leader().await?;
        let policy = folder(&home, "policy")?;
        write_policy(&policy, next_hop, clamd.is_some())?;
        let apply = ["policy".into(), "apply".into(), policy.into(), "--why".into(), "a benchmark".into()];
        ours.posternctl(apply.to_vec()).await?;
        let denied = format!("net:{}", Network::Denied.net());
        let block = ["reputation", "set", &denied, "block", "--until", "1d", "--why", "a benchmark"];
        ours.posternctl(block.map(Into::into).to_vec()).await?;
        drop(ports);
        ours.restart(key).await?;
        Ok(ours)
    }

    /// Starts the node anew, with this key.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn restart(&mut self, key: &Key) -> anyhow::Result<()> {
        if let Some(running) = self.running.take() {
            running.stop().await?;
        }
        for (from, to) in [(&key.certificate, "tls.pem"), (&key.key, "tls.key")] {
            std::fs::copy(from, self.directory.join("nodes/mx1").join(to)).context("copy a key")?;
        }
        let (lines, _) = mpsc::channel(1);
        let (node, _) = self.node.member(self.program.clone()).start(&self.ground.janitor, lines).await?;
        self.node.started(node.pid());
        self.running = Some(node);
        Ok(())
    }

    async fn posternctl(&self, arguments: Vec<std::ffi::OsString>) -> anyhow::Result<()> {
        let mut command = Command::new(&self.ground.programs.ctl);
        command.arg("--config").arg(self.directory.join("operators/anna/posternctl.yaml"));
        let output = command.args(&arguments).kill_on_drop(true).output().await.context("run posternctl")?;
        if !output.status.success() {
            bail!("posternctl {arguments:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Stops all.
    ///
    /// # Errors
    /// When a process had to be killed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(running) = self.running.take() {
            running.stop().await?;
        }
        self.server.stop().await?;
        self.names.stop().await
    }
}

/// The sender's domain is in order, for each address that the load comes from.
fn records_of(signing: &SigningKey) -> Vec<Record> {
    let spf = |record: &Record| record.name == SENDER_DOMAIN && record.value.starts_with("v=spf1");
    let mut records = zones::records(signing);
    records.retain(|record| !spf(record) && record.kind != "PTR");
    let record =
        |name: String, kind: &str, value: &str| Record { name, kind: kind.to_owned(), value: value.to_owned() };
    let nets = [(Network::Internet, "mail"), (Network::Announced, "mx")];
    let allowed = nets.map(|(network, _)| format!("ip4:{}", network.net())).join(" ");
    records.push(record(SENDER_DOMAIN.into(), "TXT", &format!("v=spf1 {allowed} -all")));
    for (network, label) in nets {
        let [a, b, c] = network.prefix();
        for host in 1..=250 {
            let name = format!("{label}{host}.{SENDER_DOMAIN}");
            records.push(record(format!("{host}.{c}.{b}.{a}.in-addr.arpa"), "PTR", &name));
            records.push(record(name, "A", &format!("{a}.{b}.{c}.{host}")));
        }
    }
    let [a, b, c] = Network::Internet.prefix();
    records.push(record("load.test".into(), "A", &format!("{a}.{b}.{c}.1")));
    records
}

fn write_node(
    directory: &Path,
    [internet, departments]: [SocketAddr; 2],
    control: SocketAddr,
    dns: SocketAddr,
    clamd: Option<SocketAddr>,
) -> anyhow::Result<PathBuf> {
    let clamd = clamd.map(|address| format!("clamd: \"{address}\"\n")).unwrap_or_default();
    let text = format!(
        "name: mx1\nsite: north\nhostname: mx1.gov.test\ncredentials: \".\"\ncontrol: [\"{control}\"]\n\
         listeners: {{internet: \"{internet}\", departments: \"{departments}\", balancers: [{BALANCER}]}}\n\
         dns: [\"{dns}\"]\n{clamd}\
         tls: {{certificate: tls.pem, key: tls.key}}\nlimits: {{connections_max: {CONNECTIONS_MAX}}}\n"
    );
    let path = directory.join("nodes/mx1/node.yaml");
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A department that gets the mail and one that sends it. Thresholds that no message reaches, and no types that are refused:
/// whatever can be read and scanned is relayed, as a mail server without a filter would. All of it is tagged, so that no client
/// becomes a good one of whom nothing more is asked.
fn write_policy(folder: &Path, next_hop: SocketAddr, scans: bool) -> anyhow::Result<()> {
    let hop = format!("[{{host: \"{}\", port: {}, tls: none}}]", next_hop.ip(), next_hop.port());
    // The generator's few addresses name more unknown recipients than policy bears of anybody.
    let state = format!(
        "state: The State of Test\nclients: {{rates: {{unknown_recipients: unbounded}}}}\npolicy:\n  virus_scan: {}\n  \
         client_refuse_at: 900\n  greylist_at: 900\n  blocked_types: []\n  \
         tag_at: -900\n  quarantine_at: 900\n  reject_at: 900\n  dmarc_failure: score\n",
        if scans { "required" } else { "off" }
    );
    let mut all = String::new();
    for local in recipients() {
        write!(all, "{local}, ").context("list the recipients")?;
    }
    let all = all.trim_end_matches(", ");
    let gets = format!(
        "department: dest\nname: Department of Mail\ndomains: [{DOMAIN}]\nnext_hops: {hop}\nrecipients: [{all}]\n"
    );
    let net = Network::Department.net();
    let sends = format!(
        "department: source\nname: Department of Letters\ndomains: [source.test]\nnext_hops: {hop}\nsources: [{net}]\n"
    );
    for (name, text) in [("state", &state), ("dest", &gets), ("source", &sends)] {
        std::fs::write(folder.join(format!("{name}.yaml")), text).with_context(|| format!("write {name}.yaml"))?;
    }
    Ok(())
}
