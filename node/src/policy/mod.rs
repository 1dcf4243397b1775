//! What was found out, and what follows from it.

pub mod decide;
pub mod evidence;
pub mod resolve;
pub mod score;
