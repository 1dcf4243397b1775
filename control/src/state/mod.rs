//! The replicated state: a pure function from keys, a batch and its log time to writes and outcomes.

pub mod query;
pub mod store;
