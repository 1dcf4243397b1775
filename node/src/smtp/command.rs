//! An SMTP command, parsed once from its line (RFC 5321 section 4.1). What is wrong with a line is the reply to it.

use proto::address::{Address, AddressError, ReversePath};

use super::reply::Reply;

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
        /// SIZE= (RFC 1870): what the client believes the message to be, in bytes.
        size_bytes: Option<u64>,
    },
    /// Adds a recipient.
    Rcpt {
        /// Who.
        forward_path: Address,
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
}

impl Command {
    /// Reads a line without its CRLF.
    ///
    /// # Errors
    /// The reply to a line that is no command: 500 for bytes outside printable ASCII (SMTPUTF8 is not offered) and unknown
    /// verbs, 501 for wrong arguments, 502 for verbs that we know and do not do, 555 for parameters that were not
    /// announced, 550 and 553 for paths that ask for relaying or are none.
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        if !line.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(Reply::permanent(0, (5, 2), "only printable ASCII is a command"));
        }
        let text = std::str::from_utf8(line).map_err(|_| Reply::permanent(0, (5, 2), "not ASCII"))?;
        let text = text.trim_end_matches(' ');
        let (verb, arguments) = text.split_once(' ').unwrap_or((text, ""));
        let bare = |command: Self| if arguments.is_empty() { Ok(command) } else { Err(arguments_wrong("no argument")) };
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => hello(arguments).map(Self::Ehlo),
            "HELO" => hello(arguments).map(Self::Helo),
            "MAIL" => mail(arguments),
            "RCPT" => rcpt(arguments),
            "DATA" => bare(Self::Data),
            "BDAT" => bdat(arguments),
            "RSET" => bare(Self::Rset),
            "NOOP" => Ok(Self::Noop),
            "QUIT" => bare(Self::Quit),
            "VRFY" if arguments.is_empty() => Err(arguments_wrong("a mailbox")),
            "VRFY" => Ok(Self::Vrfy),
            "STARTTLS" => bare(Self::StartTls),
            "HELP" | "EXPN" | "AUTH" | "ETRN" | "TURN" | "SEND" | "SOML" | "SAML" => {
                Err(Reply::permanent(2, (5, 1), "not done here"))
            }
            _ => Err(Reply::permanent(0, (5, 2), "unknown command")),
        }
    }
}

fn arguments_wrong(expected: &str) -> Reply {
    Reply::permanent(1, (5, 4), format!("expected: {expected}"))
}

/// A client's name: a domain or an address literal, loosely (RFC 5321 section 4.1.4 forbids refusing a name because it
/// does not resolve), but without what could break out of a header field.
fn hello(arguments: &str) -> Result<String, Reply> {
    let ok = (1..=255).contains(&arguments.len())
        && arguments.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    if ok { Ok(arguments.to_owned()) } else { Err(arguments_wrong("your host name")) }
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
    let mut size_bytes = None;
    let mut body_seen = false;
    for parameter in parameters {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key.to_ascii_uppercase().as_str() {
            "SIZE" if size_bytes.is_none() => size_bytes = Some(size(value)?),
            "BODY" if !body_seen => body_seen = body(value)?,
            "SIZE" | "BODY" => return Err(arguments_wrong("each parameter once")),
            _ => return Err(Reply::permanent(55, (5, 4), "that parameter was not announced")),
        }
    }
    Ok(Command::Mail { reverse_path, size_bytes })
}

/// `chunk-size [LAST]`.
fn bdat(arguments: &str) -> Result<Command, Reply> {
    let (number, word) = arguments.split_once(' ').unwrap_or((arguments, ""));
    let last = word.eq_ignore_ascii_case("LAST");
    match size(number) {
        Ok(bytes) if last || word.is_empty() => Ok(Command::Bdat { bytes, last }),
        Ok(_) | Err(_) => Err(arguments_wrong("number of bytes, and LAST or nothing")),
    }
}

/// 1 to 20 digits (RFC 1870 section 4). What is beyond 64 bits is too large all the same.
fn size(value: &str) -> Result<u64, Reply> {
    if (1..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit()) {
        Ok(value.parse().unwrap_or(u64::MAX))
    } else {
        Err(arguments_wrong("SIZE=number"))
    }
}

/// RFC 6152 section 2. Both are taken alike: every byte is kept.
fn body(value: &str) -> Result<bool, Reply> {
    if value.eq_ignore_ascii_case("7BIT") || value.eq_ignore_ascii_case("8BITMIME") {
        Ok(true)
    } else {
        Err(arguments_wrong("BODY=7BIT or BODY=8BITMIME"))
    }
}

/// `TO:<path>` and nothing else.
fn rcpt(arguments: &str) -> Result<Command, Reply> {
    let (path, mut parameters) =
        path_and_parameters(arguments, "TO:").ok_or_else(|| arguments_wrong("TO:<address>"))?;
    if parameters.next().is_some() {
        return Err(Reply::permanent(55, (5, 4), "that parameter was not announced"));
    }
    if path.starts_with('@') {
        return Err(Reply::permanent(50, (7, 1), "source routes are not followed"));
    }
    // RFC 5321 section 4.5.1 wants a mailbox behind the bare name. A gateway has none; each department's is
    // `postmaster@` its domain.
    if path.eq_ignore_ascii_case("postmaster") {
        return Err(Reply::permanent(50, (1, 1), "no mailbox of its own here; write to postmaster@ a department"));
    }
    match Address::parse(path) {
        Ok(forward_path) => Ok(Command::Rcpt { forward_path }),
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
    use proto::address::{Address, ReversePath};

    use super::Command;

    fn code(line: &str) -> u16 {
        Command::parse(line.as_bytes()).err().map_or(0, |reply| reply.code())
    }

    #[test]
    fn a_mail_command_gives_path_and_size() {
        let expected = Command::Mail {
            reverse_path: ReversePath::Address(Address::parse("a@b.example").expect("an address")),
            size_bytes: Some(7),
        };
        assert_eq!(Command::parse(b"mail from: <a@b.example>  size=7 Body=8bitmime "), Ok(expected));
        let null = Command::Mail { reverse_path: ReversePath::Null, size_bytes: None };
        assert_eq!(Command::parse(b"MAIL FROM:<>"), Ok(null));
        let quoted = Command::Rcpt { forward_path: Address::parse("\"a> b\"@c.example").expect("an address") };
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
            ("MAIL FROM:<a@b.example> SMTPUTF8", 555),
            ("MAIL FROM:<a@b.example> AUTH=<>", 555),
            ("MAIL FROM:<a>", 553),
            ("RCPT TO:<a@b.example> NOTIFY=NEVER", 555),
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
            ("MAIL FROM:<\u{e9}@b.example>", 500),
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
        fn no_path_makes_the_parser_fall(path in "[ -~]{0,60}") {
            drop(Command::parse(format!("MAIL FROM:<{path}>").as_bytes()));
            drop(Command::parse(format!("RCPT TO:{path}").as_bytes()));
        }
    }
}
