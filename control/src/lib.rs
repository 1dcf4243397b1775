//! The control servers: policy, quarantine and reputation, agreed upon by Raft; and the operator's command line.

pub mod archive;
pub mod bodies;
pub mod config;
pub mod ctl;
pub mod learning;
pub mod policy_files;
pub mod raft;
pub mod repair;
pub mod rpc;
pub mod server;
pub mod state;
pub mod telemetry;
#[cfg(test)]
pub(crate) mod test_pki;
