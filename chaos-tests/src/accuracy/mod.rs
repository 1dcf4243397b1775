//! How well mail is told apart: sorted messages in, weights and figures out.

pub mod arrival;
pub mod corpus;
pub mod curve;
pub mod fitting;
pub mod lessons;
pub mod peers;
