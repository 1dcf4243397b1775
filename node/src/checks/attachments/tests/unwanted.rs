//! Names that people do not want, wherever they are, and in which part of the message what lies.

use std::collections::BTreeSet;

use proto::{file_name::NamePattern, policy::ContentKind};

use super::{
    Analysis, Unwanted,
    archives::{gzipped, tarred},
    with_part, zipped,
};
use crate::{
    checks::attachments::{BARRED_MAX, Budget, analyse, analyse_within},
    message::{Message, mime::Part},
    policy::evidence::Barred,
};

fn pattern(text: &str) -> NamePattern {
    NamePattern::new(text).expect("a pattern")
}

fn look(message: &Message) -> Analysis {
    let names = BTreeSet::from([pattern("*.iso"), pattern("report?.txt")]);
    analyse(message, &Unwanted { names, ..Unwanted::default() })
}

#[test]
fn a_name_counts_on_the_outside_and_in_archives_in_each_other() {
    let inner = zipped(&[("a/REPORT1.txt", b"x")]);
    for (name, content) in [
        ("report1.txt", b"x".to_vec()),
        ("a.zip", zipped(&[("b.txt", b"x"), ("c:\\x\\report1.TXT. ", b"x")])),
        ("a.zip", zipped(&[("inner.zip", &inner)])),
        ("a.tar", tarred(&[("./report1.txt", b"x")])),
        ("report1.txt.gz", gzipped(b"x")),
        ("a.pdf", b"%PDF-1.7\n1 0 obj<</Type/Filespec/F(report1.txt)>>endobj\n%%EOF".to_vec()),
    ] {
        let analysis = look(&with_part(name, content));
        let [(found, text)] = &analysis.names[..] else { panic!("{name}: {analysis:?}") };
        assert_eq!((found, analysis.opaque.len()), (&pattern("report?.txt"), 0), "{name}");
        assert!(text.contains("has a name that is not let in: report?.txt"), "{text}");
        assert_eq!(analysis.barred.expect("few").last(), Some(&(0, Barred::Name(pattern("report?.txt")))));
    }
    assert_eq!(look(&with_part("report10.txt", b"x".to_vec())).names, []);
}

#[test]
fn what_lies_in_a_part_is_told_of_that_part_and_how_much_is_bounded() {
    let mut message = with_part("a.zip", zipped(&[("b.iso", b"x")]));
    let part = |name: &str, content: &[u8]| Part {
        names: vec![name.to_owned()],
        content: bytes::Bytes::copy_from_slice(content),
        ..message.parts[0].clone()
    };
    let others = [part("c.txt", b"text"), part("d.iso", b"MZ\x90\0\x03"), part("e.txt", b"text")];
    message.parts.extend(others.clone());
    let barred = look(&message).barred.expect("few");
    let expected = [
        (0, Barred::Kind(ContentKind::Archive)),
        (0, Barred::Name(pattern("*.iso"))),
        (2, Barred::Kind(ContentKind::Executable)),
        (2, Barred::Name(pattern("*.iso"))),
    ];
    assert_eq!(barred, BTreeSet::from(expected));
    // The sixth of a sort is not named any more, but where it is is known.
    message.parts = std::iter::repeat_n(others[1].clone(), 20).collect();
    let analysis = look(&message);
    assert_eq!(analysis.barred.expect("few").iter().map(|(part, _)| part).collect::<BTreeSet<_>>().len(), 20);
    message.parts = std::iter::repeat_n(others[1].clone(), BARRED_MAX / 2 + 1).collect();
    assert_eq!(look(&message).barred, None);
}

#[test]
fn comparing_names_is_paid_for() {
    let names = (0..64).map(|number| pattern(&format!("*{}{number}", "a".repeat(90)))).collect();
    let unwanted = Unwanted { names, ..Unwanted::default() };
    let message = with_part(&"a".repeat(4000), b"x".to_vec());
    for (work, is_enough) in [(1_000_000, false), (100_000_000, true)] {
        let analysis = analyse_within(&message.parts, &unwanted, Budget::new(1, 1, work));
        assert_eq!(analysis.opaque.is_empty(), is_enough, "{:?}", analysis.opaque);
    }
}
