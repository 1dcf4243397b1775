//! The Message-ID: whether there is one, and whether it is of who sent the message.

use super::{Criterion, Group, bad, good, hint};
use crate::checks::facts::Facts;

pub(super) const GROUP: Group =
    Group { name: "message-id", about: "the Message-ID, its form and its host", criteria: &CRITERIA };

const CRITERIA: [Criterion; 7] = [
    bad("MISSING_MESSAGE_ID", "it has no Message-ID", |f| !f.message.has("message-id")),
    bad("MESSAGE_ID_FORM", "its Message-ID has no usual form", |f| {
        f.raw("message-id").is_some_and(|raw| {
            let raw = raw.trim();
            !(raw.starts_with('<') && raw.ends_with('>') && raw.matches('@').count() == 1)
        })
    }),
    bad("MESSAGE_ID_HOST_BARE", "its Message-ID is of no host on the Internet", |f| {
        host(f).is_some_and(|host| !host.contains('.') || host.ends_with(".local") || host.ends_with("localdomain"))
    }),
    bad("MESSAGE_ID_ADDRESS", "its Message-ID is of a bare address", |f| {
        host(f).is_some_and(|host| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok())
    }),
    hint("MESSAGE_ID_ELSEWHERE", "its Message-ID is of neither the author nor the sender", |f| {
        host(f).is_some_and(|host| {
            let site = Facts::site(&host);
            host.contains('.') && site != f.author_site && f.return_site.as_ref().is_none_or(|sender| *sender != site)
        })
    }),
    hint("MESSAGE_ID_LONG", "its Message-ID is very long", |f| f.raw("message-id").is_some_and(|raw| raw.len() > 110)),
    good("MESSAGE_ID_OWN", "its Message-ID is of the author's domain", |f| {
        host(f).is_some_and(|host| Facts::site(&host) == f.author_site)
    }),
];

fn host(f: &Facts<'_>) -> Option<String> {
    let raw = f.raw("message-id")?;
    let (_, host) = raw.trim().trim_end_matches('>').rsplit_once('@')?;
    Some(host.to_ascii_lowercase())
}
