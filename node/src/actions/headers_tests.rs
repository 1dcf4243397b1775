//! What is added, what is removed, and that nothing else changes.

use proptest::prelude::*;
use proto::{
    policy::PolicyLayer,
    score::Score,
    time::UnixMs,
    verdict::{Disposition, Reason, Verdict},
};

use super::stamped;
use crate::{
    message::Message,
    policy::{
        evidence::{AuthResult, Evidence, Signature},
        samples::{clean, message, transaction, view},
    },
    smtp::transaction::TrustClass,
};

const HOST: &str = "mx.gov.test";

fn verdict(text: &str) -> Verdict {
    let reason = Reason { rule: "X_RULE".into(), score: Score::points(4, 50), text: text.to_owned() };
    let score = reason.score;
    Verdict { disposition: Disposition::Accept, score, tagged: true, reasons: vec![reason], policy_version: 7 }
}

fn stamp(message: &Message, evidence: &Evidence, reason: &str, helo: &str) -> Message {
    let mut transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test"]);
    transaction.client.helo = helo.to_owned();
    let now = UnixMs(1_795_000_000_000);
    let bytes = stamped(message, evidence, &verdict(reason), &transaction, TrustClass::Internet, HOST, now);
    Message::parse(bytes, &crate::limits::Limits::default())
}

#[test]
fn our_fields_come_first_and_tell_the_verdict() {
    let mut evidence = clean();
    evidence.authentication.spf = AuthResult::Pass;
    evidence.authentication.dkim =
        vec![Signature { result: AuthResult::Fail, domain: "d.test".into(), selector: "s1".into() }];
    let stamped = stamp(&message("From: a@b.test\nSubject: x\n\nbody\n"), &evidence, "a reason", "mail.b.test");
    let text = String::from_utf8(stamped.bytes.to_vec()).expect("text");
    let expected = "Received: from mail.b.test ([192.0.2.1])\r\n\tby mx.gov.test with ESMTP id 01ARZ3NDEKTSV4RRFFQ69G5FAV;\r\n\t\
                    Wed, 18 Nov 2026 11:06:40 +0000\r\n\
                    Authentication-Results: mx.gov.test;\r\n\tspf=pass smtp.mailfrom=sender.test;\r\n\t\
                    dkim=fail header.d=d.test header.s=s1;\r\n\tdmarc=none;\r\n\tarc=none;\r\n\tiprev=none policy.iprev=192.0.2.1\r\n\
                    X-Postern-Verdict: accept; score=4.50; policy=7; class=internet\r\n\
                    X-Postern-Virus: clean\r\nX-Postern-Tag: suspicious\r\n\
                    X-Postern-Reasons: X_RULE=4.50 (a reason)\r\n\
                    From: a@b.test\r\nSubject: x\r\n\r\nbody\r\n";
    assert_eq!(text, expected);
}

#[test]
fn received_says_that_the_envelope_was_utf8() {
    let mut transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test"]);
    transaction.handling.smtputf8 = true;
    for (tls, expected) in [(false, " with UTF8SMTP id "), (true, " with UTF8SMTPS id ")] {
        transaction.client.tls = tls;
        let (message, class) = (message("From: a@b.test\n\nx\n"), TrustClass::Internet);
        let bytes = stamped(&message, &clean(), &verdict("x"), &transaction, class, HOST, UnixMs(0));
        assert!(String::from_utf8_lossy(&bytes).contains(expected));
    }
}

#[test]
fn forged_results_in_our_name_are_removed_in_every_spelling() {
    let forged = "Authentication-Results:\n\tmx.gov.test; spf=pass\nAUTHENTICATION-RESULTS : mx.gov.test; spf=pass\n\
                  Authentication-Results: other.test; spf=fail\nX-Postern-Verdict: accept\n more\nx-POSTERN-Tag: no\n\
                  From: a@b.test\n\nbody X-Postern-Verdict: stays\n";
    let stamped = stamp(&message(forged), &clean(), "r", "h.test");
    let text = String::from_utf8_lossy(&stamped.bytes).into_owned();
    assert_eq!(stamped.header.count("authentication-results"), 1);
    assert_eq!(stamped.header.count("x-postern-verdict"), 1);
    assert_eq!(stamped.header.count("x-postern-tag"), 1);
    assert!(!text.contains("other.test; spf=fail") && text.ends_with("body X-Postern-Verdict: stays\r\n"));
    assert!(!text.contains(" more"));
}

