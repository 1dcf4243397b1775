//! What is written to lists that are asked over DNS, and how their answers are read (RFC 5782). Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use proto::{address::Domain, client_rules::DnsList};

/// What a list may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// An address.
    Address(IpAddr),
    /// A host or a domain.
    Name(String),
}

impl Entry {
    /// Out of a host of a link or the domain of an address.
    #[must_use]
    pub fn of_host(host: &str) -> Option<Self> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical()));
        }
        let site = psl::domain_str(host.trim_end_matches('.')).filter(|site| Domain::parse(site).is_ok())?;
        Some(Self::Name(site.to_ascii_lowercase()))
    }

    /// The name to ask a list for (RFC 5782 sections 2.1, 2.4 and 3).
    #[must_use]
    pub fn question(&self, zone: &Domain) -> String {
        match self {
            Self::Address(IpAddr::V4(v4)) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.{zone}.")
            }
            Self::Address(IpAddr::V6(v6)) => {
                let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
                let digits: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
                format!("{digits}{zone}.")
            }
            Self::Name(name) => format!("{name}.{zone}."),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What a list answers instead of a listing when it does not serve whoever asks.
const SILENCED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 255, 255, 0), 24);

/// Whether these answers list what was asked for. An answer outside of 127.0.0.0/8 lists nobody (RFC 5782 section 2.1): the zone may
/// have been taken over.
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

    use proto::{address::Domain, client_rules::DnsList, score::Score};

    use super::{Entry, lists};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_list_is_asked_backwards_for_an_address_and_forwards_for_a_name() {
        let zone = Domain::parse("dnsbl.test").expect("a domain");
        let question = |entry: Entry| entry.question(&zone);
        assert_eq!(question(Entry::Address(ip("192.0.2.99"))), "99.2.0.192.dnsbl.test.");
        let six = question(Entry::Address(ip("2001:db8:1:2:3:4:567:89ab")));
        assert_eq!(six, "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.dnsbl.test.");
        assert_eq!(question(Entry::Name("bad.example".into())), "bad.example.dnsbl.test.");
    }

    #[test]
    fn a_host_is_asked_for_by_the_name_that_somebody_has_registered() {
        let table = [
            ("www.shop.bad.example", Some("bad.example")),
            ("a.b.bad.co.uk", Some("bad.co.uk")),
            ("Bad.Example.", Some("bad.example")),
            ("co.uk", None),
            ("localhost", None),
            ("a..b.example", Some("b.example")),
            ("a b.example", None),
            ("192.0.2.7", Some("192.0.2.7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("", None),
        ];
        for (host, expected) in table {
            assert_eq!(Entry::of_host(host).map(|entry| entry.to_string()).as_deref(), expected, "{host}");
        }
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
