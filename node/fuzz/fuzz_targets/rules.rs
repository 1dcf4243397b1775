//! Rules that people write, and texts that they are tried on.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| node_fuzz::rules(input));
