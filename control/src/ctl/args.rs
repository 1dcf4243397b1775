//! The command line: every command, flag and example in one place.

mod cluster;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use self::cluster::{Add, ClusterCommand, Init, Issue, NewCa, Promote, Remove, Revoke, RoleName, TransferLeader};
use super::{backup, learning::LearningCommand, output::Format, report::Report, reputation::ReputationCommand};

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
    /// Content rules.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Run messages through a node's checks without delivering them; one JSON line a message.
    Scan(Scan),
    /// Say of messages that they are spam, or wanted, so that the cluster learns from them.
    #[command(after_help = "Example:
  posternctl report spam inbox/ --node 10.0.1.7:7100 --rcpt anna@health.gov.test --why 'came through' --ticket CHG-118")]
    Report(Report),
    /// What the cluster has learnt from releases and reports.
    #[command(subcommand)]
    Learning(LearningCommand),
}

/// Content rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Show the rules of a node by group, those of its program and those of the policy, and what each is worth.
    List {
        /// The node's inspect address.
        #[arg(long, value_name = "HOST:PORT")]
        node: String,
        /// Only this group.
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
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
