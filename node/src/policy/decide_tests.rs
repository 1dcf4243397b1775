//! One test for each hard rule, and for how they weigh against each other.

use proto::{
    department::{NextHop, TlsRule},
    fingerprint::Fingerprint,
    policy::{AuthUnavailable, BlockedAction, ContentKind, DmarcAction, PolicyLayer, Refusal, Unavailable, VirusScan},
    score::Score,
    verdict::{Disposition, Verdict},
};

use super::{decide, is_scanned_again, settled};
use crate::{
    message::Message,
    policy::{
        evidence::{Analysed, Asked, AuthResult, Authentication, Evidence, Found, Virus},
        samples::{clean, from_department, message, transaction, view},
        score::reason,
    },
    smtp::transaction::{Route, Transaction, TrustClass},
};

const HAM: &str = "From: a@sender.test\nSubject: x\n\nHello\n";
const TO: [&str; 1] = ["anna@interior.gov.test"];

fn one(text: &str, evidence: &Evidence, policy: PolicyLayer) -> Verdict {
    let groups = decide(&message(text), evidence, &transaction(view(policy), &TO));
    assert_eq!(groups.len(), 1);
    groups.into_iter().next().expect("a group").1
}

fn rules(verdict: &Verdict) -> Vec<&str> {
    verdict.reasons.iter().filter(|reason| reason.score == Score::ZERO).map(|reason| reason.rule.as_str()).collect()
}

#[test]
fn clean_mail_is_accepted_under_the_version_of_its_view() {
    let verdict = one(HAM, &clean(), PolicyLayer::default());
    assert_eq!((verdict.disposition, verdict.policy_version, verdict.tagged), (Disposition::Accept, 7, false));
}

#[test]
fn malware_is_never_accepted_whatever_the_policy() {
    for malware in [Refusal::Reject, Refusal::Quarantine, Refusal::Discard] {
        for virus_scan in [VirusScan::Required, VirusScan::Off] {
            let policy = PolicyLayer { malware: Some(malware), virus_scan: Some(virus_scan), ..PolicyLayer::default() };
            let evidence = Evidence { virus: Virus::Infected { name: "Eicar".into() }, ..clean() };
            let verdict = one(HAM, &evidence, policy);
            assert_ne!(verdict.disposition, Disposition::Accept);
            assert_eq!(rules(&verdict), ["MALWARE"]);
        }
    }
}

#[test]
fn what_was_not_scanned_is_not_accepted_unless_policy_says_off() {
    for virus in [Virus::NotScanned, Virus::Unavailable { why: "clamd is away".into() }] {
        let evidence = Evidence { virus, ..clean() };
        assert_eq!(one(HAM, &evidence, PolicyLayer::default()).disposition, Disposition::Defer);
        let keep = PolicyLayer { virus_unavailable: Some(Unavailable::Quarantine), ..PolicyLayer::default() };
        assert_eq!(one(HAM, &evidence, keep).disposition, Disposition::Quarantine);
        let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
        assert_eq!(one(HAM, &evidence, off).disposition, Disposition::Accept);
    }
}

#[test]
fn what_is_clean_and_suspicious_is_scanned_again_where_policy_says_so() {
    let attached = "From: a@sender.test\nContent-Disposition: attachment; filename=a.pdf\n\nHello\n";
    let points = |hundredths| Evidence { content: vec![reason("X", Score(hundredths), "x")], ..clean() };
    let minutes = |minutes| PolicyLayer { rescan_after_minutes: Some(minutes), ..PolicyLayer::default() };
    let again = |text: &str, evidence: &Evidence, policy: PolicyLayer| is_scanned_again(&one(text, evidence, policy));
    // Nothing tells who sent it: a point for that.
    assert!(again(attached, &points(100), minutes(30)));
    assert!(!again(attached, &points(100), minutes(0)));
    assert!(!again(attached, &points(99), minutes(30)));
    assert!(!again(HAM, &points(100), minutes(30)), "no attachment");
    assert!(!again(attached, &points(500), minutes(30)), "it is quarantined anyway");
    let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..minutes(30) };
    assert!(!again(attached, &points(100), off));
    let all = PolicyLayer { rescan_at: Some(Score::ZERO), ..minutes(30) };
    assert!(again(attached, &clean(), all.clone()));
    let departments = transaction(view(all), &TO);
    let departments = from_department(departments, "health", TrustClass::Interdepartmental);
    let verdict = decide(&message(&attached.replace("sender", "health.gov")), &points(100), &departments).remove(0).1;
    assert_eq!((verdict.disposition, is_scanned_again(&verdict)), (Disposition::Accept, false));
}

