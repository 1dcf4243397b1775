//! What the worker tells the cluster of a message that somebody has released.

use std::time::Duration;

use proto::{
    held::{Held, HeldKind, HeldStatus},
    mutation::Change,
    score::Score,
    time::UnixMs,
    verdict::Reason,
};
use tokio::time::timeout;

use super::{ATTEMPT, Running, change, held};
use crate::{
    actions::relay::scripted::{Scripted, TAKES_ONE},
    limits::Limits,
};

fn released() -> Held {
    let mut held = held(Some("interior"), &["bob@interior.test"]);
    held.kind = HeldKind::Quarantined;
    held.status = HeldStatus::Due { released: Some(("operator/anna".to_owned(), UnixMs(1))) };
    held.verdict.score = Score(850);
    held.verdict.reasons =
        vec![Reason { rule: "CLUSTER_LEARNT_BAD".into(), score: Score(150), text: "caught".to_owned() }];
    held
}

/// What is proposed behind the end of the delivery, if anything is.
async fn taught(message: Held) -> Option<Change> {
    let sink = Scripted::plain(&[TAKES_ONE]).await;
    let change = change(vec![sink.hop.clone()], Vec::new());
    let mut running = Running::start(message, &change, Vec::new(), &Limits::default(), ATTEMPT, |_| None).await;
    let attempted = running.proposed().await;
    assert!(matches!(&attempted, Change::Attempted { delivered, .. } if delivered.len() == 1), "{attempted:?}");
    running.stop.send(true).expect("a worker");
    (&mut running.worker).await.expect("the worker ends");
    // All that was proposed before its end is there.
    timeout(Duration::ZERO, running.server.proposals.recv()).await.ok().flatten().map(|(_, change)| change)
}

#[tokio::test]
async fn a_message_that_somebody_has_released_teaches_when_it_is_delivered() {
    let message = released();
    let id = message.id;
    let Some(Change::Learn { held, lesson }) = taught(message).await else { panic!("a lesson") };
    assert_eq!((held, lesson.bad, lesson.check()), (id, false, Ok(())));
    assert_eq!(lesson.over, Score(100), "850 points, 150 of them learnt, over a threshold of 600");
}

#[tokio::test]
async fn what_moves_by_itself_or_comes_from_a_department_teaches_nothing() {
    let by_itself = Held { status: HeldStatus::Due { released: None }, ..released() };
    let deferred = Held { kind: HeldKind::Deferred, ..by_itself.clone() };
    let from_inside = Held { from_department: released().department, ..released() };
    for message in [by_itself, deferred, from_inside] {
        assert_eq!(taught(message).await, None);
    }
}
