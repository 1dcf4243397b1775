//! What one reader sees and another does not (threats 21, 22 and 24): a program that any of them would find is found, or the
//! message counts as broken.

use std::fmt::Write as _;

use bytes::Bytes;
use proto::policy::ContentKind;

use super::{Defect, Message};
use crate::{checks::attachments, limits::Limits};

/// A program, as base64 has it and in quoted-printable.
const BASE64: &str = "TVqQAAMAAAAEAAAA//8AALgAAAAAAAAAQAAAAA==";
const QUOTED: &str = "=4D=5A=90=00=03=00=00=00";

fn parse(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default())
}

fn is_caught(message: &Message) -> bool {
    let found = attachments::analyse(message, &attachments::Unwanted::default());
    message.defects.iter().any(|defect| defect.breaks())
        || !found.opaque.is_empty()
        || found.found.iter().any(|found| found.kind == ContentKind::Executable)
}

/// A multipart whose second part is the program.
fn multipart(kind: &str, delimiter: &str, end: &str) -> String {
    let program = format!("Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n{BASE64}\n");
    format!("From: a@b.test\n{kind}\n\n--b\n\nx\n{delimiter}\n{program}{end}\n")
}

#[test]
fn a_multipart_that_readers_take_apart_differently_hides_nothing() {
    let usual = "Content-Type: multipart/mixed; boundary=b";
    for kind in [
        usual,
        "Content-Type: multipart/mixed; boundary=\"b\"",
        "content-TYPE: Multipart/Mixed;\n\tboundary = b",
        "Content-Type: multipart/mixed (comment); boundary=b",
        "Content-Type: multipart/x-unknown; boundary=b",
        "Content-Type: multipart/mixed; charset=\"junk\x01;; boundary=b\"; boundary=b",
        "Content-Type: multipart/mixed; boundary=b; boundary=c",
        "Content-Type: multipart/mixed; boundary=c; boundary=b",
        "Content-Type: multipart/mixed; boundary*0=b; boundary*1=\"\"",
        "Content-Type: multipart/mixed; boundary*=us-ascii''%62",
        "Content-Type: multipart/mixed; boundary=c; boundary*=us-ascii''b",
        "Content-Type: multipart/mixed",
        "Content-Type: multipart/mixed; boundary=",
        "Content-Type: multipart/mixed; boundary=\"\"",
        "Content-Type: multipart/mixed; boundary=not-there",
        "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b",
        "Content-Type: multipart/mixed; boundary=b\nContent-Type: text/plain",
        "Content-Type : multipart/mixed; boundary=b",
        "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64",
        "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64",
        &format!("Content-Type: multipart/mixed; x={}; boundary=b", "y".repeat(9000)),
    ] {
        assert!(is_caught(&parse(&multipart(kind, "--b", "--b--"))), "{kind}");
    }
    for (delimiter, end) in [
        ("--b", ""),
        ("--b ", "--b--"),
        ("--b\t", "--b--"),
        ("--b junk", "--b--"),
        ("--b;x", "--b--"),
        ("--b--\n--b", "--b--"),
    ] {
        assert!(is_caught(&parse(&multipart(usual, delimiter, end))), "{delimiter:?}");
    }
    // That is how real mail looks.
    let nested = "From: a@b.test\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\nContent-Type: multipart/alternative; \
                  boundary=b1\n\n--b1\n\nx\n--b1--\n\n--b--\nepilogue -- b\n";
    assert_eq!(parse(nested).defects, []);
}

