//! Takes parts out of a message and puts notices in their places. Every other byte stays as it is, and what comes out is read again:
//! it holds what was there but for what was taken, or there is no edit at all (threat 43).

use std::{collections::BTreeSet, ops::Range};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Defect, Message, fields::Header, mime::Part};
use crate::limits::Limits;

/// Characters of base64 in a line (RFC 2045 section 6.8).
const LINE_CHARS: usize = 76;

/// Why a message is left whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncut {
    /// Readers may not agree on where its parts are.
    Unclear,
    /// What would be taken is signed or encrypted with what would stay.
    Sealed,
    /// It would not have been the same message without them.
    Unlike,
}

impl Uncut {
    /// In words for the verdict.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unclear => "where its parts are is not clear",
            Self::Sealed => "it is signed or encrypted",
            Self::Unlike => "it could not be cut without changing the rest",
        }
    }
}

/// One piece of a message that is taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    span: Range<usize>,
    is_message: bool,
    /// The parts that go with it, by their places.
    pub parts: Vec<usize>,
}

/// What has to be taken out of a message so that these parts are gone, in the order of the message.
///
/// # Errors
/// When it cannot be cut out.
pub fn pieces(message: &Message, unwanted: &BTreeSet<usize>) -> Result<Vec<Piece>, Uncut> {
    // A loop, or an author who is missing, says nothing of the parts.
    let harmless = |defect: &Defect| matches!(defect, Defect::MissingFrom | Defect::TooManyHops);
    if !message.defects.iter().all(harmless) || message.parts.len() != message.cuts.len() {
        return Err(Uncut::Unclear);
    }
    let cuts: Vec<_> = unwanted.iter().filter_map(|at| message.cuts.get(*at)).collect();
    if cuts.len() != unwanted.len() {
        return Err(Uncut::Unclear);
    }
    if cuts.iter().any(|cut| cut.is_sealed) {
        return Err(Uncut::Sealed);
    }
    let mut pieces: Vec<Piece> = cuts
        .iter()
        .map(|cut| Piece { span: cut.span.clone(), is_message: cut.is_message, parts: Vec::new() })
        .collect();
    // Of two that begin together the outer one comes first, and a part before the message that is its whole body.
    pieces.sort_by_key(|piece| (piece.span.start, usize::MAX - piece.span.end, piece.is_message));
    let mut end = 0;
    pieces.retain(|piece| {
        let is_outer = piece.span.start >= end;
        end = end.max(piece.span.end);
        is_outer
    });
    for piece in &mut pieces {
        let within = |span: &Range<usize>| piece.span.start <= span.start && span.end <= piece.span.end;
        piece.parts = (0..message.cuts.len()).filter(|at| within(&message.cuts[*at].span)).collect();
    }
    Ok(pieces)
}

/// The message with a notice in the place of each piece, which is UTF-8 in lines that end with CRLF.
///
/// # Errors
/// When what comes out is not the same message but for these.
pub fn without(message: &Message, pieces: &[(Piece, String)], limits: &Limits) -> Result<Message, Uncut> {
    let mut out = BytesMut::with_capacity(message.bytes.len());
    let mut at = 0;
    for (piece, notice) in pieces {
        let kept = message.bytes.get(at..piece.span.start).ok_or(Uncut::Unlike)?;
        let gone = message.bytes.get(piece.span.clone()).ok_or(Uncut::Unlike)?;
        out.put_slice(kept);
        if piece.is_message {
            out.put_slice(&own_fields(gone, limits).ok_or(Uncut::Unclear)?);
        }
        out.put_slice(&entity(notice));
        if gone.ends_with(b"\n") {
            out.put_slice(b"\r\n");
        }
        at = piece.span.end;
    }
    out.put_slice(message.bytes.get(at..).ok_or(Uncut::Unlike)?);
    let edited = Message::parse(out.freeze(), limits);
    if is_the_same(message, &edited, pieces) { Ok(edited) } else { Err(Uncut::Unlike) }
}

/// The fields of a message but for those that say what its body is.
fn own_fields(message: &[u8], limits: &Limits) -> Option<Vec<u8>> {
    let header = Header::split(message, limits.header_bytes_max);
    let section = message.get(..header.body_at)?;
    let lines = section.strip_suffix(b"\r\n").filter(|lines| lines.is_empty() || lines.ends_with(b"\r\n"))?;
    if header.too_long || header.invalid_lines {
        return None;
    }
    let mut fields = Vec::with_capacity(lines.len());
    for field in header.fields.iter().filter(|field| !describes_the_body(&field.name)) {
        fields.extend_from_slice(lines.get(field.span.clone())?);
    }
    if header.count("mime-version") == 0 {
        fields.extend_from_slice(b"MIME-Version: 1.0\r\n");
    }
    Some(fields)
}

fn describes_the_body(name: &str) -> bool {
    name.starts_with("content-")
}

/// A notice as a part. No line of base64 is a delimiter of anything, and none needs more than seven bits.
fn entity(notice: &str) -> Vec<u8> {
    let mut entity = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\
        Content-Disposition: inline\r\n\r\n"
        .to_vec();
    let encoded = STANDARD.encode(notice);
    let lines: Vec<&[u8]> = encoded.as_bytes().chunks(LINE_CHARS).collect();
    entity.extend(lines.join(&b"\r\n"[..]));
    entity
}

/// Whether one message is the other but for what was taken out of it.
fn is_the_same(before: &Message, after: &Message, pieces: &[(Piece, String)]) -> bool {
    let own = |message: &Message| -> Vec<Bytes> {
        let fields = message.header.fields.iter().filter(|field| !describes_the_body(&field.name));
        let whole = fields.filter(|field| field.name != "mime-version" || before.has("mime-version"));
        whole.map(|field| message.bytes.slice(field.span.clone())).collect()
    };
    let mut expected: Vec<Part> = Vec::new();
    for (at, part) in before.parts.iter().enumerate() {
        match pieces.iter().find(|(piece, _)| piece.parts.binary_search(&at).is_ok()) {
            None => expected.push(part.clone()),
            Some((piece, notice)) if piece.parts.first() == Some(&at) => expected.push(Part {
                declared: "text/plain".to_owned(),
                names: Vec::new(),
                attached: false,
                content: Bytes::copy_from_slice(notice.as_bytes()),
                charset: Some("utf-8".to_owned()),
            }),
            Some(_) => {}
        }
    }
    after.parts == expected && after.defects == before.defects && own(after) == own(before)
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
