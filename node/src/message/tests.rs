//! Messages as an attacker would write them, and what is seen of them.

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    Defect, Message,
    text::{TEXT_BYTES_MAX, Text},
};
use crate::limits::Limits;

fn parse(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default())
}

fn is_broken(message: &Message) -> bool {
    message.defects.iter().any(|defect| defect.breaks())
}

#[test]
fn a_plain_message_is_read() {
    let message = parse(
        "From: \"Anna B.\" <anna@Interior.gov.test>\nSender: <s@x.test>\nReply-To: r@y.test\n\
         Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n folded\nReceived: from a by MX.gov.test with SMTP id 1; now\n\nHello\n",
    );
    assert_eq!(message.from[0].domain.as_ref().expect("a domain").as_str(), "interior.gov.test");
    assert_eq!(message.from[0].name, "Anna B.");
    assert_eq!(message.sender[0].written, "s@x.test");
    assert_eq!(message.reply_to[0].written, "r@y.test");
    assert_eq!(message.subject, "Grüße folded");
    assert_eq!((message.received, message.received_by("mx.gov.test"), message.received_by("gov.test")), (1, 1, 0));
    assert_eq!(Text::of(&message).plain.trim(), "Hello");
    assert_eq!(message.defects, []);
}

#[test]
fn no_more_text_is_converted_than_is_looked_at() {
    let long = parse(&format!("From: a@b.test\nContent-Type: text/plain; charset=utf-16\n\n{}", "x".repeat(9_000_000)));
    let converted = long.parts[0].text().expect("a text").len();
    assert!((TEXT_BYTES_MAX..10 * TEXT_BYTES_MAX).contains(&converted), "{converted}");
    assert!((TEXT_BYTES_MAX - 4..=TEXT_BYTES_MAX).contains(&Text::of(&long).plain.len()));
    assert_eq!(long.parts[0].content.len(), 9_000_000);
}

#[test]
fn two_froms_are_both_seen_and_break_the_message() {
    let message = parse("From: a@one.test\nFrom : b@two.test\n\nx\n");
    let domains: Vec<_> = message.from.iter().filter_map(|mailbox| mailbox.domain.clone()).collect();
    assert_eq!(domains.len(), 2);
    assert!(message.defects.contains(&Defect::MultipleFrom) && message.defects.contains(&Defect::InvalidHeaderLine));
    assert!(is_broken(&message));
}

#[test]
fn an_author_that_readers_may_see_in_another_way_breaks_the_message() {
    let many = format!("From: {}boss@interior.gov.test\n", "a@b.test, ".repeat(1000));
    let unclear = [
        "From: =?utf-8?q?boss=40interior.gov.test?=\n",
        "From: <=?utf-8?q?boss=40interior.gov.test?=>\n",
        "From: =?x-unknown?q?boss=40interior.gov.test?=\n",
        "From: boss\u{ff20}interior.gov.test\n",
        "From: boss@\u{ff49}nterior.gov.test\n",
        "From: boss@interior(x).gov.test\n",
        "From: boss@interior(x).gov.test (\n",
        "From: boss@interior.(x)gov.test\n",
        "From: <boss@interior.gov.test> <a@b.test>\n",
        "From: <@interior.gov.test:a@b.test>\n",
        "From: boss@interior.gov.test:;\n",
        "From: \"boss@interior.gov.test\": a@b.test;\n",
        "From: boss@interior.gov.test a@b.test\n",
        "From: \"boss@interior.gov.test\" <>\n",
        "From: boss@interior \"x\" .gov.test\n",
        "From: boss@interior =?utf-8?q?.gov.test?=\n",
        "From: boss@[192.0.2.1]\n",
        "From: a@b.test\nSender: =?utf-8?q?boss=40interior.gov.test?=\n",
        many.as_str(),
    ];
    for field in unclear {
        let message = parse(&format!("{field}\nx\n"));
        assert_eq!(message.defects, [Defect::UnclearAuthor], "{field}: {:?}", message.from);
        assert!(is_broken(&message));
    }
}

#[test]
fn an_author_is_clear_however_it_is_written() {
    let clear = [
        ("<boss@interior .gov . test>", Some("interior.gov.test")),
        ("boss @ interior\n .gov.test", Some("interior.gov.test")),
        ("=?utf-8?q?Anna?=\n =?utf-8?q?_B.?=\n <boss@interior.gov.test>", Some("interior.gov.test")),
        ("<boss@interior.gov.test.>", Some("interior.gov.test")),
        ("Anna (HR (north)) <boss(x)@(y)interior.gov.test>", Some("interior.gov.test")),
        ("\"Anna (HR\" <boss@interior.gov.test>", Some("interior.gov.test")),
        ("boss@interior.gov.test (Anna)", Some("interior.gov.test")),
        ("=?utf-8?q?Anna_at_home?= <boss@interior.gov.test>", Some("interior.gov.test")),
        ("\"anna@home.test\" <boss@interior.gov.test>", Some("interior.gov.test")),
        ("\"a b\"@interior.gov.test", Some("interior.gov.test")),
        ("staff: boss@interior.gov.test;", Some("interior.gov.test")),
        ("a..b.@mobile.test", Some("mobile.test")),
        ("MAILER-DAEMON (Mail Delivery System)", None),
        ("<>", None),
        ("", None),
    ];
    for (value, domain) in clear {
        let message = parse(&format!("From: {value}\n\nx\n"));
        let found = message.from.first().and_then(|mailbox| mailbox.domain.as_ref()).map(|domain| domain.as_str());
        assert_eq!((found, message.defects.as_slice()), (domain, &[][..]), "{value}");
    }
    assert_eq!(parse("From: Doe, John <a@b.test>\n\nx\n").defects, []);
}

