//! The mailboxes of an address field (RFC 5322 sections 3.4 and 4.4), and whether every reader sees the same ones there.

use mail_parser::{Address as ParsedAddress, parsers::MessageStream};
use proto::address::Domain;

use super::{fields::Header, without_controls};

/// Mailboxes kept of one header field.
const MAILBOXES_MAX: usize = 1000;

/// One entry of an address field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Display name, decoded.
    pub name: String,
    /// What stands where the address belongs.
    pub written: String,
    /// Its domain, when it is one.
    pub domain: Option<Domain>,
}

impl Mailbox {
    fn new(name: Option<&str>, written: Option<&str>) -> Self {
        let written = without_spaces(written.unwrap_or_default());
        let domain = written.rsplit_once('@').and_then(|(_, domain)| Domain::parse(domain.trim_end_matches('.')).ok());
        Self { name: name.map(without_controls).unwrap_or_default(), written, domain }
    }

    /// Whether readers may show another address than the one that we read. An entry that shows none at all, as of a
    /// careless `MAILER-DAEMON` or `Doe, John <j@x>`, claims no domain and is not meant here.
    fn is_unclear(&self) -> bool {
        let Some((local, _)) = self.written.rsplit_once('@').filter(|_| self.domain.is_some()) else {
            // An encoded word that is still there is one that we cannot decode and a reader perhaps can.
            return [&self.name, &self.written].iter().any(|text| text.contains(is_at) || text.contains("=?"));
        };
        let quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
        !quoted && local.contains(|c: char| is_at(c) || c.is_whitespace() || "<>,;:()\"".contains(c))
    }
}

/// The mailboxes of all fields of a name, and whether readers may see others there.
pub(super) fn mailboxes(header: &Header, bytes: &[u8], name: &str) -> (Vec<Mailbox>, bool) {
    let mut mailboxes = Vec::new();
    let mut unclear = false;
    for field in header.named(name) {
        let value = unfolded(field.value(bytes));
        let mut found = entries(&value);
        // Comments may stand within an address, where parsers disagree: then both readings count.
        let bare = entries(&without_comments(&value));
        if !addresses(&bare).eq(addresses(&found)) {
            unclear = true;
            found.extend(bare.iter().cloned());
        }
        // Beside an address without angle brackets only a comment may stand; else it may be a piece of the address.
        let in_pieces = |entry: &Mailbox| entry.written.find('@').is_some_and(|at| at > 0) && !entry.name.is_empty();
        unclear |= !value.contains(&b'<') && bare.iter().any(in_pieces);
        // Notifications come from nobody: `From: <>`.
        let lost = found.is_empty() && !matches!(value.trim_ascii(), b"" | b"<>");
        unclear |= lost || found.len() > MAILBOXES_MAX || found.iter().any(Mailbox::is_unclear);
        found.truncate(MAILBOXES_MAX);
        mailboxes.extend(found);
    }
    (mailboxes, unclear)
}

fn addresses(entries: &[Mailbox]) -> impl Iterator<Item = &str> {
    entries.iter().map(|entry| entry.written.as_str()).filter(|written| written.contains('@'))
}

fn entries(value: &[u8]) -> Vec<Mailbox> {
    let Some(parsed) = MessageStream::new(value).parse_address().into_address() else { return Vec::new() };
    let mut mailboxes = Vec::new();
    let groups = match parsed {
        ParsedAddress::List(list) => vec![(None, list)],
        ParsedAddress::Group(groups) => groups.into_iter().map(|group| (group.name, group.addresses)).collect(),
    };
    for (name, addresses) in groups {
        // A group's name is shown before its members.
        if let Some(name) = name.filter(|name| name.contains(is_at)) {
            mailboxes.push(Mailbox::new(Some(&name), None));
        }
        let of_group = addresses.iter().map(|entry| Mailbox::new(entry.name.as_deref(), entry.address.as_deref()));
        mailboxes.extend(of_group);
    }
    mailboxes
}

/// The sign of an address, also as some readers write it when they normalise (full width and small).
const fn is_at(c: char) -> bool {
    matches!(c, '@' | '\u{ff20}' | '\u{fe6b}')
}

/// An address without the white space that RFC 5322 section 4.4 lets stand around its dots and its `@`.
fn without_spaces(written: &str) -> String {
    let mut address = String::new();
    for piece in written.split_whitespace() {
        let joined = address.is_empty() || address.ends_with(['.', '@']) || piece.starts_with(['.', '@']);
        if !joined {
            address.push(' ');
        }
        address.push_str(piece);
    }
    address
}

/// The value on one line: where it is folded says nothing, but the parser ends an address there.
fn unfolded(value: &[u8]) -> Vec<u8> {
    let mut line: Vec<u8> = value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    line.push(b'\n');
    line
}

/// The value with a space for each comment (RFC 5322 section 3.2.2).
fn without_comments(value: &[u8]) -> Vec<u8> {
    let mut bare = Vec::with_capacity(value.len());
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in value {
        let was_escaped = escaped;
        escaped = !was_escaped && *byte == b'\\' && (quoted || depth > 0);
        match byte {
            b'"' if depth == 0 && !was_escaped => quoted = !quoted,
            b'(' if !quoted && !was_escaped => depth += 1,
            b')' if depth > 0 && !was_escaped => {
                depth -= 1;
                bare.push(b' ');
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            bare.push(*byte);
        }
    }
    bare.push(b'\n');
    bare
}