#[test]
fn what_is_over_the_scanners_limits_is_kept_and_never_accepted() {
    let evidence = Evidence { virus: Virus::Unscannable { why: "over the limits".into() }, ..clean() };
    let verdict = one(HAM, &evidence, PolicyLayer::default());
    assert_eq!((verdict.disposition, rules(&verdict)), (Disposition::Quarantine, vec!["VIRUS_UNSCANNABLE"]));
    let reject = PolicyLayer { unparsable: Some(Refusal::Reject), ..PolicyLayer::default() };
    assert_eq!(one(HAM, &evidence, reject).disposition, Disposition::Reject);
    let off = PolicyLayer { virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() };
    assert_eq!(one(HAM, &evidence, off).disposition, Disposition::Accept);
}

#[test]
fn an_unscanned_message_with_a_blocked_type_is_deferred_not_kept() {
    let found = Found { kind: ContentKind::Executable, rule: "BLOCKED_TYPE".into(), text: "a program".into() };
    let evidence = Evidence { virus: Virus::NotScanned, kinds: vec![found.clone()], ..clean() };
    let verdict = one(HAM, &evidence, PolicyLayer::default());
    assert_eq!((verdict.disposition, rules(&verdict)), (Disposition::Defer, vec!["VIRUS_UNAVAILABLE", "BLOCKED_TYPE"]));
    let evidence = Evidence { kinds: vec![found], ..clean() };
    assert_eq!(one(HAM, &evidence, PolicyLayer::default()).disposition, Disposition::Quarantine);
    let allowed = PolicyLayer { blocked_types: Some(vec![ContentKind::Script]), ..PolicyLayer::default() };
    assert_eq!(one(HAM, &evidence, allowed).disposition, Disposition::Accept);
}

#[test]
fn a_message_that_cannot_be_read_or_examined_gets_the_unparsable_verdict() {
    let verdict = one("From: a@sender.test\nFrom: b@sender.test\n\nx\n", &clean(), PolicyLayer::default());
    assert_eq!((verdict.disposition, rules(&verdict)), (Disposition::Quarantine, vec!["UNPARSABLE"]));
    let unexamined = Evidence { analysed: Analysed::BrokeOff, ..clean() };
    let reject = PolicyLayer { unparsable: Some(Refusal::Reject), ..PolicyLayer::default() };
    assert_eq!(one(HAM, &unexamined, reject.clone()).disposition, Disposition::Reject);
    let later = Evidence { analysed: Analysed::NotNow, ..clean() };
    let verdict = one(HAM, &later, reject);
    assert_eq!((verdict.disposition, rules(&verdict)), (Disposition::Defer, vec!["UNREAD"]));
}

#[test]
fn a_message_that_there_was_no_room_for_is_put_off_whatever_the_policy_says() {
    let reject = || PolicyLayer { unparsable: Some(Refusal::Reject), ..PolicyLayer::default() };
    let transaction = transaction(view(reject()), &TO[..1]);
    let unread = Message::unread(message(HAM).bytes);
    let unanalysed = Evidence { analysed: Analysed::NotNow, ..clean() };
    for (message, evidence) in [(unread, Evidence::nothing()), (message(HAM), unanalysed)] {
        let verdict = decide(&message, &evidence, &transaction).remove(0).1;
        assert_eq!(verdict.disposition, Disposition::Defer);
        assert!(rules(&verdict).contains(&"UNREAD") && !rules(&verdict).contains(&"UNPARSABLE"), "{verdict:?}");
    }
}

#[test]
fn a_loop_and_an_oversized_message_are_rejected_before_any_check() {
    let looping = format!("From: a@sender.test\n{}\nx\n", "Received: from a by b; now\n".repeat(51));
    assert_eq!(rules(&one(&looping, &clean(), PolicyLayer::default())), ["MAIL_LOOP"]);
    assert!(settled(&message(&looping), &transaction(view(PolicyLayer::default()), &TO)));
    let small = PolicyLayer { message_bytes_max: Some(20), ..PolicyLayer::default() };
    assert_eq!(rules(&one(HAM, &clean(), small)), ["TOO_LARGE"]);
    assert!(!settled(&message(HAM), &transaction(view(PolicyLayer::default()), &TO)));
}

