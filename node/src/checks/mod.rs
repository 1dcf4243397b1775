//! The checks: pure analyses of a message, and look-ups that ask others about it.

pub mod attachments;
pub mod authentication;
pub mod calendar;
pub mod campaign;
pub mod classifier;
pub mod content;
pub mod criteria;
pub mod facts;
pub mod history;
pub mod impersonation;
pub mod kinds;
pub mod learnt;
pub mod listing;
pub mod lists;
pub mod names;
pub mod opener;
pub mod own_rules;
pub mod phrases;
mod rest;
mod tries;
pub mod virus;
pub mod volume;
