//! The stateless SMTP node: takes mail in, finds out what it is, decides, and hands it on. It holds nothing durable.

pub mod actions;
pub mod checks;
pub mod cluster;
pub mod config;
pub mod door;
pub mod examine;
pub mod health;
pub mod inspect;
pub mod learning;
pub mod limits;
pub mod message;
pub mod open_files;
pub mod pipeline;
pub mod policy;
pub mod reception;
pub mod redelivery;
pub mod reputation;
pub mod smtp;
pub mod telemetry;
