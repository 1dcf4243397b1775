//! `posternctl`: what an operator does to a cluster, over the `operator` service of the control servers and the `inspect`
//! service of the nodes.

pub mod args;
pub mod audit;
pub mod backup;
pub mod cluster;
pub mod connect;
pub mod diagnosis;
pub mod doctor;
pub mod escape;
pub mod init;
pub mod learning;
pub mod mailbox;
pub mod members;
pub mod node;
pub mod nodes;
pub mod output;
pub mod pki;
pub mod policy;
pub mod quarantine;
pub mod renewal;
pub mod report;
pub mod reputation;
pub mod restore;
pub mod revocation;
pub mod rules;
pub mod scan;
pub mod settings;
pub mod status;

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;

use args::{Args, ClusterCommand, Command, NodeCommand, PolicyCommand, RulesCommand};
use connect::Reach;
use output::Output;

/// Whether everything that was asked for is well; a fault that has been shown already is not an error to print again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Exit code 0.
    Well,
    /// Exit code 1; the output says why.
    WithFaults,
}

/// Reads the command line, does what it says, and turns the end into an exit code: 0 well, 1 not, 2 wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let ended = tokio::runtime::Runtime::new().context("start the runtime").and_then(|runtime| {
        let ended = runtime.block_on(run(args));
        // A thread that still reads a file must not keep the program alive.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::WithFaults) => ExitCode::FAILURE,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when even the error cannot be written.
            let _ = writeln!(std::io::stderr(), "posternctl: {}", escape::lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// `posternctl … | head` closed our output.
fn reader_left(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe))
}

async fn run(args: Args) -> anyhow::Result<Ended> {
    let output = Output { format: args.output };
    let reach = || Reach::load(&args.config, &args.server);
    match args.command {
        Command::Cluster(ClusterCommand::Init(init)) => init::init(&init),
        Command::Cluster(ClusterCommand::Issue(issue)) => init::issue(&issue),
        Command::Cluster(ClusterCommand::Revoke(revoke)) => revocation::revoke(&revoke),
        Command::Cluster(ClusterCommand::NewCa(args)) => renewal::new_ca(&args),
        Command::Cluster(ClusterCommand::Form { dir }) => cluster::form(&reach()?, &dir).await,
        Command::Cluster(ClusterCommand::Status) => status::status(&reach()?, output).await,
        Command::Cluster(ClusterCommand::Add(add)) => members::add(&reach()?, &add).await,
        Command::Cluster(ClusterCommand::Promote(promote)) => members::promote(&reach()?, promote).await,
        Command::Cluster(ClusterCommand::Remove(remove)) => members::remove(&reach()?, remove).await,
        Command::Cluster(ClusterCommand::TransferLeader(transfer)) => members::transfer(&reach()?, transfer).await,
        Command::Policy(PolicyCommand::Plan { dir }) => policy::plan(&reach()?, output, &dir).await,
        Command::Policy(PolicyCommand::Apply(apply)) => policy::apply(&reach()?, output, &apply).await,
        Command::Policy(PolicyCommand::History { max }) => policy::history(&reach()?, output, max).await,
        Command::Quarantine(command) => quarantine::run(&reach()?, output, command).await,
        Command::Reputation(command) => reputation::run(&reach()?, output, command).await,
        Command::Audit { max, before } => audit::run(&reach()?, output, max, before).await,
        Command::Backup(backup::Backup { verify: Some(backup::BackupCommand::Verify { file }), .. }) => {
            backup::verify(output, &file)
        }
        Command::Backup(backup) => backup::run(&reach()?, output, &backup).await,
        Command::Doctor => doctor::run(&reach()?, output, &args.config).await,
        Command::Restore(restore) => restore::run(&reach()?, output, restore).await,
        Command::Node(NodeCommand::View { node, version }) => node::view(&reach()?, output, &node, version).await,
        Command::Node(NodeCommand::List) => nodes::list(&reach()?, output).await,
        Command::Node(NodeCommand::Drain(drain)) => nodes::drain(&reach()?, drain, true).await,
        Command::Node(NodeCommand::Undrain(drain)) => nodes::drain(&reach()?, drain, false).await,
        Command::Rules(RulesCommand::List { node, group }) => {
            rules::list(&reach()?, output, &node, group.as_deref()).await
        }
        Command::Scan(scan) => scan::run(&reach()?, scan).await,
        Command::Report(report) => report::run(&reach()?, output, report).await,
        Command::Learning(command) => learning::run(&reach()?, output, command).await,
    }
}
