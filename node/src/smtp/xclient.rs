//! XCLIENT (Postfix's `XCLIENT_README`): a listed peer says for whom it speaks. Its attributes, parsed once.

use std::net::{IpAddr, Ipv6Addr};

use proto::{address::Domain, xtext};

use super::{command, reply::Reply};

/// The attributes that are understood, as EHLO announces them. `LOGIN` is not: nobody logs in here.
pub const KEYWORD: &str = "XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT";

/// What is said of the client. Its name, its port and the destination are checked and not used: the name is looked up
/// by ourselves, for an address that must be believed anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// `ADDR`: the client's address; nothing when it stays as it is.
    pub address: Option<IpAddr>,
    /// `HELO`: what the client calls itself.
    pub helo: Option<String>,
    /// `PROTO=ESMTP`: it said so with EHLO.
    pub extended: bool,
}

/// Reads the attributes: at least one, and each at most once.
///
/// # Errors
/// 501 for anything else. Also for an address that the peer does not know: nobody can be judged by it, and the peer's own
/// would be judged better.
pub fn parse(arguments: &str) -> Result<Claim, Reply> {
    let wrong = |what: &str| Reply::permanent(1, (5, 4), format!("expected: {what}"));
    let mut claim = Claim::default();
    let mut seen: Vec<String> = Vec::new();
    for attribute in arguments.split(' ').filter(|word| !word.is_empty()) {
        let (key, value) = attribute.split_once('=').ok_or_else(|| wrong("attribute=value"))?;
        let key = key.to_ascii_uppercase();
        if seen.contains(&key) {
            return Err(wrong("each attribute once"));
        }
        let value = xtext::decode_printable(value).ok_or_else(|| wrong("values in xtext"))?;
        match key.as_str() {
            "ADDR" => claim.address = Some(address(&value).ok_or_else(|| wrong("ADDR=an IP address"))?),
            "HELO" => {
                let helo = Some(value).filter(|name| command::is_client_name(name));
                claim.helo = Some(helo.ok_or_else(|| wrong("HELO=a host name"))?);
            }
            "PROTO" => match value.to_ascii_uppercase().as_str() {
                "ESMTP" => claim.extended = true,
                "SMTP" => {}
                _ => return Err(wrong("PROTO=SMTP or PROTO=ESMTP")),
            },
            "NAME" if is_unknown(&value) || value == "[TEMPUNAVAIL]" || Domain::parse(&value).is_ok() => {}
            "NAME" => return Err(wrong("NAME=a host name")),
            "DESTADDR" if is_unknown(&value) || address(&value).is_some() => {}
            "DESTADDR" => return Err(wrong("DESTADDR=an IP address")),
            "PORT" | "DESTPORT" if is_unknown(&value) || is_port(&value) => {}
            "PORT" | "DESTPORT" => return Err(wrong("a port")),
            _ => return Err(wrong(KEYWORD)),
        }
        seen.push(key);
    }
    if seen.is_empty() { Err(wrong(KEYWORD)) } else { Ok(claim) }
}

fn is_unknown(value: &str) -> bool {
    value == "[UNAVAILABLE]"
}

fn is_port(value: &str) -> bool {
    value.len() <= 5 && value.bytes().all(|byte| byte.is_ascii_digit()) && value.parse::<u16>().is_ok()
}

/// An IPv4 address, or an IPv6 address behind `IPV6:`.
fn address(value: &str) -> Option<IpAddr> {
    let address = match value.split_at_checked(5) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPV6:") => rest.parse::<Ipv6Addr>().ok()?.into(),
        Some(_) | None => IpAddr::V4(value.parse().ok()?),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Claim, parse};

    #[test]
    fn what_postfix_and_nginx_send_is_understood() {
        let claim = parse("ADDR=192.0.2.7 LOGIN=x NAME=[UNAVAILABLE]");
        assert!(claim.is_err_and(|reply| reply.code() == 501), "LOGIN was not announced");
        let claim = parse("NAME=spike.porcupine.org ADDR=168.100.189.2 PORT=4711 PROTO=ESMTP HELO=spike.porcupine.org");
        let expected = Claim {
            address: Some("168.100.189.2".parse().expect("an address")),
            helo: Some("spike.porcupine.org".to_owned()),
            extended: true,
        };
        assert_eq!(claim, Ok(expected));
        let claim =
            parse("addr=ipv6:2001:db8::7 destaddr=10.0.0.1 destport=25 name=[TEMPUNAVAIL] helo=[IPv6:2001:db8::7]");
        assert_eq!(claim.expect("a claim").address, Some("2001:db8::7".parse().expect("an address")));
        let mapped = parse("ADDR=IPV6:::ffff:192.0.2.7").expect("a claim");
        assert_eq!(mapped.address, Some("192.0.2.7".parse().expect("an address")));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for wrong in [
            "",
            " ",
            "ADDR",
            "ADDR=",
            "ADDR=[UNAVAILABLE]",
            "ADDR=2001:db8::7",
            "ADDR=mx.example",
            "ADDR=192.0.2.7:25",
            "ADDR=192.0.2.7 ADDR=192.0.2.8",
            "ADDR=192.0.2.7 addr=192.0.2.7",
            "HELO=a+0D+0AQUIT",
            "HELO=a+20b",
            "HELO=",
            "HELO=<a>",
            "PROTO=LMTP",
            "NAME=a+00",
            "NAME=-",
            "PORT=70000",
            "PORT=+2B1",
            "DESTADDR=x",
            "DESTPORT=",
            "X=1",
            "HELO=a=b",
            "HELO=a+2b",
        ] {
            assert_eq!(parse(wrong).map_err(|reply| reply.code()), Err(501), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_fall(text in "[ -~]{0,80}", value in "[ -~]{0,40}") {
            drop(parse(&text));
            for key in ["NAME", "ADDR", "PORT", "PROTO", "HELO", "DESTADDR", "DESTPORT"] {
                if let Ok(claim) = parse(&format!("{key}={value}")) {
                    prop_assert!(claim.helo.is_none_or(|helo| !helo.contains([' ', '\r', '\n'])));
                }
            }
        }
    }
}
