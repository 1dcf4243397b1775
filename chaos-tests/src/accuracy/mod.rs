//! How well mail is told apart: sorted messages in, figures out.

pub mod corpus;
pub mod curve;
