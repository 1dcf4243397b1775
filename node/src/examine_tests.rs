//! What comes of messages without clamd and without a name server, and what is said when something could not be looked at.

use std::time::Duration;

use bytes::Bytes;
use proto::{
    policy::{PolicyLayer, VirusScan},
    rules::{Content, engine::Engine},
    verdict::Disposition,
};

use super::{Examined, Examiner, SHORT_BYTES_MAX, evidence, on_a_thread};
use crate::{
    checks::{
        attachments::Analysis,
        authentication::{Authenticator, resolver},
        opener::{Cause, Unopened, no_openers},
        virus::VirusScanner,
    },
    limits::Limits,
    message::Message,
    policy::{
        evidence::{Analysed, AuthResult, Evidence},
        samples::{from_department, transaction, view},
    },
    smtp::transaction::TrustClass,
};

const TO: [&str; 2] = ["anna@interior.gov.test", "karl@health.gov.test"];

/// A name server that is never reached, no clamd, and nothing that opens attachments.
pub(super) async fn examiner() -> Examiner {
    let time = Duration::from_millis(300);
    let limits = Limits { authentication_time_max: time, checks_time_max: time * 2, ..Limits::default() };
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let resolver = resolver(&[silent.local_addr().expect("an address")]).expect("a resolver");
    let authenticator = Authenticator::new("mx.gov.test", resolver, &limits);
    let scanner = VirusScanner::new(Vec::new(), &limits);
    Examiner::new("mx.gov.test", &limits, authenticator, scanner, no_openers(&limits))
}

async fn examine(text: &str, class: TrustClass, policy: PolicyLayer) -> Examined {
    examine_by(&examiner().await, text, class, policy).await
}

async fn examine_by(examiner: &Examiner, text: &str, class: TrustClass, policy: PolicyLayer) -> Examined {
    let mut transaction = transaction(view(policy), &TO);
    if class != TrustClass::Internet {
        transaction = from_department(transaction, "health", class);
    }
    examiner.examine(&transaction, Bytes::from(text.replace('\n', "\r\n"))).await
}

#[tokio::test]
async fn without_clamd_only_a_recipient_whose_policy_says_off_gets_it() {
    let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
    let examined = examine("From: a@sender.test\n\nx\n", TrustClass::Internet, off).await;
    let found: Vec<_> = examined.verdicts.iter().map(|(_, verdict)| verdict.disposition).collect();
    assert_eq!(found, [Disposition::Accept, Disposition::Defer]);
    assert_eq!(examined.evidence.virus.as_str(), "unavailable");
    assert_eq!(examined.evidence.authentication.spf, AuthResult::TempError);
}

#[tokio::test]
async fn what_is_settled_is_not_checked() {
    let examined = examine("From: a@interior.gov.test\n\nx\n", TrustClass::Internet, PolicyLayer::default()).await;
    assert_eq!(examined.evidence.virus.as_str(), "not-scanned");
    assert!(examined.verdicts.iter().all(|(_, verdict)| verdict.disposition == Disposition::Reject));
}

#[tokio::test]
async fn mail_between_departments_is_scanned_and_typed_but_nobody_asks_dns_or_scores_it() {
    let text = "From: a@health.gov.test\nSubject: YOU HAVE WON THE LOTTERY!!!\n\nMZ\u{1}\n";
    let examined = examine(text, TrustClass::Interdepartmental, PolicyLayer::default()).await;
    assert_eq!(examined.evidence.authentication.spf, AuthResult::None);
    let rules: Vec<_> = examined.verdicts[0].1.reasons.iter().map(|reason| reason.rule.as_str()).collect();
    assert_eq!(rules, ["VIRUS_UNAVAILABLE", "BLOCKED_TYPE"]);
}

