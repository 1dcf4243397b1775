//! What is taken out of messages, what stays, and what is left whole.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Piece, Uncut, pieces, without};
use crate::{limits::Limits, message::Message};

const NOTICE: &str = "gone: \u{e4}\r\n--b\r\n.\r\n";

fn parse(text: &str) -> Message {
    Message::parse(Bytes::from(text.replace('\n', "\r\n")), &Limits::default())
}

/// Without the parts whose first name is this.
fn cut(message: &Message, name: &str) -> Result<(Message, Vec<Piece>), Uncut> {
    let is_named = |at: &usize| message.parts[*at].names.first().is_some_and(|other| other == name);
    let unwanted: BTreeSet<usize> = (0..message.parts.len()).filter(is_named).collect();
    assert!(!unwanted.is_empty(), "{:?}", message.parts);
    let pieces = pieces(message, &unwanted)?;
    let noticed: Vec<_> = pieces.iter().map(|piece| (piece.clone(), NOTICE.to_owned())).collect();
    Ok((without(message, &noticed, &Limits::default())?, pieces))
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.bytes).replace("\r\n", "\n")
}

const NOTED: &str = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\nContent-Disposition: inline\n\n\
                     Z29uZTogw6QNCi0tYg0KLg0K";

#[test]
fn a_part_gives_way_to_a_notice_and_all_the_rest_stays() {
    let before = "From: a@b.test\nX-Odd:\n\t folded \nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n\nHello\n\n--b \n\
                  Content-Type: application/zip; name=a.exe\nX-Id: 1\n\nMZ\n--b\nContent-Type: text/html\n\n<p>\n--b--\nepilogue\n";
    let (after, pieces) = cut(&parse(before), "a.exe").expect("it is cut");
    let part = "Content-Type: application/zip; name=a.exe\nX-Id: 1\n\nMZ";
    assert_eq!(text(&after), before.replace(part, NOTED));
    assert_eq!((pieces.len(), &*pieces[0].parts), (1, &[1][..]));
    assert_eq!(after.parts[1].text().as_deref(), Some(NOTICE));
}

#[test]
fn an_only_body_is_replaced_and_the_other_fields_stay() {
    let before = "From: a@b.test\nContent-Disposition: attachment;\n filename=a.exe\nSubject: x\nContent-Type: a/b\nTo: c@d.test\n\n\
                  MZ\n";
    let (after, _) = cut(&parse(before), "a.exe").expect("it is cut");
    let kept = "From: a@b.test\nSubject: x\nTo: c@d.test\nMIME-Version: 1.0\n";
    assert_eq!(text(&after), format!("{kept}{NOTED}\n"));
    let versioned = before.replace("Subject", "Mime-Version: 1.0\nSubject");
    let (after, _) = cut(&parse(&versioned), "a.exe").expect("it is cut");
    assert_eq!(text(&after).matches("Version").count(), 1);
}

fn nested(encoding: &str, inner: &str) -> String {
    format!(
        "From: a@b.test\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nHello\n--b\nContent-Type: message/rfc822; \
         name=f.eml\n{encoding}\n{inner}\n--b--\n"
    )
}

#[test]
fn a_part_of_a_message_within_is_cut_there_and_of_an_encoded_one_all_of_it_goes() {
    let inner = "From: c@d.test\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nInner\n--c\nContent-Type: a/b; \
                 name=a.exe\n\nMZ\n--c--\n";
    let before = nested("", inner);
    let (after, _) = cut(&parse(&before), "a.exe").expect("it is cut");
    assert_eq!(text(&after), before.replace("Content-Type: a/b; name=a.exe\n\nMZ", NOTED));
    let bare = "From: c@d.test\nContent-Type: a/b; name=a.exe\n\nMZ\n";
    let (after, _) = cut(&parse(&nested("", bare)), "a.exe").expect("it is cut");
    assert_eq!(text(&after), nested("", &format!("From: c@d.test\nMIME-Version: 1.0\n{NOTED}\n")));
    let (after, pieces) = cut(&parse(&nested("", inner)), "f.eml").expect("it is cut");
    assert!(!text(&after).contains("Inner") && text(&after).contains("Hello"));
    assert_eq!(pieces[0].parts, [1, 2, 3], "what is in it goes with it");
    let packed = "RnJvbTogY0BkLnRlc3QNCkNvbnRlbnQtVHlwZTogYS9iOyBuYW1lPWEuZXhlDQoNCk1aDQo=\n";
    let before = nested("Content-Transfer-Encoding: base64\n", packed);
    let (after, pieces) = cut(&parse(&before), "a.exe").expect("it is cut");
    assert!(!text(&after).contains("rfc822") && text(&after).contains("Hello"), "{}", text(&after));
    assert_eq!(pieces[0].parts, [1, 2]);
}

#[test]
fn what_is_signed_encrypted_or_not_clear_is_left_whole() {
    let with = |kind: &str, more: &str| {
        format!(
            "From: a@b.test\nContent-Type: {kind}; boundary=b\n\n--b\nContent-Type: a/b; name=a.exe\n\nMZ\n{more}--b\nContent-Type: \
             application/pgp-signature\n\nx\n--b--\n"
        )
    };
    for sealed in [
        with("multipart/signed", ""),
        with("multipart/encrypted", ""),
        "From: a@b.test\nContent-Type: application/pkcs7-mime; name=a.exe\n\nx\n".to_owned(),
        nested("", &with("multipart/signed", "").replace("=b", "=s").replace("--b", "--s")),
    ] {
        assert_eq!(cut(&parse(&sealed), "a.exe").err(), Some(Uncut::Sealed), "{sealed}");
    }
    for unclear in [
        with("multipart/mixed", "--b--\n"),
        with("multipart/mixed; boundary=b", ""),
        with("multipart/mixed", "").replace("--b--\n", ""),
        with("multipart/mixed", "").replace("name=a.exe", "name=a.exe\nContent-Transfer-Encoding: odd"),
        with("multipart/mixed", "").replace("name=a.exe", "name=a.exe\nContent-Transfer-Encoding: base64\n\n!"),
        "From: a@b.test\nContent-Type: a/b; name=a.exe\n".to_owned(),
    ] {
        assert_eq!(cut(&parse(&unclear), "a.exe").err(), Some(Uncut::Unclear), "{unclear}");
    }
    assert!(cut(&parse(&with("multipart/mixed", "")), "a.exe").is_ok());
}

