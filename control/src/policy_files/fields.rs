//! The keys of the policy files, one function a kind of mapping.

use std::net::IpAddr;

use ipnet::IpNet;
use proto::{
    address::{Address, Domain, lower_case},
    department::{Department, DepartmentId, NextHop, TlsRule, Verification},
    file_name::{NamePattern, PATTERNS_MAX},
    fingerprint::{FINGERPRINTS_MAX, Fingerprint, OFFSET_MAX, hexadecimal},
    member,
    policy::{
        AuthUnavailable, BlockedAction, ContentKind, DmarcAction, MESSAGE_BYTES_MAX, NOTICE_CHARS_MAX, PolicyLayer,
        RESCAN_MINUTES_MAX, Refusal, Unavailable, VirusScan,
    },
    score::Score,
    view::StateSettings,
    yaml::{Fault, Map, Node},
};

use super::{clients::clients, content::content};

/// Longest name for people, in characters.
const NAME_CHARS_MAX: usize = 200;
/// Port of a next hop that names none: SMTP (RFC 5321 section 4.5.4.2).
const SMTP_PORT: u16 = 25;
/// View age that holds when the state's file names none: a day.
const VIEW_AGE_MAX_MS: u64 = 24 * 3600 * 1000;
/// Smallest and largest view age, in milliseconds: a second and thirty days.
const VIEW_AGE_MS: std::ops::RangeInclusive<u64> = 1000..=30 * 24 * 3600 * 1000;
/// Smallest message limit, in bytes: less would refuse all mail.
const MESSAGE_BYTES_MIN: u64 = 1024;
/// Shortest prefixes of a network, IPv4 and IPv6: a wider one would make half the Internet a department.
const PREFIX_BITS_MIN: (u8, u8) = (8, 19);

/// A value and where it was written; `place` has no problem yet.
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Fault,
}

/// What could be read of the state's file.
pub(super) struct StateDraft {
    pub(super) policy: PolicyDraft,
    pub(super) settings: Option<StateSettings>,
}

/// What could be read of a department's file.
pub(super) struct DepartmentDraft {
    pub(super) id: Option<Placed<DepartmentId>>,
    pub(super) domains: Vec<Placed<Domain>>,
    pub(super) sources: Vec<Placed<IpNet>>,
    pub(super) policy: PolicyDraft,
    pub(super) department: Option<Department>,
}

/// A policy section, with the places of its three thresholds.
#[derive(Default)]
pub(super) struct PolicyDraft {
    pub(super) layer: PolicyLayer,
    pub(super) thresholds: Vec<Fault>,
}

/// The state's file.
pub(super) fn state(map: &mut Map<'_, '_>) -> StateDraft {
    let name = map.required("state", |node| node.parsed(name_for_people));
    let internet_relays = next_hops(map, "internet_relays").unwrap_or_default();
    let arc_sealers = map.list("arc_sealers", |node| node.parsed(Domain::parse)).unwrap_or_default();
    let view_age_max_ms = map.optional("view_age_max", |node| node.parsed(duration_ms)).unwrap_or(VIEW_AGE_MAX_MS);
    let client_score_max = map.optional("client_score_max", |node| node.integer(1..=1_000));
    let client_score_max = client_score_max.and_then(|score| i16::try_from(score).ok());
    let clients = map.section("clients", clients).map(Box::new);
    let content = map.section("content", content).map(Box::new);
    let policy = map.section("policy", policy).unwrap_or_default();
    let layer = policy.layer.clone();
    let settings = name.map(|name| StateSettings {
        name,
        internet_relays,
        arc_sealers,
        view_age_max_ms,
        client_score_max,
        clients,
        content,
        rules: None,
        policy: layer,
    });
    StateDraft { policy, settings }
}

/// A department's file.
pub(super) fn department(map: &mut Map<'_, '_>) -> DepartmentDraft {
    let id = map.required("department", |node| Ok(placed(node, node.parsed(DepartmentId::parse)?)));
    let name = map.required("name", |node| node.parsed(name_for_people));
    map.at_least_one("domains");
    let domains = map.list("domains", |node| Ok(placed(node, node.parsed(Domain::parse)?))).unwrap_or_default();
    map.at_least_one("next_hops");
    let next_hops = next_hops(map, "next_hops").unwrap_or_default();
    let sources = map.list("sources", |node| Ok(placed(node, node.parsed(network)?))).unwrap_or_default();
    let services = map.list("services", |node| node.parsed(network)).unwrap_or_default();
    let recipients = map.list("recipients", |node| node.parsed(local_part));
    let verification = map.optional("verify_recipients", |node| node.parsed(verification)).unwrap_or_default();
    let policy = map.section("policy", policy).unwrap_or_default();
    let department = id.as_ref().zip(name).map(|(id, name)| Department {
        id: id.value.clone(),
        name,
        domains: domains.iter().map(|domain| domain.value.clone()).collect(),
        next_hops,
        sources: sources.iter().map(|net| net.value).collect(),
        services,
        recipients: recipients.map(|parts| parts.into_iter().collect()),
        verification,
        policy: policy.layer.clone(),
    });
    DepartmentDraft { id, domains, sources, policy, department }
}

