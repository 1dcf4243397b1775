//! The way that the header says it came.

use super::{Criterion, Group, bad};

pub(super) const GROUP: Group =
    Group { name: "route", about: "Received fields: whether the way is a possible one", criteria: &CRITERIA };

const CRITERIA: [Criterion; 3] = [
    bad("RECEIVED_FROM_BARE_NAME", "a server on the way called itself by no name of the Internet", |f| {
        f.received.iter().any(|received| {
            received.strip_prefix("from ").and_then(|rest| rest.split_whitespace().next()).is_some_and(|name| {
                name.starts_with('[') || name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            })
        })
    }),
    bad("RECEIVED_HELO_USER", "a client on the way called itself user or ylmf-pc", |f| {
        f.received.iter().any(|received| {
            ["from user ", "from ylmf-pc", "helo user", "(helo=user", "from localhost (unknown"]
                .iter()
                .any(|mark| received.contains(mark))
        })
    }),
    // Not what came `with HTTP`: so mailing services and webmail take all of theirs.
    bad("RECEIVED_WEB", "it was sent by a script of a web server", |f| {
        f.received.iter().any(|received| received.contains("(apache") || received.contains("by www-data"))
    }),
];
