//! What a transaction keeps of the client that began it: its name, and whether it did without TLS.

use std::net::IpAddr;

use node::{
    limits::Limits,
    smtp::{
        demand::TlsDemand,
        transaction::{Client, ClientName, Listener, Met},
    },
};

use super::{
    fixture::{settings, view},
    machine::Machine,
};

/// Listed for XCLIENT.
const SPEAKS_FOR_OTHERS: &str = "192.0.2.100";

/// Greeted, and named as DNS does.
fn named(client: &str, demand: TlsDemand) -> Machine {
    let client: IpAddr = client.parse().expect("an address");
    let mut machine = Machine::new(settings(Limits::default()), client, Listener::Internet, view()).demanding(demand);
    machine.greeting();
    let name = ClientName::Known("mail.a.example".to_owned());
    machine.session.met(Met { name, reasons: Vec::new() }, None);
    machine
}

/// Says this, begins a transaction, and gives its client.
fn client(machine: &mut Machine, said: &[&str]) -> Client {
    for line in said.iter().chain(&["MAIL FROM:<x@a.example>"]) {
        let told = machine.send(format!("{line}\r\n").as_bytes());
        assert!(told.starts_with('2'), "{line}: {told}");
    }
    machine.session.transaction().expect("a transaction").client.clone()
}

#[test]
fn only_who_could_have_had_tls_has_declined_it() {
    let (plain, tls) = (["EHLO a.example"].as_slice(), ["EHLO a.example", "STARTTLS", "EHLO a.example"].as_slice());
    let old = ["HELO a.example"].as_slice();
    // The proxy's client was never asked: between it and the proxy there may have been TLS.
    let proxy = ["EHLO proxy.gov.test", "XCLIENT ADDR=192.0.2.7", "EHLO a.example"].as_slice();
    for (address, demand, said, declined) in [
        ("192.0.2.7", TlsDemand::Offered, plain, true),
        ("192.0.2.7", TlsDemand::None, plain, false),
        ("192.0.2.7", TlsDemand::Offered, old, false),
        ("192.0.2.7", TlsDemand::Offered, tls, false),
        (SPEAKS_FOR_OTHERS, TlsDemand::Offered, proxy, false),
        (SPEAKS_FOR_OTHERS, TlsDemand::Offered, plain, true),
    ] {
        let client = client(&mut named(address, demand), said);
        assert_eq!(client.declined_tls, declined, "{address} {demand:?} {said:?}");
    }
}

#[test]
fn the_name_of_a_client_goes_with_it_and_not_with_whom_it_speaks_for() {
    let mut own = named("192.0.2.7", TlsDemand::Offered);
    let known = ClientName::Known("mail.a.example".to_owned());
    assert_eq!(client(&mut own, &["EHLO a.example"]).name, known);
    assert_eq!(client(&mut own, &["RSET"]).name, known, "the next message is the same client's");
    assert_eq!(client(&mut own, &["RSET", "STARTTLS", "EHLO a.example"]).name, known);
    let mut proxy = named(SPEAKS_FOR_OTHERS, TlsDemand::Offered);
    let other = client(&mut proxy, &["EHLO proxy.gov.test", "XCLIENT ADDR=192.0.2.7", "EHLO a.example"]);
    assert_eq!(other.name, ClientName::Unasked, "DNS was not asked about this one");
}
