//! What holds for every conversation, found with random ones.

use node::{
    limits::Limits,
    smtp::{
        demand::TlsDemand,
        transaction::{Listener, Transaction, TrustClass},
    },
};
use proptest::prelude::*;

use crate::{fixture, machine::Machine};

const PATHS: &[&str] = &[
    "",
    "anna@interior.gov.test",
    "Anna@Interior.gov.test",
    "ben@health.gov.test",
    "nobody@health.gov.test",
    "x@a.example",
    "y@a.example",
    "a%b.example@interior.gov.test",
    "@interior.gov.test:a@b.example",
    "a@sub.interior.gov.test",
    "\"a@b.example\"@interior.gov.test",
    "a@[127.0.0.1]",
    "postmaster",
    "a b@c.example",
    "j\u{fc}rgen@interior.gov.test",
    "x@m\u{fc}nchen.example",
];

fn command() -> impl Strategy<Value = String> {
    let path = || proptest::sample::select(PATHS);
    prop_oneof![
        2 => Just("EHLO c.example".to_owned()),
        1 => Just("HELO c.example".to_owned()),
        6 => path().prop_map(|path| format!("MAIL FROM:<{path}>")),
        3 => (path(), parameters()).prop_map(|(path, asked)| format!("MAIL FROM:<{path}>{asked}")),
        3 => (path(), parameters()).prop_map(|(path, asked)| format!("RCPT TO:<{path}>{asked}")),
        1 => (0_u64..200_000_000).prop_map(|size| format!("MAIL FROM:<x@a.example> SIZE={size}")),
        8 => path().prop_map(|path| format!("RCPT TO:<{path}>")),
        4 => Just("DATA".to_owned()),
        4 => (0_u64..80, proptest::bool::ANY).prop_map(|(size, last)| {
            format!("BDAT {size}{}", if last { " LAST" } else { "" })
        }),
        1 => Just("RSET".to_owned()),
        1 => Just("STARTTLS".to_owned()),
        1 => Just("VRFY anna".to_owned()),
        1 => Just("XCLIENT ADDR=10.1.0.9 HELO=d.example PROTO=ESMTP".to_owned()),
        1 => Just("XCLIENT NAME=d.example".to_owned()),
        1 => "[A-Z]{4}[ -~]{0,20}".prop_filter("not the end", |line| {
            !line.starts_with("QUIT") && !line.starts_with("BDAT")
        }),
    ]
}

fn parameters() -> impl Strategy<Value = String> {
    const ALL: &[&str] = &[
        " SMTPUTF8",
        " REQUIRETLS",
        " RET=HDRS",
        " ENVID=QQ+2B1",
        " NOTIFY=NEVER",
        " NOTIFY=SUCCESS,DELAY",
        " ORCPT=rfc822;a@b.example",
        " ORCPT=utf-8;\u{fc}@b.example",
        " BODY=8BITMIME",
        " X=1",
    ];
    proptest::collection::vec(proptest::sample::select(ALL), 0..4).prop_map(|words| words.concat())
}

fn machine(listener: Listener, proxy: bool) -> Machine {
    let limits = Limits { errors_max: 10_000, idle_commands_max: 10_000, ..Limits::default() };
    let client = match listener {
        Listener::Internet => "192.0.2.7",
        Listener::Departments => "10.1.0.5",
    };
    let mut settings = fixture::settings(limits);
    if proxy {
        settings.xclient = vec!["192.0.2.7/32".parse().expect("a network"), "10.1.0.5/32".parse().expect("a network")];
    }
    let machine = Machine::new(settings, client.parse().expect("an address"), listener, fixture::view());
    let mut machine = machine.demanding(TlsDemand::Offered);
    machine.greeting();
    machine
}

fn listener() -> impl Strategy<Value = Listener> {
    prop_oneof![Just(Listener::Internet), Just(Listener::Departments)]
}

/// What RFC 5321 section 4.1.4 lets a client believe after the replies that it got.
#[derive(Debug, Default)]
struct Model {
    hello: bool,
    mail: bool,
    recipients: usize,
    /// Bytes of the message that came in chunks; `None` before the first one.
    chunked: Option<u64>,
    /// The MAIL that holds, with its parameters.
    asked: String,
    tls: bool,
}

impl Model {
    /// What MAIL asked belongs to its transaction and to no other.
    fn asked_was_kept(&self, transaction: &Transaction) -> Result<(), TestCaseError> {
        let handling = &transaction.handling;
        prop_assert_eq!(handling.smtputf8, self.asked.contains(" SMTPUTF8"));
        prop_assert_eq!(handling.require_tls, self.asked.contains(" REQUIRETLS"));
        prop_assert_eq!(handling.returned.is_some(), self.asked.contains(" RET="));
        prop_assert_eq!(handling.envelope_id.is_some(), self.asked.contains(" ENVID="));
        Ok(())
    }

