//! Replies that are the same each time.

use super::reply::Reply;

pub(super) fn out_of_turn(text: &str) -> Reply {
    Reply::permanent(3, (5, 1), text)
}

pub(super) fn hello_first() -> Reply {
    out_of_turn("EHLO first")
}

pub(super) fn mail_first() -> Reply {
    out_of_turn("MAIL first")
}

/// RFC 3463 section 3.4: X.3.2, the system is not accepting messages.
pub(super) fn drained() -> Reply {
    Reply::temporary(21, (3, 2), "this server takes no new mail now; try another one")
}

pub(super) fn outdated() -> Reply {
    Reply::temporary(51, (3, 0), "policy is not up to date here; come back later")
}
