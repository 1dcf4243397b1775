//! Text by the book, and what is not: of the latter a scanner gets each decoded part by itself.

use bytes::Bytes;

use crate::{limits::Limits, message::Message};

const QUOTED: &str = "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n";

/// Whether the last part is plain text and nothing is wrong with the message.
fn is_plain(text: &str) -> bool {
    let message = Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default());
    message.defects.is_empty() && message.parts.last().is_some_and(|part| part.is_plain)
}

fn alternative(part: &str) -> String {
    format!(
        "From: a@b.test\nContent-Type: multipart/alternative;\n boundary=\"=_b.1\"\n\n--=_b.1\nContent-Type: text/plain\n\nx\n\
         ----- a ruler -----\n--=_b.1\n{part}\n--=_b.1--\n"
    )
}

#[test]
fn text_by_the_book_is_plain() {
    for part in [
        format!("{QUOTED}<p>=C3=A4 =\n=3D</p>\n"),
        format!("{}<p>a</p>\n", QUOTED.replace("quoted-printable", "Quoted-Printable")),
        format!("Content-Disposition: inline\n{QUOTED}<p>a</p>"),
        "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nVGV4\nVA==\n\n".into(),
        format!("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n{}\n", "VGV4".repeat(19)),
    ] {
        assert!(is_plain(&alternative(&part)), "{part}");
        assert!(is_plain(&format!("From: a@b.test\n{part}")), "{part}");
    }
    let nested = alternative(&format!("{QUOTED}<p>a</p>"));
    let nested = nested.strip_prefix("From: a@b.test\n").expect("it begins so");
    assert!(is_plain(&format!("From: a@b.test\nContent-Type: multipart/mixed; boundary=c\n\n--c\n{nested}\n--c--\n")));
}

#[test]
fn what_readers_may_find_or_decode_in_other_ways_is_not_plain() {
    let whole = alternative(&format!("{QUOTED}<p>a</p>\n"));
    for (from, to) in [
        // The text itself: what stands in the message as it came, files, other types and character sets.
        ("quoted-printable", "8bit"),
        ("text/html; charset=utf-8", "text/html; charset=utf-8; name=a.html"),
        ("text/html; charset=utf-8", "text/html; charset=utf-16"),
        ("text/html; charset=utf-8", "text/html; charset=utf-7"),
        ("text/html; charset=utf-8", "text/calendar; charset=utf-8"),
        ("text/html; charset=utf-8", "text/html (a comment); charset=utf-8"),
        ("text/html; charset=utf-8", "text/html; charset*=utf-8''utf-8"),
        ("text/html; charset=utf-8", "\n text/html"),
        ("Content-Type: text/html; charset=utf-8\n", "Content-Disposition: attachment\nContent-Type: text/html\n"),
        (
            "Content-Type: text/html; charset=utf-8\n",
            "Content-Disposition: inline; filename=a\nContent-Type: text/html\n",
        ),
        ("Encoding: quoted-printable", "Encoding:\n quoted-printable"),
        ("Encoding: quoted-printable", "Encoding: quoted-printable (a)"),
        // Its encoding: blanks at the end, escapes that are none, bytes that must not be there, long lines.
        ("<p>a</p>\n", "<p>a</p> \n"),
        ("<p>a</p>\n", "<p>a</p>= \n"),
        ("<p>a</p>\n", "<p>=zz</p>\n"),
        ("<p>a</p>\n", "<p>\u{e4}</p>\n"),
        ("<p>a</p>\n", "<p>=00</p>\n"),
        ("<p>a</p>\n", &format!("<p>{}</p>\n", "a".repeat(80))),
        // Its place: multiparts of other kinds and boundaries, delimiters that are nearly some, comments in lines.
        ("multipart/alternative", "multipart/signed"),
        ("multipart/alternative", "multipart/x-unknown"),
        ("\"=_b.1\"", "=_b.1 (comment)"),
        ("boundary=\"=_b.1\"", "boundary = \"=_b.1\""),
        ("----- a ruler -----", "--=_B.1"),
        ("----- a ruler -----", "--=_b.1x"),
        ("----- a ruler -----", "-- (a)"),
        ("\n--=_b.1--\n", "\n"),
        // The headers around it.
        ("From: a@b.test\n", "From: a@b.test\nX-Blank: a\n \n"),
        ("From: a@b.test\n", ""),
    ] {
        let changed = whole.replacen(from, to, 1);
        assert_ne!(changed, whole, "{from}");
        assert!(!is_plain(&changed), "{from} → {to}");
    }
    assert!(is_plain(&whole));
    let bare = whole.replace('\n', "\r\n").replacen("x\r\n", "x\n", 1);
    assert!(Message::parse(bare.into(), &Limits::default()).parts.last().is_some_and(|part| part.is_plain), "text may");
    let in_message = format!("From: a@b.test\nContent-Type: message/rfc822\n\n{whole}");
    assert!(!is_plain(&in_message), "some do not look into messages in messages");
}

#[test]
fn base64_is_plain_in_whole_lines_with_padding_at_the_end_alone() {
    let part = |body: &str| {
        is_plain(&format!("From: a@b.test\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n{body}"))
    };
    assert!(part("VGV4dA==") && part("VGV4\nVGV4\n"));
    for body in ["VGV4VA", "VGV4VA==VGV4", "VA==\nVGV4", "VGV\n4", "VG V4", "VGV4!", "\nVGV4", "", &"VGV4".repeat(20)] {
        assert!(!part(body), "{body}");
    }
}
