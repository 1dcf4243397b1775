//! The envelope towards a next hop: what a message needs of it, and the commands that say what the sender asks. Pure.

use proto::{
    address::{Address, ReversePath},
    envelope::{Handling, Notification},
};

use super::answer::Answer;
use crate::smtp::reply::Reply;

/// From whom, to whom, and what the sender asks of every server on the way.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Whom to tell.
    pub from: &'a ReversePath,
    /// What is asked for the whole message.
    pub handling: &'a Handling,
    /// Who.
    pub to: &'a [Address],
    /// What is asked for each of them, in their order; nothing for those that it has nothing for.
    pub notifications: &'a [Notification],
}

/// What EHLO offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) starttls: bool,
    pub(super) pipelining: bool,
    size: bool,
    eight_bit: bool,
    pub(super) smtputf8: bool,
    dsn: bool,
    require_tls: bool,
}

impl Offers {
    pub(super) fn of(ehlo: &Answer) -> Self {
        let has = |keyword: &str| {
            ehlo.lines()
                .iter()
                .skip(1)
                .any(|line| line.split_ascii_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(keyword)))
        };
        Self {
            starttls: has("STARTTLS"),
            pipelining: has("PIPELINING"),
            size: has("SIZE"),
            eight_bit: has("8BITMIME"),
            smtputf8: has("SMTPUTF8"),
            dsn: has("DSN"),
            require_tls: has("REQUIRETLS"),
        }
    }
}

/// Why a next hop may never have the message for this recipient. What needs SMTPUTF8 is not changed on the way (RFC 6531
/// section 3.2), and what needs TLS goes to nobody who cannot promise it in turn (RFC 8689 section 4.2.1). `header_is_utf8` looks
/// at the whole message, so it is asked last.
pub(super) fn unfit(
    envelope: &Envelope<'_>,
    to: &Address,
    header_is_utf8: impl FnOnce() -> bool,
    offers: Offers,
    verified: bool,
) -> Option<Reply> {
    if envelope.handling.require_tls && !(verified && offers.require_tls) {
        return Some(no_require_tls());
    }
    if !envelope.handling.smtputf8 || offers.smtputf8 {
        return None;
    }
    let address_is_ascii = |address: &Address| address.is_ascii();
    if !(to.is_ascii() && envelope.from.address().is_none_or(address_is_ascii)) {
        return Some(Reply::permanent(50, (6, 7), "the next hop takes no addresses beyond ASCII (SMTPUTF8)"));
    }
    header_is_utf8().then(|| Reply::permanent(50, (6, 9), "the next hop takes no header fields in UTF-8 (SMTPUTF8)"))
}

/// RFC 8689 section 4.2.1.
pub(super) fn no_require_tls() -> Reply {
    Reply::permanent(50, (7, 30), "the next hop does not support REQUIRETLS over verified TLS")
}

/// Whether a header field of the message or, as far as lines tell, of one of its parts is beyond ASCII. A line that only looks
/// like the boundary of a part counts as one: better refused than changed.
pub(super) fn has_utf8_header(message: &[u8]) -> bool {
    let mut in_header = true;
    for line in message.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if in_header && !line.is_ascii() {
            return true;
        }
        in_header = (in_header && !line.is_empty()) || line.starts_with(b"--");
    }
    false
}

/// MAIL with SIZE (RFC 1870) and BODY (RFC 6152) where offered, and with what the sender asked. A next hop without 8BITMIME gets
/// 8-bit content all the same: to convert it would break its DKIM signatures, and servers that cannot carry it have died out.
pub(super) fn mail_command(envelope: &Envelope<'_>, message: &[u8], offers: Offers) -> String {
    let Handling { smtputf8, require_tls, returned, envelope_id } = envelope.handling;
    let mut command = format!("MAIL FROM:<{}>", envelope.from);
    if offers.size {
        command += &format!(" SIZE={}", message.len());
    }
    if offers.eight_bit && !message.is_ascii() {
        command += " BODY=8BITMIME";
    }
    if offers.smtputf8 && *smtputf8 {
        command += " SMTPUTF8";
    }
    if offers.require_tls && *require_tls {
        command += " REQUIRETLS";
    }
    if offers.dsn {
        command += &returned.map(|returned| format!(" RET={returned}")).unwrap_or_default();
        command += &envelope_id.as_ref().map(|id| format!(" ENVID={id}")).unwrap_or_default();
    }
    command + "\r\n"
}

/// RCPT for one of the recipients, with what the sender asked.
pub(super) fn rcpt_command(envelope: &Envelope<'_>, at: usize, offers: Offers) -> String {
    let mut command = format!("RCPT TO:<{}>", envelope.to[at]);
    if let Some(Notification { notify, original }) = envelope.notifications.get(at).filter(|_| offers.dsn) {
        command += &notify.map(|notify| format!(" NOTIFY={notify}")).unwrap_or_default();
        command += &original.as_ref().map(|original| format!(" ORCPT={original}")).unwrap_or_default();
    }
    command + "\r\n"
}

