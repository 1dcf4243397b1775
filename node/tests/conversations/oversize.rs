//! Threat row 9: whatever is too long or too many is refused with its code, and no more of it is kept than the bounds say.

use node::{limits::Limits, smtp::transaction::Listener};

use crate::{fixture, machine::Machine};

/// What a socket gives at once, in bytes.
const SEGMENT_BYTES: usize = 16 * 1024;

fn greeted(limits: Limits) -> Machine {
    let settings = fixture::settings(limits);
    let client = "192.0.2.7".parse().expect("an address");
    let mut machine = Machine::new(settings, client, Listener::Internet, fixture::view());
    machine.greeting();
    machine.send(b"EHLO c.example\r\n");
    machine
}

/// Sends a line in segments and gives the answer; what is kept of a command never exceeds the longest line.
fn line(machine: &mut Machine, line: &str) -> String {
    let limit = Limits::default().line_bytes_max;
    let mut said = String::new();
    for segment in line.as_bytes().chunks(SEGMENT_BYTES) {
        said += &machine.send(segment);
        assert!(machine.unread_bytes() <= limit, "{} bytes of a command are kept", machine.unread_bytes());
    }
    said + &machine.send(b"\r\n")
}

#[test]
fn a_hello_of_a_mebibyte_is_a_line_too_long_and_the_session_goes_on() {
    let mut machine = greeted(Limits::default());
    for verb in ["EHLO", "HELO", "MAIL FROM:<x@a.example> SIZE=", "VRFY", "XYZZY"] {
        let said = line(&mut machine, &format!("{verb} {}", "x".repeat(1024 * 1024)));
        assert_eq!(said, "500 5.5.2 the line is too long\r\n", "{verb}");
    }
    assert!(line(&mut machine, "NOOP").starts_with("250"));
    // What follows a BDAT that nobody has read may be a message.
    let said = line(&mut machine, &format!("BDAT {}", "1".repeat(1024 * 1024)));
    assert!(said.starts_with("501 5.5.4") && machine.closed, "{said}");
}

#[test]
fn a_million_parameters_are_a_line_too_long_and_a_thousand_are_unknown() {
    let mut machine = greeted(Limits::default());
    let said = line(&mut machine, &format!("MAIL FROM:<x@a.example>{}", " A=1".repeat(1_000_000)));
    assert_eq!(said, "500 5.5.2 the line is too long\r\n");
    let said = line(&mut machine, &format!("MAIL FROM:<x@a.example>{}", " A".repeat(1000)));
    assert!(said.starts_with("555 5.5.4"), "{said}");
    let said = line(&mut machine, &format!("MAIL FROM:<x@a.example>{}", " SIZE=1".repeat(280)));
    assert!(said.starts_with("501 5.5.4"), "{said}");
    assert!(!machine.session.in_transaction());
}

#[test]
fn of_a_hundred_thousand_recipients_a_thousand_are_taken_the_next_must_wait_and_then_the_client_must_go() {
    let mut machine = greeted(Limits { errors_max: 10, ..Limits::default() });
    line(&mut machine, "MAIL FROM:<x@a.example>");
    let mut codes = Vec::new();
    for number in 0..100_000 {
        let said = line(&mut machine, &format!("RCPT TO:<a{number}@interior.gov.test>"));
        codes.push(said.get(..9).unwrap_or_default().to_owned());
        if machine.closed {
            break;
        }
    }
    let count = |code: &str| codes.iter().filter(|said| *said == code).count();
    assert_eq!((count("250 2.1.5"), count("452 4.5.3"), count("421 4.7.0")), (1000, 1000, 1), "{:?}", codes.last());
    assert_eq!(codes.len(), 2001, "then the connection is closed");
}

#[test]
fn a_message_larger_than_its_size_said_is_refused_at_its_end_and_never_kept_beyond_the_bound() {
    let most = 100_000;
    for (begin, end) in [("DATA\r\n", "\r\n.\r\n"), ("BDAT 99996\r\n", "")] {
        let mut machine = greeted(Limits { message_bytes_max: most, ..Limits::default() });
        machine.send(b"MAIL FROM:<x@a.example> SIZE=5\r\n");
        machine.send(b"RCPT TO:<anna@interior.gov.test>\r\n");
        machine.send(begin.as_bytes());
        let whole = format!("{}{end}", "x".repeat(99_996));
        let mut said = String::new();
        for segment in whole.as_bytes().chunks(SEGMENT_BYTES) {
            said += &machine.send(segment);
            assert!(machine.kept_bytes() <= most);
        }
        if end.is_empty() {
            assert!(said.starts_with("250 2.0.0 99996 bytes"), "{said}");
            // The rest goes beyond the bound.
            said = machine.send(format!("BDAT 60000\r\n{}", "y".repeat(60_000)).as_bytes());
            assert!(said.starts_with("552 5.3.4"), "{said}");
        } else {
            assert!(said.starts_with("250 2.0.0 taken"), "a client may be wrong about its size: {said}");
            for command in ["MAIL FROM:<x@a.example> SIZE=5\r\n", "RCPT TO:<anna@interior.gov.test>\r\n", "DATA\r\n"] {
                machine.send(command.as_bytes());
            }
            for _ in 0..100 {
                machine.send(&[b'z'; SEGMENT_BYTES]);
                assert!(machine.kept_bytes() <= most, "{} bytes", machine.kept_bytes());
            }
            let said = machine.send(b"\r\n.\r\n");
            assert!(said.starts_with("552 5.3.4"), "{said}");
        }
        assert!(machine.kept_bytes() == 0 && !machine.session.in_transaction());
        assert!(line(&mut machine, "MAIL FROM:<x@a.example> SIZE=100001").starts_with("552 5.3.4"));
    }
}
