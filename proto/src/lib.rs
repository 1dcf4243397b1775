//! The words of Postern: what nodes, control servers and operators say to each other. No I/O but reading certificates.

pub mod address;
pub mod archive;
pub mod audit;
pub mod client_rules;
pub mod codec;
pub mod department;
pub mod directory;
pub mod envelope;
pub mod fingerprint;
pub mod greylist;
pub mod held;
pub mod identity;
pub mod member;
pub mod mutation;
pub mod policy;
pub mod reputation;
pub mod rules;
pub mod score;
pub mod shards;
pub mod time;
pub mod verdict;
pub mod view;
pub mod wire;
pub mod xtext;
pub mod yaml;
