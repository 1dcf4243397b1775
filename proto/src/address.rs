//! Mail addresses, parsed once where they come in (RFC 5321 section 4.1.2, RFC 6531 section 3.3): a domain becomes ASCII, a local
//! part may be UTF-8.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a domain or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither a local part nor a domain may be empty.
    #[error("empty")]
    Empty,
    /// RFC 5321 section 4.5.3.1: local part 64, domain 255, path 256 octets.
    #[error("too long")]
    TooLong,
    /// There is no `@`.
    #[error("no @ and domain")]
    NoDomain,
    /// The domain is not made of labels of letters, digits and hyphens.
    #[error("not a domain name")]
    Domain,
    /// The local part is neither a dot-string nor a quoted string.
    #[error("not a local part")]
    LocalPart,
}

/// A domain name in ASCII and lower case, without a trailing dot: LDH labels of at most 63 octets, 255 in all, at least two labels
/// unless it is the single label of a private network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl Domain {
    /// Reads a domain name.
    ///
    /// # Errors
    /// When it is empty, too long, an address literal or holds other than LDH labels (underscores are let pass: they
    /// occur in host names of real servers) and U-labels (RFC 5890 section 2.3.2.1), which become A-labels.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > 255 {
            return Err(AddressError::TooLong);
        }
        if !text.is_ascii() {
            return Self::parse(&with_a_labels(text).ok_or(AddressError::Domain)?);
        }
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !text.split('.').all(label_ok) {
            return Err(AddressError::Domain);
        }
        let all_numeric = text.split('.').all(|label| label.bytes().all(|b| b.is_ascii_digit()));
        if all_numeric {
            return Err(AddressError::Domain);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `parent` or lies below it.
    #[must_use]
    pub fn is_within(&self, parent: &Self) -> bool {
        self.0.strip_suffix(parent.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The domains that this lies below, the nearest first: 126 at most.
    pub fn parents(&self) -> impl Iterator<Item = Self> + '_ {
        self.0.match_indices('.').map(|(dot, _)| Self(self.0[dot + 1..].to_owned()))
    }
}

/// A name with A-labels in the place of its U-labels.
fn with_a_labels(text: &str) -> Option<String> {
    let labels = text.split('.').map(|label| if label.is_ascii() { Some(label.to_owned()) } else { a_label(label) });
    labels.collect::<Option<Vec<_>>>().map(|labels| labels.join("."))
}

/// The A-label of a U-label, whatever the case of its letters. What is only mapped to one, such as full-width letters or other
/// dots, is none: it would look like one name and mean another.
fn a_label(label: &str) -> Option<String> {
    let ascii = idna::domain_to_ascii_strict(label).ok()?;
    let (unicode, valid) = idna::domain_to_unicode(&ascii);
    (valid.is_ok() && unicode == label.to_lowercase()).then_some(ascii)
}

impl TryFrom<String> for Domain {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mailbox: local part as written, in ASCII or UTF-8; domain in ASCII and lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    local: String,
    domain: Domain,
}

impl Address {
    /// Reads `local@domain`. Source routes and address literals are not addresses here.
    ///
    /// # Errors
    /// When it breaks RFC 5321 section 4.1.2 or its lengths in octets, or has control, format or other invisible characters.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > 254 {
            return Err(AddressError::TooLong);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::NoDomain)?;
        if local.len() > 64 {
            return Err(AddressError::TooLong);
        }
        if !(is_dot_string(local) || is_quoted_string(local)) {
            return Err(AddressError::LocalPart);
        }
        let domain = Domain::parse(domain)?;
        if local.len() + domain.as_str().len() >= 254 {
            return Err(AddressError::TooLong);
        }
        Ok(Self { local: local.to_owned(), domain })
    }

    /// The part before the `@`, as written.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The part after the `@`.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether it may be handed to a server that knows nothing of SMTPUTF8.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }

    /// The address in lower case, as an index key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}@{}", lower_case(&self.local), self.domain)
    }
}

/// A local part in lower case, as departments' servers compare it. Only what lies before U+0530 (Latin, Greek, Cyrillic) is
/// folded: beyond, new versions of Unicode add upper-case letters, and replicas of different builds must agree on keys.
#[must_use]
pub fn lower_case(local: &str) -> String {
    if local.is_ascii() {
        return local.to_ascii_lowercase();
    }
    let mut lower = String::with_capacity(local.len());
    for c in local.chars() {
        if c < '\u{530}' { lower.extend(c.to_lowercase()) } else { lower.push(c) }
    }
    lower
}

pub(crate) fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// Characters beyond ASCII that an address may have: none that controls, formats or cannot be seen, and none that means nothing
/// or whatever a private party agrees on.
pub(crate) fn is_utf8_text(c: char) -> bool {
    let odd = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}');
    !(c.is_ascii() || c.is_control() || c.is_whitespace() || odd)
}

fn is_dot_string(local: &str) -> bool {
    let is_atom = |c: char| u8::try_from(c).map_or_else(|_| is_utf8_text(c), |byte| is_atext(byte) || is_utf8_text(c));
    !local.is_empty() && local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom))
}

