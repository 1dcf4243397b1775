//! The applied state on disk.

/// The state as applied here.
#[derive(Debug)]
pub struct StateStore {}
