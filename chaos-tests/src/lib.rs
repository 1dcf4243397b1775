//! A whole cluster in a box: real processes on loopback, a test world around them, mail, and what became of it.

pub mod binaries;
pub mod cases;
pub mod cluster;
pub mod collector;
pub mod dns;
pub mod durability;
pub mod fate;
pub mod janitor;
pub mod letters;
pub mod load;
pub mod ports;
pub mod power_loss;
pub mod process;
pub mod runtime;
pub mod shared;
pub mod shim;
pub mod sink;
pub mod sink_feed;
pub mod smtp_client;
pub mod zones;
