//! The parameters of MAIL and RCPT (RFC 5321 section 4.1.1.11): each at most once, and none that EHLO did not announce.

use proto::envelope::{EnvelopeId, Handling, Notification, Notify, OriginalRecipient, Returned};

use super::reply::Reply;

/// What MAIL may carry beside the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// SIZE= (RFC 1870): what the client believes the message to be, in bytes.
    pub size_bytes: Option<u64>,
    /// What is passed on.
    pub handling: Handling,
}

/// Reads the parameters of MAIL.
///
/// # Errors
/// 501 for a wrong value and for a parameter that comes again, 555 for an unknown one.
pub fn of_mail<'t>(words: impl Iterator<Item = &'t str>) -> Result<MailParameters, Reply> {
    let mut found = MailParameters::default();
    let mut seen = Seen::default();
    let handling = &mut found.handling;
    for word in words {
        let (key, value) = seen.parameter(word)?;
        match (key.as_str(), value) {
            ("SIZE", value) => found.size_bytes = Some(size(value.unwrap_or_default())?),
            ("BODY", value) => body(value.unwrap_or_default())?,
            ("SMTPUTF8", None) => handling.smtputf8 = true,
            ("SMTPUTF8", Some(_)) => return Err(wrong("SMTPUTF8 without a value")),
            ("RET", value) => {
                handling.returned = Some(value.and_then(Returned::parse).ok_or_else(|| wrong("RET=FULL or RET=HDRS"))?);
            }
            ("ENVID", value) => {
                let id = EnvelopeId::parse(value.unwrap_or_default());
                handling.envelope_id = Some(id.map_err(|_| wrong("ENVID=1 to 100 characters of xtext"))?);
            }
            ("REQUIRETLS", None) => handling.require_tls = true,
            ("REQUIRETLS", Some(_)) => return Err(wrong("REQUIRETLS without a value")),
            _ => return Err(unknown()),
        }
    }
    Ok(found)
}

/// Reads the parameters of RCPT.
///
/// # Errors
/// As of MAIL.
pub fn of_rcpt<'t>(words: impl Iterator<Item = &'t str>) -> Result<Notification, Reply> {
    let mut found = Notification::default();
    let mut seen = Seen::default();
    for word in words {
        let (key, value) = seen.parameter(word)?;
        match key.as_str() {
            "NOTIFY" => {
                let notify = value.and_then(Notify::parse);
                found.notify = Some(notify.ok_or_else(|| wrong("NOTIFY=NEVER, or SUCCESS, FAILURE and DELAY"))?);
            }
            "ORCPT" => {
                let original = OriginalRecipient::parse(value.unwrap_or_default());
                found.original = Some(original.map_err(|_| wrong("ORCPT=type;address in xtext"))?);
            }
            _ => return Err(unknown()),
        }
    }
    Ok(found)
}

/// The keywords that have come. There are only so many before one is unknown or comes again.
#[derive(Default)]
struct Seen(Vec<String>);

impl Seen {
    fn parameter<'t>(&mut self, word: &'t str) -> Result<(String, Option<&'t str>), Reply> {
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
        let key = key.to_ascii_uppercase();
        if self.0.contains(&key) {
            return Err(wrong("each parameter once"));
        }
        self.0.push(key.clone());
        Ok((key, value))
    }
}

/// 1 to 20 digits (RFC 1870 section 4). What is beyond 64 bits is too large all the same.
fn size(value: &str) -> Result<u64, Reply> {
    digits(value).ok_or_else(|| wrong("SIZE=number"))
}

/// 1 to 20 digits, at most the largest number of 64 bits.
pub(super) fn digits(value: &str) -> Option<u64> {
    let all_digits = (1..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| value.parse().unwrap_or(u64::MAX))
}

/// RFC 6152 section 2. Both are taken alike: every byte is kept.
fn body(value: &str) -> Result<(), Reply> {
    let known = value.eq_ignore_ascii_case("7BIT") || value.eq_ignore_ascii_case("8BITMIME");
    if known { Ok(()) } else { Err(wrong("BODY=7BIT or BODY=8BITMIME")) }
}

