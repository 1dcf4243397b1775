//! The section `clients` of the state's file: what is asked of clients before they have sent a message.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use proto::{
    address::Domain,
    client_rules::{AtOnce, ClientPoints, ClientRules, DNS_LISTS_MAX, DnsList, Rates},
    score::Score,
    yaml::{Fault, Map, Node},
};

use super::fields::duration_ms;

/// Longest delay of a greeting, in milliseconds: a client may give up after five minutes (RFC 5321 section 4.5.3.2.1), and
/// each that waits takes the place of another.
const GREET_DELAY_MS_MAX: u64 = 30_000;
/// Shortest and longest time that greylisting puts off, in milliseconds.
const GREYLIST_DELAY_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// Most points that one check may have, on either side of zero, in hundredths.
const POINTS_MAX: i32 = 10_000;
/// Most of anything in a minute, or at once.
const BOUND_MAX: u64 = 10_000_000;

/// What the section says, over what Postern ships with.
pub(super) fn clients(map: &mut Map<'_, '_>) -> ClientRules {
    let mut rules = ClientRules::built_in();
    if let Some(delay) = map.optional("greet_delay", greet_delay) {
        rules.greet_delay_ms = delay;
    }
    if let Some(delay) = map.optional("greylist_delay", greylist_delay) {
        rules.greylist_delay_ms = delay;
    }
    map.section("points", |section| read_points(section, &mut rules.points));
    if let Some(lists) = map.sections("dns_lists", dns_list) {
        rules.dns_lists = lists.into_iter().flatten().collect();
    }
    if rules.dns_lists.len() > DNS_LISTS_MAX {
        map.fault(format!(
            "dns_lists: at most {DNS_LISTS_MAX} are expected: each is a question to DNS for each client"
        ));
    }
    map.section("rates", |section| read_rates(section, &mut rules.rates));
    map.section("at_once", |section| read_at_once(section, &mut rules.at_once));
    rules
}

fn read_points(map: &mut Map<'_, '_>, points: &mut ClientPoints) {
    let ClientPoints { early_talk, no_reverse_name, generic_reverse_name, false_helo, bad_helo, unknown_helo } = points;
    let all = [
        ("early_talk", early_talk),
        ("no_reverse_name", no_reverse_name),
        ("generic_reverse_name", generic_reverse_name),
        ("false_helo", false_helo),
        ("bad_helo", bad_helo),
        ("unknown_helo", unknown_helo),
    ];
    for (key, place) in all {
        if let Some(score) = map.optional(key, |node| points_of(node, 0)) {
            *place = score;
        }
    }
}

fn read_rates(map: &mut Map<'_, '_>, rates: &mut Rates) {
    let Rates {
        client_connections,
        net_connections,
        sender_domain_messages,
        department_recipients,
        unknown_recipients,
    } = rates;
    let all = [
        ("client_connections", client_connections),
        ("net_connections", net_connections),
        ("sender_domain_messages", sender_domain_messages),
        ("department_recipients", department_recipients),
        ("unknown_recipients", unknown_recipients),
    ];
    read_bounds(map, all);
}

fn read_at_once(map: &mut Map<'_, '_>, at_once: &mut AtOnce) {
    let AtOnce { net_connections, sender_domain_messages, department_messages } = at_once;
    let all = [
        ("net_connections", net_connections),
        ("sender_domain_messages", sender_domain_messages),
        ("department_messages", department_messages),
    ];
    read_bounds(map, all);
}

fn read_bounds<const N: usize>(map: &mut Map<'_, '_>, all: [(&'static str, &mut Option<u32>); N]) {
    for (key, place) in all {
        if let Some(bound) = map.optional(key, bound) {
            *place = bound;
        }
    }
}

/// A whole number, or `unbounded`.
fn bound(node: &Node<'_, '_>) -> Result<Option<u32>, Fault> {
    if node.text().is_ok_and(|text| text == "unbounded") {
        return Ok(None);
    }
    let bound = node.integer(1..=BOUND_MAX);
    let bound = bound.map_err(|fault| Fault { problem: format!("{}, or unbounded", fault.problem), ..fault })?;
    Ok(u32::try_from(bound).ok())
}

fn points_of(node: &Node<'_, '_>, least: i32) -> Result<Score, Fault> {
    let score = node.hundredths()?;
    if (least..=POINTS_MAX).contains(&score) {
        return Ok(Score(score));
    }
    Err(node.fault(format!("points from {} to {} are expected", Score(least), Score(POINTS_MAX))))
}

fn greet_delay(node: &Node<'_, '_>) -> Result<u64, Fault> {
    if node.text().is_ok_and(|text| text == "none") {
        return Ok(0);
    }
    let delay = node.parsed(duration_ms)?;
    let wanted = || node.fault("a time from 1s to 30s, or none, is expected: who waits takes a place");
    if delay <= GREET_DELAY_MS_MAX { Ok(delay) } else { Err(wanted()) }
}

fn greylist_delay(node: &Node<'_, '_>) -> Result<u64, Fault> {
    let delay = node.parsed(duration_ms)?;
    if GREYLIST_DELAY_MS.contains(&delay) { Ok(delay) } else { Err(node.fault("a time from 1s to 1h is expected")) }
}

pub(super) fn dns_list(map: &mut Map<'_, '_>) -> Option<DnsList> {
    let zone = map.required("zone", |node| node.parsed(Domain::parse));
    let points = map.required("points", |node| points_of(node, -POINTS_MAX));
    let answers = map.list("answers", answer).unwrap_or_default();
    Some(DnsList { zone: zone?, points: points?, answers })
}

/// An address below 127.0.0.0/8, or a net of them (RFC 5782 section 2.1).
fn answer(node: &Node<'_, '_>) -> Result<Ipv4Net, Fault> {
    let text = node.text()?;
    let net = text.parse::<Ipv4Net>().or_else(|_| text.parse::<Ipv4Addr>().map(Ipv4Net::from));
    net.ok()
        .filter(|net| net.addr().is_loopback() && net.prefix_len() >= 8)
        .ok_or_else(|| node.fault("an address such as 127.0.0.2, or a net of them such as 127.0.0.0/28, is expected"))
}
