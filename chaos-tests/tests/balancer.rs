//! A real HAProxy in front of two nodes: one is killed, another one drained, and the mail goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use chaos_tests::{
    binaries::programs,
    cluster::{Cluster, Options, balancer::Balancer, operator::until},
    janitor::Janitor,
    letters::Letter,
    runtime::run,
    sink::fields,
    smtp_client::{Conversation, Envelope},
    zones,
};
use indicatif::ProgressBar;
use tokio::{task::JoinSet, time::sleep};

const CLIENTS: usize = 6;
/// Messages that each client gets rid of in each part of the scenario.
const MESSAGES: u32 = 12;
/// A client whose connection is lost waits before the next.
const PAUSE: Duration = Duration::from_millis(700);

/// What a client has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Subject and transaction of each message that was accepted.
    accepted: Vec<(String, String)>,
    /// Subjects of messages whose connection was lost in between.
    lost: Vec<String>,
}

struct Client {
    number: usize,
    server: SocketAddr,
    sent: Arc<[AtomicU32; CLIENTS]>,
    stop: Arc<AtomicBool>,
}

impl Client {
    /// A message, in a connection of its own; the transaction, or nothing when the connection was lost or closed on it.
    async fn send(&self, message: &[u8]) -> Option<String> {
        let envelope = Envelope { from: "friend@good.example".into(), to: vec!["anna@interior.gov.test".into()] };
        let mut conversation = Conversation::open(self.server, Some(zones::GOOD), "mail.good.example").await.ok()?;
        let answers = conversation.send(&envelope, message).await.ok()?;
        let transaction = answers.transaction().map(str::to_owned);
        // The answer to the message counts, not the one to QUIT.
        let _ = conversation.quit().await;
        transaction
    }

    /// One message after the other, each until it is accepted, as every mail server does.
    async fn run(self, sign: impl Fn(&[u8]) -> anyhow::Result<Vec<u8>>) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let subject = format!("client {} message {number}", self.number);
            let message = sign(&Letter::new("friend@good.example", "anna@interior.gov.test", &subject).bytes())?;
            let transaction = loop {
                match self.send(&message).await {
                    Some(transaction) => break transaction,
                    None => {
                        seen.lost.push(subject.clone());
                        sleep(PAUSE).await;
                    }
                }
            };
            seen.accepted.push((subject, transaction));
            self.sent[self.number].fetch_add(1, Ordering::Relaxed);
        }
        Ok(seen)
    }
}

/// Waits until every client has got rid of some more.
async fn goes_on(sent: &[AtomicU32; CLIENTS]) -> anyhow::Result<()> {
    let goals = sent.each_ref().map(|sent| sent.load(Ordering::Relaxed) + MESSAGES);
    until("each client has sent some more", || async {
        goals.iter().zip(sent).all(|(goal, sent)| sent.load(Ordering::Relaxed) >= *goal).then_some(())
    })
    .await
}

#[test]
fn behind_haproxy_a_node_dies_and_another_is_drained_and_no_message_is_lost() -> anyhow::Result<()> {
    run(async {
        let cluster = Cluster::start(Options { clamd: false, ..Options::default() }).await?;
        let janitor = Janitor::start(&programs(&ProgressBar::hidden()).await?.peer, None)?;
        let balancer = Balancer::start(&cluster, &janitor).await?;
        let (sent, stop): (Arc<[AtomicU32; CLIENTS]>, Arc<AtomicBool>) = Default::default();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = Client { number, server: balancer.address, sent: Arc::clone(&sent), stop: Arc::clone(&stop) };
            let signing = Arc::clone(&cluster.signing);
            clients.spawn(client.run(move |message| signing.sign(message)));
        }
        goes_on(&sent).await?;
        cluster.kill9("mx1").await?;
        goes_on(&sent).await?;
        cluster.restart("mx1").await?;
        goes_on(&sent).await?;
        cluster.posternctl_ok(["node", "drain", "mx2", "--why", "work on its host"].map(OsString::from)).await?;
        goes_on(&sent).await?;
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(seen) = clients.join_next().await {
            all.push(seen.context("a client")??);
        }

        let received = || {
            let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for message in cluster.interior.received.all() {
                let bytes = std::fs::read(&message.file).unwrap_or_default();
                let subject = fields(&bytes).into_iter().find(|(name, _)| name.eq_ignore_ascii_case("subject"));
                arrived
                    .entry(subject.map(|(_, text)| text.trim().to_owned()).unwrap_or_default())
                    .or_default()
                    .push(message.transaction.clone());
            }
            arrived
        };
        let accepted: Vec<&(String, String)> = all.iter().flat_map(|seen| &seen.accepted).collect();
        assert!(accepted.len() >= CLIENTS * 4 * MESSAGES as usize);
        until("everything that was accepted arrives", || async {
            let arrived = received();
            accepted.iter().all(|(subject, id)| arrived.get(subject).is_some_and(|ids| ids.contains(id))).then_some(())
        })
        .await?;
        let lost: BTreeSet<&String> = all.iter().flat_map(|seen| &seen.lost).collect();
        let twice: Vec<String> =
            received().into_iter().filter(|(_, ids)| ids.len() > 1).map(|(subject, _)| subject).collect();
        assert!(twice.iter().all(|subject| lost.contains(subject)), "doubled without cause: {twice:?}");
        for seen in &all {
            // By the death of a node. Of the drain HAProxy hears before anybody is turned away.
            assert!(seen.lost.len() <= 1, "{:?}", seen.lost);
        }
        balancer.stop().await?;
        cluster.stop().await?;
        janitor.finish();
        Ok(())
    })
}
