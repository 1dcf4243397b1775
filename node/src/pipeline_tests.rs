//! What is done and said for what was decided, before a fake control server and scripted next hops.

use std::{sync::Arc, time::Duration};

use proto::{
    department::{NextHop, TlsRule},
    held::HeldKind,
    identity::Role,
    mutation::{Change, Outcome, Refused},
    policy::PolicyLayer,
    score::Score,
    verdict::{Disposition, Verdict},
};
use tonic::Status;

use super::{HANDED_ON_AT_ONCE, Pipeline, end, first_fates};
use crate::{
    actions::relay::{
        Handed, Relay, no_dns,
        scripted::{Scripted, TAKES_ONE},
    },
    checks::{authentication::Authenticator, opener::no_openers, virus::VirusScanner},
    cluster::{
        Cluster,
        fake::{Authority, Fake},
    },
    examine::{Examined, Examiner},
    limits::Limits,
    policy::{
        blocked::STRIPPED,
        decide::RESCAN,
        resolve::{End, Fate},
        samples::{clean, message, transaction, view},
        score::reason,
    },
    smtp::{
        reply::{Class, Reply},
        transaction::{Recipient, Route, Transaction, TrustClass},
    },
};

fn verdict(disposition: Disposition) -> Verdict {
    Verdict { disposition, score: Score::ZERO, tagged: false, reasons: Vec::new(), policy_version: 7 }
}

#[test]
fn before_anything_is_done_nobody_is_safe() {
    let to = ["a@interior.gov.test", "b@health.gov.test"];
    let transaction = transaction(view(PolicyLayer::default()), &to);
    for disposition in
        [Disposition::Accept, Disposition::Quarantine, Disposition::Reject, Disposition::Defer, Disposition::Discard]
    {
        let examined = examined(vec![(transaction.recipients.clone(), verdict(disposition))]);
        let fates = first_fates(&transaction, &examined);
        assert_eq!(fates.len(), 2);
        assert!(fates.iter().all(|fate| !fate.end.is_safe()));
        let refused =
            fates.iter().all(|fate| matches!(&fate.end, End::Refused(reply) if reply.class() == Class::Permanent));
        assert_eq!(refused, disposition == Disposition::Reject);
    }
}

#[test]
fn only_the_next_hops_yes_is_a_delivery() {
    let yes = Handed::Accepted { next_hop: "h:25".into(), reply: "ok".into() };
    assert!(end(yes).is_safe());
    assert!(!end(Handed::Refused(Reply::permanent(50, (1, 1), "no"))).is_safe());
    assert!(!end(Handed::Deferred(Reply::temporary(51, (4, 1), "later"))).is_safe());
    assert!(!end(Handed::Unknown(Reply::temporary(51, (4, 7), "silence"))).is_safe());
}

/// Accepts for interior, `other` for health.
fn verdicts(transaction: &Transaction, other: Disposition) -> Vec<(Vec<Recipient>, Verdict)> {
    let dispositions = [Disposition::Accept, other];
    let of = |recipient: &Recipient, disposition| (vec![recipient.clone()], verdict(disposition));
    transaction.recipients.iter().zip(dispositions).map(|(recipient, disposition)| of(recipient, disposition)).collect()
}

fn examined(verdicts: Vec<(Vec<Recipient>, Verdict)>) -> Examined {
    let message = Arc::new(message("From: a@sender.test\nSubject: x\n\nHello\n"));
    Examined { message, evidence: clean(), verdicts, edits: Vec::new() }
}

/// To interior, whose next hop is `hop`, and to health, whose next hop does not answer.
fn to_both(hop: &NextHop) -> Transaction {
    let mut transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test", "b@health.gov.test"]);
    let Route::Department { next_hops, .. } = &mut transaction.recipients[0].route else { panic!("a department") };
    *next_hops = vec![hop.clone()];
    transaction
}

