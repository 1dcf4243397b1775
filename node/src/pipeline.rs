//! A message's whole trip: parse, gather, decide, act, resolve, report.

use bytes::Bytes;

use crate::smtp::{reply::Reply, transaction::Transaction};

/// What the trip needs.
#[derive(Debug)]
pub struct Pipeline {}

impl Pipeline {
    /// Takes a message through all stages and gives the one reply for it. `bytes` is the message as it came after DATA,
    /// dots unstuffed, lines ended by CRLF.
    pub async fn run(&self, _transaction: Transaction, _bytes: Bytes) -> Reply {
        todo!()
    }
}
