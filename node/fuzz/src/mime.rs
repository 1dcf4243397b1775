//! The structure of messages: header sections, parts in parts, transfer encodings; and what is left when a part is taken out.

use std::collections::BTreeSet;

use node::{
    limits::Limits,
    message::{
        Message,
        edit::{pieces, without},
    },
};

use super::judged::judged;

/// Small, so that a short input reaches them.
const PARTS_MAX: usize = 24;
const DEPTH_MAX: usize = 6;
const HEADER_BYTES_MAX: usize = 2000;

const NOTICE: &str = "taken out\r\n--b\r\n";

/// A message, as it comes after DATA or out of an archive.
///
/// # Panics
/// When it is not judged as promised, when it is seen otherwise once it is forwarded in another message, or when taking a part out
/// changes more than that.
pub fn mime(input: &[u8]) {
    let limits =
        Limits { parts_max: PARTS_MAX, depth_max: DEPTH_MAX, header_bytes_max: HEADER_BYTES_MAX, ..Limits::default() };
    let message = judged(input, &limits);
    let forwarded = [b"From: f@sender.test\r\nContent-Type: message/rfc822\r\n\r\n", input].concat();
    let deeper = Limits { parts_max: PARTS_MAX + 1, depth_max: DEPTH_MAX + 1, ..limits };
    let within = Message::parse(forwarded.into(), &deeper);
    assert_eq!(within.parts, message.parts, "a forwarded message has the same parts");
    for at in [0, message.parts.len() / 2, message.parts.len().saturating_sub(1)] {
        is_cut_cleanly(&message, at, &limits);
    }
}

/// A part gives way to a notice, with what lies in it, and nothing else changes; or nothing is cut.
fn is_cut_cleanly(message: &Message, at: usize, limits: &Limits) {
    assert_eq!(message.parts.len(), message.cuts.len(), "each part has its place");
    let Ok(pieces) = pieces(message, &BTreeSet::from([at])) else { return };
    let [piece] = &pieces[..] else { panic!("one part is one piece: {pieces:?}") };
    assert!(piece.parts.contains(&at), "{piece:?}");
    let Ok(after) = without(message, &[(piece.clone(), NOTICE.to_owned())], limits) else { return };
    let is_gone = |(at, _): &(usize, _)| !piece.parts.contains(at);
    let kept: Vec<_> = message.parts.iter().enumerate().filter(is_gone).map(|(_, part)| part).collect();
    let left: Vec<_> = after.parts.iter().filter(|part| part.content != NOTICE).collect();
    assert!(left.len() <= kept.len() && left.iter().all(|part| kept.contains(part)), "{:?}", after.parts);
    assert_eq!(after.parts.len(), kept.len() + 1, "a notice stands for what is gone");
}
