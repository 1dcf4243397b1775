//! What single attachments cost their message, by what a department says of them.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    file_name::NamePattern,
    policy::{BlockedAction, ContentKind, PolicyLayer, VirusScan},
    score::Score,
    verdict::{Disposition, Verdict},
};

use super::{STRIPPED, parts};
use crate::{
    message::Message,
    policy::{
        decide::{decide, is_stripped},
        evidence::{Barred, Evidence, Found, Virus},
        samples::{clean, message, transaction, view},
    },
};

const MIXED: &str = "From: a@sender.test\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nHello, this is longer\n--b\n\
                     Content-Disposition: attachment; filename=a.iso\n\nten bytes.\n--b--\n";

fn verdict(message: &Message, evidence: &Evidence, policy: PolicyLayer) -> Verdict {
    decide(message, evidence, &transaction(view(policy), &["anna@interior.gov.test"])).remove(0).1
}

fn rules(verdict: &Verdict) -> Vec<&str> {
    verdict.reasons.iter().filter(|reason| reason.score == Score::ZERO).map(|reason| reason.rule.as_str()).collect()
}

fn pattern(text: &str) -> NamePattern {
    NamePattern::new(text).expect("a pattern")
}

/// An ISO name in part 1, a program in part 3.
fn found() -> Evidence {
    let program = Found { kind: ContentKind::Executable, rule: "BLOCKED_TYPE".into(), text: "a program".into() };
    Evidence {
        kinds: vec![program],
        names: vec![(pattern("*.iso"), "\"a.iso\"".into())],
        barred: Some(BTreeSet::from([
            (1, Barred::Name(pattern("*.iso"))),
            (3, Barred::Kind(ContentKind::Executable)),
            (3, Barred::Kind(ContentKind::Archive)),
        ])),
        ..clean()
    }
}

fn with(action: BlockedAction) -> PolicyLayer {
    PolicyLayer { blocked_type: Some(action), ..PolicyLayer::default() }
}

#[test]
fn an_attachment_over_its_size_is_refused_and_a_long_text_is_none() {
    let of = |bytes| PolicyLayer { attachment_bytes_max: Some(bytes), ..PolicyLayer::default() };
    let message = message(MIXED);
    assert_eq!(verdict(&message, &clean(), of(10)).disposition, Disposition::Accept);
    let refused = verdict(&message, &clean(), of(9));
    assert_eq!((refused.disposition, rules(&refused)), (Disposition::Quarantine, vec!["BLOCKED_SIZE"]));
    assert_eq!(refused.reasons[0].text, "\"a.iso\" has 10 bytes, 9 are let in at most");
}

#[test]
fn a_name_is_refused_for_those_alone_who_do_not_want_it() {
    let evidence = Evidence { names: found().names, ..clean() };
    let of = |text| PolicyLayer { blocked_names: Some(vec![pattern(text)]), ..PolicyLayer::default() };
    let refused = verdict(&message(MIXED), &evidence, of("*.ISO"));
    assert_eq!((refused.disposition, rules(&refused)), (Disposition::Quarantine, vec!["BLOCKED_FILE_NAME"]));
    assert_eq!(verdict(&message(MIXED), &evidence, of("*.zip")).disposition, Disposition::Accept);
}

#[test]
fn the_policy_says_what_becomes_of_a_message_with_a_blocked_attachment() {
    for (action, disposition, tagged, stripped) in [
        (BlockedAction::Reject, Disposition::Reject, false, false),
        (BlockedAction::Quarantine, Disposition::Quarantine, false, false),
        (BlockedAction::Discard, Disposition::Discard, false, false),
        (BlockedAction::Strip, Disposition::Accept, false, true),
        (BlockedAction::Tag, Disposition::Accept, true, false),
    ] {
        let verdict = verdict(&message(MIXED), &found(), with(action));
        assert_eq!((verdict.disposition, verdict.tagged, is_stripped(&verdict)), (disposition, tagged, stripped));
        assert_eq!(rules(&verdict)[0], "BLOCKED_TYPE");
        let clean = self::verdict(&message(MIXED), &clean(), with(action));
        assert_eq!((clean.disposition, clean.tagged, is_stripped(&clean)), (Disposition::Accept, false, false));
    }
}

#[test]
fn whatever_else_is_against_a_message_is_stronger_than_taking_something_out() {
    let infected = Virus::Infected { name: "Eicar".into() };
    let away = Virus::Unavailable { why: "away".into() };
    let many_points = vec![crate::policy::score::reason("X", Score::points(7, 0), "x")];
    for (evidence, expected) in [
        (Evidence { virus: infected, ..found() }, Disposition::Reject),
        (Evidence { virus: away, ..found() }, Disposition::Defer),
        (Evidence { virus: Virus::Unscannable { why: String::new() }, ..found() }, Disposition::Quarantine),
        (Evidence { opaque: vec!["unclear".into()], ..found() }, Disposition::Quarantine),
        (Evidence { content: many_points, ..found() }, Disposition::Quarantine),
    ] {
        for action in [BlockedAction::Strip, BlockedAction::Tag] {
            let verdict = verdict(&message(MIXED), &evidence, with(action));
            assert_eq!(verdict.disposition, expected);
            assert!(!rules(&verdict).contains(&STRIPPED), "{verdict:?}");
        }
    }
    let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..with(BlockedAction::Strip) };
    let infected = Evidence { virus: Virus::Infected { name: "Eicar".into() }, ..found() };
    assert_eq!(verdict(&message(MIXED), &infected, off).disposition, Disposition::Reject, "malware is never stripped");
}

#[test]
fn parts_are_known_by_what_their_policy_does_not_let_in() {
    let policy = |layer| transaction(view(layer), &["anna@interior.gov.test"]).recipients[0].policy.clone();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let message = message(MIXED);
    let layer = PolicyLayer {
        blocked_names: Some(vec![pattern("*.iso")]),
        attachment_bytes_max: Some(9),
        ..PolicyLayer::default()
    };
    let expected = BTreeMap::from([(1, words(&["*.iso", "> 9"])), (3, words(&["executable"]))]);
    assert_eq!(parts(&message, &found(), &policy(layer)), Some(expected));
    let built_in = BTreeMap::from([(3, words(&["executable"]))]);
    assert_eq!(parts(&message, &found(), &policy(PolicyLayer::default())), Some(built_in));
    let too_much = Evidence { barred: None, ..found() };
    assert_eq!(parts(&message, &too_much, &policy(PolicyLayer::default())), None);
}
