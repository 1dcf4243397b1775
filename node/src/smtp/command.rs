//! An SMTP command, parsed once from its line (RFC 5321 section 4.1). What is wrong with a line is the reply to it.

use proto::{
    address::{Address, AddressError, ReversePath},
    envelope::Notification,
};

use super::{
    parameters::{self, MailParameters},
    reply::Reply,
    xclient::{self, Claim},
};

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Name of the client; it wants the extensions.
    Ehlo(String),
    /// Name of the client.
    Helo(String),
    /// Begins a transaction.
    Mail {
        /// Whom to tell.
        reverse_path: ReversePath,
        /// What it says and asks beside.
        parameters: MailParameters,
    },
    /// Adds a recipient.
    Rcpt {
        /// Who.
        forward_path: Address,
        /// Whether the line is not ASCII, which only a transaction with SMTPUTF8 may have.
        utf8: bool,
        /// What the sender asks beside.
        notification: Notification,
    },
    /// The message comes next.
    Data,
    /// So many bytes of the message come next (RFC 3030 section 2).
    Bdat {
        /// How many.
        bytes: u64,
        /// Whether the message ends with them.
        last: bool,
    },
    /// Forget the transaction.
    Rset,
    /// Nothing.
    Noop,
    /// The end.
    Quit,
    /// Does a mailbox exist? We do not say.
    Vrfy,
    /// TLS comes next (RFC 3207).
    StartTls,
    /// For whom the client speaks, or the reply to one that may say so and says it wrongly.
    Xclient(Result<Box<Claim>, Reply>),
}

impl Command {
    /// Reads a line without its CRLF.
    ///
    /// # Errors
    /// The reply to a line that is no command: 500 for control characters, for bytes beyond ASCII where no address is or that are
    /// not UTF-8, and for unknown verbs; 501 for wrong arguments, 502 for verbs that we know and do not do, 555 for parameters
    /// that were not announced, 550 and 553 for paths that ask for relaying, are none, or need SMTPUTF8.
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        let printable = line.iter().all(|byte| !byte.is_ascii_control());
        let text = std::str::from_utf8(line).ok().filter(|_| printable).ok_or_else(not_printable)?;
        let text = text.trim_end_matches(' ');
        let (verb, arguments) = text.split_once(' ').unwrap_or((text, ""));
        let bare = |command: Self| if arguments.is_empty() { Ok(command) } else { Err(arguments_wrong("no argument")) };
        let verb = verb.to_ascii_uppercase();
        if !text.is_ascii() && !["MAIL", "RCPT", "VRFY"].contains(&verb.as_str()) {
            return Err(not_printable());
        }
        match verb.as_str() {
            "EHLO" => hello(arguments).map(Self::Ehlo),
            "HELO" => hello(arguments).map(Self::Helo),
            "MAIL" => mail(arguments),
            "RCPT" => rcpt(arguments),
            "DATA" => bare(Self::Data),
            "BDAT" => bdat(arguments),
            "RSET" => bare(Self::Rset),
            "NOOP" => Ok(Self::Noop),
            "QUIT" => bare(Self::Quit),
            "VRFY" => vrfy(arguments),
            "STARTTLS" => bare(Self::StartTls),
            "XCLIENT" => Ok(Self::Xclient(xclient::parse(arguments).map(Box::new))),
            "HELP" | "EXPN" | "AUTH" | "ETRN" | "TURN" | "SEND" | "SOML" | "SAML" => {
                Err(Reply::permanent(2, (5, 1), "not done here"))
            }
            _ => Err(Reply::permanent(0, (5, 2), "unknown command")),
        }
    }
}

fn not_printable() -> Reply {
    Reply::permanent(0, (5, 2), "only printable ASCII is a command")
}

/// RFC 6531 section 3.5: the address needs SMTPUTF8, and the client has not said that it knows it.
pub(super) fn needs_smtputf8() -> Reply {
    Reply::permanent(53, (6, 7), "an address beyond ASCII needs SMTPUTF8 with MAIL")
}

fn arguments_wrong(expected: &str) -> Reply {
    Reply::permanent(1, (5, 4), format!("expected: {expected}"))
}

/// A client's name: a domain or an address literal, loosely (RFC 5321 section 4.1.4 forbids refusing a name because it
/// does not resolve), but without what could break out of a header field.
fn hello(arguments: &str) -> Result<String, Reply> {
    if is_client_name(arguments) { Ok(arguments.to_owned()) } else { Err(arguments_wrong("your host name")) }
}