fn wrong(expected: &str) -> Reply {
    Reply::permanent(1, (5, 4), format!("expected: {expected}"))
}

fn unknown() -> Reply {
    Reply::permanent(55, (5, 4), "that parameter was not announced")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::envelope::{EnvelopeId, Notify, OriginalRecipient, Returned};

    use super::{of_mail, of_rcpt};

    fn mail_code(text: &str) -> u16 {
        of_mail(text.split(' ')).err().map_or(0, |reply| reply.code())
    }

    fn rcpt_code(text: &str) -> u16 {
        of_rcpt(text.split(' ')).err().map_or(0, |reply| reply.code())
    }

    #[test]
    fn all_parameters_may_come_together() {
        let text = "ret=hdrs SIZE=7 body=8bitmime smtputf8 ENVID=QQ+2B1 RequireTLS";
        let found = of_mail(text.split(' ')).expect("parameters");
        assert_eq!((found.size_bytes, found.handling.smtputf8, found.handling.require_tls), (Some(7), true, true));
        assert_eq!(found.handling.returned, Some(Returned::Headers));
        assert_eq!(found.handling.envelope_id, EnvelopeId::parse("QQ+2B1").ok());
        let found = of_rcpt("orcpt=rfc822;bob@a.example NOTIFY=delay".split(' ')).expect("parameters");
        assert_eq!(found.notify, Some(Notify::Of { success: false, failure: false, delay: true }));
        assert_eq!(found.original, OriginalRecipient::parse("rfc822;bob@a.example").ok());
    }

    #[test]
    fn each_fault_has_its_code() {
        for wrong in [
            "SIZE",
            "SIZE=",
            "SIZE=x",
            "SIZE=-1",
            "SIZE=1 size=1",
            "BODY",
            "BODY=BINARYMIME",
            "SMTPUTF8=",
            "SMTPUTF8=1",
            "SMTPUTF8 smtputf8",
            "RET",
            "RET=",
            "RET=ALL",
            "RET=FULL RET=FULL",
            "ENVID",
            "ENVID=",
            "ENVID=a=b",
            "ENVID=+0A",
            "ENVID=\u{e9}",
            "REQUIRETLS=1",
            "REQUIRETLS REQUIRETLS",
        ] {
            assert_eq!(mail_code(wrong), 501, "{wrong:?}");
        }
        for wrong in [
            "NOTIFY",
            "NOTIFY=",
            "NOTIFY=NEVER,FAILURE",
            "NOTIFY=FAILURE,FAILURE",
            "NOTIFY=X",
            "NOTIFY=NEVER NOTIFY=NEVER",
            "ORCPT",
            "ORCPT=",
            "ORCPT=bob@a.example",
            "ORCPT=rfc822;",
            "ORCPT=rfc822;+00",
            "ORCPT=rfc822;a ORCPT=rfc822;a",
            "ORCPT=rfc822;\u{e9}",
        ] {
            assert_eq!(rcpt_code(wrong), 501, "{wrong:?}");
        }
        for unknown in ["AUTH=<>", "X", "=", "NOTIFY=NEVER", "SIZE=1 BY=1;R"] {
            assert_eq!(mail_code(unknown), 555, "{unknown:?}");
        }
        for unknown in ["SIZE=1", "RET=FULL", "RRVS=x", "SMTPUTF8"] {
            assert_eq!(rcpt_code(unknown), 555, "{unknown:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_fall(
            text in "\\PC{0,80}", value in "[!-~]{0,40}|\\PC{0,10}|(NEVER|SUCCESS|FAILURE|DELAY|,){0,4}",
        ) {
            drop((of_mail(text.split(' ')), of_rcpt(text.split(' '))));
            for key in ["SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "REQUIRETLS"] {
                drop(of_mail(std::iter::once(format!("{key}={value}").as_str())));
            }
            for key in ["NOTIFY", "ORCPT"] {
                if let Ok(found) = of_rcpt(std::iter::once(format!("{key}={value}").as_str())) {
                    prop_assert!(found.bytes() <= 500);
                }
            }
        }
    }
}