/// A message is what was cut out of it, read again: a piece that is put elsewhere does not go through.
#[test]
fn an_edit_that_would_change_the_rest_is_none() {
    let message = parse(&nested("", "From: c@d.test\n\nInner\n"));
    let unwanted = BTreeSet::from([1]);
    let mut wrong = pieces(&message, &unwanted).expect("it can be cut").remove(0);
    wrong.span.start -= 10;
    let noticed = [(wrong, NOTICE.to_owned())];
    assert_eq!(without(&message, &noticed, &Limits::default()).err(), Some(Uncut::Unlike));
}

#[derive(Clone, Debug)]
enum Tree {
    Leaf(bool, String),
    Multipart(Vec<Tree>),
    Message(Box<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf =
        (any::<bool>(), "[a-z\u{e4}.=-]{0,20}(\r\n[a-z .-]{0,9}){0,3}").prop_map(|(bad, body)| Tree::Leaf(bad, body));
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => proptest::collection::vec(inner.clone(), 1..4).prop_map(Tree::Multipart),
            1 => inner.prop_map(|inner| Tree::Message(Box::new(inner))),
        ]
    })
}

/// As a part, in pieces: those with `true` must go.
fn written(tree: &Tree, boundary: &mut usize, pieces: &mut Vec<(bool, String)>) {
    match tree {
        Tree::Leaf(true, body) => pieces.push((true, format!("Content-Type: a/b; name=\"a.exe\"\r\n\r\nMZ{body}"))),
        Tree::Leaf(false, body) => pieces.push((false, format!("X-Id: 7\r\n\r\n{body}"))),
        Tree::Multipart(parts) => {
            *boundary += 1;
            let own = format!("=_{boundary}_");
            pieces.push((false, format!("Content-Type: multipart/mixed; boundary=\"{own}\"\r\n\r\n")));
            for part in parts {
                pieces.push((false, format!("\r\n--{own}\r\n")));
                written(part, boundary, pieces);
            }
            pieces.push((false, format!("\r\n--{own}--\r\n")));
        }
        Tree::Message(inner) => {
            pieces.push((false, "Content-Type: message/rfc822\r\n\r\nFrom: c@d.test\r\n".to_owned()));
            // So that what is cut is a part, whose place in the text is known.
            written(&Tree::Multipart(vec![(**inner).clone()]), boundary, pieces);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn of_any_tree_of_parts_every_byte_stays_that_was_not_taken(tree in proptest::collection::vec(tree(), 1..4)) {
        let mut whole = vec![(false, "From: a@b.test\r\n".to_owned())];
        written(&Tree::Multipart(tree), &mut 0, &mut whole);
        let before: String = whole.iter().map(|(_, text)| text.as_str()).collect();
        let noted = NOTED.replace('\n', "\r\n");
        let with_notice = |(bad, text): &(bool, String)| {
            if !bad {
                return text.clone();
            }
            format!("{noted}{}", if text.ends_with('\n') { "\r\n" } else { "" })
        };
        let expected: String = whole.iter().map(with_notice).collect();
        let message = Message::parse(Bytes::from(before), &Limits::default());
        let is_bad = |at: &usize| message.parts[*at].names == ["a.exe"];
        let unwanted: BTreeSet<usize> = (0..message.parts.len()).filter(is_bad).collect();
        prop_assert_eq!(unwanted.len(), whole.iter().filter(|(bad, _)| *bad).count());
        let pieces = pieces(&message, &unwanted).expect("it can be cut");
        let noticed: Vec<_> = pieces.into_iter().map(|piece| (piece, NOTICE.to_owned())).collect();
        let after = without(&message, &noticed, &Limits::default()).expect("it is cut");
        prop_assert_eq!(String::from_utf8_lossy(&after.bytes), expected);
    }

    #[test]
    fn of_any_bytes_an_edit_is_clean_or_none(bytes in "(From: a@b\r\n|Content-Type: multipart/mixed; boundary=b\r\n|--b(--)?\r\n|\
        Content-Type: (message/rfc822|a/b; name=x|multipart/signed; boundary=c)\r\n|\r\n|--c\r\n|[ax:=-]){0,24}") {
        let message = Message::parse(Bytes::from(bytes), &Limits::default());
        for at in 0..message.parts.len() {
            let Ok(pieces) = pieces(&message, &BTreeSet::from([at])) else { continue };
            let noticed: Vec<_> = pieces.into_iter().map(|piece| (piece, NOTICE.to_owned())).collect();
            let Ok(after) = without(&message, &noticed, &Limits::default()) else { continue };
            let others = |parts: &[crate::message::mime::Part], of: &Message| parts.len() + of.defects.len();
            let gone = noticed[0].0.parts.len();
            prop_assert_eq!(others(&after.parts, &after) + gone, others(&message.parts, &message) + 1);
        }
    }
}