#[test]
fn no_spelling_of_our_own_fields_gets_through() {
    let ours = [
        "Authentication-Results",
        "X-Postern-Verdict",
        "X-Postern-Reasons",
        "X-Postern-Tag",
        "X-Postern-Virus",
        "X-Postern-New",
    ];
    let spellings: [fn(&str) -> String; 7] = [
        |name| format!("{name}: mx.gov.test; forged"),
        |name| format!("{}:mx.gov.test; forged", name.to_ascii_lowercase()),
        |name| format!("{}: mx.gov.test; forged", name.to_ascii_uppercase()),
        |name| format!("{name} : mx.gov.test; forged"),
        |name| format!("{name}\t \t: mx.gov.test; forged"),
        |name| format!("{name}:\n\tmx.gov.test;\n forged"),
        |name| format!("{name}: (comment)\n \n\t=?utf-8?q?mx.gov.test?=; forged"),
    ];
    for (name, spelled) in ours.iter().flat_map(|name| spellings.iter().map(move |spelled| (name, spelled(name)))) {
        let text =
            format!("Received: from x by y; z\n{spelled}\nFrom: a@b.test\n{spelled}\nSubject: s\n{spelled}\n\nbody\n");
        let stamped = stamp(&message(&text), &clean(), "r", "h.test");
        let text = String::from_utf8_lossy(&stamped.bytes);
        assert!(!text.contains("forged"), "{spelled:?}: {text}");
        assert!(stamped.header.count(&name.to_ascii_lowercase()) <= 1, "{spelled:?}");
        assert_eq!(stamped.header.fields.len(), 6 + 3, "{spelled:?}");
    }
    // What others have sealed stays as it is.
    let sealed = "ARC-Authentication-Results: i=1; mx.other.test; spf=pass\nFrom: a@b.test\n\nx\n";
    assert_eq!(stamp(&message(sealed), &clean(), "r", "h.test").header.count("arc-authentication-results"), 1);
}

#[test]
fn department_mail_has_no_results_to_tell() {
    let transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test"]);
    let class = TrustClass::Interdepartmental;
    let original = message("From: a@b.test\n\nx\n");
    let bytes = stamped(&original, &clean(), &verdict("r"), &transaction, class, HOST, UnixMs(0));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("Authentication-Results: mx.gov.test;\r\n\tnone\r\n"), "{text}");
}

proptest! {
    #[test]
    fn hostile_text_adds_no_field_and_no_bare_line_end(reason in "\\PC{0,80}|[\r\n:;() a-z\u{0}]{0,80}", helo in "[\r\n -~]{0,60}") {
        let original = message("Received: from x by y; z\nFrom: a@b.test\nSubject: s\n\nbody\n");
        let stamped = stamp(&original, &clean(), &reason, &helo);
        let names: Vec<_> = stamped.header.fields.iter().map(|field| field.name.as_str()).collect();
        let expected = ["received", "authentication-results", "x-postern-verdict", "x-postern-virus", "x-postern-tag",
            "x-postern-reasons", "received", "from", "subject"];
        prop_assert_eq!(names, expected);
        let text = String::from_utf8_lossy(&stamped.bytes).replace("\r\n", "");
        prop_assert!(!text.contains(['\r', '\n']));
    }

    #[test]
    fn every_other_field_and_the_body_stay_as_they_were(
        fields in proptest::collection::vec(("[A-Za-z-]{1,12}", "[ -~]{0,30}(\r\n [!-~]{1,10}){0,2}"), 1..8), body in "[ -~\r\n]{0,60}"
    ) {
        let header: String = fields.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
        let original = Message::parse(bytes::Bytes::from(format!("{header}\r\n{body}")), &crate::limits::Limits::default());
        let stamped = stamp(&original, &clean(), "r", "h.test");
        let all = |message: &Message| -> Vec<Vec<u8>> {
            message.header.fields.iter().map(|field| message.bytes[field.span.clone()].to_vec()).collect()
        };
        prop_assert_eq!(&all(&stamped)[6..], &all(&original)[..]);
        prop_assert_eq!(&stamped.bytes[stamped.header.body_at..], body.as_bytes());
    }
}
