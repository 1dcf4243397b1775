//! Clients as they are seen: what speaks against one, and that nothing does of which nobody has seen anything.

use proto::policy::PolicyLayer;

use super::GROUP;
use crate::{
    checks::facts::Facts,
    policy::samples::{message, transaction, view},
    smtp::transaction::{Client, ClientName},
};

const HANDED_ON: &str = "Received: from a by b; Wed, 18 Nov 2026 11:06:40 +0000\nFrom: a@sender.test\n\nx\n";

/// What holds of a message when a client of this name, that calls itself so, has sent it.
fn of_client(text: &str, name: ClientName, change: impl FnOnce(&mut Client)) -> Vec<&'static str> {
    let (message, mut transaction) =
        (message(text), transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]));
    transaction.client.name = name;
    change(&mut transaction.client);
    let facts = Facts::of(&message, &transaction);
    GROUP.criteria.iter().filter(|criterion| criterion.holds(&facts)).map(|criterion| criterion.rule).collect()
}

fn known(name: &str) -> ClientName {
    ClientName::Known(name.to_owned())
}

#[test]
fn of_a_client_that_nobody_looked_at_nothing_is_said() {
    let worst = "From: somebody@gmail.com\n\nx\n";
    let found = of_client(worst, ClientName::Unasked, |client| {
        (client.helo, client.declined_tls) = ("friend".to_owned(), true);
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_well_named_client_has_nothing_against_it() {
    assert_eq!(of_client(HANDED_ON, known("mail.sender.test"), |_| ()), [""; 0]);
    assert_eq!(
        of_client(HANDED_ON, known("mout.other.test"), |client| client.helo = "mx.other.test".to_owned()),
        [""; 0]
    );
}

#[test]
fn a_client_is_seen_by_its_name() {
    let helo = |name: &str| {
        let name = name.to_owned();
        move |client: &mut Client| client.helo = name
    };
    let cases = [
        (ClientName::None, "mail.sender.test", &["NO_REVERSE_NAME"][..]),
        (ClientName::Unanswered, "mail.sender.test", &[]),
        (known("192-0-2-1.dsl.provider.test"), "mx.provider.test", &["GENERIC_REVERSE_NAME", "CLIENT_ON_A_LINE"]),
        // Who names itself so has nobody else to blame, whether the DNS answers or not.
        (ClientName::Unanswered, "192-0-2-1.vps.provider.test", &["GENERIC_REVERSE_NAME", "CLIENT_RENTED"]),
        (known("x.vps.provider.test"), "mail.bank.test", &["CLIENT_RENTED", "HELO_UNLIKE_NAME"]),
        (known("mx.provider.test"), "isp", &["BAD_HELO"]),
        (known("mx.provider.test"), "pc7.lan", &["BAD_HELO"]),
        (known("mx.provider.test"), "192.0.2.1", &["BAD_HELO", "HELO_ADDRESS"]),
        (known("mx.provider.test"), "[192.0.2.1]", &["HELO_ADDRESS"]),
        (known("mx.winner.shop"), "MX.winner.SHOP.", &["CLIENT_ABUSED_SUFFIX"]),
        (known("o7.sendgrid.net"), "o7.sendgrid.net", &["MAILING_SERVICE"]),
    ];
    for (name, greets, expected) in cases {
        assert_eq!(of_client(HANDED_ON, name.clone(), helo(greets)), expected, "{name:?} {greets}");
    }
}

#[test]
fn what_comes_first_from_the_client_and_in_the_clear_is_seen() {
    let found = of_client("From: a@sender.test\n\nx\n", known("mail.sender.test"), |client| client.declined_tls = true);
    assert_eq!(found, ["NO_TLS", "FIRST_HOP"]);
}

#[test]
fn a_free_mailbox_sends_by_the_servers_of_who_keeps_it_or_by_a_list() {
    let free = HANDED_ON.replace("a@sender.test", "a@gmail.com");
    let elsewhere = |text: &str, name: ClientName| of_client(text, name, |_| ()).contains(&"FREEMAIL_ELSEWHERE");
    assert!(elsewhere(&free, known("mail.sender.test")) && elsewhere(&free, ClientName::None));
    for name in ["mail-ot1-f43.google.com", "mout.gmx.net", "mout.web.de"] {
        assert!(!elsewhere(&free, known(name)), "{name}");
    }
    assert!(!elsewhere(&free, ClientName::Unanswered));
    let listed = format!("List-Id: <x.sender.test>\n{free}");
    assert!(!elsewhere(&listed, known("mail.sender.test")) && !elsewhere(HANDED_ON, known("mail.sender.test")));
}