    fn heard(&mut self, line: &str, code: &str) -> Result<(), TestCaseError> {
        let verb = line.get(..4).unwrap_or(line).to_ascii_uppercase();
        match (verb.as_str(), code) {
            ("EHLO" | "HELO", "250") => (self.hello, self.mail) = (true, false),
            // XCLIENT with HELO= stands for a greeting.
            ("XCLI", "220") => (self.hello, self.mail) = (line.contains("HELO="), false),
            ("STAR", "220") => (self.hello, self.mail, self.tls) = (false, false, true),
            ("RSET", "250") => self.mail = false,
            ("BDAT", _) if !line.ends_with("LAST") => {
                prop_assert_eq!(code == "250", self.mail && self.recipients > 0, "{}", line);
                let bytes: u64 = line.split(' ').nth(1).and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
                if code == "250" {
                    self.chunked = Some(self.chunked.unwrap_or_default() + bytes);
                } else {
                    // Whatever was wrong, what follows is no part of this transaction.
                    self.mail = false;
                }
            }
            ("MAIL", "250") => {
                prop_assert!(self.hello && !self.mail, "MAIL was out of order");
                (self.mail, self.recipients, self.chunked) = (true, 0, None);
                line.clone_into(&mut self.asked);
                prop_assert!(line.is_ascii() || line.contains(" SMTPUTF8"), "{}", line);
                prop_assert!(self.tls || !line.contains(" REQUIRETLS"), "{}", line);
            }
            ("RCPT", "250") => {
                prop_assert!(self.mail && self.chunked.is_none(), "RCPT was out of order");
                self.recipients += 1;
                prop_assert!(line.is_ascii() || self.asked.contains(" SMTPUTF8"), "{} after {}", line, self.asked);
            }
            ("DATA", _) => {
                let expected = if self.mail && self.chunked.is_some() {
                    "503"
                } else if self.mail && self.recipients > 0 {
                    "354"
                } else if self.mail {
                    "554"
                } else {
                    "503"
                };
                prop_assert_eq!(code, if line.len() > 4 { code } else { expected });
            }
            _ => {}
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_message_needs_hello_mail_and_rcpt_and_nothing_outlives_its_transaction(
        listener in listener(), proxy in proptest::bool::ANY, commands in proptest::collection::vec(command(), 1..60),
    ) {
        let mut machine = machine(listener, proxy);
        let mut model = Model::default();
        for line in commands {
            let mut said = machine.send(format!("{line}\r\n").as_bytes());
            let (left, taken) = (machine.chunk_left(), machine.messages.len());
            if left > 0 {
                said = machine.send(&b"x".repeat(usize::try_from(left).expect("small")));
            }
            let code = said.get(..3).unwrap_or("none").to_owned();
            model.heard(&line, &code)?;
            if machine.reads_data() {
                prop_assert_eq!(&code, "354");
                prop_assert!(!machine.session.in_transaction());
                let said = machine.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
                prop_assert!(said.starts_with("250 2.0.0 taken"), "{}", said);
                let (transaction, _) = machine.messages.last().expect("a message");
                prop_assert!((1..=model.recipients).contains(&transaction.recipients.len()));
                prop_assert_eq!(transaction.view.policy_version, 1);
                model.asked_was_kept(transaction)?;
                model.mail = false;
            }
            if line.starts_with("BDAT") && line.ends_with("LAST") {
                prop_assert!(code == "250" || machine.messages.len() == taken);
                if code == "250" {
                    prop_assert!(model.mail && model.recipients > 0);
                    let (transaction, bytes) = machine.messages.last().expect("a message");
                    prop_assert!((1..=model.recipients).contains(&transaction.recipients.len()));
                    let said = model.chunked.unwrap_or_default() + left;
                    prop_assert!((said..=said + 2).contains(&(bytes.len() as u64)), "{} of {}", bytes.len(), said);
                }
                model.mail = false;
            }
            if !model.mail {
                prop_assert_eq!(machine.kept_bytes(), 0, "after {:?}", line);
            }
            prop_assert_eq!(machine.session.in_transaction(), model.mail, "after {:?}: {}", line, said);
        }
    }

    #[test]
    fn what_comes_from_the_internet_goes_to_departments_only(
        local in "[ -~]{0,20}", domain in "[ -~]{0,20}|interior\\.gov\\.test[ -~]{0,4}|[a-z.]{0,4}interior\\.gov\\.test",
    ) {
        let mut machine = machine(Listener::Internet, false);
        machine.send(b"EHLO c.example\r\n");
        machine.send(b"MAIL FROM:<>\r\n");
        let said = machine.send(format!("RCPT TO:<{local}@{domain}>\r\n").as_bytes());
        if said.starts_with("250") {
            machine.send(b"DATA\r\n");
            machine.send(b".\r\n");
            let (transaction, _) = machine.messages.last().expect("a message");
            let recipient = transaction.recipients.first().expect("a recipient");
            prop_assert_eq!(recipient.class, TrustClass::Internet);
            prop_assert_eq!(recipient.address.domain().as_str(), "interior.gov.test");
            prop_assert!(recipient.department().is_some());
            prop_assert!(!recipient.address.local().contains(['%', '!', '@', ':']));
        }
    }

    #[test]
    fn no_bytes_make_the_session_fall(
        listener in listener(), segments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let mut machine = machine(listener, false);
        machine.send(b"EHLO c.example\r\n");
        for segment in segments {
            machine.send(&segment);
            prop_assert!(machine.closed || machine.unread_bytes() <= Limits::default().line_bytes_max);
        }
        prop_assert!(machine.messages.is_empty());
    }
}