#[test]
fn the_internet_cannot_speak_for_a_department() {
    let forged = [
        "From: minister@interior.gov.test\n\nx\n",
        "From: a@sub.Health.gov.test\n\nx\n",
        "From: a@sender.test\nSender: b@health.gov.test\n\nx\n",
        "From: a@sender.test, b@health.gov.test\n\nx\n",
        "From: <boss@interior .gov.test>\n\nx\n",
        "From: boss@interior\n .gov.test\n\nx\n",
    ];
    for text in forged {
        let verdict = one(text, &clean(), PolicyLayer::default());
        assert_eq!((verdict.disposition, rules(&verdict)), (Disposition::Reject, vec!["FORGED_DEPARTMENT"]), "{text}");
    }
    let mut listed = transaction(view(PolicyLayer::default()), &TO);
    listed.client.address = "198.51.100.7".parse().expect("an address");
    assert_eq!(decide(&message(forged[0]), &clean(), &listed)[0].1.disposition, Disposition::Accept);
}

#[test]
fn an_author_that_readers_may_see_as_a_department_is_kept() {
    let many = format!("From: {}boss@interior.gov.test\n\nx\n", "a@sender.test, ".repeat(1000));
    for text in
        ["From: =?utf-8?q?boss=40interior.gov.test?=\n\nx\n", "From: boss@\u{ff49}nterior.gov.test\n\nx\n", &many]
    {
        let verdict = one(text, &clean(), PolicyLayer::default());
        assert_eq!((verdict.disposition, rules(&verdict)), (Disposition::Quarantine, vec!["UNPARSABLE"]), "{text}");
    }
}

#[test]
fn a_department_cannot_speak_for_another_and_is_never_scored() {
    let base = || transaction(view(PolicyLayer::default()), &TO);
    let inside = from_department(base(), "health", TrustClass::Interdepartmental);
    let mut evidence = clean();
    evidence.content = vec![reason("GTUBE", Score::points(1000, 0), "x")];
    let own = decide(&message("From: a@health.gov.test\n\nx\n"), &evidence, &inside);
    assert_eq!((own[0].1.disposition, own[0].1.score), (Disposition::Accept, Score::ZERO));
    let other = decide(&message("From: a@interior.gov.test\n\nx\n"), &evidence, &inside);
    assert_eq!(rules(&other[0].1), ["FORGED_DEPARTMENT"]);
    let unscanned = decide(&message("From: a@health.gov.test\n\nx\n"), &Evidence::nothing(), &inside);
    assert_eq!(unscanned[0].1.disposition, Disposition::Defer);
}

#[test]
fn a_dmarc_failure_does_what_policy_and_record_say() {
    use Disposition::{Accept, Quarantine, Reject};
    let cases = [
        (DmarcAction::Follow, Asked::Reject, Reject),
        (DmarcAction::Follow, Asked::Quarantine, Quarantine),
        (DmarcAction::Follow, Asked::Nothing, Accept),
        (DmarcAction::Score, Asked::Reject, Accept),
        (DmarcAction::Quarantine, Asked::Reject, Quarantine),
        (DmarcAction::Reject, Asked::Nothing, Reject),
    ];
    for (action, dmarc_asks, expected) in cases {
        let mut evidence = clean();
        evidence.authentication =
            Authentication { dmarc: AuthResult::Fail, dmarc_asks, spf: AuthResult::Pass, ..Authentication::default() };
        let policy = || PolicyLayer { dmarc_failure: Some(action), ..PolicyLayer::default() };
        assert_eq!(one(HAM, &evidence, policy()).disposition, expected, "{action:?} {dmarc_asks:?}");
        evidence.authentication.arc_vouches = true;
        assert_eq!(one(HAM, &evidence, policy()).disposition, Accept, "a trusted chain vouches");
    }
}

#[test]
fn dns_that_does_not_answer_means_what_policy_says() {
    let mut evidence = clean();
    evidence.authentication = Authentication::unavailable("time-out");
    assert_eq!(one(HAM, &evidence, PolicyLayer::default()).disposition, Disposition::Accept);
    let defer = PolicyLayer { authentication_unavailable: Some(AuthUnavailable::Defer), ..PolicyLayer::default() };
    assert_eq!(one(HAM, &evidence, defer).disposition, Disposition::Defer);
}

#[test]
fn points_tag_keep_and_reject_at_the_thresholds() {
    use Disposition::{Accept, Quarantine, Reject};
    for (points, expected, tagged) in
        [(399, Accept, false), (400, Accept, true), (600, Quarantine, true), (1200, Reject, true)]
    {
        let mut evidence = clean();
        evidence.authentication.spf = AuthResult::Pass;
        evidence.content = vec![reason("X", Score(points), "x")];
        let verdict = one(HAM, &evidence, PolicyLayer::default());
        assert_eq!((verdict.disposition, verdict.tagged), (expected, tagged), "{points}");
    }
}

