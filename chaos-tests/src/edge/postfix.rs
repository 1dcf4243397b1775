//! Debian's Postfix with folders of its own, started and stopped by us; the one that the system may run is not touched. Settings
//! are Postfix's defaults but for what is named here.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;

use super::{DOMAIN, Network, keys::Key, recipients, usage::Account};
use crate::{
    cluster::operator::until,
    commits::Ground,
    ports,
    process::{Process, Program},
};

const DAEMONS: &str = "/usr/lib/postfix/sbin";
/// Processes that the service for idle connections may have: each is one connection.
pub const IDLE_MAX: usize = 1100;

/// A running Postfix and its services.
#[derive(Debug)]
pub struct Postfix {
    /// Relays by way of the queue; knows the recipients.
    pub queue: SocketAddr,
    /// Relays while the client waits (`smtpd_proxy_filter`).
    pub proxy: SocketAddr,
    /// postscreen with a list of clients that are turned away.
    pub postscreen: SocketAddr,
    /// As many processes as there are idle connections.
    pub idle: SocketAddr,
    /// STARTTLS with each of the keys.
    pub tls: Vec<SocketAddr>,
    /// By way of the queue, after a filter; a load balancer stands before it.
    pub filtered: Option<SocketAddr>,
    /// CPU time and memory of all its processes.
    pub account: Account,
    folder: PathBuf,
    process: Process,
}

/// Whether Debian's package is there.
#[must_use]
pub fn installed() -> bool {
    Path::new(DAEMONS).join("master").is_file() && Path::new("/usr/sbin/postfix").is_file()
}

impl Postfix {
    /// Starts it; mail goes to `next_hop`, of one service after `milter` has seen it.
    ///
    /// # Errors
    /// When it does not start; it needs root.
    pub async fn start(
        ground: &Ground,
        next_hop: SocketAddr,
        milter: Option<SocketAddr>,
        keys: &[Key],
    ) -> anyhow::Result<Self> {
        let folder = ground.fresh("postfix")?;
        let reserved = (0..5 + keys.len()).map(|_| ports::reserve(None)).collect::<anyhow::Result<Vec<_>>>()?;
        let addresses: Vec<SocketAddr> = reserved.iter().map(ports::Reserved::address).collect();
        let (services, tls) = addresses.split_at(5);
        let &[queue, proxy, postscreen, idle, filtered] = services else { bail!("five services have five ports") };
        let filtered = milter.map(|milter| (filtered, milter));
        write(&folder, next_hop, &services[..4], filtered, &tls.iter().copied().zip(keys).collect::<Vec<_>>())?;
        let account = Account::open("postfix");
        let program = Program {
            name: "postfix".into(),
            path: Path::new(DAEMONS).join("master"),
            // In the foreground, and in the process group that it is started in.
            arguments: vec!["-d".into(), "-c".into(), folder.join("conf").into()],
            environment: Vec::new(),
            log: folder.join("master.log"),
        };
        drop(reserved);
        let process = account.member(program.clone()).start_foreign(&ground.janitor)?;
        account.started(process.pid());
        let all = addresses
            .iter()
            .filter(|&&address| milter.is_some() || address != services[4])
            .map(|&address| until("Postfix listens", move || async move { TcpStream::connect(address).await.ok() }));
        for listening in all {
            listening.await.with_context(|| program.log_end())?;
        }
        Ok(Self {
            queue,
            proxy,
            postscreen,
            idle,
            tls: tls.to_vec(),
            filtered: filtered.map(|(at, _)| at),
            account,
            folder,
            process,
        })
    }

