//! The command line: every command, flag and example in one place.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{backup, output::Format, reputation::ReputationCommand};

const EXAMPLES: &str = "Examples:
  posternctl cluster init prod --server alpha=north@10.0.1.5:7001 --server beta=south@10.0.2.5:7001 \\
      --server gamma=west@10.0.3.5:7001 --node mx1=north --node mx2=south --operator anna
  posternctl cluster form prod
  posternctl policy plan policy/
  posternctl policy apply policy/ --why 'Health joins' --ticket CHG-118
  posternctl quarantine list --department health
  posternctl quarantine release ID --why 'asked for by phone'
  posternctl audit --max 1000
  posternctl backup /backup/2026-11-21.tar --why nightly
  posternctl scan --node 10.0.1.7:7100 samples/

Settings are read from posternctl.yaml in the current folder, or from --config FILE.
Exit codes: 0 well, 1 faults or an error, 2 wrong usage.";

/// Heading of the flags that each command takes.
const EVERYWHERE: &str = "Options of every command";

/// Runs a Postern cluster: its certificates, its policy, its quarantine.
#[derive(Debug, Parser)]
#[command(name = "posternctl", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Args {
    /// Your settings; `cluster init` makes them for each operator.
    #[arg(long, global = true, value_name = "FILE", default_value = "posternctl.yaml", help_heading = EVERYWHERE)]
    pub config: PathBuf,

    /// Ask this control server, not those in the settings. May be repeated.
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = EVERYWHERE)]
    pub server: Vec<String>,

    /// How answers are printed: table for people, json for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, hide_possible_values = true,
        value_name = "FORMAT", help_heading = EVERYWHERE)]
    pub output: Format,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Certificates, forming the Raft group, and how it is.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Plan, apply and look back at policy.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Look at held messages, release them, delete them.
    #[command(
        subcommand,
        after_help = "Examples:
  posternctl quarantine list --recipient anna@health.gov.test
  posternctl quarantine show ID
  posternctl quarantine release ID --why 'asked for by phone' --ticket CHG-118"
    )]
    Quarantine(QuarantineCommand),
    /// What is known of senders; let one in or keep it out by hand.
    #[command(
        subcommand,
        after_help = "Examples:
  posternctl reputation show ip:192.0.2.7
  posternctl reputation set net:192.0.2.0/24 block --until 7d --why 'floods health' --ticket CHG-118
  posternctl reputation forget dkim:example.com --why 'the key was stolen and is replaced'"
    )]
    Reputation(ReputationCommand),
    /// Who changed what, when and why; checks that no record is missing or was altered.
    Audit {
        /// Newest records to show and check.
        #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        max: u32,
        /// Only records before this number, to go on where a cut list ends.
        #[arg(long, value_name = "NO", default_value_t = 0, hide_default_value = true)]
        before: u64,
    },
    /// See the nodes, drain one, look into one.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look for what is wrong: certificates, clocks, disks, versions, quorum, missing bodies. Exit code 1 when anything is.
    Doctor,
    /// Copy policy, quarantine, audit log and the bodies of held messages into one file.
    Backup(backup::Backup),
    /// Bring a backup into a new cluster.
    Restore(backup::Restore),
    /// Run messages through a node's checks without delivering them; one JSON line a message.
    Scan(Scan),
}

/// Certificates and the Raft group.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make the cluster's CA, and for each server, node and operator a folder with certificate, key and settings.
    #[command(after_help = "Example:
  posternctl cluster init prod --server alpha=north@10.0.1.5:7001 --server beta=south@10.0.2.5:7001 \\
      --server gamma=west@10.0.3.5:7001 --node mx1=north --operator anna

DIR/ca/ca.key can make a certificate for anybody: keep it offline.")]
    Init(Init),
    /// Make one more certificate with the cluster's CA, or renew one: the name stays, the key is new.
    #[command(after_help = "Examples:
  posternctl cluster issue --ca prod/ca --role node --name mx3 prod/nodes/mx3
  posternctl cluster issue --ca prod/ca --renew prod/nodes/mx3

A process takes new files into use within 30 seconds, or at once on SIGHUP; it need not be started again.")]
    Issue(Issue),
    /// Revoke certificates: makes or extends crl.pem in the CA's folder.
    #[command(after_help = "Examples:
  posternctl cluster revoke --ca prod/ca node/mx3
  posternctl cluster revoke --ca prod/ca prod/nodes/mx3/certificate.pem 4f1c09aa