#[cfg(test)]
mod tests {
    use proto::{
        address::{Address, ReversePath},
        envelope::{EnvelopeId, Handling, Notification, Notify, OriginalRecipient, Returned},
    };

    use super::{Envelope, Offers, has_utf8_header, mail_command, rcpt_command, unfit};

    const ALL: Offers = Offers {
        starttls: true,
        pipelining: true,
        size: true,
        eight_bit: true,
        smtputf8: true,
        dsn: true,
        require_tls: true,
    };

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    #[test]
    fn what_is_asked_is_said_where_it_is_offered() {
        let handling = Handling {
            smtputf8: true,
            require_tls: true,
            returned: Some(Returned::Headers),
            envelope_id: EnvelopeId::parse("QQ+2B1").ok(),
        };
        let (from, to) = (ReversePath::Address(address("j\u{fc}@a.test")), [address("b@b.test"), address("c@c.test")]);
        let original = OriginalRecipient::parse("rfc822;x@b.test").ok();
        let notifications = [Notification { notify: Some(Notify::Never), original }];
        let envelope = Envelope { from: &from, handling: &handling, to: &to, notifications: &notifications };
        let full = "MAIL FROM:<j\u{fc}@a.test> SIZE=2 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=QQ+2B1\r\n";
        assert_eq!(mail_command(&envelope, "\u{fc}".as_bytes(), ALL), full);
        assert_eq!(mail_command(&envelope, b"x", Offers::default()), "MAIL FROM:<j\u{fc}@a.test>\r\n");
        assert_eq!(rcpt_command(&envelope, 0, ALL), "RCPT TO:<b@b.test> NOTIFY=NEVER ORCPT=rfc822;x@b.test\r\n");
        assert_eq!(rcpt_command(&envelope, 1, ALL), "RCPT TO:<c@c.test>\r\n");
        assert_eq!(rcpt_command(&envelope, 0, Offers::default()), "RCPT TO:<b@b.test>\r\n");
    }

    #[test]
    fn a_next_hop_must_offer_what_the_message_needs() {
        let to = [address("b@b.test"), address("\u{e9}@b.test"), address("b@\u{e9}.test")];
        let ascii = ReversePath::Address(address("a@a.test"));
        let utf8 = ReversePath::Address(address("\u{e9}@a.test"));
        let why = |from: &ReversePath, handling: &Handling, at: usize, message: &str, offers, verified| {
            let envelope = Envelope { from, handling, to: &to, notifications: &[] };
            unfit(&envelope, &to[at], || has_utf8_header(message.as_bytes()), offers, verified)
                .map_or(String::new(), |reply| reply.codes())
        };
        let none = Offers::default();
        let asked = Handling { smtputf8: true, ..Handling::default() };
        for at in 0..3 {
            assert_eq!(why(&utf8, &asked, at, "", ALL, false), "", "it offers all");
        }
        let (plain, named) = ("Subject: a\r\n\r\n\u{e9}\r\n", "Subject: \u{e9}\r\n\r\n");
        assert_eq!(why(&ascii, &asked, 0, plain, none, false), "", "asked for, and not needed");
        assert_eq!(why(&ascii, &asked, 1, plain, none, false), "550 5.6.7");
        assert_eq!(why(&ascii, &asked, 2, plain, none, false), "", "the domain goes in ASCII");
        assert_eq!(why(&utf8, &asked, 0, plain, none, false), "550 5.6.7");
        assert_eq!(why(&ascii, &asked, 0, named, none, false), "550 5.6.9");
        assert_eq!(why(&ReversePath::Null, &asked, 0, named, none, false), "550 5.6.9");
        assert_eq!(
            why(&ascii, &Handling::default(), 0, named, none, false),
            "",
            "8-bit without SMTPUTF8 goes as it came"
        );
        let tls = Handling { require_tls: true, ..Handling::default() };
        assert_eq!(why(&ascii, &tls, 0, plain, ALL, true), "");
        assert_eq!(why(&ascii, &tls, 0, plain, ALL, false), "550 5.7.30");
        assert_eq!(why(&ascii, &tls, 0, plain, none, true), "550 5.7.30");
    }

    #[test]
    fn header_fields_of_parts_count() {
        let part = "A: b\r\n\r\n\u{e9}\r\n--x\r\nContent-Type: a;\r\n name=\u{e9}\r\n\r\n\u{e9}\r\n--x--\r\n";
        assert!(has_utf8_header(part.as_bytes()));
        let plain = "A: b\r\n\r\n\u{e9}\r\n--x\r\nContent-Type: a\r\n\r\n\u{e9}\r\n--x--\r\n\r\n\u{e9}";
        assert!(!has_utf8_header(plain.as_bytes()));
        assert!(!has_utf8_header(b""));
    }
}
