//! Takes a message's body apart into its leaves (RFC 2045, RFC 2046) without recursion and under our own limits.
//! mail-parser reads the fields and undoes the encodings; the walk is ours because its own recurses and copies a nested
//! message for each level, so that some hundred kilobytes can cost all memory or the stack.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use mail_parser::{ContentType, decoders::charsets::map::charset_decoder, parsers::MessageStream};
use serde::{Deserialize, Serialize};

use super::{
    Defect,
    encodings::{is_identity, undone},
    fields::{Field, Header},
    names::names,
    text::TEXT_BYTES_MAX,
};
use crate::limits::Limits;

/// Bytes of a text part that are converted: enough for `TEXT_BYTES_MAX` from any character set.
const CONVERTED_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX;

/// Longest Content-Type or Content-Disposition field that is read: their parser takes time with the square of it.
const PARAMETERS_BYTES_MAX: usize = 8 * 1024;

/// Types whose content is signed or encrypted as a whole (RFC 1847, RFC 8551).
const SEALED: [&str; 4] =
    ["multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"];

/// Names of one part; one with more of them is broken.
const NAMES_MAX: usize = 32;

/// A part that holds no other parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Type as declared, in lower case: `text/plain` when nothing is.
    pub declared: String,
    /// Every name that some reader may show or save it under.
    pub names: Vec<String>,
    /// Whether it is marked as an attachment.
    pub attached: bool,
    /// Content with the transfer encoding undone.
    pub content: Bytes,
    /// Character set of a text part, as declared: `utf-8` when none is.
    pub charset: Option<String>,
}

impl Part {
    /// Whether it is text that is shown in the message itself.
    #[must_use]
    pub fn is_body(&self) -> bool {
        self.charset.is_some() && self.names.is_empty() && !self.attached
    }

    /// Content as text, for text parts.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'_, str>> {
        let charset = self.charset.as_deref()?;
        Some(in_charset(charset, &self.content[..self.content.len().min(CONVERTED_BYTES_MAX)]))
    }
}

/// What has to be cut so that a part is gone: the innermost part or message, header and body, whose bytes stand in the message as
/// they are. What lies in an encoded message goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Where it is.
    pub span: Range<usize>,
    /// Whether it is a message, whose other fields stay.
    pub is_message: bool,
    /// Whether it is signed or encrypted, or lies in what is (RFC 1847, RFC 8551): nobody could read, or believe, what is left.
    pub is_sealed: bool,
}

/// What the walk found.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    pub(super) parts: Vec<Part>,
    /// Of each part, in the same order.
    pub(super) cuts: Vec<Cut>,
    pub(super) defects: Vec<Defect>,
    /// Bytes of second views that may still be kept: each level of nesting may have two, and they would double at each.
    views_left: usize,
}

struct Entity {
    bytes: Bytes,
    depth: usize,
    default_type: &'static str,
    /// Where its bytes begin in the message, where no encoding was undone to get them.
    at: Option<usize>,
    cut: Cut,
}

impl Entity {
    /// What takes these of its bytes out of the message.
    fn cut(&self, within: &Range<usize>, is_message: bool, is_sealed: bool) -> Cut {
        let is_sealed = self.cut.is_sealed || is_sealed;
        match self.at {
            Some(at) => Cut { span: at + within.start..at + within.end, is_message, is_sealed },
            None => Cut { is_sealed, ..self.cut.clone() },
        }
    }
}

impl Walk {
    pub(super) fn new(bytes: &Bytes, limits: &Limits) -> Self {
        let mut walk = Self { views_left: bytes.len(), ..Self::default() };
        let cut = Cut { span: 0..bytes.len(), is_message: true, is_sealed: false };
        let mut entities =
            vec![Entity { bytes: bytes.clone(), depth: 0, default_type: "text/plain", at: Some(0), cut }];
        let mut seen = 0;
        while let Some(entity) = entities.pop() {
            seen += 1;
            if seen > limits.parts_max {
                walk.note(Defect::TooManyParts);
                break;
            }
            if entity.depth > limits.depth_max {
                walk.note(Defect::TooDeep);
                walk.leaf(&Header::default(), None, "application/octet-stream", (entity.bytes, entity.cut));
                continue;
            }
            let room = limits.parts_max.saturating_sub(seen + entities.len());
            walk.entity(entity, limits, room, &mut entities);
        }
        walk
    }

