//! What a sender asks of every server on the way beyond the addresses: parameters of MAIL and RCPT that are passed on, and that
//! a message which is kept keeps.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{address, xtext};

/// Longest `ENVID`, in characters as it is written (RFC 3461 section 4.4).
const ENVELOPE_ID_CHARS_MAX: usize = 100;
/// Longest `ORCPT`, in characters as it is written (RFC 3461 section 4.2).
const ORIGINAL_CHARS_MAX: usize = 500;

/// What is asked for the whole message, with MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// `SMTPUTF8` (RFC 6531): addresses and header fields may be UTF-8, and no server may get them that does not know it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub smtputf8: bool,
    /// `REQUIRETLS` (RFC 8689): no server may get it but over TLS with a verified certificate, and if it promises the same.
    #[serde(default, skip_serializing_if = "is_false")]
    pub require_tls: bool,
    /// `RET` (RFC 3461 section 4.3): how much of the message a notification of a failure brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<Returned>,
    /// `ENVID` (RFC 3461 section 4.4): the sender's name for this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_id: Option<EnvelopeId>,
}

impl Handling {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How much of the message comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Returned {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

impl Returned {
    /// Reads the value of `RET`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            _ if text.eq_ignore_ascii_case("FULL") => Some(Self::Full),
            _ if text.eq_ignore_ascii_case("HDRS") => Some(Self::Headers),
            _ => None,
        }
    }
}

/// As in `RET=`.
impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

/// A text that a parameter cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the value of that parameter")]
pub struct ValueError;

/// The sender's name for a transaction: 1 to 100 characters of xtext that stand for printable ASCII, kept as they are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvelopeId(String);

impl EnvelopeId {
    /// Reads the value of `ENVID`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let fits = (1..=ENVELOPE_ID_CHARS_MAX).contains(&text.len()) && xtext::decode_printable(text).is_some();
        if fits { Ok(Self(text.to_owned())) } else { Err(ValueError) }
    }
}

/// As in `ENVID=`.
impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for EnvelopeId {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        Self::parse(&text)
    }
}

impl From<EnvelopeId> for String {
    fn from(id: EnvelopeId) -> Self {
        id.0
    }
}

/// What is asked for one recipient, with RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// `NOTIFY`: of what the sender wants to hear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// `ORCPT`: to whom the sender addressed it, whatever the address has become on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<OriginalRecipient>,
}

impl Notification {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Bytes of text that it keeps.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.original.as_ref().map_or(0, |original| original.0.len())
    }
}

/// Of what the sender wants to hear (RFC 3461 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// Of nothing.
    Never,
    /// Of these; at least one.
    Of {
        /// That it was delivered.
        success: bool,
        /// That it will not be delivered.
        failure: bool,
        /// That it is delayed.
        delay: bool,
    },
}

impl Notify {
    /// Reads the value of `NOTIFY`: `NEVER`, or a list of the others, each at most once.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(Self::Never);
        }
        let (mut success, mut failure, mut delay) = (false, false, false);
        for word in text.split(',') {
            let wanted = match word {
                _ if word.eq_ignore_ascii_case("SUCCESS") => &mut success,
                _ if word.eq_ignore_ascii_case("FAILURE") => &mut failure,
                _ if word.eq_ignore_ascii_case("DELAY") => &mut delay,
                _ => return None,
            };
            if std::mem::replace(wanted, true) {
                return None;
            }
        }
        Some(Self::Of { success, failure, delay })
    }
}

/// As in `NOTIFY=`.
impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Of { success, failure, delay } = *self else { return f.write_str("NEVER") };
        let all = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
        let words: Vec<&str> = all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, word)| word).collect();
        f.write_str(&words.join(","))
    }
}

/// To whom the sender addressed it: a type of address, `;`, and the address in xtext, at most 500 characters, all ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OriginalRecipient(String);