#[tokio::test]
async fn what_cannot_be_opened_now_is_put_off_and_text_goes_on() {
    let off = || PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
    let file = "From: a@sender.test\nContent-Disposition: attachment; filename=a.txt\n\nx\n";
    let uuencoded = "From: a@sender.test\n\nbegin 644 a.txt\n#0V%T\n`\nend\n";
    for (text, expected) in [
        (file, Disposition::Defer),
        (uuencoded, Disposition::Defer),
        ("From: a@sender.test\n\nLet us begin.\n", Disposition::Accept),
    ] {
        let verdict = examine(text, TrustClass::Internet, off()).await.verdicts.remove(0).1;
        assert_eq!(verdict.disposition, expected, "{text}: {verdict:?}");
        let put_off = verdict.reasons.iter().any(|reason| reason.rule == "UNREAD");
        assert_eq!(put_off, expected == Disposition::Defer, "{text}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_message_that_no_thread_is_free_for_is_no_pass() {
    let examiner = examiner().await;
    let all = u32::try_from(examiner.limits.analyses_max).expect("few");
    let places = examiner.places.acquire_many(all).await.expect("places");
    let off = || PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
    let text = "From: a@sender.test\n\nx\n";
    let examined = examine_by(&examiner, text, TrustClass::Internet, off()).await;
    assert_eq!(examined.verdicts[0].1.disposition, Disposition::Defer, "the sender comes again");
    assert_eq!(examined.verdicts[0].1.reasons[0].rule, "UNREAD");
    // What was held and released is tried again, too: another time there is room.
    assert_eq!(examiner.scan_held(Bytes::from_static(text.as_bytes())).await.as_str(), "unavailable");
    drop(places);
    let examined = examine_by(&examiner, text, TrustClass::Internet, off()).await;
    assert_eq!(examined.verdicts[0].1.disposition, Disposition::Accept);
}

#[tokio::test]
async fn a_panic_over_a_message_is_a_failed_attempt_however_short_it_is() {
    let examiner = examiner().await;
    for bytes in [1, SHORT_BYTES_MAX + 1] {
        let place = || examiner.place();
        assert_eq!(on_a_thread(place().await, bytes, || -> u8 { panic!("as told") }).await, None);
        assert_eq!(on_a_thread(place().await, bytes, || 7).await, Some(7));
    }
}

#[tokio::test]
async fn a_thread_that_is_late_keeps_its_place() {
    let examiner = examiner().await;
    let (end, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let late = on_a_thread(examiner.place().await, SHORT_BYTES_MAX + 1, move || wait.recv());
    assert!(tokio::time::timeout(Duration::from_millis(20), late).await.is_err());
    assert_eq!(examiner.places.available_permits(), examiner.limits.analyses_max - 1);
    end.send(()).expect("it waits");
    let all = u32::try_from(examiner.limits.analyses_max).expect("few");
    assert!(examiner.places.acquire_many(all).await.is_ok());
}

#[test]
fn what_was_not_looked_at_is_said_to_be_so() {
    let analysed = |content, opened| evidence(content, opened).0.analysed;
    let whole = || Ok((Evidence::nothing(), None));
    let mut cut = Engine::default().search(&Content::default());
    cut.is_cut = true;
    assert_eq!(analysed(whole(), Ok(Analysis::default())), Analysed::Whole);
    assert_eq!(analysed(Err(Analysed::BrokeOff), Ok(Analysis::default())), Analysed::BrokeOff);
    assert_eq!(analysed(Ok((Evidence::nothing(), Some(cut))), Ok(Analysis::default())), Analysed::BrokeOff);
    assert_eq!(analysed(whole(), Err(Unopened::BrokeOff(Cause::Late))), Analysed::BrokeOff);
    assert_eq!(analysed(Err(Analysed::BrokeOff), Err(Unopened::NotNow(String::new()))), Analysed::NotNow);
    assert_eq!(analysed(Err(Analysed::NotNow), Ok(Analysis::default())), Analysed::NotNow);
}

#[tokio::test]
async fn a_message_that_was_here_too_often_is_in_a_loop() {
    let own = "Received: from a (b)\n\tby MX.gov.test with ESMTP id 1;\n\tnow\n";
    let off = || PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
    for (times, expected) in [(5, Disposition::Accept), (6, Disposition::Reject)] {
        let text = format!("{}From: a@sender.test\n\nx\n", own.repeat(times));
        let verdict = examine(&text, TrustClass::Internet, off()).await.verdicts.remove(0).1;
        assert_eq!(verdict.disposition, expected);
        assert_eq!(verdict.reasons.iter().any(|reason| reason.rule == "MAIL_LOOP"), times == 6);
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_get_a_verdict() {
    let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
    let examined = examine("\0\u{1}\u{2} no header at all", TrustClass::Internet, off).await;
    assert_eq!(examined.verdicts[0].1.disposition, Disposition::Quarantine);
    assert_eq!(examined.verdicts[0].1.reasons[0].rule, "UNPARSABLE");
}

#[tokio::test]
async fn what_is_decoded_is_scanned_by_itself_too_however_plain_it_looks() {
    let part = "Content-Type: text/html\nContent-Transfer-Encoding: base64\n";
    for (text, expected) in [
        (format!("From: a@b.test\n{part}\nPHA+\n"), vec!["<p>"]),
        // A scanner takes the second line for a part of the first.
        (
            "From: a@b.test\nContent-Type: text/html;\nContent-Transfer-Encoding: base64\n\nPHA+\n".to_owned(),
            vec!["<p>"],
        ),
        ("From: a@b.test\nContent-Type: text/html\n\n<p>\n".to_owned(), vec![]),
    ] {
        let message = Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default());
        assert_eq!(super::decoded(&message), expected, "{text}");
    }
}
