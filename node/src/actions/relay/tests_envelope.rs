//! What the relay makes of what a sender asks of every server on the way.

use proto::{
    address::{Address, ReversePath},
    department::{NextHop, TlsRule},
    envelope::{EnvelopeId, Handling, Notification, Notify, OriginalRecipient, Returned},
};
use tokio::net::TcpListener;

use super::{
    Envelope, Relay, roots_from_pem,
    scripted::Scripted,
    tests::{department, fates, no_dns},
    tests_tls::{IN_THE_CLEAR, TAKES, certificate},
};
use crate::{limits::Limits, smtp::transaction::Route};

/// Greets with these keywords and takes one message for one recipient.
fn takes(keywords: &str) -> String {
    format!("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 {keywords}{}", TAKES.split_once("S: 250 x").expect("its EHLO").1)
}

const GREETS_ONLY: &str = "S: 220 x\nC: EHLO\nS: 250-x\nS: 250 8BITMIME\nC: QUIT";

fn addresses(all: &[&str]) -> Vec<Address> {
    all.iter().map(|one| Address::parse(one).expect("an address")).collect()
}

async fn deliver(
    relay: &Relay,
    route: &Route,
    handling: &Handling,
    to: &[Address],
    asked: &[Notification],
) -> Vec<String> {
    let envelope = Envelope { from: &ReversePath::Null, handling, to, notifications: asked };
    fates(&relay.deliver(route, envelope, "Subject: a\r\n\r\n\u{e9}\r\n".as_bytes()).await)
}

fn relay(roots: Option<&str>) -> Relay {
    let roots = roots.map(|pem| roots_from_pem(pem.as_bytes()).expect("roots"));
    // Without kept connections: the scripts end with QUIT.
    Relay::new("node.test", &Limits { relay_idle_max: 0, ..Limits::default() }, no_dns(), roots)
}

fn utf8() -> Handling {
    Handling { smtputf8: true, ..Handling::default() }
}

/// A port where nobody listens.
async fn away() -> NextHop {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    NextHop { host: "127.0.0.1".to_owned(), port, tls: TlsRule::None }
}

#[tokio::test]
async fn what_needs_smtputf8_goes_to_no_hop_without_it() {
    let server = Scripted::plain(&[&takes("8BITMIME")]).await;
    let to = addresses(&["\u{e9}@interior.test", "bob@interior.test"]);
    let answers = deliver(&relay(None), &department(vec![server.hop.clone()]), &utf8(), &to, &[]).await;
    assert_eq!(answers[0], "refused 550 5.6.7 the next hop takes no addresses beyond ASCII (SMTPUTF8)");
    assert_eq!(answers[1], "accepted taken", "only who needs it is refused");
    let heard = server.heard().await.remove(0);
    assert_eq!(heard.lines[1..3], ["MAIL FROM:<> BODY=8BITMIME", "RCPT TO:<bob@interior.test>"]);
}

#[tokio::test]
async fn a_later_hop_may_offer_smtputf8_and_one_that_is_away_might() {
    let to = addresses(&["\u{e9}@interior.test"]);
    let (without, with) = (Scripted::plain(&[GREETS_ONLY]).await, Scripted::plain(&[&takes("SMTPUTF8")]).await);
    let route = department(vec![without.hop.clone(), with.hop.clone()]);
    assert_eq!(deliver(&relay(None), &route, &utf8(), &to, &[]).await, ["accepted taken"]);
    without.heard().await;
    let heard = with.heard().await.remove(0);
    assert_eq!(heard.lines[1..3], ["MAIL FROM:<> SMTPUTF8", "RCPT TO:<\u{e9}@interior.test>"]);

    let without = Scripted::plain(&[GREETS_ONLY]).await;
    let route = department(vec![away().await, without.hop.clone()]);
    let answers = deliver(&relay(None), &route, &utf8(), &to, &[]).await;
    assert!(answers[0].starts_with("deferred 451 4.4.1"), "{answers:?}");
    without.heard().await;
}