#[test]
fn a_subject_cannot_inject_a_line() {
    let message = parse("From: a@b.test\nSubject: =?utf-8?b?YQ0KQmNjOiBldmlsQHgudGVzdA==?= \u{202e}x\n\n");
    assert_eq!(message.subject, "aBcc: evil@x.test x");
}

#[test]
fn parts_are_decoded_with_all_their_names() {
    let message = parse(
        "From: a@b.test\nContent-Type: multipart/mixed; boundary=\"x\"\n\n--x\n\
         Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n<p>Gr=FC=DFe</p>\n--x\n\
         Content-Type: application/octet-stream; name=\"a.pdf\"\nContent-Disposition: attachment; filename=b.exe\n\
         Content-Transfer-Encoding: base64\n\nTVqQ\nAAM=\n--x--\nepilogue\n",
    );
    assert_eq!(Text::of(&message).html.text.trim(), "Grüße");
    assert_eq!(message.parts.len(), 2);
    assert_eq!(message.parts[1].names, ["b.exe", "a.pdf"]);
    assert_eq!(&message.parts[1].content[..], b"MZ\x90\0\x03");
    assert!(message.parts[1].attached);
    assert_eq!(message.defects, []);
}

#[test]
fn every_name_of_a_part_is_seen_also_of_a_second_disposition() {
    let message = parse(
        "From: a@b.test\nContent-Disposition: attachment; filename=a.pdf\n\
         Content-Disposition: inline; filename=b.exe\n\nx\n",
    );
    assert_eq!(message.parts[0].names, ["a.pdf", "b.exe"]);
    assert!(!message.parts[0].attached);
}

#[test]
fn a_nested_message_is_opened_also_under_base64() {
    // "From: x@y.test\r\n\r\nhidden text"
    let message = parse(
        "From: a@b.test\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n\
         RnJvbTogeEB5LnRlc3QNCg0KaGlkZGVuIHRleHQ=\n",
    );
    assert_eq!(Text::of(&message).plain.trim(), "hidden text");
}

#[test]
fn ambiguous_mime_breaks_the_message() {
    let cases = [
        ("Content-Type: text/plain\nContent-Type: text/html\n\nx\n", Defect::DuplicateContentType),
        (
            "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\nx\n",
            Defect::DuplicateTransferEncoding,
        ),
        ("Content-Type: multipart/mixed\n\nx\n", Defect::NoBoundary),
        (
            "Content-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: base64\n\n--x\n\na\n--x--\n",
            Defect::EncodedMultipart,
        ),
    ];
    for (text, expected) in cases {
        let message = parse(&format!("From: a@b.test\n{text}"));
        assert_eq!(message.defects, [expected], "{text}");
        assert!(is_broken(&message));
    }
}

#[test]
fn a_notification_that_returns_only_the_header_of_a_multipart_is_whole() {
    let message = parse(
        "From: MAILER-DAEMON\nContent-Type: multipart/report; boundary=r\n\n--r\n\nIt failed.\n--r\n\
         Content-Type: message/rfc822\n\nFrom: a@b.test\nContent-Type: multipart/mixed;\n\n--r--\n",
    );
    assert!(!is_broken(&message), "{:?}", message.defects);
}

#[test]
fn ten_thousand_levels_end_at_the_limit_without_using_up_the_stack() {
    let mut rfc822 = String::from("From: a@b.test\n");
    rfc822.push_str(&"Content-Type: message/rfc822\n\n".repeat(10_000));
    let message = parse(&rfc822);
    assert!(message.defects.contains(&Defect::TooDeep) && is_broken(&message));

    let mut multipart = String::from("From: a@b.test\n");
    for level in 0..5_000 {
        multipart.push_str(&format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n"));
    }
    assert!(parse(&multipart).defects.contains(&Defect::TooDeep));

    let digest = format!("From: a@b.test\nContent-Type: multipart/digest; boundary=x\n\n{}", "--x\n\n".repeat(20_000));
    assert!(parse(&digest).defects.contains(&Defect::TooManyParts));
}

#[test]
fn a_loop_and_a_long_header_are_noticed() {
    let loops = format!("From: a@b.test\n{}\nx\n", "Received: from a by b; now\n".repeat(51));
    assert_eq!(parse(&loops).defects, [Defect::TooManyHops]);
    let long = format!("From: a@b.test\nX: {}\n\nx\n", "y".repeat(110_000));
    assert_eq!(parse(&long).defects, [Defect::HeaderTooLong]);
}

proptest! {
    #[test]
    fn any_bytes_are_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Message::parse(Bytes::from(bytes), &Limits::default());
    }

    #[test]
    fn any_mime_soup_is_parsed_within_the_limits(
        soup in "(From: a@b\r\n|Content-Type: multipart/mixed; boundary=x\r\n|Content-Type: message/rfc822\r\n|--x\r\n|--x--|\r\n| |\
                 Content-Transfer-Encoding: base64\r\n|Content-Transfer-Encoding: quoted-printable\r\n|=\\?utf-8\\?b\\?|QUJD|\\?=|\"|;|\\(|\
                 filename\\*0=|name=|Subject: |charset=utf-7|\0|\u{e9}){0,60}"
    ) {
        let message = Message::parse(Bytes::from(soup), &Limits::default());
        prop_assert!(message.parts.len() <= Limits::default().parts_max);
        prop_assert!(message.subject.chars().count() <= super::SUBJECT_CHARS_MAX);
    }
}