fn policy(map: &mut Map<'_, '_>) -> PolicyDraft {
    const REFUSALS: &[(&str, Refusal)] =
        &[("reject", Refusal::Reject), ("quarantine", Refusal::Quarantine), ("discard", Refusal::Discard)];
    const UNAVAILABLE: &[(&str, Unavailable)] =
        &[("defer", Unavailable::Defer), ("quarantine", Unavailable::Quarantine)];
    let mut thresholds = Vec::new();
    let mut threshold = |node: &Node<'_, '_>| {
        thresholds.push(node.fault(""));
        node.hundredths().map(Score)
    };
    let layer = PolicyLayer {
        tag_at: map.optional("tag_at", &mut threshold),
        quarantine_at: map.optional("quarantine_at", &mut threshold),
        reject_at: map.optional("reject_at", &mut threshold),
        client_refuse_at: map.optional("client_refuse_at", |node| node.hundredths().map(Score)),
        greylist_at: map.optional("greylist_at", |node| node.hundredths().map(Score)),
        recipient_unavailable: map.optional("recipient_unavailable", |node| {
            node.word(&[("accept", AuthUnavailable::Accept), ("defer", AuthUnavailable::Defer)])
        }),
        malware: map.optional("malware", |node| node.word(REFUSALS)),
        blocked_types: map.list("blocked_types", content_kind),
        fingerprints: fingerprints(map),
        blocked_names: blocked_names(map),
        attachment_bytes_max: map.optional("attachment_bytes_max", |node| node.integer(1..=MESSAGE_BYTES_MAX)),
        blocked_type: map.optional("blocked_type", |node| node.word(&BlockedAction::ALL)),
        strip_notice: map.optional("strip_notice", |node| node.parsed(notice)),
        dmarc_failure: map.optional("dmarc_failure", |node| {
            node.word(&[
                ("score", DmarcAction::Score),
                ("follow", DmarcAction::Follow),
                ("quarantine", DmarcAction::Quarantine),
                ("reject", DmarcAction::Reject),
            ])
        }),
        unparsable: map.optional("unparsable", |node| node.word(REFUSALS)),
        virus_scan: map
            .optional("virus_scan", |node| node.word(&[("required", VirusScan::Required), ("off", VirusScan::Off)])),
        virus_unavailable: map.optional("virus_unavailable", |node| node.word(UNAVAILABLE)),
        rescan_after_minutes: map.optional("rescan_after_minutes", |node| node.integer(0..=RESCAN_MINUTES_MAX)),
        rescan_at: map.optional("rescan_at", |node| node.hundredths().map(Score)),
        authentication_unavailable: map.optional("authentication_unavailable", |node| {
            node.word(&[("accept", AuthUnavailable::Accept), ("defer", AuthUnavailable::Defer)])
        }),
        message_bytes_max: map
            .optional("message_bytes_max", |node| node.integer(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX)),
    };
    thresholds.sort_by_key(|place| (place.line, place.column));
    PolicyDraft { layer, thresholds }
}

fn content_kind(node: &Node<'_, '_>) -> Result<ContentKind, Fault> {
    node.word(&ContentKind::ALL.map(|kind| (kind.as_str(), kind)))
}

/// Names of files.
fn blocked_names(map: &mut Map<'_, '_>) -> Option<Vec<NamePattern>> {
    let patterns = map.list("blocked_names", |node| node.parsed(NamePattern::new))?;
    if patterns.len() > PATTERNS_MAX {
        map.fault(format!("blocked_names: {PATTERNS_MAX} patterns at most"));
    }
    Some(patterns)
}

/// What recipients read in the place of an attachment.
fn notice(text: &str) -> Result<String, String> {
    let chars = text.chars().count();
    if text.trim().is_empty() || chars > NOTICE_CHARS_MAX || text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(format!("a text of 1 to {NOTICE_CHARS_MAX} characters in lines is expected"));
    }
    Ok(text.trim_end().to_owned())
}

