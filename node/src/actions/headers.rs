//! The header fields that we add, and those of ours that somebody forged. What is emitted has CRLF line ends only.

use bytes::{BufMut as _, Bytes, BytesMut};
use proto::{time::UnixMs, verdict::Verdict};

use crate::{
    message::{Message, fields::Field},
    policy::{
        blocked::STRIPPED,
        decide::is_stripped,
        evidence::{Authentication, Evidence, Virus},
    },
    smtp::transaction::{Client, Transaction, TrustClass},
};

/// Longest list of reasons, in characters.
const REASONS_CHARS_MAX: usize = 2000;

/// The message as it is handed on or kept: our fields first, then the message without forged ones.
#[must_use]
pub fn stamped(
    message: &Message,
    evidence: &Evidence,
    verdict: &Verdict,
    transaction: &Transaction,
    class: TrustClass,
    host: &str,
    now: UnixMs,
) -> Bytes {
    let mut out = BytesMut::with_capacity(message.bytes.len() + 2048);
    out.put_slice(received(transaction, host, now).as_bytes());
    out.put_slice(authentication_results(&evidence.authentication, transaction, class, host).as_bytes());
    out.put_slice(own(evidence, verdict, class).as_bytes());
    let mut at = 0;
    for field in message.header.fields.iter().filter(|field| is_foreign(field)) {
        out.put_slice(message.bytes.get(at..field.span.start).unwrap_or_default());
        at = field.span.end;
    }
    out.put_slice(message.bytes.get(at..).unwrap_or_default());
    out.freeze()
}

/// RFC 5321 section 4.4, RFC 6531 section 4.3. No `for`: it would tell recipients of each other.
fn received(transaction: &Transaction, host: &str, now: UnixMs) -> String {
    let Client { address, helo, extended, tls, .. } = &transaction.client;
    let with = match (extended, tls, transaction.handling.smtputf8) {
        (_, true, true) => "UTF8SMTPS",
        (_, false, true) => "UTF8SMTP",
        (true, true, false) => "ESMTPS",
        (true, false, false) => "ESMTP",
        (false, _, false) => "SMTP",
    };
    let literal = if address.is_ipv6() { format!("[IPv6:{address}]") } else { format!("[{address}]") };
    let helo = token(helo);
    let id = transaction.id;
    format!("Received: from {helo} ({literal})\r\n\tby {host} with {with} id {id};\r\n\t{}\r\n", now.rfc5322())
}

/// RFC 8601 section 2.2. Of mail from a department nothing but the network tells who sent it.
fn authentication_results(found: &Authentication, transaction: &Transaction, class: TrustClass, host: &str) -> String {
    let mut results: Vec<String> = Vec::new();
    if class == TrustClass::Internet {
        let helo = token(&transaction.client.helo);
        let from = transaction.reverse_path.address().map(|address| token(address.domain().as_str()));
        let spf = found.spf.as_str();
        results.push(match from {
            Some(domain) => format!("spf={spf} smtp.mailfrom={domain}"),
            None => format!("spf={spf} smtp.helo={helo}"),
        });
        if found.dkim.is_empty() {
            results.push("dkim=none".to_owned());
        }
        results.extend(found.dkim.iter().map(|signature| {
            let (result, domain, selector) = (signature.result.as_str(), &signature.domain, &signature.selector);
            format!("dkim={result} header.d={} header.s={}", token(domain), token(selector))
        }));
        let author = found.from_domain.as_ref().map(|domain| format!(" header.from={domain}")).unwrap_or_default();
        results.push(format!("dmarc={}{author}", found.dmarc.as_str()));
        results.push(format!("arc={}", found.arc.as_str()));
        results.push(format!("iprev={} policy.iprev={}", found.reverse.as_str(), transaction.client.address));
    }
    if results.is_empty() {
        results.push("none".to_owned());
    }
    format!("Authentication-Results: {host};\r\n\t{}\r\n", results.join(";\r\n\t"))
}

/// The verdict for recipients and their programs. A suspicious message is tagged with a field of its own: rewriting the
/// subject would break signatures and encoded words.
fn own(evidence: &Evidence, verdict: &Verdict, class: TrustClass) -> String {
    let (disposition, score, version) = (verdict.disposition, verdict.score, verdict.policy_version);
    let class = class.as_str();
    let mut fields = format!("X-Postern-Verdict: {disposition}; score={score}; policy={version}; class={class}\r\n");
    let virus = match &evidence.virus {
        Virus::NotScanned => "off",
        Virus::Clean | Virus::Infected { .. } | Virus::Unavailable { .. } | Virus::Unscannable { .. } => {
            evidence.virus.as_str()
        }
    };
    fields.push_str(&format!("X-Postern-Virus: {virus}\r\n"));
    if verdict.tagged {
        fields.push_str("X-Postern-Tag: suspicious\r\n");
    }
    if is_stripped(verdict) {
        let told = verdict.reasons.iter().filter(|reason| reason.rule == STRIPPED);
        let told: String = told.map(|reason| printable(&reason.text)).collect();
        fields.push_str(&format!("X-Postern-Stripped: {told}\r\n"));
    }
    if !verdict.reasons.is_empty() {
        let mut reasons = String::new();
        for reason in &verdict.reasons {
            let next = format!("{}={} ({})", token(&reason.rule), reason.score, printable(&reason.text));
            if reasons.len() + next.len() > REASONS_CHARS_MAX {
                break;
            }
            if !reasons.is_empty() {
                reasons.push_str(";\r\n\t");
            }
            reasons.push_str(&next);
        }
        fields.push_str(&format!("X-Postern-Reasons: {reasons}\r\n"));
    }
    fields
}

/// Whether a field says what only the node that hands the message on may say. Of `Authentication-Results` all go, whatever
/// authserv-id they bear: a department trusts every node of ours, and none knows the others' names (RFC 8601 section 5
/// allows it).
fn is_foreign(field: &Field) -> bool {
    field.name == "authentication-results" || field.name.starts_with("x-postern-")
}

/// Hostile text where a host name or keyword belongs.
fn token(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let token: String = text.chars().take(255).map(|c| if safe(c) { c } else { '?' }).collect();
    if token.is_empty() { "unknown".to_owned() } else { token }
}

/// Hostile text on one line of printable ASCII, without what could end a comment or an entry.
fn printable(text: &str) -> String {
    let safe = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '(' | ')' | '\\' | ';');
    text.chars().take(200).map(|c| if safe(c) { c } else { '?' }).collect()
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