fn is_quoted_string(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let ok = match c {
            '\\' => chars.next().is_some_and(|quoted| (' '..='~').contains(&quoted)),
            '"' => false,
            other => (' '..='~').contains(&other) || is_utf8_text(other),
        };
        if !ok {
            return false;
        }
    }
    local.len() > 1
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// The reverse-path of a transaction (RFC 5321 section 4.1.1.2): whom to tell, or nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReversePath {
    /// `<>`: notifications, which never cause another.
    Null,
    /// An address.
    Address(Address),
}

impl ReversePath {
    /// The address, unless null.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl TryFrom<String> for ReversePath {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        if text.is_empty() { Ok(Self::Null) } else { Address::parse(&text).map(Self::Address) }
    }
}

impl From<ReversePath> for String {
    fn from(path: ReversePath) -> Self {
        path.to_string()
    }
}

/// The address, or nothing for the null reverse-path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Address, AddressError, Domain, lower_case};

    #[test]
    fn addresses_keep_the_local_part_and_lower_the_domain() {
        let address = Address::parse("Anna.Example+x@Interior.GOV.test").expect("an address");
        assert_eq!(address.to_string(), "Anna.Example+x@interior.gov.test");
        assert_eq!(address.key(), "anna.example+x@interior.gov.test");
        assert!(Address::parse("\"a b\\\"c\"@gov.test").is_ok());
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_its_reason() {
        let cases = [
            ("", AddressError::Empty),
            ("anna", AddressError::NoDomain),
            ("@gov.test", AddressError::LocalPart),
            ("a..b@gov.test", AddressError::LocalPart),
            ("a b@gov.test", AddressError::LocalPart),
            ("a@gov..test", AddressError::Domain),
            ("a@gov.test.", AddressError::Domain),
            ("a@[127.0.0.1]", AddressError::Domain),
            ("a@127.0.0.1", AddressError::Domain),
            ("a@b@gov.test", AddressError::LocalPart),
            ("\"a\"b\"@gov.test", AddressError::LocalPart),
            ("\"@gov.test", AddressError::LocalPart),
            ("a\r\n@gov.test", AddressError::LocalPart),
            ("a@gov.test\0", AddressError::Domain),
            ("j\u{fc}rgen@a b.test", AddressError::Domain),
            ("a@\u{ff47}\u{ff4f}\u{ff56}.test", AddressError::Domain),
            ("a@gov\u{3002}test", AddressError::Domain),
            ("a@gov\u{ad}.test", AddressError::Domain),
            ("a@mu\u{308}nchen.test", AddressError::Domain),
            ("a@\u{fb01}n.test", AddressError::Domain),
            ("a@\u{fc}_x.test", AddressError::Domain),
            ("a@-\u{fc}.test", AddressError::Domain),
            ("j\u{202e}@gov.test", AddressError::LocalPart),
            ("j\u{200b}@gov.test", AddressError::LocalPart),
            ("j\u{85}@gov.test", AddressError::LocalPart),
            ("j\u{a0}@gov.test", AddressError::LocalPart),
            ("j\u{feff}@gov.test", AddressError::LocalPart),
            ("\"\u{2066}\"@gov.test", AddressError::LocalPart),
            ("\"\\\u{fc}\"@gov.test", AddressError::LocalPart),
        ];
        for (text, expected) in cases {
            assert_eq!(Address::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn an_address_may_be_utf8_and_its_domain_becomes_ascii() {
        let address = Address::parse("J\u{dc}rgen.\u{42f}\u{65e5}@M\u{fc}nchen.Gov.test").expect("an address");
        assert_eq!(address.to_string(), "J\u{dc}rgen.\u{42f}\u{65e5}@xn--mnchen-3ya.gov.test");
        assert_eq!(address.key(), "j\u{fc}rgen.\u{44f}\u{65e5}@xn--mnchen-3ya.gov.test");
        assert!(!address.is_ascii());
        let domain_only = Address::parse("anna@\u{65e5}\u{672c}.test").expect("an address");
        assert!(domain_only.is_ascii(), "{domain_only}");
        assert!(Address::parse("\"j\u{fc} r\"@gov.test").is_ok());
        // Beyond the letters that never change none is folded.
        assert_eq!(lower_case("\u{13a0}\u{1e9e}"), "\u{13a0}\u{1e9e}");
    }

    #[test]
    fn lengths_are_octets() {
        let local = |letters: usize| "\u{fc}".repeat(letters) + "@gov.test";
        assert!(Address::parse(&local(32)).is_ok());
        assert_eq!(Address::parse(&local(33)), Err(AddressError::TooLong));
        // Short as it is written, too long as it goes out.
        assert_eq!(Address::parse(&format!("a@{}test", "\u{fc}.".repeat(40))), Err(AddressError::TooLong));
    }

    #[test]
    fn a_domain_is_within_itself_and_its_parents_only() {
        let domain = |text| Domain::parse(text).expect("a domain");
        assert!(domain("mail.gov.test").is_within(&domain("gov.test")));
        assert!(domain("gov.test").is_within(&domain("gov.test")));
        assert!(!domain("notgov.test").is_within(&domain("gov.test")));
    }

    proptest! {
        #[test]
        fn a_parsed_address_parses_again_to_itself(
            text in "([ -~]|\\PC){0,40}@([a-zA-Z0-9.-]{0,30}|(\\PC){0,6}\\.test|[\u{e4}\u{65e5}\u{5d0}a-]{1,6}\\.test)",
        ) {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
            }
        }
    }
}