Copy crl.pem into the credentials folder of every control server, node and operator.")]
    Revoke(Revoke),
    /// Make a new CA for the same cluster, to take the place of the old one step by step, without an interruption.
    #[command(after_help = "Example:
  posternctl cluster new-ca --from prod/ca prod/ca2")]
    NewCa(NewCa),
    /// Make the Raft group out of the servers of a folder that `cluster init` made. Once a cluster; all must be running.
    #[command(after_help = "Example:
  posternctl --config prod/operators/anna/posternctl.yaml cluster form prod")]
    Form {
        /// The folder that `cluster init` made; ids, names, sites and addresses are read from servers/*/control.yaml.
        dir: PathBuf,
    },
    /// Leader, members, and how far each has come. Exit code 1 when the quorum is lost.
    Status,
    /// Take in a new control server: it is filled and has no vote yet.
    #[command(after_help = "Example:
  posternctl cluster add delta=west@10.0.3.6:7001 --id 4 --why 'gamma is lost' --ticket CHG-131

The server must run already: its own control.yaml (id, name, site, advertise as here), an empty data folder, and a certificate of
`posternctl cluster issue --role control`. Then: posternctl cluster promote delta")]
    Add(Add),
    /// Give a control server that has caught up its vote.
    #[command(after_help = "Example:
  posternctl cluster promote delta --wait --why 'gamma is lost' --ticket CHG-131")]
    Promote(Promote),
    /// Remove a control server for good; the last step when one is replaced. Its id and name are not used again.
    #[command(after_help = "Example:
  posternctl cluster remove gamma --why 'its disk is broken' --ticket CHG-131")]
    Remove(Remove),
    /// Have another control server lead: before work on the one that does.
    TransferLeader(TransferLeader),
}

/// `cluster add`.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// The new server: name, site, and where the others reach it.
    // Not named like the global flag: clap would take one for the other.
    #[arg(value_name = "NAME=SITE@HOST:PORT")]
    pub member: String,
    /// Its id, as in its control.yaml; one that no server ever had.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    pub id: u64,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
}

/// `cluster promote`.
#[derive(Debug, clap::Args)]
pub struct Promote {
    /// Its name.
    pub name: String,
    /// Wait until it has caught up.
    #[arg(long)]
    pub wait: bool,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
}

/// `cluster remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Its name.
    pub name: String,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
    /// Also when all voters left would stand in one site. Never when the quorum would be lost.
    #[arg(long)]
    pub force: bool,
}

/// `cluster transfer-leader`.
#[derive(Debug, clap::Args)]
pub struct TransferLeader {
    /// Who is to lead; without it whoever has come furthest.
    #[arg(default_value = "", hide_default_value = true)]
    pub name: String,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
}

/// `cluster init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// A new or empty folder.
    pub dir: PathBuf,
    /// A control server: name, site, and where the others reach it. Three or five, each in its own site.
    // Named like the global flag, which this command does not need: clap lets a command's own flag win.
    #[arg(long, value_name = "NAME=SITE@HOST:PORT", required = true)]
    pub server: Vec<String>,
    /// A node: name and site.
    #[arg(long, value_name = "NAME=SITE")]
    pub node: Vec<String>,
    /// A person who runs the cluster.
    #[arg(long, value_name = "NAME", required = true)]
    pub operator: Vec<String>,
}

/// `cluster issue`.
#[derive(Debug, clap::Args)]
pub struct Issue {
    /// Folder with ca.pem and ca.key.
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// What the certificate lets its holder do.
    #[arg(long, value_enum, required_unless_present = "renew")]
    pub role: Option<RoleName>,
    /// Whose it is.
    #[arg(long, required_unless_present = "renew")]
    pub name: Option<String>,
    /// A folder whose certificate and key are to be replaced by new ones of the same role and name.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["role", "name", "out"])]
    pub renew: Option<PathBuf>,
    /// Days of validity.
    #[arg(long, value_name = "N", default_value_t = super::pki::CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=3653))]
    pub days: u32,
    /// A new or empty folder for ca.pem, certificate.pem and key.pem.
    #[arg(required_unless_present = "renew")]
    pub out: Option<PathBuf>,
}

/// `cluster revoke`.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// Folder with ca.pem and ca.key.
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// ROLE/NAME for all certificates that were issued to it so far, a certificate.pem, or a serial number in hex.
    #[arg(required = true, value_name = "WHAT")]
    pub what: Vec<String>,
}

/// `cluster new-ca`.
#[derive(Debug, clap::Args)]
pub struct NewCa {
    /// Folder of the CA that is to be replaced.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// A new or empty folder for ca.pem and ca.key.
    pub out: PathBuf,
}

/// The roles of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleName {
    /// A control server.
    Control,
    /// A node.
    Node,
    /// A person or a script.
    Operator,
}

/// Policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show what applying the files of a folder would change, or their faults (exit code 1). Changes nothing.
    #[command(after_help = "A line a change: + new, ~ changed, - gone. A line a fault: file:line:column: key: problem")]
    Plan {
        /// Folder with state.yaml and a file for each department.
        dir: PathBuf,
    },
    /// Put the files of a folder in force: one new version, everywhere.
    Apply(Apply),
    /// Versions, newest first: who, when, why and what.
    History {
        /// Versions to show.
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        max: u32,
    },
}

/// `policy apply`.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// Folder with state.yaml and a file for each department.
    pub dir: PathBuf,
    /// Why, in words, for the history and the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
    /// Wait until this node uses the new version, and say how long it took. May be repeated.
    #[arg(long, value_name = "NODE_INSPECT_ADDR")]
    pub wait: Vec<String>,
}

/// The quarantine.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// Held messages, newest first.
    List(List),
    /// All about one, and the reasons for its verdict.
    Show {
        /// Its id, out of `quarantine list`.
        id: String,
    },
    /// Deliver it after all; it is not caught again. A second release is refused.
    Release(Act),
    /// Throw it away. There is no way back.
    Delete(Act),
}

/// `quarantine list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only this department's, by id.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub department: String,
    /// Only those with this recipient.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub recipient: String,
    /// Also those that are delivered or deleted.
    #[arg(long)]
    pub all: bool,
    /// At most this many.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub max: u32,
}

/// `quarantine release` and `quarantine delete`.
#[derive(Debug, clap::Args)]
pub struct Act {
    /// Its id, out of `quarantine list`.
    pub id: String,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
}

/// No change without a reason.
pub(super) fn reason(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("a reason in words is needed") } else { Ok(text.to_owned()) }
}

/// Nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Nodes that the control servers see, and who is drained.
    List,
    /// Have a node take no new mail: clients get 421 4.3.2 and go elsewhere; what is under way ends.
    Drain(Drain),
    /// Have it take mail again.
    Undrain(Drain),
    /// The policy version and log index that a node works under.
    View {
        /// The node's inspect address.
        #[arg(long, value_name = "HOST:PORT")]
        node: String,
        /// Wait until it uses this version or a later one.
        #[arg(long, value_name = "N", default_value_t = 0)]
        version: u64,
    },
}

/// `node drain` and `node undrain`.
#[derive(Debug, clap::Args)]
pub struct Drain {
    /// The node's name.
    pub name: String,
    /// Why, in words, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Number in your ticket system.
    #[arg(long, value_name = "T", default_value = "", hide_default_value = true)]
    pub ticket: String,
}

/// `scan`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "PATH is a message file, a folder (all below it, in the order of their names) or an mbox file, told by its
leading `From `. LF line ends become CRLF, as in SMTP. Of what is left out the node uses its own defaults.

A line has: file (mbox: file#n), disposition, score, reasons, authentication, policy_version, took_ms; or file, error.
Exit code 1 when any message has an error.

Example:
  posternctl scan --node 10.0.1.7:7100 --jobs 8 --rcpt anna@health.gov.test corpus/ | jq -r .disposition | sort | uniq -c"
)]
pub struct Scan {
    /// Message files, folders, mbox files.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The node's inspect address.
    #[arg(long, value_name = "HOST:PORT")]
    pub node: String,
    /// Address of the sending server.
    #[arg(long, value_name = "IP")]
    pub client_ip: Option<std::net::IpAddr>,
    /// Name that the sending server gives.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub helo: String,
    /// Reverse-path.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub mail_from: String,
    /// Recipient: its department's policy holds.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    pub rcpt: String,
    /// Messages in the node's checks at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Args, ClusterCommand, Command};

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_server_is_an_address_everywhere_but_a_member_in_cluster_init() {
        let args =
            Args::parse_from(["posternctl", "cluster", "init", "d", "--server", "a=n@h:1", "--operator", "anna"]);
        assert!(matches!(args.command, Command::Cluster(ClusterCommand::Init(init)) if init.server == ["a=n@h:1"]));
        for line in ["--server h:1 cluster status", "cluster --server h:1 status", "cluster status --server h:1"] {
            let args = Args::parse_from(std::iter::once("posternctl").chain(line.split(' ')));
            assert_eq!(args.server, ["h:1"], "{line}");
        }
    }

    #[test]
    fn a_change_without_a_why_is_wrong_usage() {
        for change in [["policy", "apply", "d"], ["quarantine", "release", "01JD"], ["quarantine", "delete", "01JD"]] {
            let line = |why: &[&'static str]| Args::try_parse_from([&["posternctl"], &change[..], why].concat());
            for why in [&[][..], &["--why", " "]] {
                let error = line(why).expect_err("wrong usage").to_string();
                assert!(error.contains("--why <TEXT>"), "{error}");
            }
            assert!(line(&["--why", "asked for by phone"]).is_ok());
        }
    }
}
