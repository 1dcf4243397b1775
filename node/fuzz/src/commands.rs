//! Whole conversations: lines, DATA, BDAT and all that a client may do to them.

#[path = "../../tests/conversations/fixture.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
pub(crate) mod fixture;
#[path = "../../tests/conversations/machine.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod machine;

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use node::{
    limits::Limits,
    smtp::{
        demand::TlsDemand,
        step::Settings,
        transaction::{Listener, Transaction, TrustClass},
    },
};
use proto::view::View;

use self::machine::Machine;
use super::pieces::Pieces;

/// Small, so that a short input reaches them.
const LINE_BYTES_MAX: usize = 200;
const RECIPIENTS_MAX: usize = 3;
const MESSAGE_BYTES_MAX: usize = 6000;

static VIEWS: LazyLock<[Arc<View>; 4]> = LazyLock::new(|| {
    [fixture::view(), fixture::view_with_drain(), fixture::view_without_health(), Arc::new(View::empty())]
});

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let limits = Limits {
        line_bytes_max: LINE_BYTES_MAX,
        recipients_max: RECIPIENTS_MAX,
        message_bytes_max: MESSAGE_BYTES_MAX,
        ..Limits::default()
    };
    fixture::settings(limits)
});

/// One connection. Of its first byte the lowest bits say where the client comes from (four places) and whether TLS is
/// offered, and the second says how its bytes are cut. In the stream, six bytes that UTF-8 does not have are not sent but
/// change the world: 0xf5 whether the view is fresh, 0xf6 whether there is room for a message, 0xf7 to 0xfa which view holds.
///
/// # Panics
/// When a reply is malformed, when a message is delivered that no transaction allows or that is not clean, when more is kept
/// than the bounds say, or when anything is left of a transaction after its end.
pub fn commands(input: &[u8]) {
    let [place, cuts, stream @ ..] = input else { return };
    let (listener, client) = match place % 4 {
        0 => (Listener::Internet, "192.0.2.7"),
        1 => (Listener::Internet, "192.0.2.50"),
        2 => (Listener::Departments, "10.1.0.5"),
        _ => (Listener::Departments, "10.3.0.5"),
    };
    let client: IpAddr = client.parse().expect("an address");
    let demand = if place & 4 == 0 { TlsDemand::Offered } else { TlsDemand::None };
    let machine = Machine::new(SETTINGS.clone(), client, listener, Arc::clone(&VIEWS[0])).demanding(demand);
    let mut watch = Watch { machine, listener, lines: 1, replies: 0, accepted: 0, closed: false };
    let greeting = watch.machine.greeting();
    watch.replies_are_well_formed(&greeting);
    for piece in Pieces::new(stream, *cuts) {
        for part in piece.chunk_by(|one, other| *one < 0xf5 && *other < 0xf5) {
            match part[0] {
                0xf5 => watch.machine.view_fresh = !watch.machine.view_fresh,
                0xf6 => watch.machine.room = !watch.machine.room,
                view @ 0xf7..=0xfa => watch.machine.view = Arc::clone(&VIEWS[usize::from(view - 0xf7)]),
                _ => watch.send(part),
            }
        }
    }
}

/// A machine and what was seen of it from outside.
struct Watch {
    machine: Machine,
    listener: Listener,
    /// Lines that were sent, and one for the greeting.
    lines: usize,
    /// Replies that came, an answer in several lines counted once.
    replies: usize,
    /// MAIL commands that were accepted.
    accepted: usize,
    closed: bool,
}

impl Watch {
    fn send(&mut self, part: &[u8]) {
        let (before, was_under_tls) = (self.machine.messages.len(), self.machine.session.under_tls());
        let said = self.machine.send(part);
        self.lines += part.iter().filter(|byte| **byte == b'\n').count();
        self.replies_are_well_formed(&said);
        self.nothing_is_left_over();
        let delivered = self.machine.messages.get(before..).expect("none is taken back");
        assert_eq!(said.matches("250 2.0.0 taken").count(), delivered.len(), "what is taken is told");
        assert!(self.machine.messages.len() <= self.accepted, "a message needs a MAIL of its own");
        for (transaction, bytes) in delivered {
            is_allowed(transaction, self.listener);
            is_clean(bytes);
            assert!(transaction.client.tls || !was_under_tls, "TLS does not end");
        }
    }

