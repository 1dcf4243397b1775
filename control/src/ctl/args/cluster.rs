//! The command line of `cluster`: certificates and the Raft group.

use std::path::PathBuf;

use clap::Subcommand;

use super::reason;

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
    #[arg(long, value_name = "N", default_value_t = super::super::pki::CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=3653))]
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
