//! What the fuzz targets do with their bytes, and what must hold whatever the bytes are. CI replays the kept corpus through
//! the same functions, so they panic where a promise is broken and need no fuzzer.

mod commands;
mod data;
mod next_hop;
mod pieces;
mod proxy;
mod rules;

pub use self::{commands::commands, data::data, next_hop::next_hop, proxy::proxy, rules::rules};
