//! Who gets what, when something is taken out of a message for some of its recipients.

use std::{collections::BTreeSet, sync::Arc};

use proto::{
    policy::{BlockedAction, ContentKind, PolicyLayer, VirusScan},
    score::Score,
    verdict::{Disposition, Verdict},
    view::{View, ViewChange},
};

use super::{EDITS_MAX, Edit};
use crate::{
    checks::attachments::BARRED_MAX,
    examine::tests::examiner,
    message::Message,
    policy::{
        decide::decide,
        evidence::{Barred, Evidence, Found},
        resolve::is_same_edit,
        samples::{clean, department, message, transaction, view},
    },
    smtp::transaction::{Recipient, Transaction},
};

const MIXED: &str = "From: a@sender.test\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nHello\n--b\n\
                     Content-Disposition: attachment; filename=\"=?utf-8?q?a=E2=80=AE.exe?=\"\n\nMZ\n--b\n\
                     Content-Disposition: attachment; filename=b.zip\n\nPK\n--b--\n";

fn strip() -> PolicyLayer {
    PolicyLayer { blocked_type: Some(BlockedAction::Strip), virus_scan: Some(VirusScan::Off), ..PolicyLayer::default() }
}

/// Departments d0, d1 … with these policies, and a recipient in each.
fn to(policies: Vec<PolicyLayer>) -> Transaction {
    let names: Vec<String> = (0..policies.len()).map(|number| format!("d{number}")).collect();
    let departments = names.iter().zip(policies).map(|(name, policy)| department(name, policy)).collect();
    let change = ViewChange { index: 10, policy_version: 8, departments, ..ViewChange::default() };
    let view: View = view(PolicyLayer::default()).after(change);
    let recipients: Vec<String> = names.iter().map(|name| format!("anna@{name}.gov.test")).collect();
    transaction(view, &recipients.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A program in part 1, an archive in part 2.
fn found() -> Evidence {
    let found = |kind| Found { kind, rule: "BLOCKED_TYPE".into(), text: "it".into() };
    Evidence {
        kinds: vec![found(ContentKind::Executable), found(ContentKind::Archive)],
        barred: Some(BTreeSet::from([
            (1, Barred::Kind(ContentKind::Executable)),
            (2, Barred::Kind(ContentKind::Archive)),
        ])),
        ..clean()
    }
}

async fn stripped(text: &str, evidence: &Evidence, to: &Transaction) -> (Vec<(Vec<Recipient>, Verdict)>, Vec<Edit>) {
    let message = Arc::new(message(text));
    let mut verdicts = decide(&message, evidence, to);
    let edits = examiner().await.strip(&message, evidence, to, &mut verdicts).await;
    assert_eq!(edits.len(), verdicts.len());
    (verdicts, edits)
}

fn names(edit: &Edit) -> Vec<String> {
    let edit: &Message = edit.as_ref().expect("an edit");
    edit.parts.iter().flat_map(|part| part.names.first().cloned()).collect()
}

#[tokio::test]
async fn a_notice_tells_what_is_gone_and_why() {
    let (verdicts, edits) = stripped(MIXED, &found(), &to(vec![strip()])).await;
    assert_eq!(names(&edits[0]), ["b.zip"]);
    let notice = edits[0].as_ref().expect("an edit").parts[1].text().expect("a text").into_owned();
    let lines: Vec<&str> = notice.split("\r\n").collect();
    assert_eq!(
        lines[2..],
        [
            "",
            "Datei / file: \"a.exe\"",
            "Typ / type: text/plain",
            "Gr\u{f6}\u{df}e / size: 2 bytes",
            "SHA-256: 9b8db510ef42b8ed54a3712636fda55a4f8cfcd5493e20b74ab00cd4f3979f2d",
            "Grund / reason: executable",
            "",
            "Vorgang / transaction: 01ARZ3NDEKTSV4RRFFQ69G5FAV",
            ""
        ]
    );
    assert!(lines[0].contains("entfernt") && lines[1].contains("removed"));
    let reason = verdicts[0].1.reasons.iter().find(|reason| reason.rule == "STRIPPED").expect("a reason");
    assert_eq!(reason.text, "what is not let in was taken out: \"a.exe\"");
    let own = PolicyLayer { strip_notice: Some("Ask\nus".into()), ..strip() };
    let (_, edits) = stripped(MIXED, &found(), &to(vec![own])).await;
    let notice = edits[0].as_ref().expect("an edit").parts[1].text().expect("a text").into_owned();
    assert!(notice.starts_with("Ask\r\nus\r\n\r\nDatei"), "{notice}");
}

#[tokio::test]
async fn each_recipient_gets_what_its_department_lets_in() {
    let both = PolicyLayer { blocked_types: Some(vec![ContentKind::Executable, ContentKind::Archive]), ..strip() };
    let keep = PolicyLayer { blocked_type: Some(BlockedAction::Quarantine), ..strip() };
    let all = PolicyLayer { blocked_types: Some(Vec::new()), ..strip() };
    let (verdicts, edits) = stripped(MIXED, &found(), &to(vec![strip(), both, keep, all, strip()])).await;
    let dispositions: Vec<_> = verdicts.iter().map(|(_, verdict)| verdict.disposition).collect();
    let accept = Disposition::Accept;
    assert_eq!(dispositions, [accept, accept, Disposition::Quarantine, accept, accept]);
    assert_eq!(names(&edits[0]), ["b.zip"]);
    assert_eq!(names(&edits[1]), [""; 0]);
    assert!(edits[2].is_none() && edits[3].is_none());
    assert!(is_same_edit(&edits[0], &edits[4]) && !is_same_edit(&edits[0], &edits[1]), "made once");
}

fn is_kept(verdict: &Verdict) -> bool {
    let told = verdict.reasons.iter().any(|reason| reason.rule == "NOT_STRIPPED" && reason.score == Score::ZERO);
    told && verdict.disposition == Disposition::Quarantine
}

#[tokio::test]
async fn what_cannot_be_taken_out_cleanly_is_kept_whole() {
    let to_one = || to(vec![strip()]);
    for text in [
        MIXED.replace("multipart/mixed", "multipart/signed"),
        MIXED.replace("boundary=b", "boundary=b; boundary=c"),
        MIXED.replace("--b--\n", ""),
    ] {
        let (verdicts, edits) = stripped(&text, &found(), &to_one()).await;
        assert!(edits[0].is_none() && verdicts[0].1.disposition == Disposition::Quarantine, "{text}");
    }
    let many = (0..=BARRED_MAX).map(|at| (at, Barred::Kind(ContentKind::Script))).collect();
    for barred in [None, Some(many)] {
        let (verdicts, edits) = stripped(MIXED, &Evidence { barred, ..found() }, &to_one()).await;
        assert!(edits[0].is_none() && is_kept(&verdicts[0].1));
    }
}

#[tokio::test]
async fn recipients_who_want_too_many_different_messages_get_none() {
    let own = |number: usize| PolicyLayer { strip_notice: Some(format!("notice {number}")), ..strip() };
    let (verdicts, edits) = stripped(MIXED, &found(), &to((0..EDITS_MAX + 2).map(own).collect())).await;
    assert!(edits[..EDITS_MAX].iter().all(Option::is_some));
    assert!(edits[EDITS_MAX..].iter().all(Option::is_none));
    assert!(verdicts[EDITS_MAX..].iter().all(|(_, verdict)| is_kept(verdict)));
}

#[tokio::test]
async fn a_message_that_no_thread_is_free_to_cut_is_put_off() {
    let examiner = examiner().await;
    let all = u32::try_from(examiner.limits.analyses_max).expect("few");
    let _places = examiner.places.acquire_many(all).await.expect("places");
    let (message, to) = (Arc::new(message(MIXED)), to(vec![strip()]));
    let mut verdicts = decide(&message, &found(), &to);
    let edits = examiner.strip(&message, &found(), &to, &mut verdicts).await;
    let verdict = &verdicts[0].1;
    assert!(edits[0].is_none());
    assert_eq!((verdict.disposition, verdict.reasons[0].rule.as_str()), (Disposition::Defer, "UNREAD"));
}
