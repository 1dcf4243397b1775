//! Against a name server on loopback: what passes, what fails, and what happens when it is silent.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use hickory_resolver::proto::{
    op::{Message as DnsMessage, ResponseCode},
    rr::{Name, RData, Record, rdata::TXT},
};
use mail_auth::{
    common::{crypto::Ed25519Key, headers::HeaderWriter as _},
    dkim::DkimSigner,
};
use proto::{address::ReversePath, policy::PolicyLayer};
use tokio::net::UdpSocket;

use super::{Authenticator, Hashed, resolver};
use crate::{
    limits::Limits,
    message::Message,
    policy::{
        evidence::{Asked, AuthResult, Authentication},
        samples::{message, transaction, view},
    },
};

/// Seed and public key of the test signer, in base64.
const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// Answers TXT questions; names below `silent.test` get no answer at all.
async fn name_server() -> SocketAddr {
    let key = format!("v=DKIM1; k=ed25519; p={PUBLIC}");
    let hosts: Vec<String> = (1..=11).map(|number| format!("a:{number}.wide.test")).collect();
    let wide = format!("v=spf1 {} ip4:192.0.2.1 -all", hosts.join(" "));
    let records: HashMap<String, String> = [
        ("sender.test.", "v=spf1 ip4:192.0.2.1 -all"),
        ("other.test.", "v=spf1 -all"),
        ("_dmarc.sender.test.", "v=DMARC1; p=reject"),
        ("_dmarc.other.test.", "v=DMARC1; p=reject"),
        ("s._domainkey.sender.test.", key.as_str()),
        ("s._domainkey.evil.test.", key.as_str()),
        ("endless.test.", "v=spf1 include:endless.test ip4:192.0.2.1 -all"),
        ("wide.test.", wide.as_str()),
        ("macro.test.", "v=spf1 exists:%{l10r}.%{d9999999999}.%{z} ip4:192.0.2.1 -all"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut packet).await.expect("receives");
            let asked = DnsMessage::from_vec(&packet[..length]).expect("a question");
            let query = asked.queries[0].clone();
            let name = query.name().to_lowercase().to_string();
            if name.ends_with("silent.test.") {
                continue;
            }
            let mut answer = DnsMessage::response(asked.metadata.id, asked.metadata.op_code);
            answer.add_query(query.clone());
            let is_text = query.query_type() == hickory_resolver::proto::rr::RecordType::TXT;
            match records.get(&name).filter(|_| is_text) {
                Some(text) => {
                    let data = RData::TXT(TXT::new(vec![text.clone()]));
                    answer.add_answer(Record::from_rdata(Name::from_ascii(&name).expect("a name"), 60, data));
                }
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            }
            socket.send_to(&answer.to_vec().expect("encodes"), from).await.expect("sends");
        }
    });
    address
}

async fn check(message: &Message, mail_from: &str, limits: &Limits) -> Authentication {
    let resolver = resolver(&[name_server().await]).expect("a resolver");
    let mut transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test"]);
    transaction.reverse_path = ReversePath::try_from(mail_from.to_owned()).expect("a path");
    Authenticator::new("mx.gov.test", resolver, limits).check(message, &transaction).await
}

fn signed(text: &str, domain: &str) -> Message {
    let decode = |text: &str| mail_parser::decoders::base64::base64_decode(text.as_bytes()).expect("base64");
    let key = Ed25519Key::from_seed_and_public_key(&decode(SEED), &decode(PUBLIC)).expect("a key");
    let text = text.replace('\n', "\r\n");
    let signer = DkimSigner::from_key(key).domain(domain).selector("s").headers(["From", "Subject"]);
    let signature = signer.sign(text.as_bytes()).expect("signs");
    Message::parse(format!("{}{text}", signature.to_header()).into(), &Limits::default())
}

const HAM: &str = "From: a@sender.test\nSubject: x\n\nHello\n";

#[tokio::test]
async fn an_aligned_spf_pass_is_a_dmarc_pass() {
    let found = check(&message(HAM), "a@sender.test", &Limits::default()).await;
    assert_eq!((found.spf, found.dmarc, found.dkim_best()), (AuthResult::Pass, AuthResult::Pass, AuthResult::None));
    assert_eq!(found.from_domain.expect("a domain").as_str(), "sender.test");
    assert_eq!(found.problem, None);
}

#[tokio::test]
async fn a_signature_of_the_author_passes_and_a_changed_body_fails() {
    let good = signed(HAM, "sender.test");
    let found = check(&good, "a@nowhere.test", &Limits::default()).await;
    assert_eq!((found.dkim_best(), found.dmarc, found.spf), (AuthResult::Pass, AuthResult::Pass, AuthResult::None));
    let text = String::from_utf8(good.bytes.to_vec()).expect("text").replace("Hello", "Hullo");
    let found = check(&Message::parse(text.into(), &Limits::default()), "a@nowhere.test", &Limits::default()).await;
    assert_eq!((found.dkim_best(), found.dmarc, found.dmarc_asks), (AuthResult::Fail, AuthResult::Fail, Asked::Reject));
}

#[tokio::test]
async fn a_strangers_signature_vouches_for_nobody_else() {
    let found = check(&signed("From: a@other.test\n\nx\n", "evil.test"), "a@sender.test", &Limits::default()).await;
    assert_eq!((found.dkim_best(), found.spf), (AuthResult::Pass, AuthResult::Pass));
    assert_eq!((found.dmarc, found.dmarc_asks), (AuthResult::Fail, Asked::Reject));
}

