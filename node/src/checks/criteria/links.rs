//! Where its links go, and whether that is where they seem to go.

use super::{Criterion, Group, bad, good, hint};
use crate::{
    checks::{
        facts::Facts,
        names::{is_abused_suffix, is_free_host, is_random},
        phrases::SHORTENERS,
    },
    message::html::host_of,
};

pub(super) const GROUP: Group =
    Group { name: "links", about: "hosts, paths and shown texts of links", criteria: &CRITERIA };

const CRITERIA: [Criterion; 23] = [
    bad("LINK_SHOWS_OTHER_HOST", "a link shows another host than it goes to", |f| {
        f.text.html.links.iter().any(|link| match (host_of(&link.shown), link.host()) {
            (Some(shown), Some(host)) => Facts::site(&shown) != Facts::site(&host),
            (Some(_), None) | (None, Some(_) | None) => false,
        })
    }),
    bad("LINK_TO_ADDRESS", "a link goes to a bare address", |f| f.hosts.iter().any(|host| is_bare_address(host))),
    bad("LINK_PUNYCODE", "a link's host is written to look like another", |f| {
        f.hosts.iter().any(|host| host.split('.').any(|label| label.starts_with("xn--")) || !host.is_ascii())
    }),
    bad("LINK_SHORTENER", "a link hides where it goes", |f| {
        f.hosts.iter().any(|host| SHORTENERS.contains(&host.as_str()))
    }),
    bad("LINK_WITH_USER", "a link pretends to go to another host", |f| f.link_with_user),
    bad("LINK_FREE_HOST", "a link goes to a page that anybody can put up", |f| {
        f.hosts.iter().any(|host| is_free_host(host))
    }),
    hint("LINK_REDIRECTS", "a link goes through another site", |f| {
        f.targets.iter().any(|target| {
            let rest = target.get(8..).unwrap_or_default();
            ["http://", "https://", "http%3a", "https%3a"].iter().any(|inner| rest.contains(inner))
        })
    }),
    bad("LINK_ENCODED", "the letters of a link are encoded without need", |f| {
        f.targets.iter().any(|target| encoded_letters(target) >= 4)
    }),
    bad("LINK_ABUSED_SUFFIX", "a link's host is of a kind that is often abused", |f| {
        // The author's own is told already.
        f.hosts.iter().any(|host| is_abused_suffix(host) && Facts::site(host) != f.author_site)
    }),
    bad("LINK_RANDOM_HOST", "a link's host has a random name", |f| {
        f.hosts.iter().any(|host| host.split('.').next().is_some_and(|label| label.len() > 3 && is_random(label)))
    }),
    hint("LINK_DEEP_HOST", "a link's host is far below another", |f| {
        f.hosts.iter().any(|host| host.matches('.').count() >= 4)
    }),
    hint("LINK_LONG_TOKEN", "a link carries a long code", |f| {
        f.targets.iter().any(|target| longest_token(target) >= 40)
    }),
    bad("LINK_PORT", "a link goes to an odd port", |f| {
        f.targets.iter().any(|target| {
            let authority =
                target.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
            authority
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 80 && port != 443))
        })
    }),
    hint("LINK_NAMES_READER", "a link carries the reader's address", |f| {
        f.raw("to").is_some_and(|to| {
            let to = to.to_ascii_lowercase();
            let address = to.split(|c: char| c.is_whitespace() || "<>,;\"".contains(c)).find(|word| word.contains('@'));
            address.is_some_and(|address| address.len() > 5 && f.targets.iter().any(|target| target.contains(address)))
        })
    }),
    hint("LINKS_ALL_ELSEWHERE", "no link goes to the author's domain", |f| {
        !f.link_sites.is_empty() && !f.author_site.is_empty() && !f.link_sites.contains(&f.author_site)
    }),
    hint("LINKS_ONE_SITE", "all of its many links go to one place elsewhere", |f| {
        let elsewhere = f.link_sites.first().is_some_and(|site| *site != f.author_site);
        f.hosts.len() >= 3 && f.link_sites.len() == 1 && elsewhere
    }),
    hint("LINKS_ONE_TARGET", "all of its links are the same", |f| {
        let html = &f.text.html.links;
        html.len() >= 2 && html.iter().all(|link| link.target == html[0].target)
    }),
    hint("MANY_LINKS", "it has many links", |f| f.hosts.len() > 60),
    hint("SHORT_WITH_LINK", "it is little more than a link", |f| {
        !f.hosts.is_empty()
            && f.words.len() < 250
            && !f.message.has("list-id")
            && !f.link_sites.contains(&f.author_site)
    }),
    hint("LINK_CLICK_HERE", "a link says click here", |f| {
        f.text.html.links.iter().any(|link| {
            let shown = link.shown.to_lowercase();
            [
                "click here",
                "click now",
                "here",
                "log in",
                "login",
                "sign in",
                "verify",
                "confirm",
                "update now",
                "start now",
                "view message",
                "hier klicken",
                "clique aqui",
                "haga clic",
            ]
            .iter()
            .any(|words| shown == *words || (words.len() > 6 && shown.contains(words)))
        })
    }),
    bad("LINK_SIGN_IN_PATH", "a link leads to a page for signing in", |f| {
        f.targets.iter().any(|target| {
            [
                "/login",
                "/signin",
                "/verify",
                "/webmail",
                "/wp-content",
                "/wp-includes",
                "/wp-admin",
                ".php?",
                "/secure",
                "/update",
                "/confirm",
            ]
            .iter()
            .any(|path| target.contains(path))
        })
    }),
    good("LINKS_OWN", "its links go to the author's domain", |f| f.link_sites.contains(&f.author_site)),
    good("NO_LINKS", "it has no links", |f| f.hosts.is_empty()),
];

fn is_bare_address(host: &str) -> bool {
    host.parse::<std::net::Ipv4Addr>().is_ok()
        || host.starts_with('[')
        || (!host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Letters that are written as `%` and two digits (RFC 3986 section 2.3 says not to), in a target in lower case.
fn encoded_letters(target: &str) -> usize {
    let letters = target.split('%').skip(1).filter_map(|rest| u8::from_str_radix(rest.get(..2)?, 16).ok());
    letters.filter(u8::is_ascii_alphabetic).count()
}

fn longest_token(target: &str) -> usize {
    let path = target.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let tokens = path.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
    tokens.map(str::len).max().unwrap_or_default()
}
