//! The relay against scripted next hops on loopback.

use std::time::Duration;

use hickory_resolver::{TokioResolver, config::ResolverConfig, net::runtime::TokioRuntimeProvider};
use proto::{
    address::{Address, Domain, ReversePath},
    department::{DepartmentId, NextHop, TlsRule},
    envelope::Handling,
};
use tokio::net::TcpListener;

use super::{
    Envelope, Handed, Relay,
    scripted::{Heard, Scripted, TAKES_ONE},
};
use crate::{limits::Limits, smtp::transaction::Route};

/// A resolver that knows no name server: each look-up fails.
pub(crate) fn no_dns() -> TokioResolver {
    let config = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build().expect("a resolver")
}

/// A relay that keeps no connections.
fn relay() -> Relay {
    Relay::new("node.test", &Limits { relay_idle_max: 0, ..Limits::default() }, no_dns(), None)
}

pub(super) fn department(next_hops: Vec<NextHop>) -> Route {
    Route::Department { id: DepartmentId::parse("interior").expect("an id"), next_hops }
}

pub(super) fn addresses(names: &[&str]) -> Vec<Address> {
    names.iter().map(|name| Address::parse(&format!("{name}@interior.test")).expect("an address")).collect()
}

/// An envelope without anything else.
pub(super) fn plain<'a>(from: &'a ReversePath, to: &'a [Address]) -> Envelope<'a> {
    static PLAIN: Handling = Handling { smtputf8: false, require_tls: false, returned: None, envelope_id: None };
    Envelope { from, handling: &PLAIN, to, notifications: &[] }
}

/// One word for each answer, with the code of a refusal.
pub(super) fn fates(answers: &[Handed]) -> Vec<String> {
    answers
        .iter()
        .map(|answer| match answer {
            Handed::Accepted { reply, .. } => format!("accepted {reply}"),
            Handed::Refused(reply) => format!("refused {}", reply.to_string().trim_end()),
            Handed::Deferred(reply) => format!("deferred {}", reply.to_string().trim_end()),
            Handed::Unknown(reply) => format!("unknown {}", reply.to_string().trim_end()),
        })
        .collect()
}

async fn deliver(relay: &Relay, hops: Vec<NextHop>, to: &[&str], message: &str) -> Vec<String> {
    let from = ReversePath::Address(Address::parse("anna@example.test").expect("an address"));
    fates(&relay.deliver(&department(hops), plain(&from, &addresses(to)), message.as_bytes()).await)
}

/// Delivers to one recipient over one scripted connection.
async fn one(script: &str) -> (Vec<String>, Heard) {
    let server = Scripted::plain(&[script]).await;
    let fates = deliver(&relay(), vec![server.hop.clone()], &["bob"], "Subject: x\r\n\r\nhi\r\n").await;
    let mut heard = server.heard().await;
    (fates, heard.remove(0))
}

/// A hop where nobody listens.
async fn nobody() -> NextHop {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    NextHop { host: "127.0.0.1".to_owned(), port, tls: TlsRule::None }
}

#[tokio::test]
async fn a_message_is_handed_over_with_its_dots_stuffed() {
    let server = Scripted::plain(&[TAKES_ONE]).await;
    let fates = deliver(&relay(), vec![server.hop.clone()], &["bob"], "Subject: \u{e4}\r\n\r\n.\r\n..x\r\nend").await;
    assert_eq!(fates, ["accepted stored as 42"]);
    let heard = server.heard().await.remove(0);
    let size = "Subject: \u{e4}\r\n\r\n.\r\n..x\r\nend".len();
    assert_eq!(
        heard.lines,
        [
            "EHLO node.test".to_owned(),
            format!("MAIL FROM:<anna@example.test> SIZE={size} BODY=8BITMIME"),
            "RCPT TO:<bob@interior.test>".to_owned(),
            "DATA".to_owned(),
            "QUIT".to_owned(),
        ]
    );
    assert_eq!(heard.data, "Subject: \u{e4}\r\n\r\n..\r\n...x\r\nend\r\n.\r\n");
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let server = Scripted::plain(&[TAKES_ONE]).await;
    let message = ".a line of some length that begins with a dot\r\n".repeat(20_000);
    assert_eq!(deliver(&relay(), vec![server.hop.clone()], &["bob"], &message).await, ["accepted stored as 42"]);
    let heard = server.heard().await.remove(0);
    assert_eq!(heard.data, message.replace(".a", "..a") + ".\r\n");
}

