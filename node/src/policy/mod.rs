//! What was found out, and what follows from it.

pub mod blocked;
pub mod decide;
pub mod evidence;
#[cfg(test)]
mod hostile_tests;
pub mod resolve;
#[cfg(test)]
pub(crate) mod samples;
pub mod score;
pub mod standing;