    fn note(&mut self, defect: Defect) {
        if !self.defects.contains(&defect) {
            self.defects.push(defect);
        }
    }

    fn entity(&mut self, entity: Entity, limits: &Limits, room: usize, entities: &mut Vec<Entity>) {
        let header = Header::split(&entity.bytes, limits.header_bytes_max);
        if entity.depth > 0 {
            self.judge_part_header(&header);
        }
        if header.count("content-type") > 1 {
            self.note(Defect::DuplicateContentType);
        }
        if header.count("content-transfer-encoding") > 1 {
            self.note(Defect::DuplicateTransferEncoding);
        }
        let is_long = |name: &str| header.named(name).any(|field| field.span.len() > PARAMETERS_BYTES_MAX);
        if is_long("content-type") || is_long("content-disposition") {
            self.note(Defect::HeaderTooLong);
        }
        let declared = header.named("content-type").next().map(|field| parameters(field, &entity.bytes).to_vec());
        let content_type = declared.as_deref().and_then(content_type);
        let kind = content_type.as_ref().map_or_else(|| entity.default_type.to_owned(), media_type);
        let encoding =
            header.named("content-transfer-encoding").next().map(|field| field.text(&entity.bytes)).unwrap_or_default();
        let body = entity.bytes.slice(header.body_at..);
        if kind.starts_with("multipart/") {
            if is_unclear(declared.as_deref().unwrap_or_default(), content_type.as_ref()) {
                self.note(Defect::UnclearBoundary);
            }
            let of = Multipart { kind: &kind, content_type: content_type.as_ref(), encoding: &encoding };
            self.multipart(&of, &entity, header.body_at, room, entities);
        } else {
            let (views, defect) = undone(&encoding, body);
            if let Some(defect) = defect {
                self.note(defect);
            }
            if kind == "message/partial" {
                self.note(Defect::Partial);
            }
            let is_sealed = entity.cut.is_sealed || SEALED.contains(&kind.as_str());
            let cut = Cut { is_sealed, ..entity.cut.clone() };
            for (at, content) in views.into_iter().enumerate() {
                if at > 0 && !self.has_room_for(&content) {
                    break;
                }
                if !matches!(kind.as_str(), "message/rfc822" | "message/global") {
                    self.leaf_of(&header, &entity.bytes, content_type.as_ref(), &kind, (content, cut.clone()));
                    continue;
                }
                if at == 0 {
                    self.file(&header, &entity.bytes, content_type.as_ref(), &kind, (content.clone(), cut.clone()));
                }
                let whole = header.body_at..entity.bytes.len();
                let plain = is_identity(&encoding).then_some(entity.at).flatten();
                let cut = if plain.is_some() { entity.cut(&whole, true, false) } else { cut.clone() };
                entities.push(Entity {
                    bytes: content,
                    depth: entity.depth + 1,
                    default_type: "text/plain",
                    at: plain.map(|at| at + header.body_at),
                    cut,
                });
            }
        }
    }

    /// A message that comes as a file is a part by its name, before those that are in it; and by its bytes where they begin as no
    /// message does.
    fn file(
        &mut self,
        header: &Header,
        bytes: &[u8],
        content_type: Option<&ContentType<'_>>,
        kind: &str,
        (content, cut): (Bytes, Cut),
    ) {
        self.leaf_of(header, bytes, content_type, kind, (Bytes::new(), cut));
        if self.parts.last().is_some_and(|part| part.names.is_empty()) {
            self.parts.pop();
            self.cuts.pop();
            return;
        }
        let first = Header::split(&content[..content.len().min(PARAMETERS_BYTES_MAX)], PARAMETERS_BYTES_MAX);
        let is_message = first.fields.first().is_some_and(|field| field.span.start == 0);
        // What is no message is seen twice.
        if !is_message
            && self.has_room_for(&content)
            && let Some(part) = self.parts.last_mut()
        {
            part.content = content;
        }
    }

