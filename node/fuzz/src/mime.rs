//! The structure of messages: header sections, parts in parts, transfer encodings.

use node::{limits::Limits, message::Message};

use super::judged::judged;

/// Small, so that a short input reaches them.
const PARTS_MAX: usize = 24;
const DEPTH_MAX: usize = 6;
const HEADER_BYTES_MAX: usize = 2000;

/// A message, as it comes after DATA or out of an archive.
///
/// # Panics
/// When it is not judged as promised, or when it is seen otherwise once it is forwarded in another message.
pub fn mime(input: &[u8]) {
    let limits =
        Limits { parts_max: PARTS_MAX, depth_max: DEPTH_MAX, header_bytes_max: HEADER_BYTES_MAX, ..Limits::default() };
    let message = judged(input, &limits);
    let forwarded = [b"From: f@sender.test\r\nContent-Type: message/rfc822\r\n\r\n", input].concat();
    let deeper = Limits { parts_max: PARTS_MAX + 1, depth_max: DEPTH_MAX + 1, ..limits };
    let within = Message::parse(forwarded.into(), &deeper);
    assert_eq!(within.parts, message.parts, "a forwarded message has the same parts");
}
