//! Mail addresses, parsed once where they come in (RFC 5321 section 4.1.2). ASCII only: SMTPUTF8 is not offered.

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

/// A domain name in lower case, without a trailing dot: LDH labels of at most 63 octets, 255 in all, at least two labels
/// unless it is the single label of a private network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl Domain {
    /// Reads a domain name.
    ///
    /// # Errors
    /// When it is empty, too long, an address literal or holds other than LDH labels (underscores are let pass: they
    /// occur in host names of real servers).
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > 255 {
            return Err(AddressError::TooLong);
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

/// A mailbox: local part as written, domain in lower case.
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
    /// When it breaks RFC 5321 section 4.1.2 or its lengths.
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
        Ok(Self { local: local.to_owned(), domain: Domain::parse(domain)? })
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

    /// The address in lower case, as an index key.
    #[must_use]
    pub fn key(&self) -> String {
        self.to_string().to_ascii_lowercase()
    }
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_dot_string(local: &str) -> bool {
    !local.is_empty() && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

fn is_quoted_string(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut bytes = inner.bytes();
    while let Some(byte) = bytes.next() {
        let ok = match byte {
            b'\\' => bytes.next().is_some_and(|quoted| (b' '..=b'~').contains(&quoted)),
            b'"' => false,
            other => (b' '..=b'~').contains(&other),
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

    use super::{Address, AddressError, Domain};

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
        ];
        for (text, expected) in cases {
            assert_eq!(Address::parse(text), Err(expected), "{text:?}");
        }
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
        fn a_parsed_address_parses_again_to_itself(text in "[ -~]{0,40}@[a-zA-Z0-9.-]{0,30}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
            }
        }
    }
}