/// Formats of a department's own.
fn fingerprints(map: &mut Map<'_, '_>) -> Option<Vec<Fingerprint>> {
    let mut faults = Vec::new();
    let read = map.sections("fingerprints", |one| {
        let name = one.required("name", |node| Ok((node.text()?, node.fault(""))));
        let offset = one.optional("offset", |node| node.integer(0..=OFFSET_MAX)).unwrap_or_default();
        let bytes = one.required("bytes", |node| node.parsed(hexadecimal));
        let mask = one.optional("mask", |node| node.parsed(hexadecimal));
        let ((name, place), bytes) = name.zip(bytes)?;
        let made = Fingerprint::new(&name, offset, bytes, mask);
        made.map_err(|error| faults.push((place, error.to_string()))).ok()
    })?;
    for (place, problem) in faults {
        map.fault_at(Fault { problem, ..place });
    }
    if read.len() > FINGERPRINTS_MAX {
        map.fault(format!("{FINGERPRINTS_MAX} fingerprints at most"));
    }
    Some(read.into_iter().flatten().collect())
}

fn next_hops(map: &mut Map<'_, '_>, key: &'static str) -> Option<Vec<NextHop>> {
    let hops = map.sections(key, |hop| {
        let host = hop.required("host", |node| node.parsed(host));
        let port = hop.optional("port", |node| node.integer(1..=u64::from(u16::MAX)));
        let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(SMTP_PORT);
        let tls = hop.optional("tls", |node| {
            node.word(&[
                ("none", TlsRule::None),
                ("opportunistic", TlsRule::Opportunistic),
                ("required", TlsRule::Required),
            ])
        });
        host.map(|host| NextHop { host, port, tls: tls.unwrap_or_default() })
    })?;
    Some(hops.into_iter().flatten().collect())
}

fn placed<T>(node: &Node<'_, '_>, value: T) -> Placed<T> {
    Placed { value, place: node.fault("") }
}

pub(super) fn name_for_people(text: &str) -> Result<String, String> {
    let chars = text.chars().count();
    if text.trim().is_empty() || chars > NAME_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(format!("a name of 1 to {NAME_CHARS_MAX} characters without control characters is expected"));
    }
    Ok(text.to_owned())
}

/// A host name or an IP address.
fn host(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    Domain::parse(text).map(String::from).map_err(|error| format!("{error}: a host name or an IP address is expected"))
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "an IP address or a network such as 10.1.0.0/16 is expected".to_owned())?;
    if net.trunc() != net {
        return Err(format!("has bits beyond its prefix; is {} meant?", net.trunc()));
    }
    let shortest = if net.addr().is_ipv4() { PREFIX_BITS_MIN.0 } else { PREFIX_BITS_MIN.1 };
    if net.prefix_len() < shortest {
        return Err(format!("wider than /{shortest}: too many hosts would speak for the department"));
    }
    Ok(net)
}

/// A local part (RFC 5321 section 4.1.2), in lower case.
fn local_part(text: &str) -> Result<String, String> {
    Address::parse(&format!("{text}@domain.invalid"))
        .map(|address| lower_case(address.local()))
        .map_err(|_| "the part of an address before the @ is expected".to_owned())
}

/// Whom to ask about recipients.
fn verification(text: &str) -> Result<Verification, String> {
    match (text, text.split_once(':')) {
        ("none", _) => Ok(Verification::None),
        ("next_hop", _) => Ok(Verification::NextHop),
        (_, Some(("directory", name))) => {
            member::name(name).map(Verification::Directory).map_err(|error| format!("the directory's name: {error}"))
        }
        _ => Err("one of none, next_hop, directory:NAME is expected".into()),
    }
}

/// `30s`, `10m`, `24h`, `2d` in milliseconds.
pub(super) fn duration_ms(text: &str) -> Result<u64, &'static str> {
    const WANTED: &str = "a time such as 90s, 10m, 24h or 2d is expected, from 1s to 30d";
    let unit_ms = match text.as_bytes().last() {
        Some(b's') => 1000,
        Some(b'm') => 60 * 1000,
        Some(b'h') => 3600 * 1000,
        Some(b'd') => 24 * 3600 * 1000,
        _ => return Err(WANTED),
    };
    let digits = &text[..text.len() - 1];
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WANTED);
    }
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    ms.filter(|ms| VIEW_AGE_MS.contains(ms)).ok_or(WANTED)
}
