//! What EHLO announces.

use super::xclient;
use crate::limits::Limits;

/// The keywords for a client: whether TLS is offered to it and it is under TLS, and whether it may say XCLIENT.
#[must_use]
pub fn keywords(limits: &Limits, (offered, tls): (bool, bool), xclient: bool) -> Vec<String> {
    let mut lines: Vec<String> = vec![
        "PIPELINING".into(),
        format!("SIZE {}", limits.message_bytes_max),
        "8BITMIME".into(),
        "SMTPUTF8".into(),
        "DSN".into(),
        "CHUNKING".into(),
        "ENHANCEDSTATUSCODES".into(),
        // RFC 9422.
        format!("LIMITS RCPTMAX={}", limits.recipients_max),
    ];
    if offered && !tls {
        lines.push("STARTTLS".into());
    }
    // RFC 8689 section 2: never in the clear.
    if tls {
        lines.push("REQUIRETLS".into());
    }
    if xclient {
        lines.push(xclient::KEYWORD.into());
    }
    lines
}
