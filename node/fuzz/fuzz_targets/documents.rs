//! Documents.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| node_fuzz::documents(input));