#[tokio::test]
async fn what_is_asked_about_notifications_reaches_a_hop_that_offers_dsn() {
    let handling = Handling {
        returned: Some(Returned::Full),
        envelope_id: EnvelopeId::parse("QQ+2B1").ok(),
        ..Handling::default()
    };
    let notify = Some(Notify::Of { success: true, failure: true, delay: false });
    let asked = [Notification { notify, original: OriginalRecipient::parse("rfc822;B@a.test").ok() }];
    let to = addresses(&["bob@interior.test"]);
    for (offer, mail, rcpt) in [
        ("DSN", "MAIL FROM:<> RET=FULL ENVID=QQ+2B1", " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B@a.test"),
        ("X", "MAIL FROM:<>", ""),
    ] {
        let server = Scripted::plain(&[&takes(offer)]).await;
        let route = department(vec![server.hop.clone()]);
        assert_eq!(deliver(&relay(None), &route, &handling, &to, &asked).await, ["accepted taken"]);
        let heard = server.heard().await.remove(0);
        assert_eq!(heard.lines[1..3], [mail.to_owned(), format!("RCPT TO:<bob@interior.test>{rcpt}")]);
    }
}

#[tokio::test]
async fn what_requires_tls_goes_over_verified_tls_to_who_promises_the_same() {
    let (acceptor, pem) = certificate();
    let (_, other_pem) = certificate();
    let to = addresses(&["bob@interior.test"]);
    let handling = Handling { require_tls: true, ..Handling::default() };
    let promises = format!("{IN_THE_CLEAR}{}", takes("REQUIRETLS").split_once("S: 220 x\n").expect("a greeting").1);
    let no_promise = format!("{IN_THE_CLEAR}C: EHLO\nS: 250 x\nC: QUIT");
    let refused = "refused 550 5.7.30 the next hop does not support REQUIRETLS over verified TLS";
    let cases = [
        (promises.as_str(), Some(pem.as_str()), TlsRule::None, "accepted taken"),
        (&promises, Some(&pem), TlsRule::Required, "accepted taken"),
        (&no_promise, Some(&pem), TlsRule::Required, refused),
        (IN_THE_CLEAR, Some(&other_pem), TlsRule::Opportunistic, refused),
        ("S: 220 x\nC: EHLO\nS: 250 REQUIRETLS", Some(&pem), TlsRule::Opportunistic, refused),
        ("S: 220 x\nC: EHLO\nS: 250-x\nS: 250 STARTTLS", None, TlsRule::Opportunistic, refused),
        // Where verified TLS is the rule, its absence is a fault that may pass.
        ("S: 220 x\nC: EHLO\nS: 250 REQUIRETLS", Some(&pem), TlsRule::Required, "deferred 451 4.7.5 "),
        (IN_THE_CLEAR, Some(&other_pem), TlsRule::Required, "deferred 451 4.7.5 "),
    ];
    for (script, roots, rule, expected) in cases {
        let server = Scripted::start(&[script], rule, Some(acceptor.clone())).await;
        let route = department(vec![server.hop.clone()]);
        let answer = deliver(&relay(roots), &route, &handling, &to, &[]).await.remove(0);
        assert!(answer.starts_with(expected), "{answer} for {rule:?}: {script}");
        let heard = server.heard().await.remove(0);
        let said = heard.lines.iter().any(|line| line == "MAIL FROM:<> REQUIRETLS");
        assert_eq!(said, expected == "accepted taken", "{heard:?}");
        assert!(said || !heard.lines.iter().any(|line| line.starts_with("MAIL")), "{heard:?}");
    }
    // MX records are not signed: nobody is asked.
    let route = Route::Internet { domain: to[0].domain().clone(), relays: Vec::new() };
    assert!(deliver(&relay(Some(&pem)), &route, &handling, &to, &[]).await[0].starts_with("refused 550 5.7.30"));
}
