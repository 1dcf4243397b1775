//! What must hold whatever file a message carries.

use std::{collections::BTreeSet, io::Write as _};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use node::{
    checks::attachments::{Analysis, BARRED_MAX, Budget, Unwanted, analyse, analyse_within},
    limits::Limits,
    message::{Message, mime::Part},
};
use proto::{file_name::NamePattern, fingerprint::Fingerprint, policy::ContentKind};

/// Findings of one sort that are named, and one more for the budget.
const FINDINGS_MAX: usize = 6;
/// Longest words for one finding: a name has at most eighty characters, and there are two.
const TEXT_CHARS_MAX: usize = 400;

/// Looks at a file under a name.
///
/// # Panics
/// When a second look differs, when words are long or hold what could do harm where they are shown, when a look that ends early
/// says less without saying so, or when a packed file hides what the bare one shows.
pub(crate) fn looked(name: &str, content: &[u8], frugal: u8) {
    let fingerprints = BTreeSet::from([
        Fingerprint::new("anywhere", 3, b"\0\0".to_vec(), None).expect("sound"),
        Fingerprint::new("masked", 0, b"P\0\0\0".to_vec(), Some(b"\xf0\xf0\xf0\xf0".to_vec())).expect("sound"),
    ]);
    let names = BTreeSet::from(["*a*", "*.?x?"].map(|pattern| NamePattern::new(pattern).expect("sound")));
    let unwanted = Unwanted { fingerprints, names };
    let message = with_file(name, content.to_vec());
    let whole = analyse(&message, &unwanted);
    is_bounded(&whole);
    assert_eq!(whole, analyse(&message, &unwanted), "the same each time");
    let part = u64::from(frugal) + 1;
    let little = Budget::new(content.len() as u64 * part / 32, part, content.len() as u64 * part / 2 + 64);
    let early = analyse_within(&message.parts, &unwanted, little);
    is_bounded(&early);
    assert!(!early.opaque.is_empty() || early == whole, "what was not looked at is told: {early:?} {whole:?}");
    let packed = analyse(&with_file(&format!("{name}.gz"), gzipped(content)), &unwanted);
    is_seen_in(&whole, &packed);
}

fn with_file(name: &str, content: Vec<u8>) -> Message {
    let mut message = Message::parse(Bytes::from_static(b"From: a@sender.test\r\n\r\n"), &Limits::default());
    message.parts = vec![Part {
        declared: "application/octet-stream".into(),
        names: vec![name.to_owned()],
        attached: true,
        content: Bytes::from(content),
        charset: None,
    }];
    message
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(content).expect("into memory");
    encoder.finish().expect("into memory")
}

fn is_bounded(analysis: &Analysis) {
    for found in &analysis.found {
        let same = analysis.found.iter().filter(|other| (other.kind, &other.rule) == (found.kind, &found.rule)).count();
        assert!(same <= FINDINGS_MAX, "{found:?}");
    }
    assert!(analysis.opaque.len() <= FINDINGS_MAX && analysis.reasons.len() <= 20, "{analysis:?}");
    let of_kinds = analysis.found.iter().map(|found| &found.text);
    assert!(analysis.barred.iter().all(|barred| barred.len() <= BARRED_MAX));
    let names = analysis.names.iter().map(|(_, text)| text);
    let of_formats = analysis.fingerprints.iter().map(|(_, text)| text).chain(names);
    let of_reasons = analysis.reasons.iter().map(|reason| &reason.text);
    for text in of_kinds.chain(of_formats).chain(of_reasons).chain(&analysis.opaque) {
        let is_safe = !text.contains(|c: char| c.is_control() || node::message::is_direction(c));
        assert!(is_safe && text.chars().count() <= TEXT_CHARS_MAX, "{text:?}");
    }
}

/// Each kind and rule that the bare file shows, unless the packed one is said not to be known.
fn is_seen_in(bare: &Analysis, packed: &Analysis) {
    if !packed.opaque.is_empty() {
        return;
    }
    assert_eq!(bare.opaque, Vec::<String>::new(), "what is not clear bare is not clear when it is packed");
    let rules = |analysis: &Analysis| -> BTreeSet<(ContentKind, String)> {
        analysis.found.iter().map(|found| (found.kind, found.rule.to_string())).collect()
    };
    let (bare_rules, packed_rules) = (rules(bare), rules(packed));
    assert!(packed_rules.is_superset(&bare_rules), "{bare:?} {packed:?}");
    for (fingerprint, _) in &bare.fingerprints {
        assert!(packed.fingerprints.iter().any(|(found, _)| found == fingerprint), "{fingerprint}");
    }
    for reason in &bare.reasons {
        assert!(packed.reasons.iter().any(|found| found.rule == reason.rule), "{reason:?} {packed:?}");
    }
}
