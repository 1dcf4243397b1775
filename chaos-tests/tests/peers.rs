//! The peers of the cluster keep their own promises: what the tests of the cluster are built on.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use chaos_tests::{
    letters::Letter,
    load::{Load, Parcel},
    sink::{Order, Received, Sink, field},
    smtp_client::{Conversation, Envelope},
};
use tokio::net::TcpListener;

type Log = Arc<Mutex<Vec<Received>>>;

struct Running {
    address: SocketAddr,
    received: Log,
    order: Box<dyn Fn(Order) + Send + Sync>,
    folder: tempfile::TempDir,
}

async fn sink() -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let received = Log::default();
    let log = received.clone();
    let report = move |message| log.lock().expect("a lock").push(message);
    let sink = Arc::new(Sink::new("sink.test", Some(folder.path().to_owned()), None, report));
    tokio::spawn(sink.clone().serve(listener));
    Running { address, received, order: Box::new(move |order| sink.obey(order)), folder }
}

fn envelope(to: &[&str]) -> Envelope {
    Envelope { from: "a@good.example".into(), to: to.iter().map(|to| (*to).to_owned()).collect() }
}

#[tokio::test]
async fn a_sink_stores_a_message_byte_for_byte_before_it_says_250() {
    let sink = sink().await;
    let letter = Letter::new("a@good.example", "b@x.test", "Dots").text(".\r\n..two\r\nend\r\n");
    let mut message =
        b"Received: from a by mx1 with ESMTP id 01JABCDEFGHJKMNPQRSTVWXYZ0;\r\n\tFri, 1 Jan 2027\r\n".to_vec();
    message.extend(letter.bytes());
    let mut conversation = Conversation::open(sink.address, None, "client.test").await.expect("greeted");
    let answers = conversation.send(&envelope(&["b@x.test"]), &message).await.expect("answered");
    assert_eq!(answers.last().code, 250, "{answers:?}");
    let seen = sink.received.lock().expect("a lock").first().cloned().expect("reported before the 250");
    assert_eq!(std::fs::read(&seen.file).expect("stored"), message);
    assert_eq!((seen.transaction.as_str(), &seen.message_id), ("01JABCDEFGHJKMNPQRSTVWXYZ0", &letter.message_id));
    assert_eq!(field(&message, "subject").as_deref(), Some("Dots"));
    assert!(seen.file.starts_with(sink.folder.path()));
}

#[tokio::test]
async fn a_sink_refuses_mailboxes_and_goes_away_when_told() {
    let sink = sink().await;
    (sink.order)(Order::Refuse("full".into(), 452));
    (sink.order)(Order::Refuse("nobody".into(), 550));
    let mut conversation = Conversation::open(sink.address, None, "client.test").await.expect("greeted");
    let to = envelope(&["full@x.test", "nobody@x.test", "b@x.test"]);
    let answers = conversation.send(&to, b"Subject: s\r\n\r\nhi\r\n").await.expect("answered");
    assert_eq!(answers.rcpt.iter().map(|reply| reply.code).collect::<Vec<_>>(), [452, 550, 250]);
    assert_eq!(sink.received.lock().expect("a lock")[0].to, ["b@x.test"]);
    (sink.order)(Order::Accept("full".into()));
    let again = conversation.send(&envelope(&["full@x.test"]), b"Subject: s\r\n\r\nhi\r\n").await.expect("answered");
    assert_eq!(again.last().code, 250);
    (sink.order)(Order::Away(true));
    let refused = Conversation::open(sink.address, None, "client.test").await.expect_err("away");
    assert!(refused.to_string().contains("421"), "{refused}");
}

#[tokio::test]
async fn a_load_sends_each_message_once_and_counts_each_answer() {
    let sink = sink().await;
    (sink.order)(Order::Refuse("full".into(), 452));
    let load = Load {
        connections: 7,
        servers: vec![sink.address],
        client: "127.0.10.1".parse().expect("an address"),
        messages: 200,
    };
    let ledger = load
        .start(|n| Parcel {
            kind: if n % 4 == 0 { "full" } else { "ham" },
            envelope: envelope(&[if n % 4 == 0 { "full@x.test" } else { "b@x.test" }]),
            message: format!("Message-ID: <{n}@good.example>\r\n\r\nhi\r\n").into_bytes(),
        })
        .end()
        .await;
    let counts: Vec<_> = ledger.counts().into_iter().collect();
    assert_eq!(counts, [(("full", 452), 50), (("ham", 250), 150)]);
    assert_eq!(ledger.latencies().count(), 150);
    let mut ids: Vec<String> =
        sink.received.lock().expect("a lock").iter().map(|seen| seen.message_id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 150);
}