/// Whether a client may be called so; at most 255 octets.
pub(super) fn is_client_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

/// `FROM:<path>` and parameters.
fn mail(arguments: &str) -> Result<Command, Reply> {
    let (path, parameters) =
        path_and_parameters(arguments, "FROM:").ok_or_else(|| arguments_wrong("FROM:<address>"))?;
    let reverse_path = if path.is_empty() {
        ReversePath::Null
    } else {
        let address = Address::parse(path)
            .map_err(|error| Reply::permanent(53, (1, 7), format!("the sender is not an address: {error}")))?;
        ReversePath::Address(address)
    };
    let parameters = parameters::of_mail(parameters)?;
    if !path.is_ascii() && !parameters.handling.smtputf8 {
        return Err(needs_smtputf8());
    }
    Ok(Command::Mail { reverse_path, parameters })
}

/// A mailbox, and perhaps SMTPUTF8 (RFC 6531 section 3.7.4.2). Who it is makes no difference to the answer.
fn vrfy(arguments: &str) -> Result<Command, Reply> {
    let (mailbox, last) = arguments.rsplit_once(' ').unwrap_or((arguments, ""));
    let utf8 = last.eq_ignore_ascii_case("SMTPUTF8");
    match (mailbox.is_empty(), arguments.is_ascii() || utf8) {
        (true, _) => Err(arguments_wrong("a mailbox")),
        (false, true) => Ok(Command::Vrfy),
        (false, false) => Err(needs_smtputf8()),
    }
}

/// `chunk-size [LAST]`.
fn bdat(arguments: &str) -> Result<Command, Reply> {
    let (number, word) = arguments.split_once(' ').unwrap_or((arguments, ""));
    let last = word.eq_ignore_ascii_case("LAST");
    match parameters::digits(number) {
        Some(bytes) if last || word.is_empty() => Ok(Command::Bdat { bytes, last }),
        Some(_) | None => Err(arguments_wrong("number of bytes, and LAST or nothing")),
    }
}

/// `TO:<path>` and parameters.
fn rcpt(arguments: &str) -> Result<Command, Reply> {
    let (path, parameters) = path_and_parameters(arguments, "TO:").ok_or_else(|| arguments_wrong("TO:<address>"))?;
    let notification = parameters::of_rcpt(parameters)?;
    if path.starts_with('@') {
        return Err(Reply::permanent(50, (7, 1), "source routes are not followed"));
    }
    // RFC 5321 section 4.5.1 wants a mailbox behind the bare name. A gateway has none; each department's is
    // `postmaster@` its domain.
    if path.eq_ignore_ascii_case("postmaster") {
        return Err(Reply::permanent(50, (1, 1), "no mailbox of its own here; write to postmaster@ a department"));
    }
    match Address::parse(path) {
        Ok(forward_path) => Ok(Command::Rcpt { forward_path, utf8: !arguments.is_ascii(), notification }),
        Err(error @ (AddressError::Empty | AddressError::TooLong | AddressError::NoDomain))
        | Err(error @ (AddressError::Domain | AddressError::LocalPart)) => {
            Err(Reply::permanent(53, (1, 3), format!("the recipient is not an address: {error}")))
        }
    }
}