#[test]
fn each_recipient_is_decided_once_under_its_own_policy() {
    let strict = PolicyLayer { quarantine_at: Some(Score::points(2, 0)), ..PolicyLayer::default() };
    let to = ["a@interior.gov.test", "b@health.gov.test", "c@interior.gov.test", "d@health.gov.test"];
    let mut evidence = clean();
    evidence.content = vec![reason("X", Score::points(3, 0), "x")];
    let groups = decide(&message(HAM), &evidence, &transaction(view(strict), &to));
    let seen: Vec<_> = groups.iter().map(|(group, verdict)| (group.len(), verdict.disposition)).collect();
    assert_eq!(seen, [(2, Disposition::Quarantine), (2, Disposition::Accept)]);
}

#[test]
fn one_recipients_small_bound_refuses_its_own_copy_only() {
    let small = PolicyLayer { message_bytes_max: Some(20), ..PolicyLayer::default() };
    let to = ["a@interior.gov.test", "b@health.gov.test"];
    let transaction = transaction(view(small), &to);
    let groups = decide(&message(HAM), &clean(), &transaction);
    let seen: Vec<_> = groups.iter().map(|(_, verdict)| verdict.disposition).collect();
    assert_eq!(seen, [Disposition::Reject, Disposition::Accept]);
    assert!(!settled(&message(HAM), &transaction));
}

#[test]
fn with_relays_all_of_the_internet_is_one_group() {
    let to = ["a@one.test", "b@two.test", "c@one.test"];
    let mut to_internet =
        from_department(transaction(view(PolicyLayer::default()), &to), "health", TrustClass::Outbound);
    let text = message("From: a@health.gov.test\n\nx\n");
    let sizes = |transaction: &Transaction| -> Vec<usize> {
        decide(&text, &clean(), transaction).iter().map(|(group, _)| group.len()).collect()
    };
    assert_eq!(sizes(&to_internet), [2, 1]);
    for recipient in &mut to_internet.recipients {
        let Route::Internet { relays, .. } = &mut recipient.route else { panic!("on the Internet") };
        relays.push(NextHop { host: "relay.gov.test".into(), port: 25, tls: TlsRule::None });
    }
    assert_eq!(sizes(&to_internet), [3]);
}

#[test]
fn a_format_is_refused_for_those_alone_who_described_it() {
    let own = Fingerprint::new("drawing", 0, b"AC10".to_vec(), None).expect("sound");
    let evidence = Evidence { fingerprints: vec![(own.clone(), "\"a\" is \"drawing\"".into())], ..clean() };
    assert_eq!(one(HAM, &evidence, PolicyLayer::default()).disposition, Disposition::Accept);
    let described = || PolicyLayer { fingerprints: Some(vec![own.clone()]), ..PolicyLayer::default() };
    let verdict = one(HAM, &evidence, described());
    assert_eq!((verdict.disposition, rules(&verdict)), (Disposition::Quarantine, vec!["BLOCKED_FINGERPRINT"]));
    let reject = PolicyLayer { blocked_type: Some(BlockedAction::Reject), ..described() };
    assert_eq!(one(HAM, &evidence, reject).disposition, Disposition::Reject);
}

#[test]
fn what_runs_by_itself_or_is_encrypted_is_kept_unless_the_department_takes_it() {
    for (kind, expected) in [
        (ContentKind::Active, Disposition::Quarantine),
        (ContentKind::Encrypted, Disposition::Quarantine),
        (ContentKind::Macro, Disposition::Accept),
    ] {
        let found = Found { kind, rule: "A_RULE".into(), text: "found".into() };
        let evidence = Evidence { kinds: vec![found], ..clean() };
        assert_eq!(one(HAM, &evidence, PolicyLayer::default()).disposition, expected, "{kind:?}");
        let all = PolicyLayer { blocked_types: Some(ContentKind::ALL.to_vec()), ..PolicyLayer::default() };
        assert_eq!(one(HAM, &evidence, all).disposition, Disposition::Quarantine, "{kind:?}");
        let none = PolicyLayer { blocked_types: Some(Vec::new()), ..PolicyLayer::default() };
        assert_eq!(one(HAM, &evidence, none).disposition, Disposition::Accept, "{kind:?}");
    }
}