#[tokio::test]
async fn each_recipient_gets_its_own_answer() {
    let server = Scripted::plain(&["
        S: 220 sink.test
        C: EHLO
        S: 250 sink.test
        C: MAIL FROM:<anna@example.test>
        S: 250 ok
        C: RCPT TO:<a@interior.test>
        S: 250 ok
        C: RCPT TO:<b@interior.test>
        S: 550-5.1.1 no such
        S: 550 5.1.1 user
        C: RCPT TO:<c@interior.test>
        S: 451 4.2.1
        C: DATA
        S: 354 go on
        DATA
        S: 250 taken
        C: QUIT"])
    .await;
    let fates = deliver(&relay(), vec![server.hop.clone(), nobody().await], &["a", "b", "c"], "x\r\n").await;
    assert_eq!(
        fates,
        [
            "accepted taken".to_owned(),
            "refused 550 5.1.1 the next hop said: 550 no such user".to_owned(),
            "deferred 451 4.2.1 the next hop said: 451".to_owned(),
        ]
    );
    server.heard().await;
}

#[tokio::test]
async fn an_old_server_is_greeted_with_helo() {
    let (fates, heard) = one("
        S: 220 old
        C: EHLO
        S: 502 what?
        C: HELO node.test
        S: 250 old
        C: MAIL FROM:<anna@example.test>
        S: 250 ok
        C: RCPT
        S: 250 ok
        C: DATA
        S: 354 go on
        DATA
        S: 250 taken
        C: QUIT")
    .await;
    assert_eq!(fates, ["accepted taken"]);
    assert_eq!(heard.lines[2], "MAIL FROM:<anna@example.test>");
}

#[tokio::test]
async fn refusals_of_the_whole_message_keep_their_class() {
    let until_data = "S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\n";
    let cases = [
        ("S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 550 5.7.1 not you\n".to_owned(), "refused 550 5.7.1 "),
        ("S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 452 4.3.1 full\n".to_owned(), "deferred 452 4.3.1 "),
        ("S: 554 5.3.2 no service\n".to_owned(), "deferred 451 4.3.2 "),
        ("S: 421 4.3.2 closing\n".to_owned(), "deferred 451 4.3.2 "),
        (format!("{until_data}S: 554 5.6.0 no\nC: QUIT"), "refused 554 5.6.0 "),
        (format!("{until_data}S: 250 what\nC: QUIT"), "deferred 451 4.5.0 "),
        (format!("{until_data}S: 354 go on\nDATA\nS: 554 5.7.1 spam\nC: QUIT"), "refused 554 5.7.1 "),
        (format!("{until_data}S: 354 go on\nDATA\nS: 451 4.3.0 later\nC: QUIT"), "deferred 451 4.3.0 "),
        (format!("{until_data}S: 354 go on\nDATA\nS: gibberish"), "unknown 451 4.4.2 "),
        (format!("{until_data}S: 354 go on\nDATA"), "unknown 451 4.4.2 "),
        (format!("S: 220 x\nC: EHLO\n{}", "S: 250-bomb\n".repeat(200)), "deferred 451 4.4.1 "),
        (format!("S: 220 {}\n", "x".repeat(3000)), "deferred 451 4.4.1 "),
        ("S: hello there\n".to_owned(), "deferred 451 4.4.1 "),
    ];
    for (script, expected) in cases {
        let (fates, _) = one(&script).await;
        assert!(fates[0].starts_with(expected), "{} instead of {expected} after\n{script}", fates[0]);
    }
}

/// Threat row 17: nonsense at any stage makes the mail wait. Nothing falls, nothing bounces, and nobody is told that it was
/// delivered.
#[tokio::test]
async fn whatever_nonsense_a_next_hop_answers_the_mail_waits() {
    let nonsense = [
        "S: \\n".to_owned(),
        "S: 2".to_owned(),
        "S: 25".to_owned(),
        "S: 999 what".to_owned(),
        "S: 250_ok".to_owned(),
        "S: 5.7.2".to_owned(),
        "S: \0\u{1}\u{2}".to_owned(),
        "S: 250-ok\\n550 no".to_owned(),
        "S: 250 ".to_owned() + &"x".repeat(3000),
        "S: ".to_owned() + &"250-bomb\\n".repeat(100_000) + "250 ok",
    ];
    let stages = [
        ("", "deferred 451 4.4.1 "),
        ("S: 220 x\nC: EHLO\n", "deferred 451 4.4.1 "),
        ("S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\n", "deferred 451 4.4.2 "),
        ("S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 250 ok\nC: RCPT\n", "deferred 451 4.4.2 "),
        ("S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\n", "deferred 451 4.4.2 "),
        (
            "S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go on\nDATA\n",
            "unknown 451 4.4.2 ",
        ),
    ];
    for (before, expected) in stages {
        for said in &nonsense {
            let (fates, _) = one(&format!("{before}{said}\n")).await;
            assert!(fates[0].starts_with(expected), "{} to {:?} after {before:?}", fates[0], said.get(..20));
        }
    }
}

/// Threat row 17, CVE-2026-43964: an enhanced code and nothing behind it.
#[tokio::test]
async fn a_refusal_with_an_enhanced_code_and_no_text_is_a_refusal() {
    for (said, expected) in [("550 5.7.2", "refused 550 5.7.2 "), ("450 4.7.2", "deferred 450 4.7.2 ")] {
        let (fates, _) = one(&format!("S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: {said}\n")).await;
        assert!(fates[0].starts_with(expected), "{fates:?}");
    }
}

#[tokio::test]
async fn the_next_hop_is_tried_until_one_has_begun_to_take_the_message() {
    let busy = Scripted::plain(&["S: 421 4.3.2 busy"]).await;
    let taker = Scripted::plain(&[TAKES_ONE]).await;
    let hops = vec![nobody().await, busy.hop.clone(), taker.hop.clone()];
    assert_eq!(deliver(&relay(), hops, &["bob"], "x\r\n").await, ["accepted stored as 42"]);
    busy.heard().await;
    taker.heard().await;

    let lost = Scripted::plain(&[
        "S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 x\nDATA",
    ])
    .await;
    // It would take the message, and the sender would be told so.
    let second = Scripted::plain(&[TAKES_ONE]).await;
    let fates = deliver(&relay(), vec![lost.hop.clone(), second.hop.clone()], &["bob"], "x\r\n").await;
    assert!(fates[0].starts_with("unknown 451 4.4.2 ") && fates[0].contains("it may come twice"), "{fates:?}");
    lost.heard().await;
}

#[tokio::test]
async fn a_silent_next_hop_is_given_up_in_time() {
    let server = Scripted::plain(&["S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 550 5.1.8 no\nSILENCE", "SILENCE"]).await;
    let limits = Limits { relay_time_max: Duration::from_millis(300), ..Limits::default() };
    let relay = Relay::new("node.test", &limits, no_dns(), None);
    let fates = deliver(&relay, vec![server.hop.clone()], &["bob"], "x\r\n").await;
    assert!(fates[0].starts_with("refused 550 5.1.8 "), "{fates:?}");
    let fates = deliver(&relay, vec![server.hop.clone()], &["bob"], "x\r\n").await;
    assert!(fates[0].starts_with("deferred 451 4.4.7 "), "{fates:?}");
    server.heard().await;
}

#[tokio::test]
async fn a_next_hop_that_is_slow_after_the_final_dot_leaves_it_open_and_one_before_it_does_not() {
    let script =
        |end: &str| format!("S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\n{end}");
    let limits = Limits { relay_time_max: Duration::from_millis(300), ..Limits::default() };
    let relay = Relay::new("node.test", &limits, no_dns(), None);
    for (end, expected) in [("S: 354 x\nDATA\nSILENCE", "unknown 451 4.4.7 "), ("SILENCE", "deferred 451 4.4.7 ")] {
        let server = Scripted::plain(&[&script(end)]).await;
        let fates = deliver(&relay, vec![server.hop.clone()], &["bob"], "x\r\n").await;
        assert!(fates[0].starts_with(expected), "{fates:?}");
        server.heard().await;
    }
}

#[tokio::test]
async fn the_sender_is_not_told_where_a_department_has_its_servers_and_operators_are() {
    let refusing = "S: 220 x\nC: EHLO\nS: 250 x\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 550 5.1.1 no\nC: QUIT";
    let server = Scripted::plain(&[refusing]).await;
    let named = NextHop { host: "mail.interior.csg.test".to_owned(), port: 2525, tls: TlsRule::None };
    for hop in [nobody().await, server.hop.clone(), named] {
        let name = hop.to_string();
        let route = department(vec![hop]);
        let answers = relay().deliver(&route, plain(&ReversePath::Null, &addresses(&["bob"])), b"x\r\n").await;
        let (Handed::Refused(reply) | Handed::Deferred(reply)) = &answers[0] else { panic!("{answers:?}") };
        let host = name.split(':').next().expect("a host");
        assert!(!reply.to_string().contains(host), "{reply}");
        assert!(reply.for_operators().contains(host), "{reply:?}");
    }
    server.heard().await;
}

#[tokio::test]
async fn a_message_that_could_smuggle_another_is_never_sent() {
    let hop = nobody().await;
    for message in ["a\n.\r\nMAIL FROM:<x@y>\r\n", "a\r\n.\rb\r\n", "a\nb\r\n"] {
        let fates = deliver(&relay(), vec![hop.clone()], &["bob"], message).await;
        assert_eq!(fates, ["refused 550 5.6.0 the message has a bare CR or LF"]);
    }
}

#[tokio::test]
async fn without_dns_mail_to_the_internet_waits_and_a_departments_never_asks_for_mx() {
    let domain = Domain::parse("example.test").expect("a domain");
    let to = addresses(&["bob"]);
    let route = Route::Internet { domain, relays: Vec::new() };
    let waits = fates(&relay().deliver(&route, plain(&ReversePath::Null, &to), b"x\r\n").await);
    assert!(waits[0].starts_with("deferred 451 4.4.3 MX look-up of example.test failed"), "{waits:?}");
    let none = fates(&relay().deliver(&department(Vec::new()), plain(&ReversePath::Null, &to), b"x\r\n").await);
    assert!(none[0].starts_with("deferred 451 4.4.4 no next hop is configured"), "{none:?}");
}