/// Splits `KEYWORD:<path> parameter …`. Blanks before the `<` are let pass, because many appliances send one; a path
/// without its brackets is not. A `>` inside a quoted local part does not end the path.
fn path_and_parameters<'t>(arguments: &'t str, keyword: &str) -> Option<(&'t str, impl Iterator<Item = &'t str>)> {
    let head = arguments.get(..keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = arguments.get(keyword.len()..)?.trim_start_matches(' ').strip_prefix('<')?;
    let end = end_of_path(rest)?;
    let (path, after) = (rest.get(..end)?, rest.get(end + 1..)?);
    if !(after.is_empty() || after.starts_with(' ')) {
        return None;
    }
    Some((path, after.split(' ').filter(|word| !word.is_empty())))
}

fn end_of_path(rest: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::{
        address::{Address, ReversePath},
        envelope::Notification,
    };

    use super::Command;
    use crate::smtp::parameters::MailParameters;

    fn code(line: &str) -> u16 {
        Command::parse(line.as_bytes()).err().map_or(0, |reply| reply.code())
    }

    #[test]
    fn a_mail_command_gives_path_and_size() {
        let expected = Command::Mail {
            reverse_path: ReversePath::Address(Address::parse("a@b.example").expect("an address")),
            parameters: MailParameters { size_bytes: Some(7), ..MailParameters::default() },
        };
        assert_eq!(Command::parse(b"mail from: <a@b.example>  size=7 Body=8bitmime "), Ok(expected));
        let null = Command::Mail { reverse_path: ReversePath::Null, parameters: MailParameters::default() };
        assert_eq!(Command::parse(b"MAIL FROM:<>"), Ok(null));
        let quoted = Command::Rcpt {
            forward_path: Address::parse("\"a> b\"@c.example").expect("an address"),
            utf8: false,
            notification: Notification::default(),
        };
        assert_eq!(Command::parse(b"RCPT TO:<\"a> b\"@c.example>"), Ok(quoted));
    }

    #[test]
    fn a_chunk_has_its_size_and_may_be_the_last() {
        assert_eq!(Command::parse(b"BDAT 86"), Ok(Command::Bdat { bytes: 86, last: false }));
        assert_eq!(Command::parse(b"bdat 0 last "), Ok(Command::Bdat { bytes: 0, last: true }));
        let most = Command::Bdat { bytes: u64::MAX, last: false };
        assert_eq!(Command::parse(b"BDAT 99999999999999999999"), Ok(most));
    }

    #[test]
    fn each_fault_has_its_code() {
        let cases = [
            ("MAIL FROM:a@b.example", 501),
            ("MAIL FROM <a@b.example>", 501),
            ("MAIL FROM:<a@b.example>SIZE=1", 501),
            ("MAIL FROM:<a@b.example> SIZE=x", 501),
            ("MAIL FROM:<a@b.example> SIZE=1 SIZE=1", 501),
            ("MAIL FROM:<a@b.example> BODY=BINARYMIME", 501),
            ("MAIL FROM:<a@b.example> SMTPUTF8=1", 501),
            ("MAIL FROM:<a@b.example> AUTH=<>", 555),
            ("MAIL FROM:<a>", 553),
            ("RCPT TO:<a@b.example> NOTIFY=OFTEN", 501),
            ("RCPT TO:<a@b.example> RET=FULL", 555),
            ("RCPT TO:<>", 553),
            ("RCPT TO:<postmaster>", 550),
            ("RCPT TO:<@a.example:b@c.example>", 550),
            ("EHLO", 501),
            ("EHLO a b", 501),
            ("EHLO (x)", 501),
            ("DATA now", 501),
            ("VRFY", 501),
            ("HELP", 502),
            ("BDAT", 501),
            ("BDAT LAST", 501),
            ("BDAT -1 LAST", 501),
            ("BDAT 10 FIRST", 501),
            ("BDAT 10 LAST LAST", 501),
            ("BDAT 0x10", 501),
            ("GET / HTTP/1.1", 500),
            ("", 500),
            ("MAIL FROM:<\u{e9}@b.example>", 553),
            ("MAIL FROM:<a@\u{e9}.example>", 553),
            ("MAIL FROM:<\u{202e}@b.example> SMTPUTF8", 553),
            ("MAIL FROM:<a@b.example> \u{e9}", 555),
            ("VRFY \u{e9}", 553),
            ("VRFY  SMTPUTF8", 501),
            ("EHLO \u{e9}.example", 500),
            ("\u{fb01}nd", 500),
            ("NOOP \0", 500),
            ("NOOP \t", 500),
        ];
        for (line, expected) in cases {
            assert_eq!(code(line), expected, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_fall(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Command::parse(&line));
        }

        #[test]
        fn no_utf8_makes_the_parser_fall(path in "\\PC{0,40}", more in "\\PC{0,40}", utf8 in any::<bool>()) {
            let smtputf8 = if utf8 { " SMTPUTF8" } else { "" };
            let mail = Command::parse(format!("MAIL FROM:<{path}> {more}{smtputf8}").as_bytes());
            if let Ok(Command::Mail { parameters, .. }) = mail {
                prop_assert!(path.is_ascii() || parameters.handling.smtputf8);
            }
            drop(Command::parse(format!("RCPT TO:<{path}> {more}").as_bytes()));
            drop(Command::parse(format!("VRFY {path}{smtputf8}").as_bytes()));
        }

        #[test]
        fn no_path_makes_the_parser_fall(path in "[ -~]{0,60}") {
            drop(Command::parse(format!("MAIL FROM:<{path}>").as_bytes()));
            drop(Command::parse(format!("RCPT TO:{path}").as_bytes()));
        }
    }
}
