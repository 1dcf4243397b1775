//! The parsed mail: what the checks, the decision and the record need to know of a message, read once under limits.

pub mod edit;
mod encodings;
mod entities;
pub mod fields;
pub mod html;
mod mailbox;
pub mod mime;
mod names;
mod style;
pub mod text;

use bytes::Bytes;
use mail_parser::parsers::MessageStream;

pub use self::mailbox::Mailbox;
use self::{
    fields::{Field, Header},
    mailbox::mailboxes,
    mime::{Cut, Part, Walk},
};
use crate::limits::Limits;

/// Longest subject that is kept, in characters.
pub const SUBJECT_CHARS_MAX: usize = 200;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    /// Nobody had room to read it. Another time somebody will.
    Unread,
    /// The parser failed on it or took too long.
    ParserFailed,
    /// The header section is over its limit.
    HeaderTooLong,
    /// More parts than allowed.
    TooManyParts,
    /// Nested deeper than allowed.
    TooDeep,
    /// More Received fields than allowed, or more than allowed of our own: a loop.
    TooManyHops,
    /// A header line is neither a field nor a continuation, or a name has white space before its colon.
    InvalidHeaderLine,
    /// A NUL in the header.
    NulInHeader,
    /// More than one From field.
    MultipleFrom,
    /// More than one Sender field.
    MultipleSender,
    /// More than one Subject field.
    MultipleSubject,
    /// No From field.
    MissingFrom,
    /// A From or Sender field of which readers may show another address than the ones that we read.
    UnclearAuthor,
    /// Readers disagree about what such a part is.
    DuplicateContentType,
    /// Readers disagree about what such a part holds.
    DuplicateTransferEncoding,
    /// A multipart under base64 or quoted-printable (forbidden by RFC 2045 section 6.4).
    EncodedMultipart,
    /// A multipart without a boundary, or in whose body it does not occur.
    NoBoundary,
    /// A multipart of which readers see other parts than we do: two boundaries, one in sections, lines that are nearly its
    /// delimiters, parts behind its end.
    UnclearBoundary,
    /// A piece of a message (RFC 2046 section 5.2.2): what it is nobody knows before all are there.
    Partial,
    /// A multipart without its closing delimiter.
    Unterminated,
    /// A transfer encoding that nobody knows.
    UnknownEncoding,
    /// A part that its transfer encoding does not undo cleanly.
    Undecodable,
}

impl Defect {
    /// Whether readers may see different messages, or we have not seen all of it: then `unparsable` of the policy holds.
    /// The others only count as points.
    #[must_use]
    pub const fn breaks(self) -> bool {
        match self {
            Self::Unread
            | Self::ParserFailed
            | Self::HeaderTooLong
            | Self::TooManyParts
            | Self::TooDeep
            | Self::InvalidHeaderLine
            | Self::NulInHeader
            | Self::MultipleFrom
            | Self::MultipleSender
            | Self::MultipleSubject
            | Self::UnclearAuthor
            | Self::DuplicateContentType
            | Self::DuplicateTransferEncoding
            | Self::EncodedMultipart
            | Self::NoBoundary
            | Self::UnclearBoundary
            | Self::Partial => true,
            // A loop has its own rule.
            Self::TooManyHops | Self::MissingFrom | Self::Unterminated | Self::UnknownEncoding | Self::Undecodable => {
                false
            }
        }
    }

    /// In words for the verdict.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unread => "there was no room to read it",
            Self::ParserFailed => "it could not be read",
            Self::HeaderTooLong => "its header is too long",
            Self::TooManyParts => "it has too many parts",
            Self::TooDeep => "it is nested too deeply",
            Self::TooManyHops => "it went through too many servers",
            Self::InvalidHeaderLine => "a header line is not a field",
            Self::NulInHeader => "its header holds a NUL",
            Self::MultipleFrom => "it has more than one From field",
            Self::MultipleSender => "it has more than one Sender field",
            Self::MultipleSubject => "it has more than one Subject field",
            Self::MissingFrom => "it has no From field",
            Self::UnclearAuthor => "its author or sender is not a readable address",
            Self::DuplicateContentType => "a part has more than one type",
            Self::DuplicateTransferEncoding => "a part has more than one encoding",
            Self::EncodedMultipart => "a multipart is encoded",
            Self::NoBoundary => "a multipart has no boundary",
            Self::UnclearBoundary => "the parts of a multipart are not clear",
            Self::Partial => "it is a piece of a message",
            Self::Unterminated => "a multipart has no end",
            Self::UnknownEncoding => "a part has an unknown encoding",
            Self::Undecodable => "a part does not decode",
        }
    }
}

