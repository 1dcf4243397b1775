//! SMTP as a server (RFC 5321): words, the pure session, and the edges around it.

pub mod admission;
pub mod command;
pub mod connection;
pub mod data;
pub mod demand;
pub mod extensions;
mod fixed;
pub mod line;
mod open;
pub mod parameters;
pub mod places;
pub mod proxy;
pub mod reply;
pub mod server;
pub mod session;
pub mod step;
pub mod stream;
pub mod tls;
pub mod transaction;
pub mod xclient;