#[tokio::test]
async fn more_than_one_author_fails_closed() {
    for text in ["From: a@sender.test\nFrom: b@other.test\n\nx\n", "From: a@sender.test, b@other.test\n\nx\n"] {
        let found = check(&message(text), "a@sender.test", &Limits::default()).await;
        assert_eq!((found.dmarc, found.dmarc_asks), (AuthResult::Fail, Asked::Quarantine), "{text}");
    }
}

#[tokio::test]
async fn no_more_signatures_are_verified_than_the_limit() {
    let one = signed(HAM, "sender.test");
    let text = String::from_utf8(one.bytes.to_vec()).expect("text");
    let signature = &text[..text.find("From:").expect("a From")];
    let many = Message::parse(format!("{}{text}", signature.repeat(40)).into(), &Limits::default());
    let found = check(&many, "a@nowhere.test", &Limits::default()).await;
    assert_eq!(found.dkim.len(), 10);
    assert_eq!(found.dmarc, AuthResult::Pass);
}

#[tokio::test]
async fn what_is_appended_behind_the_signed_length_of_a_body_is_no_pass() {
    let decode = |text: &str| mail_parser::decoders::base64::base64_decode(text.as_bytes()).expect("base64");
    let key = Ed25519Key::from_seed_and_public_key(&decode(SEED), &decode(PUBLIC)).expect("a key");
    let text = HAM.replace('\n', "\r\n");
    let signer = DkimSigner::from_key(key).domain("sender.test").selector("s").headers(["From", "Subject"]);
    let signature = signer.body_length(true).sign(text.as_bytes()).expect("signs").to_header();
    assert!(signature.contains("l="), "{signature}");
    let appended = format!("{signature}{text}<a href=http://evil.test>Pay here</a>\r\n");
    let whole = signed(HAM, "sender.test");
    let whole = String::from_utf8(whole.bytes.to_vec()).expect("text");
    let nothing_signed = whole.replacen("; s=", "; l=0; s=", 1) + "more\r\n";
    let weak = whole.replacen("ed25519-sha256", "rsa-sha1", 1);
    for text in [appended, nothing_signed, weak] {
        let found =
            check(&Message::parse(text.clone().into(), &Limits::default()), "a@nowhere.test", &Limits::default()).await;
        assert_ne!(found.dkim_best(), AuthResult::Pass, "{text}");
        assert_eq!((found.dmarc, found.dmarc_asks), (AuthResult::Fail, Asked::Reject), "{text}");
    }
}

#[tokio::test]
async fn an_spf_record_that_asks_too_much_is_an_error_and_never_a_pass() {
    for domain in ["endless.test", "wide.test", "macro.test"] {
        let found = check(&message(HAM), &format!("a@{domain}"), &Limits::default()).await;
        assert!(matches!(found.spf, AuthResult::PermError | AuthResult::TempError), "{domain}: {:?}", found.spf);
        assert_ne!(found.dmarc, AuthResult::Pass, "{domain}");
    }
}

#[tokio::test]
async fn a_header_over_the_limit_is_not_authenticated_and_never_a_pass() {
    let one = signed(HAM, "sender.test");
    let text = String::from_utf8(one.bytes.to_vec()).expect("text");
    let signature = &text[..text.find("From:").expect("a From")];
    let many = Message::parse(format!("{}{text}", signature.repeat(2000)).into(), &Limits::default());
    let found = check(&many, "a@sender.test", &Limits::default()).await;
    assert_eq!((found.dkim.len(), found.dmarc, found.arc), (0, AuthResult::PermError, AuthResult::None));
    assert_eq!(found.spf, AuthResult::Pass);
    assert!(!found.arc_vouches);
}

#[test]
fn a_signature_that_only_the_verifier_sees_is_counted_too() {
    let signature =
        "DKIM-Signature: v=1; a=ed25519-sha256; d=a.test; s=s; c=relaxed/relaxed; h=from; bh=AA==; b=AA==\r\n";
    let header = format!("{}From: a@a.test\r\n\r\n", signature.repeat(40));
    let hashed = Hashed { header: header.into(), body_hashes: Vec::new() };
    assert_eq!(hashed.parsed(10).expect("a header").dkim_headers.len(), 10);
}

#[tokio::test]
async fn a_slow_name_that_an_attacker_chose_does_not_hide_a_dmarc_failure() {
    let limits = Limits { authentication_time_max: Duration::from_millis(600), ..Limits::default() };
    let found = check(&signed("From: a@other.test\n\nx\n", "evil.silent.test"), "a@x.silent.test", &limits).await;
    assert_eq!((found.spf, found.dkim_best()), (AuthResult::TempError, AuthResult::TempError));
    assert_eq!((found.dmarc, found.dmarc_asks), (AuthResult::Fail, Asked::Reject));
    assert!(found.is_unavailable());
}

#[tokio::test]
async fn silence_about_the_author_is_a_temporary_error_and_never_a_pass() {
    let limits = Limits { authentication_time_max: Duration::from_millis(600), ..Limits::default() };
    let found = check(&message("From: a@silent.test\n\nx\n"), "a@silent.test", &limits).await;
    assert_eq!((found.spf, found.dmarc), (AuthResult::TempError, AuthResult::TempError));
    assert!(found.is_unavailable());
}
