//! What a client's names tell: its own, that of its address, and whether a list has it. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use proto::{address::Domain, client_rules::DnsList, view::View};

/// What is wrong with the name that a client calls itself by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeloFault {
    /// It is ours, a department's, or an address that is not its own.
    False,
    /// It is no name on the Internet.
    Bad,
}

/// Looks at a name of EHLO or HELO (RFC 5321 section 4.1.3 for addresses). A department's listed service may use its name.
#[must_use]
pub fn helo(name: &str, client: IpAddr, hostname: &Domain, view: &View) -> Option<HeloFault> {
    if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let text = literal.strip_prefix("IPv6:").or_else(|| literal.strip_prefix("ipv6:")).unwrap_or(literal);
        return match text.parse::<IpAddr>() {
            Ok(address) if address.to_canonical() == client => None,
            Ok(_) => Some(HeloFault::False),
            Err(_) => Some(HeloFault::Bad),
        };
    }
    if name.parse::<IpAddr>().is_ok() {
        return Some(HeloFault::Bad);
    }
    let Ok(domain) = Domain::parse(name.trim_end_matches('.')) else { return Some(HeloFault::Bad) };
    if domain == *hostname {
        return Some(HeloFault::False);
    }
    match view.claimed_by(&domain) {
        Some(tenant) if !tenant.department.lists_service(client) => return Some(HeloFault::False),
        Some(_) => return None,
        None => {}
    }
    (!domain.as_str().contains('.')).then_some(HeloFault::Bad)
}

/// Whether the name of an address is made of it, as providers name dial-up lines: all four numbers of an IPv4 address stand in it
/// in order or backwards, or as eight hexadecimal digits.
#[must_use]
pub fn is_generic(name: &str, client: IpAddr) -> bool {
    let IpAddr::V4(v4) = client else { return false };
    let octets = v4.octets();
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    let name = name.to_ascii_lowercase();
    if name.contains(&hex) {
        return true;
    }
    let numbers: Vec<u16> =
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    let forth: Vec<u16> = octets.iter().map(|octet| u16::from(*octet)).collect();
    let back: Vec<u16> = forth.iter().rev().copied().collect();
    numbers.windows(4).any(|four| four == forth || four == back)
}

/// The name to ask a list for (RFC 5782 sections 2.1 and 2.4).
#[must_use]
pub fn question(client: IpAddr, zone: &Domain) -> String {
    match client {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.{zone}.")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let digits: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            format!("{digits}{zone}.")
        }
    }
}

/// What a list answers instead of a listing when it does not serve whoever asks.
const SILENCED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 255, 255, 0), 24);

/// Whether these answers list the client. An answer outside of 127.0.0.0/8 lists nobody (RFC 5782 section 2.1): the zone may have
/// been taken over.
#[must_use]
pub fn lists(list: &DnsList, answers: &[Ipv4Addr]) -> bool {
    answers.iter().any(|answer| {
        answer.is_loopback()
            && !SILENCED.contains(answer)
            && (list.answers.is_empty() || list.answers.iter().any(|net| net.contains(answer)))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proto::{address::Domain, client_rules::DnsList, policy::PolicyLayer, score::Score};

    use super::{HeloFault, helo, is_generic, lists, question};
    use crate::policy::samples::view;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_may_call_itself_by_its_own_name_or_address() {
        let view = view(PolicyLayer::default());
        let ours = Domain::parse("mx.gov.test").expect("a domain");
        let table = [
            ("mail.sender.test", None),
            ("[192.0.2.7]", None),
            ("[IPv6:::ffff:192.0.2.7]", None),
            ("[192.0.2.8]", Some(HeloFault::False)),
            ("MX.gov.test", Some(HeloFault::False)),
            ("health.gov.test", Some(HeloFault::False)),
            ("x.health.gov.test.", Some(HeloFault::False)),
            ("gov.test", None),
            ("192.0.2.7", Some(HeloFault::Bad)),
            ("[x]", Some(HeloFault::Bad)),
            ("localhost", Some(HeloFault::Bad)),
            ("friend", Some(HeloFault::Bad)),
            ("a..b", Some(HeloFault::Bad)),
        ];
        for (name, expected) in table {
            assert_eq!(helo(name, ip("192.0.2.7"), &ours, &view), expected, "{name}");
        }
        assert_eq!(helo("health.gov.test", ip("198.51.100.7"), &ours, &view), None, "a listed service");
    }

    #[test]
    fn a_name_that_is_made_of_the_address_is_generic() {
        let table = [
            ("192-0-2-7.dsl.example", true),
            ("host7.2.0.192.pool.example", true),
            ("c0000207.cable.example", true),
            ("mail.example", false),
            ("mx7.example", false),
            ("192-0-2-8.dsl.example", false),
            ("192-0-2.mail7.example", true),
        ];
        for (name, expected) in table {
            assert_eq!(is_generic(name, ip("192.0.2.7")), expected, "{name}");
        }
        assert!(!is_generic("192-0-2-7.example", ip("2001:db8::7")));
    }

    #[test]
    fn a_list_is_asked_backwards() {
        let zone = Domain::parse("dnsbl.test").expect("a domain");
        assert_eq!(question(ip("192.0.2.99"), &zone), "99.2.0.192.dnsbl.test.");
        let six = question(ip("2001:db8:1:2:3:4:567:89ab"), &zone);
        assert_eq!(six, "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.dnsbl.test.");
    }

    #[test]
    fn only_answers_that_count_list_a_client() {
        let zone = Domain::parse("dnsbl.test").expect("a domain");
        let all = DnsList { zone, points: Score::points(4, 0), answers: Vec::new() };
        let some = DnsList { answers: vec!["127.0.0.4/30".parse().expect("a net")], ..all.clone() };
        let table = [
            ("127.0.0.2", true, false),
            ("127.0.0.5", true, true),
            ("127.255.255.254", false, false),
            ("192.0.2.1", false, false),
        ];
        for (answer, by_all, by_some) in table {
            let answer: Ipv4Addr = answer.parse().expect("an address");
            assert_eq!((lists(&all, &[answer]), lists(&some, &[answer])), (by_all, by_some), "{answer}");
        }
        assert!(!lists(&all, &[]));
    }
}