    /// Whether one more view of what was decoded already may be kept.
    fn has_room_for(&mut self, view: &Bytes) -> bool {
        let left = self.views_left.checked_sub(view.len());
        if left.is_none() {
            self.note(Defect::TooManyParts);
        }
        self.views_left = left.unwrap_or_default();
        left.is_some()
    }

    fn judge_part_header(&mut self, header: &Header) {
        if header.too_long {
            self.note(Defect::HeaderTooLong);
        }
        if header.nul {
            self.note(Defect::NulInHeader);
        }
        // A reader may not take such a field for one, and then the part is another one to it.
        if header.fields.iter().any(|field| field.has_blank && field.name.starts_with("content-")) {
            self.note(Defect::InvalidHeaderLine);
        }
    }

    fn multipart(
        &mut self,
        of: &Multipart<'_>,
        entity: &Entity,
        body_at: usize,
        room: usize,
        entities: &mut Vec<Entity>,
    ) {
        let body = entity.bytes.slice(body_at..);
        if !is_identity(of.encoding) {
            self.note(Defect::EncodedMultipart);
        }
        let boundary =
            of.content_type.and_then(|declared| declared.attribute("boundary")).unwrap_or_default().trim_end();
        if boundary.is_empty() {
            // Without a body nothing can be misread: notifications return headers alone.
            if !body.trim_ascii().is_empty() {
                self.note(Defect::NoBoundary);
            }
            self.leaf(&Header::default(), None, "text/plain", (body, entity.cut.clone()));
            return;
        }
        let Children { parts: children, ended, is_unclear } = Children::of(&body, boundary.as_bytes(), room);
        if is_unclear {
            self.note(Defect::UnclearBoundary);
        }
        if children.len() >= room {
            self.note(Defect::TooManyParts);
        }
        if !ended {
            self.note(Defect::Unterminated);
        }
        if children.is_empty() {
            // Some readers show nothing of it, others all of it as text, and who reads another boundary sees its parts.
            if !body.trim_ascii().is_empty() {
                self.note(Defect::NoBoundary);
            }
            self.leaf(&Header::default(), None, "text/plain", (body, entity.cut.clone()));
            return;
        }
        let default_type = if of.kind == "multipart/digest" { "message/rfc822" } else { "text/plain" };
        let is_sealed = SEALED.contains(&of.kind);
        // Last first, so that the stack gives them in their order.
        entities.extend(children.into_iter().rev().map(|within| {
            let within = body_at + within.start..body_at + within.end;
            Entity {
                bytes: entity.bytes.slice(within.clone()),
                depth: entity.depth + 1,
                default_type,
                at: entity.at.map(|at| at + within.start),
                cut: entity.cut(&within, false, is_sealed),
            }
        }));
    }

    fn leaf(&mut self, header: &Header, content_type: Option<&ContentType<'_>>, kind: &str, of: (Bytes, Cut)) {
        self.leaf_of(header, &[], content_type, kind, of);
    }

    fn leaf_of(
        &mut self,
        header: &Header,
        bytes: &[u8],
        content_type: Option<&ContentType<'_>>,
        kind: &str,
        (content, cut): (Bytes, Cut),
    ) {
        // Readers disagree about which of several counts: every name of each of them may be shown.
        let values: Vec<_> = header.named("content-disposition").map(|field| parameters(field, bytes)).collect();
        let dispositions: Vec<_> = values.iter().filter_map(|value| self::content_type(value)).collect();
        let mut names: Vec<String> = Vec::new();
        let types = header.named("content-type").map(|field| parameters(field, bytes));
        for field in values.iter().copied().chain(types) {
            let Some(found) = self::names(field) else {
                self.note(Defect::HeaderTooLong);
                continue;
            };
            for name in found {
                if names.len() < NAMES_MAX && !names.contains(&name) {
                    names.push(name);
                }
            }
            if names.len() >= NAMES_MAX {
                self.note(Defect::HeaderTooLong);
            }
        }
        // What only some readers take for an attachment is read as text all the same.
        let attached = !dispositions.is_empty()
            && dispositions.iter().all(|declared| declared.ctype().eq_ignore_ascii_case("attachment"));
        let charset = kind
            .starts_with("text/")
            .then(|| content_type.and_then(|declared| declared.attribute("charset")).unwrap_or("utf-8").to_owned());
        self.parts.push(Part { declared: kind.to_owned(), names, attached, content, charset });
        self.cuts.push(cut);
    }
}