#[test]
fn a_part_whose_encoding_readers_undo_differently_hides_nothing() {
    let part = |fields: &str, body: &str| {
        parse(&format!("From: a@b.test\nContent-Type: application/x-any\n{fields}\n\n{body}\n"))
    };
    let (begin, end) = BASE64.split_at(10);
    for encoding in
        ["base64", "BASE64", " base64\t", "base64 (x)", "\"base64\"", "base64;", "x-base64", "=?utf-8?q?base64?="]
    {
        assert!(is_caught(&part(&format!("Content-Transfer-Encoding: {encoding}"), BASE64)), "{encoding}");
    }
    for body in [
        format!("{begin}\n\n  {end}"),
        format!("{begin}!#$%&{end}"),
        format!("{begin}=\n{end}"),
        format!("{begin}===={end}"),
        format!("=\n={BASE64}"),
        format!("-- \n{BASE64}"),
        BASE64.trim_end_matches('=').to_owned(),
        format!("{BASE64}\n--not a boundary"),
    ] {
        assert!(is_caught(&part("Content-Transfer-Encoding: base64", &body)), "{body}");
    }
    for body in
        [QUOTED.to_owned(), QUOTED.to_ascii_lowercase(), format!("{QUOTED}=Q"), QUOTED.replace("=5A", "=  \n=5A")]
    {
        assert!(is_caught(&part("Content-Transfer-Encoding: Quoted-Printable", &body)), "{body}");
    }
    for fields in [
        "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: 7bit",
        "Content-Transfer-Encoding : base64",
    ] {
        assert!(is_caught(&part(fields, BASE64)), "{fields}");
    }
    let inner = "--b\nContent-Transfer-Encoding : base64\nContent-Type : application/x-any";
    let text = format!("From: a@b.test\nContent-Type: multipart/mixed; boundary=b\n\n{inner}\n\n{BASE64}\n--b--\n");
    assert!(is_caught(&parse(&text)), "white space before the colon in a part");
}

#[test]
fn views_of_views_do_not_double_at_each_level() {
    let mut text = format!("\n{}=41\n", "x".repeat(20_000));
    for _ in 0..16 {
        text = format!("Content-Type: message/rfc822\nContent-Transfer-Encoding: x-quoted\n\n{text}");
    }
    let message = parse(&text);
    let kept: usize = message.parts.iter().map(|part| part.content.len()).sum();
    assert!(kept <= 4 * text.len(), "{kept} bytes of {}", text.len());
    assert!(message.defects.contains(&Defect::TooManyParts) && is_caught(&message));
}

#[test]
fn a_piece_of_a_message_is_never_taken_for_all_of_it() {
    for kind in ["message/partial; id=x; number=1; total=2", "Message/Partial"] {
        let message = parse(&format!("From: a@b.test\nContent-Type: {kind}\n\nFrom: c@d.test\n\nTVqQ\n"));
        assert_eq!(message.defects, [Defect::Partial], "{kind}");
        assert!(is_caught(&message));
    }
}

#[test]
fn a_name_that_any_reader_would_run_counts() {
    let long: String = (0..400).fold(String::new(), |mut text, n| {
        let _ = write!(text, "; filename*{n}=x");
        text
    });
    for field in [
        "Content-Disposition: attachment; filename=a.exe",
        "Content-Disposition: attachment;\n filename*0=\"a.e\";\n filename*1=\"xe\"",
        "Content-Disposition: attachment;\n filename*0*=utf-8''a.;\n filename*1*=%65xe",
        "Content-Disposition: attachment; filename*1*=xe; filename*0*=utf-8''a.e",
        "Content-Disposition: attachment; filename*0*=utf-8''a%2; filename*1*=Eexe",
        "Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a.exe",
        "Content-Disposition: attachment; filename*=utf-8''a.txt; filename=a.exe",
        "Content-Disposition: attachment; filename=a.txt\nContent-Type: application/pdf; name=a.exe",
        "Content-Disposition: attachment; filename=a.txt\nContent-Disposition: attachment; filename=a.exe",
        "Content-Disposition: attachment; filename=\"=?utf-8?b?YS5leGU=?=\"",
        "Content-Disposition: attachment; filename*=utf-8''a%E2%80%AEfdp.exe",
        "Content-Disposition: attachment; filename=\"a.exe.\"",
        "Content-Disposition: attachment; filename=\"a.exe . . \"",
        "Content-Disposition: attachment; filename*=utf-8''a.exe%00.txt%0D%0A.exe",
        "Content-Disposition: attachment; filename=\"a.pdf\\\\..\\\\a.exe\"",
        "Content-Disposition: inline; FILENAME = a.exe",
        &format!("Content-Disposition: attachment{long}; filename*400=.exe"),
    ] {
        assert!(is_caught(&parse(&format!("From: a@b.test\n{field}\n\nharmless\n"))), "{field:.100}");
    }
    assert!(!is_caught(&parse("From: a@b.test\nContent-Disposition: attachment; filename=\"a b.pdf\"\n\nharmless\n")));
}

