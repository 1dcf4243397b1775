//! What a client's names tell: its own, and that of its address. Pure.

use std::net::IpAddr;

use proto::{
    address::Domain,
    client_rules::{ClientPoints, DnsList},
    score::Score,
    view::View,
};

/// What speaks against a client before its first message, as people list it: group, name, points, words.
#[must_use]
pub fn rules(points: &ClientPoints) -> [(&'static str, &'static str, Score, &'static str); 6] {
    [
        ("clients", "EARLY_TALK", points.early_talk, "it spoke before the greeting"),
        (
            "reverse_name",
            "NO_REVERSE_NAME",
            points.no_reverse_name,
            "the client's address has no name that leads back to it",
        ),
        ("reverse_name", "GENERIC_REVERSE_NAME", points.generic_reverse_name, "the name of the address is made of it"),
        ("helo", "FALSE_HELO", points.false_helo, "it calls itself by the name of another"),
        ("helo", "BAD_HELO", points.bad_helo, "it calls itself by what is no name on the Internet"),
        ("helo", "UNKNOWN_HELO", points.unknown_helo, "the name that it calls itself by has no address"),
    ]
}

/// The rule of a list that has a client: there are lists of good ones.
#[must_use]
pub fn list_rule(list: &DnsList) -> &'static str {
    if list.points < Score::ZERO { "DNS_ALLOW_LIST" } else { "DNS_LIST" }
}

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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proto::{address::Domain, policy::PolicyLayer};

    use super::{HeloFault, helo};
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
}
