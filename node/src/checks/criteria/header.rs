//! The form of the header: what no usual mail program writes.

use super::{Criterion, Group, bad, hint};
use crate::checks::facts::Facts;

pub(super) const GROUP: Group =
    Group { name: "header", about: "missing, doubled, malformed and forged fields", criteria: &CRITERIA };

const CRITERIA: [Criterion; 14] = [
    hint("MISSING_SUBJECT", "it has no subject", |f| !f.message.has("subject")),
    hint("MISSING_MIME_VERSION", "it has MIME fields without a version", |f| {
        f.message.has("content-type") && !f.message.has("mime-version")
    }),
    bad("HEADER_SPACES", "its header is padded with spaces", |f| {
        ["from", "subject", "to", "reply-to"].iter().any(|name| {
            f.message.header.named(name).next().is_some_and(|field| {
                let value = field.value(&f.message.bytes);
                value.starts_with(b"  ") || value.ends_with(b"  \r\n")
            })
        })
    }),
    hint("SUBJECT_ENCODED_NEEDLESSLY", "its subject is encoded without need", |f| encoded_needlessly(f, "subject")),
    hint("NAME_ENCODED_NEEDLESSLY", "the author's name is encoded without need", |f| encoded_needlessly(f, "from")),
    hint("PRIORITY_HIGH", "it claims to be urgent", |f| {
        f.raw("x-priority").is_some_and(|raw| raw.trim_start().starts_with(['1', '2']))
            || f.raw("importance").is_some_and(|raw| raw.trim().eq_ignore_ascii_case("high"))
    }),
    bad("SIGNATURE_OBSOLETE", "it is signed in a way that was given up", |f| {
        f.message.has("domainkey-signature") || f.raw("dkim-signature").is_some_and(|raw| raw.contains("rsa-sha1"))
    }),
    hint("SIGNED_BY_ANOTHER", "none of its signatures claims to be of the author's domain", |f| {
        f.message.has("dkim-signature")
            && !f.author_site.is_empty()
            && !f.message.header.named("dkim-signature").any(|field| signs_for(&field.text(&f.message.bytes), f))
    }),
    hint("DISPOSITION_ASKED", "it asks to be told when it is read", |f| f.message.has("disposition-notification-to")),
    hint("MAILER_OF_MASSES", "its program is one for masses", |f| {
        ["x-mailer", "user-agent", "x-mailer-version"].iter().filter_map(|name| f.raw(name)).any(|raw| {
            let raw = raw.to_ascii_lowercase();
            [
                "phpmailer",
                "leaf php",
                "bulk",
                "blast",
                "swiftmail",
                "massmail",
                "mailking",
                "the bat!",
                "emailer",
                "sendblaster",
            ]
            .iter()
            .any(|mailer| raw.contains(mailer))
        })
    }),
    bad("SCRIPT_NAMED", "a script on a web site has sent it", |f| {
        f.message.has("x-php-originating-script") || f.message.has("x-php-script") || f.message.has("x-source-args")
    }),
    hint("MIME_DEFECTS", "its parts are not well formed", |f| f.message.defects.iter().any(|defect| !defect.breaks())),
    hint("ERRORS_TO", "errors go elsewhere", |f| f.message.has("errors-to") && !f.message.has("list-id")),
    hint("FIELDS_UNKNOWN", "its header holds random names", |f| {
        f.message
            .header
            .fields
            .iter()
            .filter(|field| {
                let name = field.name.strip_prefix("x-").unwrap_or(&field.name);
                crate::checks::names::is_random(name)
            })
            .count()
            >= 2
    }),
];

/// Whether a signature's domain (`d=`, RFC 6376 section 3.5) is the author's, or above or below it.
fn signs_for(signature: &str, f: &Facts<'_>) -> bool {
    signature.split(';').any(|tag| {
        let (name, domain) = tag.split_once('=').unwrap_or_default();
        let (domain, author) = (domain.trim().to_ascii_lowercase(), f.author_domain.as_str());
        let is_below =
            |one: &str, other: &str| one.strip_suffix(other).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        name.trim() == "d"
            && (Facts::site(&domain) == f.author_site || is_below(&domain, author) || is_below(author, &domain))
    })
}

/// Whether a field is encoded (RFC 2047) though all of it is ASCII.
fn encoded_needlessly(f: &Facts<'_>, name: &str) -> bool {
    let Some(raw) = f.raw(name) else { return false };
    let decoded_ascii = match name {
        "subject" => f.message.subject.is_ascii(),
        _ => f.message.from.iter().all(|mailbox| mailbox.name.is_ascii()),
    };
    decoded_ascii && raw.contains("=?") && raw.contains("?=")
}