/// A message, parsed.
#[derive(Clone, Debug)]
pub struct Message {
    /// As it came.
    pub bytes: Bytes,
    /// Its header section.
    pub header: Header,
    /// All mailboxes of all From fields.
    pub from: Vec<Mailbox>,
    /// All mailboxes of all Sender fields.
    pub sender: Vec<Mailbox>,
    /// All mailboxes of all Reply-To fields.
    pub reply_to: Vec<Mailbox>,
    /// Decoded, at most `SUBJECT_CHARS_MAX` characters, without control characters. Personal data.
    pub subject: String,
    /// Leaves in their order, the text ones too.
    pub parts: Vec<Part>,
    /// How each of them is taken out, in the same order.
    pub cuts: Vec<Cut>,
    /// Received fields.
    pub received: usize,
    /// What is wrong with it, each once.
    pub defects: Vec<Defect>,
}

impl Message {
    /// Reads a message. There is no error: whatever is wrong is among the defects.
    #[must_use]
    pub fn parse(bytes: Bytes, limits: &Limits) -> Self {
        let header = Header::split(&bytes, limits.header_bytes_max);
        let Walk { parts, cuts, defects, .. } = Walk::new(&bytes, limits);
        let mut message = Self::of(bytes);
        let bytes = message.bytes.clone();
        let (from, from_unclear) = mailboxes(&header, &bytes, "from");
        let (sender, sender_unclear) = mailboxes(&header, &bytes, "sender");
        (message.from, message.sender) = (from, sender);
        (message.reply_to, _) = mailboxes(&header, &bytes, "reply-to");
        message.subject = header.named("subject").next().map(|field| subject(field, &bytes)).unwrap_or_default();
        message.received = header.count("received");
        message.header = header;
        (message.parts, message.cuts) = (parts, cuts);
        message.defects = defects;
        message.defects.extend(header_defects(&message.header, limits));
        message.defects.extend((from_unclear || sender_unclear).then_some(Defect::UnclearAuthor));
        message.defects.sort_unstable();
        message.defects.dedup();
        message
    }

    /// A message that the parser failed on: only its bytes are known.
    #[must_use]
    pub fn unparsable(bytes: Bytes) -> Self {
        Self { defects: vec![Defect::ParserFailed], ..Self::of(bytes) }
    }

    /// A message that there was no room to read: only its bytes are known.
    #[must_use]
    pub fn unread(bytes: Bytes) -> Self {
        Self { defects: vec![Defect::Unread], ..Self::of(bytes) }
    }

    fn of(bytes: Bytes) -> Self {
        Self {
            bytes,
            header: Header::default(),
            from: Vec::new(),
            sender: Vec::new(),
            reply_to: Vec::new(),
            subject: String::new(),
            parts: Vec::new(),
            cuts: Vec::new(),
            received: 0,
            defects: Vec::new(),
        }
    }

    /// Whether there is a field of this name, in lower case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.header.named(name).next().is_some()
    }

    /// The text of the first field of this name, in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        self.header.named(name).next().map(|field| field.text(&self.bytes))
    }

    /// The fields of this name, in lower case, as a reader sees them: decoded, on one line, without control characters.
    pub fn decoded<'m>(&'m self, name: &'m str) -> impl Iterator<Item = String> + 'm {
        self.header.named(name).map(|field| decoded(field, &self.bytes))
    }

    /// How often this host says that it received the message (`by HOST` in Received fields).
    #[must_use]
    pub fn received_by(&self, host: &str) -> usize {
        let said = format!(" by {} ", host.to_ascii_lowercase());
        let texts = self.header.named("received").map(|field| field.text(&self.bytes).replace('\t', " "));
        texts.filter(|text| text.to_ascii_lowercase().contains(&said)).count()
    }

    /// Length of the message in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }
}

fn header_defects(header: &Header, limits: &Limits) -> Vec<Defect> {
    let checks = [
        (header.too_long, Defect::HeaderTooLong),
        (header.invalid_lines, Defect::InvalidHeaderLine),
        (header.nul, Defect::NulInHeader),
        (header.count("from") > 1, Defect::MultipleFrom),
        (header.count("from") == 0, Defect::MissingFrom),
        (header.count("sender") > 1, Defect::MultipleSender),
        (header.count("subject") > 1, Defect::MultipleSubject),
        (header.count("received") > limits.hops_max, Defect::TooManyHops),
    ];
    checks.into_iter().filter(|(is_so, _)| *is_so).map(|(_, defect)| defect).collect()
}

fn subject(field: &Field, bytes: &[u8]) -> String {
    decoded(field, bytes).chars().take(SUBJECT_CHARS_MAX).collect()
}

fn decoded(field: &Field, bytes: &[u8]) -> String {
    let mut line = field.value(bytes).to_vec();
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    let decoded = MessageStream::new(&line).parse_unstructured().into_text();
    without_controls(&decoded.unwrap_or_default()).trim().to_owned()
}

/// Without control characters and those that change the direction of text (threats 22 and 41).
#[must_use]
pub fn without_controls(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !is_direction(*c)).collect()
}

/// A hostile name as text: on one line, short, in quotes.
#[must_use]
pub fn quoted(name: &str) -> String {
    let name: String = without_controls(name).chars().take(80).collect();
    format!("\"{}\"", name.replace('"', "'"))
}

/// Whether a character changes the direction of text.
#[must_use]
pub const fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod tests;
