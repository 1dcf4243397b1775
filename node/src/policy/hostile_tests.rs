//! Forged authors and injected lines (threats 18 and 20), from the bytes to the verdict and the header that is put before them.

use bytes::Bytes;
use proto::{policy::PolicyLayer, time::UnixMs, verdict::Disposition};

use super::{
    decide::decide,
    evidence::Evidence,
    samples::{clean, transaction, view},
};
use crate::{
    actions::headers::stamped,
    checks::{attachments, content, facts::Facts},
    limits::Limits,
    message::Message,
    smtp::transaction::TrustClass,
};

const TO: [&str; 1] = ["anna@health.gov.test"];

fn parse(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default())
}

#[test]
fn nobody_on_the_internet_can_show_an_author_of_a_department() {
    let fields = [
        "From: boss@interior.gov.test",
        "fROM: boss@interior.gov.test",
        "From: boss@INTERIOR.gov.test.",
        "From: <boss@interior.gov.test>",
        "From: Boss <a@sender.test>, Boss <boss@interior.gov.test>",
        "From: boss@interior.gov.test, a@sender.test",
        "From: a@sender.test\nFrom: boss@interior.gov.test",
        "From: boss@interior.gov.test\nFrom: a@sender.test",
        "From: a@sender.test\nFrom : boss@interior.gov.test",
        "From\t: boss@interior.gov.test\nFrom: a@sender.test",
        " From: boss@interior.gov.test\nFrom: a@sender.test",
        "From: a@sender.test\nSubject: x\nfrom: boss@interior.gov.test",
        "From: a@sender.test\nSender: boss@interior.gov.test",
        "From: a@sender.test\nSender: a@sender.test\nSender: boss@interior.gov.test",
        "From:\nSender: boss@interior.gov.test",
        "From: boss@interior.gov.test(<a@sender.test>)",
        "From: boss@interior.gov.test (a@sender.test",
        "From: (x) boss(y)@(z)interior.gov.test",
        "From: <boss@interior.gov.test> <a@sender.test>",
        "From: <boss@interior.gov.test><a@sender.test>",
        "From: <a@sender.test> <boss@interior.gov.test>",
        "From: <a@sender.test>boss@interior.gov.test",
        "From: a@sender.test boss@interior.gov.test",
        "From: <@sender.test:boss@interior.gov.test>",
        "From: <@interior.gov.test:a@sender.test>",
        "From: <@sender.test,@other.test:boss@interior.gov.test>",
        "From: x: boss@interior.gov.test;, a@sender.test",
        "From: boss@interior.gov.test: a@sender.test;",
        "From: boss@interior.gov.test;a@sender.test",
        "From: boss@interior.gov.test@sender.test",
        "From: boss@interior.gov.test\n a@sender.test",
        "From:\n boss@interior.gov.test",
        "From: =?utf-8?b?Ym9zc0BpbnRlcmlvci5nb3YudGVzdA==?=",
        "From: =?utf-8?q?boss=40interior.gov.test?= <>",
        "From: boss@interior\u{3002}gov.test",
        "From: boss\u{ff20}interior.gov.test",
        "From: boss@interior.gov.test\u{0}@sender.test",
        "From: \u{feff}boss@interior.gov.test",
        "From: \"a@sender.test\" <boss@interior.gov.test>",
        "From: undisclosed <boss@sub.interior.gov.test>",
    ];
    let transaction = transaction(view(PolicyLayer::default()), &TO);
    let mut let_in = Vec::new();
    for field in fields {
        let message = parse(&format!("{field}\nSubject: x\n\nHello\n"));
        let verdict = decide(&message, &clean(), &transaction).remove(0).1;
        let is_kept_out = matches!(verdict.disposition, Disposition::Reject | Disposition::Quarantine);
        if !is_kept_out {
            let_in.push(format!("{field}: {:?} {:?} {:?}", verdict.disposition, message.from, message.defects));
        }
    }
    assert!(let_in.is_empty(), "{let_in:#?}");
    for doubled in ["Subject: x\nSubject: y", "Subject: x\nsubject : y", "Sender: a@sender.test\nSender: b@sender.test"]
    {
        let message = parse(&format!("From: a@sender.test\n{doubled}\n\nHello\n"));
        let verdict = decide(&message, &clean(), &transaction).remove(0).1;
        assert_eq!(verdict.disposition, Disposition::Quarantine, "{doubled}");
    }
}

#[test]
fn line_ends_that_encodings_hide_make_no_field_and_no_line() {
    let hidden = [
        "Subject: =?utf-8?q?x=0D=0AX-Postern-Verdict:_accept=0D=0A=0D=0Abody?=",
        "Subject: =?utf-8?b?eA0KQmNjOiBldmlsQHgudGVzdA==?=\n =?utf-8?q?=0A=0D=00?=",
        "Subject: x\nReply-To: =?utf-8?q?x=0D=0ABcc:_y?= <a@b.test>",
        "Content-Disposition: attachment; filename*=utf-8''a%0D%0AX-Postern-Tag:%20no%0D%0A.exe",
        "Content-Disposition: attachment; filename*0*=''a%0D; filename*1*=%0Ab: c.exe",
        "Content-Disposition: attachment; filename=\"=?utf-8?q?a=0D=0Ab:_c.exe?=\"",
        "Content-Type: =?utf-8?q?x=0D=0A?=/y; name=\"=?utf-8?b?DQoNCg==?=.exe\"",
    ];
    let transaction = transaction(view(PolicyLayer::default()), &TO);
    for field in hidden {
        let message = parse(&format!("From: a@sender.test\n{field}\n\nMZ\u{1}\u{2}\n"));
        let fields = message.header.fields.len();
        let found = attachments::analyse(&message, &attachments::Unwanted::default());
        let reasons = content::analyse(&Facts::of(&message, &transaction), None).reasons;
        let evidence = Evidence { kinds: found.found, opaque: found.opaque, content: reasons, ..clean() };
        let verdict = decide(&message, &evidence, &transaction).remove(0).1;
        let has_line_end = |text: &str| text.contains(|c: char| c.is_control());
        assert!(!verdict.reasons.iter().any(|reason| has_line_end(&reason.text)), "{field}: {verdict:?}");
        assert!(
            !has_line_end(&message.subject) && !message.from.iter().any(|from| has_line_end(&from.name)),
            "{field}"
        );
        let bytes =
            stamped(&message, &evidence, &verdict, &transaction, TrustClass::Internet, "mx.gov.test", UnixMs(0));
        let again = Message::parse(bytes, &Limits::default());
        let ours = 4 + usize::from(verdict.tagged) + usize::from(!verdict.reasons.is_empty());
        assert_eq!(again.header.fields.len(), fields + ours, "{field}");
        assert_eq!(again.header.count("x-postern-verdict"), 1);
    }
}
