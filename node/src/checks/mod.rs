//! The checks: pure analyses of a message, and look-ups that ask others about it.

pub mod attachments;
pub mod authentication;
pub mod classifier;
pub mod content;
pub mod criteria;
pub mod facts;
pub mod kinds;
pub mod names;
pub mod own_rules;
pub mod phrases;
pub mod virus;
