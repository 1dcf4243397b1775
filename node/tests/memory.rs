//! Threat row 9: what the largest transaction costs before its message comes. A process of its own, because it is measured
//! by what the process has.

#[path = "conversations/fixture.rs"]
#[allow(dead_code, reason = "the conversations need more of it")]
mod fixture;
#[path = "conversations/machine.rs"]
#[allow(dead_code, reason = "the conversations need more of it")]
mod machine;

use node::{limits::Limits, smtp::transaction::Listener};

use self::machine::Machine;

const SESSIONS: usize = 30;
/// Threat row 9: memory of a connection before DATA.
const BYTES_MAX: usize = 1024 * 1024;

/// Memory of this process that is in RAM, in bytes.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    let kib: usize = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("in KiB");
    kib * 1024
}

/// The longest sender and as many recipients as are taken, each as long as an address may be: 64 and 189 bytes.
fn largest(listener: Listener, client: &str) -> Machine {
    let settings = fixture::settings(Limits::default());
    let mut machine = Machine::new(settings, client.parse().expect("an address"), listener, fixture::view());
    machine.greeting();
    let domain = match listener {
        Listener::Internet => "interior.gov.test".to_owned(),
        Listener::Departments => format!("{0}.{0}.{1}.example", "d".repeat(63), "d".repeat(53)),
    };
    machine.send(format!("EHLO {}\r\n", "h".repeat(255)).as_bytes());
    let said = machine.send(b"MAIL FROM:<>\r\n");
    assert!(said.starts_with("250"), "{said}");
    for number in 0..1000 {
        let local = format!("{number:04}{}", "l".repeat(60));
        let said = machine.send(format!("RCPT TO:<{local}@{domain}>\r\n").as_bytes());
        assert!(said.starts_with("250"), "{said}");
    }
    machine.send("X".repeat(2047).as_bytes());
    machine
}

#[test]
fn a_connection_with_the_largest_transaction_costs_at_most_a_mebibyte_before_its_message() {
    // None is dropped before the end: its memory would be used again.
    let mut all = Vec::new();
    for (listener, client) in [(Listener::Internet, "192.0.2.7"), (Listener::Departments, "10.1.0.5")] {
        // The first one warms up what all share.
        all.push(largest(listener, client));
        let before = resident_bytes();
        all.extend((0..SESSIONS).map(|_| largest(listener, client)));
        let each = resident_bytes().saturating_sub(before) / SESSIONS;
        println!("{listener:?}: {each} bytes a session with 1000 recipients");
        assert!(each > 100_000, "{each} bytes: recipients are kept, or nothing was measured");
        assert!(each <= BYTES_MAX, "{each} bytes");
    }
}