    fn replies_are_well_formed(&mut self, said: &str) {
        assert!(said.is_empty() || !self.closed, "nothing after the farewell");
        let mut code_before: Option<&str> = None;
        for line in said.split_inclusive('\n') {
            let line = line.strip_suffix("\r\n").expect("a reply ends with CRLF");
            match line {
                "(closed)" => self.closed = true,
                "(handshake)" => assert!(self.machine.session.under_tls(), "after STARTTLS"),
                _ => {
                    code_before = self.reply_line(line, code_before);
                    continue;
                }
            }
            assert_eq!(code_before, None, "between replies");
        }
        assert_eq!(code_before, None, "the last line of a reply came");
        assert_eq!(self.closed, self.machine.closed);
        assert!(self.replies <= self.lines, "no line has two answers");
    }

    /// The code, when more lines of the reply follow.
    fn reply_line<'l>(&mut self, line: &'l str, code_before: Option<&str>) -> Option<&'l str> {
        assert!(line.len() <= 510 && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        let (code, rest) = line.split_at(3);
        assert!(code_before.is_none_or(|before| before == code), "one code a reply: {line:?}");
        assert!(matches!(&code[..1], "2" | "3" | "4" | "5") && code.bytes().all(|byte| byte.is_ascii_digit()));
        if matches!(&code[..1], "4" | "5") {
            assert!(rest[1..].starts_with(&code[..1]) && rest[2..].starts_with('.'), "the same class: {line:?}");
        }
        self.accepted += usize::from(rest.starts_with(" 2.1.0 "));
        if rest.starts_with('-') {
            return Some(code);
        }
        assert!(rest.starts_with(' '), "{line:?}");
        self.replies += 1;
        None
    }

    fn nothing_is_left_over(&self) {
        let machine = &self.machine;
        if !machine.closed {
            assert!(machine.unread_bytes() <= LINE_BYTES_MAX, "no more is kept than a line");
        }
        assert!(machine.kept_bytes() <= MESSAGE_BYTES_MAX, "no more is kept than a message");
        if !machine.session.in_transaction() {
            let reading = machine.reads_data() || machine.chunk_left() > 0;
            assert!(reading || machine.kept_bytes() == 0, "nothing outlives its transaction");
            assert!(machine.session.view().is_none(), "not even the view");
        }
        assert!(!(machine.closed && machine.session.in_transaction()), "closing ends the transaction");
    }
}

/// Promises 3 to 5: never an open relay, and nobody speaks for a department but itself and its services.
fn is_allowed(transaction: &Transaction, listener: Listener) {
    assert!((1..=RECIPIENTS_MAX).contains(&transaction.recipients.len()), "at least one and no more than allowed");
    assert!(!transaction.client.helo.is_empty(), "EHLO or HELO first");
    assert!(transaction.view.policy_version > 0, "no mail without a policy");
    let departments: &[&str] = match transaction.view.policy_version {
        1 => &["interior.gov.test", "health.gov.test"],
        _ => &["interior.gov.test"],
    };
    let from = transaction.reverse_path.address().map(|address| address.domain().as_str());
    let claimed = from.and_then(|from| departments.iter().find(|own| is_within(from, own)).copied());
    match listener {
        Listener::Internet => {
            let service = transaction.client.address.to_string() == "192.0.2.50";
            assert!(claimed.is_none() || claimed == Some("interior.gov.test") && service, "{from:?}");
            assert_eq!(transaction.client.department, None);
        }
        Listener::Departments => {
            assert!(from.is_none() || claimed == Some("interior.gov.test"), "{from:?}");
            let department = transaction.client.department.as_ref().map(ToString::to_string);
            assert_eq!(department.as_deref(), Some("interior"));
        }
    }
    for to in &transaction.recipients {
        let domain = to.address.domain().as_str();
        let inside = departments.contains(&domain);
        assert!(inside || listener == Listener::Departments, "relayed to {domain}");
        assert!(
            inside || !departments.iter().any(|own| is_within(domain, own)),
            "{domain} has left the private network"
        );
        assert!(!inside || !to.address.local().contains(['%', '!', '@', ':']), "{}", to.address);
        let class = match listener {
            Listener::Internet => TrustClass::Internet,
            Listener::Departments if inside => TrustClass::Interdepartmental,
            Listener::Departments => TrustClass::Outbound,
        };
        assert_eq!((to.class, to.department().is_some()), (class, inside), "{domain}");
    }
}

fn is_within(domain: &str, own: &str) -> bool {
    domain.strip_suffix(own).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

/// Threat 2: no server behind us can see two messages in it.
fn is_clean(bytes: &[u8]) {
    assert!(bytes.len() <= MESSAGE_BYTES_MAX);
    assert!(bytes.is_empty() || bytes.ends_with(b"\r\n"));
    let text = bytes.split(|byte| *byte == b'\n');
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    for line in text.take(lines) {
        assert!(line.ends_with(b"\r") && !line[..line.len() - 1].contains(&b'\r'), "CRLF and nothing else");
    }
    assert!(!bytes.contains(&0));
}
