//! Which hosts take mail for a domain on the Internet (RFC 5321 section 5.1, RFC 7505), and which addresses never do. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proto::department::{NextHop, TlsRule};

use crate::smtp::reply::Reply;

/// Hosts tried for one domain.
const HOSTS_MAX: usize = 8;
/// The port of MX hosts.
const SMTP_PORT: u16 = 25;

/// What DNS says about the MX records of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MxAnswer {
    /// Preference and host, the root as an empty name.
    Records(Vec<(u16, String)>),
    /// The name exists, without MX records.
    Empty,
    /// The name does not exist.
    NoSuchDomain,
    /// No answer, or one that cannot be believed.
    Failed(String),
}

/// The hosts to try, in order. Hosts of equal preference come in an order that depends on `seed`, so that senders spread
/// over them. A domain without MX records is its own host.
///
/// # Errors
/// The reply for the domain's recipients: 556 for a null MX, 550 when the domain does not exist, 451 when DNS fails.
pub(super) fn hosts(domain: &str, answer: MxAnswer, seed: u64) -> Result<Vec<NextHop>, Reply> {
    let hop = |host: &str| NextHop { host: host.to_owned(), port: SMTP_PORT, tls: TlsRule::Opportunistic };
    match answer {
        MxAnswer::Empty => Ok(vec![hop(domain)]),
        MxAnswer::NoSuchDomain => Err(Reply::permanent(50, (1, 2), format!("the domain {domain} does not exist"))),
        MxAnswer::Failed(problem) => {
            Err(Reply::temporary(51, (4, 3), format!("MX look-up of {domain} failed: {problem}; it is tried again")))
        }
        MxAnswer::Records(mut records) => {
            records.retain(|(_, host)| !host.is_empty());
            if records.is_empty() {
                return Err(Reply::permanent(56, (1, 10), format!("the domain {domain} takes no mail (null MX)")));
            }
            records.sort_by_cached_key(|(preference, host)| (*preference, mixed(host, seed), host.clone()));
            records.dedup_by(|a, b| a.1 == b.1);
            records.truncate(HOSTS_MAX);
            Ok(records.iter().map(|(_, host)| hop(host)).collect())
        }
    }
}

/// A cheap hash (FNV-1a), so that the order is a function of the seed.
fn mixed(host: &str, seed: u64) -> u64 {
    host.bytes()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether mail to the Internet may go to this address: not into private, local, shared, multicast or reserved networks,
/// nor to the metadata services of clouds, wherever an MX record points (RFC 6890).
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    /// A cloud's host service on an otherwise public address.
    const HOST_SERVICE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let assignments = (a, b, c) == (192, 0, 0);
    let benchmark = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 224
        || shared
        || assignments
        || benchmark
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address == HOST_SERVICE)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let low = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    // Addresses that carry an IPv4 address: mapped, compatible (with ::1 and ::), NAT64 and 6to4.
    if s[..5] == [0; 5] && (s[5] == 0xffff || s[5] == 0) || s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(low(s[6], s[7]));
    }
    if s[0] == 0x2002 {
        return is_public_v4(low(s[1], s[2]));
    }
    // Global unicast is 2000::/3; 2001::/32 is Teredo and 64:ff9b:1::/48 lies outside.
    s[0] & 0xe000 == 0x2000 && !(s[0] == 0x2001 && s[1] == 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{HOSTS_MAX, MxAnswer, hosts, is_public};

    fn names(answer: MxAnswer, seed: u64) -> Vec<String> {
        let hops = hosts("example.test", answer, seed).expect("hosts");
        assert!(hops.iter().all(|hop| hop.port == 25));
        hops.into_iter().map(|hop| hop.host).collect()
    }

    fn refusal(answer: MxAnswer) -> String {
        hosts("example.test", answer, 0).expect_err("a refusal").to_string()
    }

    fn records(records: &[(u16, &str)]) -> MxAnswer {
        MxAnswer::Records(records.iter().map(|(preference, host)| (*preference, (*host).to_owned())).collect())
    }

    #[test]
    fn hosts_come_by_preference_and_equals_are_spread() {
        let answer = || records(&[(20, "c.test"), (10, "a.test"), (10, "b.test")]);
        let orders: BTreeSet<Vec<String>> = (0..64).map(|seed| names(answer(), seed)).collect();
        assert!(orders.iter().all(|order| order[2] == "c.test"));
        assert_eq!(orders.len(), 2);
        assert_eq!(names(MxAnswer::Empty, 0), ["example.test"]);
        let many: Vec<(u16, String)> = (0..100).map(|at| (at, format!("mx{at}.test"))).collect();
        assert_eq!(names(MxAnswer::Records(many), 0).len(), HOSTS_MAX);
    }

    #[test]
    fn a_domain_that_takes_no_mail_or_does_not_exist_is_refused_and_a_failure_is_not() {
        assert!(refusal(records(&[(0, "")])).starts_with("556 5.1.10 "));
        assert!(refusal(MxAnswer::NoSuchDomain).starts_with("550 5.1.2 "));
        assert!(refusal(MxAnswer::Failed("SERVFAIL".into())).starts_with("451 4.4.3 "));
        assert_eq!(names(records(&[(0, ""), (10, "a.test")]), 0), ["a.test"]);
    }

    #[test]
    fn no_mx_record_leads_into_a_network_that_is_not_public() {
        let inside = "127.0.0.1 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 \
            0.0.0.0 192.0.0.192 198.18.0.1 224.0.0.1 255.255.255.255 168.63.129.16 :: ::1 ::127.0.0.1 ::ffff:10.0.0.1 \
            fe80::1 fc00::1 fd00:ec2::254 ff02::1 64:ff9b::a00:1 64:ff9b:1::a00:1 2002:7f00:1:: 2001::1";
        for address in inside.split_whitespace() {
            assert!(!is_public(address.parse().expect(address)), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(is_public(address.parse().expect(address)), "{address}");
        }
    }
}