/// The value of a field of parameters, as far as it is read.
fn parameters<'b>(field: &Field, bytes: &'b [u8]) -> &'b [u8] {
    let value = field.value(bytes);
    &value[..value.len().min(PARAMETERS_BYTES_MAX)]
}

/// Whether readers may take another boundary than we do: there are two, or it is in sections or percent signs.
fn is_unclear(declared: &[u8], content_type: Option<&ContentType<'_>>) -> bool {
    let attributes = content_type.and_then(ContentType::attributes).unwrap_or_default();
    let boundaries = attributes.iter().filter(|attribute| attribute.name == "boundary").count();
    boundaries > 1 || memchr::memmem::find(&declared.to_ascii_lowercase(), b"boundary*").is_some()
}

fn content_type(value: &[u8]) -> Option<ContentType<'_>> {
    MessageStream::new(value).parse_content_type().into_content_type()
}

fn media_type(declared: &ContentType<'_>) -> String {
    format!("{}/{}", declared.ctype(), declared.subtype().unwrap_or_default()).to_ascii_lowercase()
}

fn in_charset<'b>(charset: &str, content: &'b [u8]) -> Cow<'b, str> {
    match (charset.eq_ignore_ascii_case("utf-8"), charset_decoder(charset.as_bytes())) {
        (false, Some(decode)) => Cow::Owned(decode(content)),
        (true, _) | (false, None) => String::from_utf8_lossy(content),
    }
}

/// A multipart, as its header declares it.
struct Multipart<'h> {
    kind: &'h str,
    content_type: Option<&'h ContentType<'h>>,
    encoding: &'h str,
}

/// What stands between the delimiters of a multipart (RFC 2046 section 5.1.1).
#[derive(Default)]
struct Children {
    /// Where they are; at most as many as there was room for.
    parts: Vec<Range<usize>>,
    /// Whether the closing delimiter was there.
    ended: bool,
    /// Whether readers may see others: lines begin as a delimiter and go on as none, or parts follow the end.
    is_unclear: bool,
}

impl Children {
    fn of(body: &[u8], boundary: &[u8], room: usize) -> Self {
        let mut children = Self::default();
        let mut open: Option<usize> = None;
        let mut at = 0;
        while at < body.len() {
            let end = memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |line| at + line + 1);
            let line = body[at..end].trim_ascii_end();
            let tail = line.strip_prefix(b"--").and_then(|rest| rest.strip_prefix(boundary));
            match tail {
                // Those of another boundary that begins with this one go on with a sign that a boundary may have.
                Some([first, ..]) if !is_of_boundary(*first) => children.is_unclear = true,
                Some(tail @ (b"" | b"--")) => {
                    children.is_unclear |= children.ended && tail.is_empty();
                    if let Some(from) = open.take() {
                        children.parts.push(from..before_line_end(body, from, at));
                    }
                    children.ended |= tail == b"--";
                    if children.parts.len() >= room {
                        return children;
                    }
                    open = (!children.ended).then_some(end);
                }
                Some(_) | None => {}
            }
            at = end;
        }
        if let Some(from) = open {
            children.parts.push(from..body.len());
        }
        children
    }
}

/// Whether a boundary may have this sign (RFC 2046 section 5.1.1).
fn is_of_boundary(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte)
}

/// The CRLF before a delimiter belongs to the delimiter.
fn before_line_end(body: &[u8], from: usize, at: usize) -> usize {
    let part = body.get(from..at).unwrap_or_default();
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    from + part.strip_suffix(b"\r").unwrap_or(part).len()
}
