//! Pages and pictures that run, mail in mail, uuencode, notebooks, and formats that people add (threats 22 and 30).

use std::collections::BTreeSet;

use proto::{fingerprint::Fingerprint, policy::ContentKind};

use super::{
    Bytes, analyse,
    archives::{PROGRAM, gzipped},
    message, rules, with_part, zipped,
};

const ACTIVE: (ContentKind, &str) = (ContentKind::Active, "ACTIVE_MARKUP");

#[test]
fn a_page_or_picture_that_runs_is_active_whatever_it_is_called() {
    let svg = "<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><script>x</script></svg>";
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(svg.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    for (name, content) in [
        ("a.svg", svg.as_bytes().to_vec()),
        ("a.dat", svg.as_bytes().to_vec()),
        ("wide.svg", wide),
        ("a.svgz", gzipped(svg.as_bytes())),
        ("a.html", b"<p><a href='data:text/html;base64,x'>open</a>".to_vec()),
        ("a.htm", b"\n<!-- x --><body onload=x()>".to_vec()),
        ("other marks.html", b"<!-- %PDF- --><script>x</script>".to_vec()),
        ("far.html", [&b" ".repeat(5000)[..], b"<script>x</script>"].concat()),
        ("a.zip", zipped(&[("b.xhtml", b"<html><iframe src='x'></html>")])),
        ("a.mht", b"MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<script>x</script>".to_vec()),
    ] {
        let analysis = analyse(&with_part(name, content));
        assert!(rules(&analysis).contains(&ACTIVE), "{name}: {analysis:?}");
    }
    for (name, content) in [
        ("a.svg", &b"<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0'/></svg>"[..]),
        ("a.html", b"<html><p>words</p></html>"),
        ("invoice.xml", b"<?xml version='1.0'?><Invoice><ds:Object Id='x'/><frame/></Invoice>"),
        ("a.txt", b"a < b and <script> is a word here"),
    ] {
        assert_eq!(rules(&analyse(&with_part(name, content.to_vec()))), [], "{name}");
    }
}

#[test]
fn a_page_that_is_the_message_itself_is_not_a_file() {
    let text = "From: a@b.test\nContent-Type: text/html\n\n<html><script>x</script></html>\n";
    assert_eq!(rules(&analyse(&message(text))), []);
    let attached = text.replace("\n\n", "\nContent-Disposition: attachment\n\n");
    assert_eq!(rules(&analyse(&message(&attached))), [ACTIVE]);
}

#[test]
fn mail_as_a_plain_file_is_taken_apart() {
    let mail = "Received: from x\r\nFrom: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream; name=run.js\r\n\
                Content-Transfer-Encoding: base64\r\n\r\nTVqQAAMAAAAEAAAA//8AALgAAAAA\r\n";
    for name in ["a.eml", "a.txt"] {
        let analysis = analyse(&with_part(name, mail.as_bytes().to_vec()));
        for expected in [(ContentKind::Executable, "FALSE_EXTENSION"), (ContentKind::Script, "BLOCKED_NAME")] {
            assert!(rules(&analysis).contains(&expected), "{name}: {analysis:?}");
        }
    }
    let harmless = b"From: a@b.test\r\nSubject: x\r\n\r\n<script>shown, not run</script>\r\n".to_vec();
    assert_eq!(rules(&analyse(&with_part("a.eml", harmless))), []);
    let nested = (0..50).fold(mail.to_owned(), |mail, _| {
        format!("From: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n\r\n{mail}")
    });
    assert!(!analyse(&with_part("a.eml", nested.into_bytes())).opaque.is_empty());
}

#[test]
fn a_uuencoded_file_in_text_is_looked_at() {
    let line = |content: &[u8]| {
        let mut text = vec![b' ' + u8::try_from(content.len()).expect("a line")];
        for three in content.chunks(3) {
            let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
            text.extend((0..4).rev().map(|at| b' ' + u8::try_from(bits >> (6 * at) & 0x3f).expect("six bits")));
        }
        String::from_utf8(text).expect("ASCII")
    };
    let program = line(&PROGRAM[..45]);
    let text = format!("From: a@b.test\n\nHello,\n\nbegin 644 run.js\n{program}\n`\nend\n");
    let analysis = analyse(&message(&text));
    for expected in [(ContentKind::Executable, "FALSE_EXTENSION"), (ContentKind::Script, "BLOCKED_NAME")] {
        assert!(rules(&analysis).contains(&expected), "{analysis:?}");
    }
    let words = "From: a@b.test\n\nWe begin 644 letters\nbegin with the first\nbegin 6 x\n";
    assert_eq!(rules(&analyse(&message(words))), []);
}

#[test]
fn a_file_in_a_notebook_is_looked_at() {
    let mark = b"\xe7\x16\xe3\xbd\x65\x26\x11\x45\xa4\xc4\x8d\x4d\x0b\x7a\x9e\xac";
    let length = u64::try_from(PROGRAM.len()).expect("short").to_le_bytes();
    let head = b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3";
    let notebook = [&head[..], &[0; 100], mark, &length, &[0; 12], PROGRAM, b"more"].concat();
    assert_eq!(rules(&analyse(&with_part("a.one", notebook))), [(ContentKind::Executable, "BLOCKED_TYPE")]);
}

#[test]
fn a_name_or_a_declared_type_that_the_content_denies_is_a_reason() {
    let rule = |name: &str, declared: &str, content: &[u8]| {
        let mut message = with_part(name, content.to_vec());
        message.parts[0].declared = declared.to_owned();
        analyse(&message).reasons.into_iter().map(|reason| reason.rule).collect::<Vec<_>>()
    };
    let archive = zipped(&[("a.txt", b"x")]);
    assert_eq!(rule("a.pdf", "application/octet-stream", &archive), ["FALSE_TYPE"]);
    assert_eq!(rule("a", "application/pdf", &archive), ["FALSE_TYPE"]);
    assert!(rule("a.zip", "application/zip", &archive).is_empty());
}

#[test]
fn a_format_of_ones_own_is_found_in_parts_and_in_archives() {
    let own = Fingerprint::new("drawing", 2, b"AC10".to_vec(), None).expect("sound");
    let other = Fingerprint::new("other", 0, b"zzzz".to_vec(), None).expect("sound");
    let fingerprints = BTreeSet::from([own.clone(), other]);
    let unwanted = super::Unwanted { fingerprints, ..Default::default() };
    for content in [b"..AC10 and more".to_vec(), zipped(&[("a", b"..AC10 and more")]), gzipped(b"..AC10")] {
        let found = super::super::analyse(&with_part("a", content), &unwanted).fingerprints;
        assert_eq!(found.iter().map(|(fingerprint, _)| fingerprint).collect::<Vec<_>>(), [&own]);
    }
    let mut plain = message("From: a@b.test\n\nx\n");
    assert!(crate::checks::attachments::is_plain(&plain));
    plain.parts[0].content = Bytes::from_static(b"x");
    plain.parts[0].attached = true;
    assert!(!crate::checks::attachments::is_plain(&plain));
}

#[test]
fn a_text_in_which_anything_is_opened_is_not_plain() {
    let is_plain = |content: &[u8]| {
        let mut text = message("From: a@b.test\n\nx\n");
        text.parts[0].content = Bytes::copy_from_slice(content);
        crate::checks::attachments::is_plain(&text)
    };
    for text in [&b"Let us begin. begin with it, begin"[..], b"", b"PK are letters", b"MZ\x01"] {
        assert!(is_plain(text), "{}", text.escape_ascii());
    }
    let archive = zipped(&[("a", b"x")]);
    let uuencoded = |before: &str| format!("{before}begin 644 a.exe\n#0V%T\n`\nend\n").into_bytes();
    let texts = [
        archive.clone(),
        [b"words before ", &archive[..]].concat(),
        [b"words before 7z\xbc\xaf\x27\x1c", &[0; 26][..]].concat(),
        uuencoded(""),
        uuencoded("words\n"),
        // The reader takes the second for the beginning of a line.
        uuencoded("words and begin "),
        b"begin  \t0644 a\n".to_vec(),
        b"%PDF-1.7".to_vec(),
        b"{\\rtf1}".to_vec(),
    ];
    for text in texts {
        assert!(!is_plain(&text), "{}", text.escape_ascii());
    }
}

#[test]
fn a_text_full_of_words_that_begin_a_file_is_searched_once() {
    let words = b"begin ".repeat(400_000);
    assert_eq!(rules(&analyse(&with_part("a.txt", words))), []);
}
