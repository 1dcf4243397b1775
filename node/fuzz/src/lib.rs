//! What the fuzz targets do with their bytes, and what must hold whatever the bytes are. CI replays the kept corpus through
//! the same functions, so they panic where a promise is broken and need no fuzzer.

mod archives;
mod clamd;
mod commands;
mod data;
mod documents;
mod fingerprints;
mod judged;
mod looked;
mod mime;
mod next_hop;
mod pieces;
mod proxy;
mod rules;
mod words;

pub use self::{
    archives::archives, clamd::clamd, commands::commands, data::data, documents::documents, fingerprints::fingerprints,
    mime::mime, next_hop::next_hop, proxy::proxy, rules::rules, words::words,
};
