//! What is done about a message: headers, relay, records to hold.

pub mod headers;
pub mod hold;
pub mod notice;
pub mod relay;
