//! Promise 1 under SIGKILL: whatever got 250 is at a sink or held, whoever dies.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use chaos_tests::{
    cases,
    cluster::{Cluster, Side, text},
    fate::{self, Fate},
    letters::{self, Letter},
    load::{Ledger, Load, Parcel, Running},
    runtime::run,
    shared,
    sink::Order,
    sink_feed::SinkPeer,
    smtp_client::Envelope,
    zones,
};

const ANNA: &str = "anna@interior.gov.test";
const FULL: &str = "full@health.gov.test";
const FRIEND: &str = "friend@good.example";
/// A lease of a node that died, two minutes, must run out, and the back-off pass.
const REDELIVERY_MAX: Duration = Duration::from_secs(180);
/// Of 250s between two deaths.
const BATCH: usize = 30;

/// What a server writes that takes a message from the one who wrote it.
const HANDED_ON: &str = "Received: from desk.good.example ([127.0.10.7])\r\n\tby mail.good.example with ESMTPSA id 1; \
    Sun, 22 Nov 2026 08:00:00 +0000\r\n";

/// A third of the messages is delivered, a third quarantined, and a third both delivered and deferred.
fn start_load(cluster: &Cluster) -> Running {
    let load = Load {
        connections: 8,
        servers: vec![cluster.smtp(0, Side::Internet), cluster.smtp(1, Side::Internet)],
        client: zones::GOOD,
        messages: 0,
    };
    let signing = cluster.signing.clone();
    load.start(move |n| {
        let from = format!("A Friend <{FRIEND}>");
        let letter = Letter::new(&from, ANNA, &format!("Minutes of meeting {n}")).text(letters::MINUTES);
        let (kind, letter, to) = match n % 3 {
            0 => ("delivered", letter, vec![ANNA.to_owned()]),
            1 => {
                let letter = letter.attach("setup.exe", "application/x-msdownload", &letters::windows_program());
                ("quarantined", letter, vec![ANNA.to_owned()])
            }
            _ => ("deferred", letter, vec![ANNA.to_owned(), FULL.to_owned()]),
        };
        // As a mail server sends it that somebody has given it to; nothing but its attachment may speak against it.
        let message = [HANDED_ON.as_bytes(), &letter.bytes()].concat();
        let message = signing.sign(&message).expect("a letter can be signed");
        Parcel { kind, envelope: Envelope { from: FRIEND.into(), to }, message }
    })
}

async fn all_at(sink: &SinkPeer, promised: &[&str]) -> anyhow::Result<()> {
    for id in promised {
        let what = format!("transaction {id}, which got 250, at {}", sink.name);
        sink.received.first_within(REDELIVERY_MAX, &what, |seen| seen.transaction == *id).await?;
    }
    Ok(())
}

async fn each_promise_is_kept(cluster: &Cluster, ledger: &Ledger) -> anyhow::Result<()> {
    let counts = ledger.counts();
    eprintln!("{counts:?}");
    for kind in ["delivered", "quarantined", "deferred"] {
        anyhow::ensure!(ledger.promised(kind).len() >= BATCH, "too few of {kind}: {counts:?}");
    }
    all_at(&cluster.interior, &ledger.promised("delivered")).await?;
    all_at(&cluster.interior, &ledger.promised("deferred")).await?;
    let held: BTreeSet<String> = cluster.operator.held().await?.into_iter().map(|record| record.transaction).collect();
    let lost: Vec<_> = ledger.promised("quarantined").into_iter().filter(|id| !held.contains(*id)).collect();
    anyhow::ensure!(lost.is_empty(), "these got 250 and are not in quarantine: {lost:?}");
    cluster.health.order(&Order::Accept("full".into())).await?;
    let deferred = all_at(&cluster.health, &ledger.promised("deferred")).await;
    cluster.health.order(&Order::Refuse("full".into(), 452)).await?;
    deferred
}

#[test]
fn nothing_that_got_250_is_lost_when_the_leader_is_killed() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let mut load = start_load(&cluster);
        load.accepted(BATCH).await?;
        for _ in 0..3 {
            let leader = cluster.leader().await?;
            cluster.kill9(&leader).await?;
            load.accepted(2 * BATCH).await.with_context(|| format!("after the death of {leader}"))?;
            cluster.restart(&leader).await?;
            cluster.operator.caught_up(&leader).await?;
        }
        let ledger = load.stop().await;
        each_promise_is_kept(&cluster, &ledger).await
    })
}

#[test]
fn nothing_that_got_250_is_lost_when_each_process_is_killed_in_turn() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let mut load = start_load(&cluster);
        load.accepted(BATCH).await?;
        for name in ["alpha", "mx1", "beta", "mx2", "gamma"] {
            cluster.kill9(name).await?;
            load.accepted(BATCH).await.with_context(|| format!("after the death of {name}"))?;
            cluster.restart(name).await?;
            load.accepted(BATCH).await.with_context(|| format!("after the return of {name}"))?;
            cluster.leader().await?;
        }
        let ledger = load.stop().await;
        each_promise_is_kept(&cluster, &ledger).await
    })
}

#[test]
fn without_a_quorum_mail_passes_and_what_must_be_held_waits() -> anyhow::Result<()> {
    run(async {
        let cluster = shared::cluster().await?;
        let program = cases::disguised_program(&cluster)?;
        let held = fate::send_and_follow(&cluster, &program, 0).await?;
        let id = held[0].held.clone().with_context(|| format!("{held:?}"))?;
        let leader = cluster.leader().await?;
        let follower = cluster.servers.iter().map(|server| server.name).find(|name| *name != leader);
        let follower = follower.context("there are three servers")?;
        cluster.kill9(&leader).await?;
        cluster.kill9(follower).await?;
        for node in 0..2 {
            let message = cluster.signing.sign(&Letter::new(FRIEND, ANNA, "Still open").bytes())?;
            let envelope = Envelope { from: FRIEND.into(), to: vec![ANNA.into()] };
            let answers = cluster.send(cluster.smtp(node, Side::Internet), zones::GOOD, &envelope, &message).await?;
            let id = answers.transaction().with_context(|| format!("{answers:?}"))?.to_owned();
            cluster.interior.received.first("pass-through mail", |seen| seen.transaction == id).await?;
            let refused = cluster
                .send(cluster.smtp(node, program.side), program.client, &program.envelope, &program.message)
                .await?;
            assert_eq!(refused.last().code, 451, "{refused:?}");
        }
        let release = cluster.posternctl(["quarantine", "release", &id, "--why", "no quorum"]);
        let release = tokio::time::timeout(Duration::from_secs(60), release).await.context("it hangs")??;
        let said = text(&release.stderr);
        assert!(!release.status.success() && !said.is_empty());
        let clear = ["quorum", "majority", "leader"].iter().any(|word| said.contains(word));
        assert!(clear, "it says what is missing: {said}");
        cluster.restart(&leader).await?;
        cluster.restart(follower).await?;
        cluster.leader().await?;
        let accounts = fate::send_and_follow(&cluster, &program, 1).await?;
        assert_eq!(accounts[0].fate, Fate::Quarantined, "{accounts:?}");
        Ok(())
    })
}
