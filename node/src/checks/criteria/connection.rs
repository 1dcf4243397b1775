//! Who has handed the message over: how the DNS names its address, what it calls itself, and how it came. All of it is seen by
//! ourselves; what speaks for a client is only a name that leads back to its address. Nothing is said of one that nobody has looked at.

use super::{Criterion, Group, bad, good, hint};
use crate::{
    checks::{
        facts::Facts,
        names::{is_abused_suffix, is_generic, is_line, is_mail_provider, is_mailing_service, is_rented},
        phrases::FREEMAIL,
    },
    smtp::transaction::{Client, ClientName},
};

pub(super) const GROUP: Group = Group {
    name: super::CONNECTION,
    about: "the client: the name of its address, what it calls itself, TLS, and what it sends for whom",
    criteria: &CRITERIA,
};

const CRITERIA: [Criterion; 12] = [
    bad("NO_REVERSE_NAME", "the client's address has no name that leads back to it", |f| {
        seen(f).is_some_and(|client| client.name == ClientName::None)
    }),
    bad("GENERIC_REVERSE_NAME", "the client's name is made of its address", |f| {
        seen(f).is_some_and(|client| likely_name(client).is_some_and(|name| is_generic(&name, client.address)))
    }),
    bad("CLIENT_ON_A_LINE", "the client is named as a subscriber's line is", |f| named(f, is_line)),
    bad("CLIENT_RENTED", "the client is named as a rented machine is", |f| named(f, is_rented)),
    bad("HELO_UNLIKE_NAME", "the client calls itself otherwise than its address is named", |f| {
        seen(f).is_some_and(|client| match &client.name {
            ClientName::Known(name) => is_host(&client.helo) && ending(&client.helo) != ending(name),
            ClientName::None | ClientName::Unanswered | ClientName::Unasked => false,
        })
    }),
    bad("BAD_HELO", "the client calls itself by what is no name on the Internet", |f| {
        seen(f).is_some_and(|client| !client.helo.starts_with('[') && !is_host(&client.helo))
    }),
    bad("HELO_ADDRESS", "the client calls itself by an address", |f| {
        seen(f).is_some_and(|client| client.helo.starts_with('[') || client.helo.parse::<std::net::IpAddr>().is_ok())
    }),
    hint("NO_TLS", "it came without encryption, which was offered", |f| {
        seen(f).is_some_and(|client| client.declined_tls)
    }),
    hint("FIRST_HOP", "nobody has handled it before the client", |f| seen(f).is_some() && f.received.is_empty()),
    bad("CLIENT_ABUSED_SUFFIX", "the client is named below a suffix that is often abused", |f| {
        seen(f).is_some_and(|client| {
            is_abused_suffix(&helo(client)) || likely_name(client).is_some_and(|name| is_abused_suffix(&name))
        })
    }),
    bad("FREEMAIL_ELSEWHERE", "the author's free mailbox is not where it comes from", |f| {
        let posted = f.message.has("list-id") || f.message.has("list-post");
        FREEMAIL.contains(&f.author_domain.as_str())
            && !posted
            && seen(f).is_some_and(|client| match &client.name {
                ClientName::Known(name) => !is_mail_provider(name),
                ClientName::None => true,
                // What it calls itself speaks for nobody.
                ClientName::Unanswered | ClientName::Unasked => false,
            })
    }),
    good("MAILING_SERVICE", "a well-known mailing service has sent it", |f| {
        seen(f).and_then(own_name).is_some_and(is_mailing_service)
    }),
];

/// The client, when somebody has looked at it.
fn seen<'f>(f: &'f Facts<'_>) -> Option<&'f Client> {
    Some(&f.transaction.client).filter(|client| client.name != ClientName::Unasked)
}

/// The name that leads back to its address.
fn own_name(client: &Client) -> Option<&str> {
    match &client.name {
        ClientName::Known(name) => Some(name),
        ClientName::None | ClientName::Unanswered | ClientName::Unasked => None,
    }
}

/// What it calls itself, as the DNS would write it.
fn helo(client: &Client) -> String {
    client.helo.trim_end_matches('.').to_ascii_lowercase()
}

/// The name that leads back to its address, or when the DNS has not answered, what it calls itself: good enough to speak against it.
fn likely_name(client: &Client) -> Option<String> {
    match &client.name {
        ClientName::Known(name) => Some(name.clone()),
        ClientName::Unanswered => Some(helo(client)),
        ClientName::None | ClientName::Unasked => None,
    }
}

fn named(f: &Facts<'_>, is: fn(&str) -> bool) -> bool {
    seen(f).and_then(likely_name).is_some_and(|name| is(&name))
}

/// The last two labels: what has the same may still belong to two, but what has not belongs to two.
fn ending(host: &str) -> String {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host.rmatch_indices('.').nth(1).map_or(host.as_str(), |(at, _)| &host[at + 1..]).to_owned()
}

/// Whether it can be the name of a host on the Internet.
fn is_host(name: &str) -> bool {
    let local = [".local", ".lan", ".internal", ".localdomain", ".home", ".localhost", ".openstacklocal"];
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.contains('.')
        && !name.starts_with('[')
        && !local.iter().any(|end| name.ends_with(end))
        && name.rsplit('.').next().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
