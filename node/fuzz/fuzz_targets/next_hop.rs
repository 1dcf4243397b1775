//! Answers of next hops.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| node_fuzz::next_hop(input));