#[test]
fn fields_of_a_hundred_thousand_sections_or_a_million_words_are_over_their_limit() {
    let mut sections = String::new();
    (0..100_000).for_each(|n| write!(sections, ";\n filename*{n}*=x").expect("into memory"));
    let message = parse(&format!("From: a@b.test\nContent-Disposition: attachment{sections}\n\nx\n"));
    assert!(message.defects.contains(&Defect::HeaderTooLong), "{:?}", message.defects);
    let in_part = format!("--b\nContent-Type: x/y{sections}\n\nx\n--b--\n");
    let message = parse(&format!("From: a@b.test\nContent-Type: multipart/mixed; boundary=b\n\n{in_part}"));
    assert!(message.defects.contains(&Defect::HeaderTooLong), "{:?}", message.defects);
    let words = "=?utf-8?q?x?= ".repeat(1_000_000);
    let message = parse(&format!("From: a@b.test\nSubject: {words}\n\nx\n"));
    assert!(message.defects.contains(&Defect::HeaderTooLong), "{:?}", message.defects);
}

#[test]
fn odd_names_of_fields_are_names() {
    let long = "x".repeat(90_000);
    for name in ["__proto__", "constructor", "toString", "a.b", "%n", "$(id)", "{}", "_", &long] {
        let message = parse(&format!("{name}: x\nFrom: a@b.test\n\nx\n"));
        assert_eq!((message.header.fields[0].name.len(), &message.defects[..]), (name.len(), &[][..]), "{name:.20}");
    }
    for line in [":", " :", ": x", "a b: x", "\u{e9}: x", "=?utf-8?q?From?= : x", "From"] {
        let message = parse(&format!("From: a@b.test\n{line}\n\nx\n"));
        assert!(line == " :" || message.defects.contains(&Defect::InvalidHeaderLine), "{line}: {:?}", message.defects);
        assert_eq!(message.from.len(), 1);
    }
}

/// CPU time of this thread, in nanoseconds.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn a_message_that_comes_as_a_file_is_seen_by_its_name_and_by_its_bytes_when_it_is_none() {
    let of = |name: &str, encoding: &str, body: &str| {
        parse(&format!(
            "From: a@b.test\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822{name}\n{encoding}\n{body}\n--b--\n"
        ))
    };
    let letter = "From: c@d.test\n\nHello\n";
    let seen = of("; name=f.exe", "", letter);
    assert_eq!(
        (seen.parts.len(), &*seen.parts[0].names, seen.parts[0].content.len()),
        (2, &["f.exe".to_owned()][..], 0)
    );
    assert!(is_caught(&seen) && !is_caught(&of("; name=f.eml", "", letter)));
    assert_eq!(of("", "", letter).parts.len(), 1, "what has no name is only what is in it");
    assert!(is_caught(&of("; name=f.eml", "Content-Transfer-Encoding: base64\n", BASE64)));
}

#[test]
fn a_long_field_takes_no_more_than_as_many_short_ones() {
    let cost = |field: &str, unit: &str, times: usize, messages: usize| {
        let message = Bytes::from(format!("X: y\r\n{field}{}\r\n\r\nx\r\n", unit.repeat(times)));
        let once = || {
            let began = cpu_ns();
            (0..messages).for_each(|_| drop(Message::parse(message.clone(), &Limits::default())));
            cpu_ns() - began
        };
        (0..3).map(|_| once()).min().unwrap_or_default()
    };
    for (field, unit) in [
        ("Subject: ", "=?utf-8?q?x?= "),
        ("Subject: ", "=?utf-8?b?"),
        ("Subject: ", "=?=?=?"),
        ("From: ", "=?utf-8?q?x?= "),
        ("From: ", "a@b.test,"),
        ("From: ", "(((((("),
        ("From: ", "\"x\" <a@b.test>, "),
        ("Reply-To: ", "x:;"),
        ("Content-Disposition: attachment", "; filename*1*=%41"),
        ("Content-Type: x/y", "; name=\"=?utf-8?q?x?=\""),
        ("Content-Type: x/y", "; ("),
        ("Received: ", "from a by b; "),
        ("", "A: b\r\n"),
    ] {
        // As many bytes in sixteen messages as in one.
        let times = 90_000 / unit.len();
        let (many, one) = (cost(field, unit, times / 16, 16), cost(field, unit, times, 1));
        assert!(one < 5 * many + 5_000_000, "{field}{unit}: {one} ns against {many} ns");
    }
}