impl OriginalRecipient {
    /// Reads the value of `ORCPT`. An address of the type `utf-8` may be written in UTF-8 (RFC 6533 section 3); it is kept with
    /// `\x{…}` for what is not ASCII, which all servers understand that know the type.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let (kind, value) = text.split_once(';').ok_or(ValueError)?;
        let kind_ok = !kind.is_empty() && kind.bytes().all(address::is_atext);
        if !kind_ok || value.is_empty() || text.len() > ORIGINAL_CHARS_MAX {
            return Err(ValueError);
        }
        if value.is_ascii() {
            return if xtext::decode_printable(value).is_some() { Ok(Self(text.to_owned())) } else { Err(ValueError) };
        }
        if !kind.eq_ignore_ascii_case("utf-8") {
            return Err(ValueError);
        }
        let mut ascii = format!("{kind};");
        for c in value.chars() {
            match c {
                '!'..='~' if c != '+' && c != '=' => ascii.push(c),
                _ if address::is_utf8_text(c) => ascii += &format!("\\x{{{:X}}}", u32::from(c)),
                _ => return Err(ValueError),
            }
        }
        if ascii.len() > ORIGINAL_CHARS_MAX { Err(ValueError) } else { Ok(Self(ascii)) }
    }
}

/// As in `ORCPT=`.
impl fmt::Display for OriginalRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for OriginalRecipient {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        Self::parse(&text)
    }
}

impl From<OriginalRecipient> for String {
    fn from(original: OriginalRecipient) -> Self {
        original.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{EnvelopeId, Handling, Notification, Notify, OriginalRecipient, Returned};
    use crate::codec;

    #[test]
    fn what_is_asked_is_kept_as_it_is_written() {
        for text in ["NEVER", "SUCCESS", "SUCCESS,FAILURE,DELAY", "FAILURE,DELAY"] {
            assert_eq!(Notify::parse(text).map(|notify| notify.to_string()).as_deref(), Some(text));
            assert_eq!(Notify::parse(&text.to_lowercase()), Notify::parse(text));
        }
        for wrong in ["", "NEVER,SUCCESS", "SUCCESS,SUCCESS", "SUCCESS,", ",", "SUCCESS FAILURE", "OK"] {
            assert_eq!(Notify::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Returned::parse("hdrs"), Some(Returned::Headers));
        assert_eq!(Returned::parse("HDR"), None);
        let id = EnvelopeId::parse("QQ314159+2B").expect("an id");
        assert_eq!(id.to_string(), "QQ314159+2B");
        for wrong in ["", "a b", "a=b", "+0D+0A", "+", &"x".repeat(101)] {
            assert!(EnvelopeId::parse(wrong).is_err(), "{wrong:?}");
        }
        let original = OriginalRecipient::parse("rfc822;Bob+2Bx@a.example").expect("a recipient");
        assert_eq!(original.to_string(), "rfc822;Bob+2Bx@a.example");
        for wrong in
            ["", "rfc822", "rfc822;", ";x", "rfc 822;x", "rfc822;a b", "rfc822;+00", "rfc822;\u{e9}", "utf-8;\u{202e}"]
        {
            assert!(OriginalRecipient::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(OriginalRecipient::parse(&format!("rfc822;{}", "x".repeat(494))).is_err());
        let original = OriginalRecipient::parse("utf-8;j\u{fc}rgen@a.example").expect("a recipient");
        assert_eq!(original.to_string(), "utf-8;j\\x{FC}rgen@a.example");
    }

    #[test]
    fn nothing_asked_is_nothing_stored() {
        let plain = (codec::encode(&Handling::default()), codec::encode(&Notification::default()));
        assert_eq!(plain, (vec![0x80], vec![0x80]), "empty maps");
        let handling = Handling {
            smtputf8: true,
            require_tls: true,
            returned: Some(Returned::Headers),
            envelope_id: EnvelopeId::parse("x").ok(),
        };
        assert_eq!(codec::decode::<Handling>("handling", &codec::encode(&handling)).ok(), Some(handling));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_ascii_short_and_taken_again(text in "(utf-8;|rfc822;)?\\PC{0,80}") {
            if let Ok(original) = OriginalRecipient::parse(&text) {
                let written = original.to_string();
                prop_assert!(written.len() <= 500 && written.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(OriginalRecipient::parse(&written), Ok(original));
            }
            drop((EnvelopeId::parse(&text), Notify::parse(&text)));
        }
    }
}