/// A pipeline before a control server that answers so.
async fn pipeline(
    limits: Limits,
    answers: impl Fn(&Change) -> Result<Outcome, Status> + Send + Sync + 'static,
) -> (Pipeline, Fake) {
    let authority = Authority::new();
    let server = Fake::start(authority.credentials(Role::Control, "a"), answers).await;
    let credentials = authority.credentials(Role::Node, "n1");
    let cluster = Cluster::connect(credentials, vec![server.address.clone()], "north", &limits).expect("a cluster");
    let authenticator = Authenticator::new("mx.gov.test", no_dns(), &limits);
    let (scanner, openers) = (VirusScanner::new(Vec::new(), &limits), no_openers(&limits));
    let examiner = Examiner::new("mx.gov.test", &limits, authenticator, scanner, openers);
    let limits_of_relay = Limits { relay_idle_max: 0, ..limits.clone() };
    let relay = Arc::new(Relay::new("mx.gov.test", &limits_of_relay, no_dns(), None));
    (
        Pipeline {
            host: "mx.gov.test".into(),
            node: "n1".into(),
            cluster,
            relay,
            examiner,
            outcomes: super::Outcomes::default(),
        },
        server,
    )
}

async fn outcome(pipeline: &Pipeline, transaction: &Transaction, examined: &Examined) -> (Vec<Fate>, Reply) {
    let fates = pipeline.act(transaction, examined).await;
    pipeline.settle(transaction, examined, fates).await
}

fn listening() -> (std::net::TcpListener, NextHop) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    (listener, NextHop { host: "127.0.0.1".into(), port, tls: TlsRule::None })
}