    /// Files in its queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        ["maildrop", "incoming", "active", "deferred"]
            .map(|queue| files(&self.folder.join("spool").join(queue)))
            .iter()
            .sum()
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

fn write(
    folder: &Path,
    next_hop: SocketAddr,
    services: &[SocketAddr],
    filtered: Option<(SocketAddr, SocketAddr)>,
    tls: &[(SocketAddr, &Key)],
) -> anyhow::Result<()> {
    for name in ["conf", "spool", "data"] {
        std::fs::create_dir(folder.join(name)).with_context(|| format!("make a folder for Postfix's {name}"))?;
    }
    // Postfix's own user must get through; the folder of a run is ours alone otherwise.
    for path in folder.ancestors().take(2) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).context("open a folder to Postfix")?;
    }
    let put = |name: &str, text: &str| {
        std::fs::write(folder.join("conf").join(name), text).with_context(|| format!("write Postfix's {name}"))
    };
    put("denied", &format!("{} reject\n", Network::Denied.net()))?;
    put("recipients", &recipients().map(|local| format!("{local}@{DOMAIN} OK\n")).collect::<String>())?;
    put("main.cf", &main_cf(folder, next_hop))?;
    put("master.cf", &master_cf(next_hop, services, filtered, tls))?;
    run(Command::new("chown").arg("postfix").arg(folder.join("data")))?;
    let recipients = format!("hash:{}", folder.join("conf/recipients").display());
    run(Command::new("/usr/sbin/postmap").arg("-c").arg(folder.join("conf")).arg(recipients))?;
    run(Command::new("/usr/sbin/postfix").arg("-c").arg(folder.join("conf")).arg("check"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// What differs from the defaults: folders, names and addresses, no DNS, no limit for one client, and TLS only where it is measured.
fn main_cf(folder: &Path, next_hop: SocketAddr) -> String {
    let here = folder.display();
    format!(
        "compatibility_level = 3.6\nqueue_directory = {here}/spool\ndata_directory = {here}/data\n\
         daemon_directory = {DAEMONS}\ncommand_directory = /usr/sbin\nmail_owner = postfix\nsetgid_group = postdrop\n\
         maillog_file_prefixes = {here}\nmaillog_file = {here}/mail.log\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = mx.{DOMAIN}\nmydestination =\n\
         alias_maps =\nalias_database =\nlocal_recipient_maps =\nmynetworks = 127.0.0.9/32\n\
         relay_domains = {DOMAIN}\nrelay_recipient_maps = hash:{here}/conf/recipients\n\
         smtpd_relay_restrictions = reject_unauth_destination\nrelayhost =\n\
         relay_transport = relay:[{}]:{}\nsmtp_dns_support_level = disabled\nsmtp_host_lookup = native\n\
         smtp_tls_security_level = none\nsmtpd_peername_lookup = no\nsmtpd_client_connection_count_limit = 0\n\
         postscreen_access_list = cidr:{here}/conf/denied\npostscreen_denylist_action = drop\n",
        next_hop.ip(),
        next_hop.port()
    )
}

fn master_cf(
    next_hop: SocketAddr,
    services: &[SocketAddr],
    filtered: Option<(SocketAddr, SocketAddr)>,
    tls: &[(SocketAddr, &Key)],
) -> String {
    let with = [
        "- smtpd".to_owned(),
        format!("- smtpd -o smtpd_proxy_filter={next_hop}"),
        "1 postscreen".to_owned(),
        // Without stress mode, which would end idle connections.
        format!("{IDLE_MAX} smtpd -o stress="),
    ];
    let mut text: String =
        services.iter().zip(&with).map(|(address, with)| format!("{address} inet n - n - {with}\n")).collect();
    if let Some((address, milter)) = filtered {
        text += &format!(
            "{address} inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_milters=inet:{milter} \
             -o milter_default_action=tempfail\n"
        );
    }
    for (address, key) in tls {
        text += &format!(
            "{address} inet n - n - - smtpd -o smtpd_tls_security_level=may -o smtpd_tls_cert_file={} \
             -o smtpd_tls_key_file={}\n",
            key.certificate.display(),
            key.key.display()
        );
    }
    let others = [
        "smtpd pass - - n - - smtpd",
        "dnsblog unix - - n - 0 dnsblog",
        "tlsproxy unix - - n - 0 tlsproxy",
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "verify unix - - n - 1 verify",
        "flush unix n - n 1000? 0 flush",
        "proxymap unix - - n - - proxymap",
        "proxywrite unix - - n - 1 proxymap",
        "smtp unix - - n - - smtp",
        "relay unix - - n - - smtp",
        "showq unix n - n - - showq",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "discard unix - - n - - discard",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        "postlog unix-dgram n - n - 1 postlogd",
    ];
    text + &others.join("\n") + "\n"
}