/// Connections that were made to it.
fn connections(listener: &std::net::TcpListener) -> usize {
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[tokio::test]
async fn what_cannot_be_kept_is_left_with_the_sender_and_nothing_is_handed_on() {
    let (listener, hop) = listening();
    let transaction = to_both(&hop);
    let examined = examined(verdicts(&transaction, Disposition::Quarantine));
    let (pipeline, mut server) = pipeline(Limits::default(), |_| Ok(Outcome::Refused(Refused::NoSuch))).await;
    let (fates, reply) = outcome(&pipeline, &transaction, &examined).await;
    assert_eq!((reply.code(), fates.iter().any(|fate| fate.end.is_safe())), (451, false));
    let (_, proposed) = server.proposals.try_recv().expect("a proposal");
    assert!(matches!(proposed, Change::Hold { .. }), "{proposed:?}");
    assert_eq!(connections(&listener), 0);
}

#[tokio::test]
async fn what_one_next_hop_did_not_take_is_held_before_the_250() {
    for (answer, code) in [(Outcome::Done, 250), (Outcome::Refused(Refused::NoSuch), 451)] {
        let sink = Scripted::plain(&[TAKES_ONE]).await;
        let transaction = to_both(&sink.hop);
        let examined = examined(verdicts(&transaction, Disposition::Accept));
        let (pipeline, mut server) = pipeline(Limits::default(), move |_| Ok(answer.clone())).await;
        let (fates, reply) = outcome(&pipeline, &transaction, &examined).await;
        assert_eq!(reply.code(), code);
        assert!(matches!(fates[0].end, End::Delivered { .. }), "{:?}", fates[0].end);
        assert_eq!(fates[1].end == End::Held(HeldKind::Deferred), code == 250);
        let (_, proposed) = server.proposals.try_recv().expect("a proposal before the reply");
        let Change::Hold { records } = proposed else { panic!("{proposed:?}") };
        assert_eq!((records.len(), records[0].kind), (1, HeldKind::Deferred));
        assert_eq!(records[0].recipients, [transaction.recipients[1].address.clone()]);
        assert!(server.bodies.lock().expect("a lock").contains_key(&records[0].body.digest));
        assert_eq!(sink.heard().await.len(), 1);
    }
}

#[tokio::test]
async fn what_is_to_be_scanned_again_is_held_for_that_and_handed_to_nobody() {
    for (answer, code) in [(Outcome::Done, 250), (Outcome::Refused(Refused::NoSuch), 451)] {
        let (listener, hop) = listening();
        let transaction = to_both(&hop);
        let mut verdicts = verdicts(&transaction, Disposition::Reject);
        verdicts[0].1.reasons = vec![reason(RESCAN, Score::ZERO, "")];
        let examined = examined(verdicts);
        let (pipeline, mut server) = pipeline(Limits::default(), move |_| Ok(answer.clone())).await;
        let fates = pipeline.act(&transaction, &examined).await;
        assert_eq!(fates[0].end == End::Held(HeldKind::Deferred), code == 250);
        assert_eq!(connections(&listener), 0);
        if code == 250 {
            let (_, proposed) = server.proposals.try_recv().expect("a proposal");
            let Change::Hold { records } = proposed else { panic!("{proposed:?}") };
            assert_eq!((records.len(), records[0].kind), (1, HeldKind::Deferred));
            assert_eq!(records[0].recipients, [transaction.recipients[0].address.clone()]);
        }
        assert_eq!(pipeline.settle(&transaction, &examined, fates).await.1.code(), code);
    }
}

/// Interior gets it without its only body.
fn stripped(transaction: &Transaction) -> Examined {
    let mut verdicts = verdicts(transaction, Disposition::Reject);
    verdicts[0].1.reasons = vec![reason(STRIPPED, Score::ZERO, "\"a.exe\"")];
    let edit = Arc::new(message("From: a@sender.test\nSubject: x\n\nA notice\n"));
    Examined { edits: vec![Some(edit), None], ..examined(verdicts) }
}

#[tokio::test]
async fn what_goes_on_without_something_is_held_whole_before() {
    for (answer, code) in [(Outcome::Done, 250), (Outcome::Refused(Refused::NoSuch), 451)] {
        let sink = Scripted::plain(&[TAKES_ONE]).await;
        let transaction = to_both(&sink.hop);
        let examined = stripped(&transaction);
        let (pipeline, mut server) = pipeline(Limits::default(), move |_| Ok(answer.clone())).await;
        let (fates, reply) = outcome(&pipeline, &transaction, &examined).await;
        assert_eq!((reply.code(), fates.len()), (code, 2));
        let (_, proposed) = server.proposals.try_recv().expect("a proposal");
        let Change::Hold { records } = proposed else { panic!("{proposed:?}") };
        assert_eq!((records.len(), records[0].kind), (1, HeldKind::Quarantined));
        assert_eq!(records[0].recipients, [transaction.recipients[0].address.clone()]);
        assert_eq!(records[0].verdict.reasons[0].rule, "STRIPPED_ORIGINAL");
        let bodies = server.bodies.lock().expect("a lock").clone();
        let whole = String::from_utf8_lossy(&bodies[&records[0].body.digest]).into_owned();
        assert!(whole.contains("\r\n\r\nHello\r\n") && !whole.contains("X-Postern-Stripped"), "{whole}");
        if code == 250 {
            assert!(matches!(fates[0].end, End::Delivered { .. }), "{:?}", fates[0].end);
            let data = sink.heard().await.remove(0).data;
            assert!(data.contains("\r\n\r\nA notice\r\n") && !data.contains("Hello"), "{data}");
            assert!(data.contains("X-Postern-Stripped: \"a.exe\"\r\n"), "{data}");
        }
    }
}

#[tokio::test]
async fn what_was_held_whole_and_is_not_taken_now_is_held_and_not_left_with_its_sender() {
    let (listener, mut hop) = listening();
    drop(listener);
    hop.port = 1;
    let transaction = to_both(&hop);
    let (pipeline, mut server) = pipeline(Limits::default(), |_| Ok(Outcome::Done)).await;
    let (fates, reply) = outcome(&pipeline, &transaction, &stripped(&transaction)).await;
    assert_eq!((reply.code(), &fates[0].end), (250, &End::Held(HeldKind::Deferred)));
    server.proposals.try_recv().expect("the original");
    let (_, proposed) = server.proposals.try_recv().expect("what is to be delivered");
    let Change::Hold { records } = proposed else { panic!("{proposed:?}") };
    let deferred = records.iter().find(|record| record.kind == HeldKind::Deferred).expect("a record");
    let bodies = server.bodies.lock().expect("a lock").clone();
    let body = String::from_utf8_lossy(&bodies[&deferred.body.digest]).into_owned();
    assert!(body.contains("A notice") && !body.contains("Hello"), "{body}");
}

#[tokio::test]
async fn nothing_is_thrown_away_without_a_trace() {
    for (answer, code) in [(Outcome::Done, 250), (Outcome::Refused(Refused::NoSuch), 451)] {
        let transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test"]);
        let examined = examined(vec![(transaction.recipients.clone(), verdict(Disposition::Discard))]);
        let (pipeline, mut server) = pipeline(Limits::default(), move |_| Ok(answer.clone())).await;
        let (fates, reply) = outcome(&pipeline, &transaction, &examined).await;
        assert_eq!((reply.code(), fates[0].end == End::Discarded), (code, code == 250));
        let (_, proposed) = server.proposals.try_recv().expect("a proposal");
        assert!(matches!(proposed, Change::Discard { recipients: 1, .. }), "{proposed:?}");
    }
}

/// A next hop that takes connections and says nothing.
#[tokio::test]
async fn a_message_for_many_next_hops_takes_few_connections_and_bounded_time() {
    let (listener, hop) = listening();
    let limits = Limits { relay_time_max: Duration::from_millis(200), ..Limits::default() };
    let group = (to_both(&hop).recipients[..1].to_vec(), verdict(Disposition::Accept));
    let examined = examined(vec![group; 3 * HANDED_ON_AT_ONCE]);
    let (pipeline, _server) = pipeline(limits, |_| Ok(Outcome::Done)).await;
    let fates = pipeline.act(&to_both(&hop), &examined).await;
    assert_eq!(fates.len(), 3 * HANDED_ON_AT_ONCE);
    assert!(fates.iter().all(|fate| matches!(fate.end, End::Deferred(_))));
    assert_eq!(connections(&listener), HANDED_ON_AT_ONCE);
}

#[tokio::test]
async fn a_body_is_made_once_for_each_verdict_and_class() {
    let transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test"]);
    let group = |change: fn(&mut Recipient, &mut Verdict)| {
        let (mut recipient, mut verdict) = (transaction.recipients[0].clone(), verdict(Disposition::Accept));
        change(&mut recipient, &mut verdict);
        (vec![recipient], verdict)
    };
    let groups = vec![
        group(|_, _| {}),
        group(|_, _| {}),
        group(|_, verdict| verdict.tagged = true),
        group(|recipient, _| recipient.class = TrustClass::Outbound),
        group(|_, verdict| verdict.disposition = Disposition::Quarantine),
        group(|_, _| {}),
        group(|_, _| {}),
    ];
    let edit = Some(Arc::new(message("From: a@sender.test\n\nA notice\n")));
    let edits = vec![None, None, None, None, None, edit.clone(), edit];
    let (pipeline, _server) = pipeline(Limits::default(), |_| Ok(Outcome::Done)).await;
    let examined = Examined { edits, ..examined(groups) };
    assert_eq!(pipeline.bodies(&transaction, &examined).len(), 4);
}

/// Whoever answers for the sender is asked to remember good mail, and mail for mailboxes that nobody has is none.
#[tokio::test]
async fn mail_that_no_next_hop_took_says_nothing_good_of_its_sender() {
    let (pipeline, _server) = pipeline(Limits::default(), |_| Ok(Outcome::Done)).await;
    let transaction = transaction(view(PolicyLayer::default()), &["a@interior.gov.test", "b@health.gov.test"]);
    let examined = examined(verdicts(&transaction, Disposition::Accept));
    let fates = |ends: [End; 2]| -> Vec<Fate> {
        let fate = |((group, verdict), end): (&(Vec<Recipient>, Verdict), End)| Fate {
            recipient: group[0].clone(),
            verdict: verdict.clone(),
            edit: None,
            end,
        };
        examined.verdicts.iter().zip(ends).map(fate).collect()
    };
    let refused = || End::Refused(Reply::permanent(50, (1, 1), "no such mailbox"));
    let delivered = End::Delivered { next_hop: "h:25".into(), reply: "ok".into() };
    pipeline.count(&transaction, &examined, &fates([refused(), refused()]), &Reply::permanent(50, (1, 1), "no"));
    assert!(pipeline.outcomes.take().is_empty(), "nobody took it");
    pipeline.count(&transaction, &examined, &fates([delivered, refused()]), &Reply::done(50, (0, 0), "ok"));
    let heard = pipeline.outcomes.take();
    assert!(!heard.is_empty() && heard.iter().all(|heard| (heard.good, heard.bad) == (1, 0)), "{heard:?}");
}
