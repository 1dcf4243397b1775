//! Connections that are kept for the next message, against scripted next hops on loopback.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proto::{
    address::ReversePath,
    department::{NextHop, TlsRule},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{
    Relay,
    pool::{Key, Pool},
    scripted::{Scripted, TAKES_ONE},
    tests::{addresses, department, fates, no_dns, plain},
};
use crate::limits::Limits;

/// What a connection of the next hop does when it has taken so many messages.
#[derive(Clone, Copy, Debug)]
enum After {
    /// It goes on.
    Nothing,
    /// It closes the connection without a word.
    Closes(usize),
    /// It says more than it was asked.
    SaysTooMuch(usize),
    /// It answers this command with 421.
    Says421(&'static str, usize),
    /// It closes the connection after the final dot of the next message, unanswered.
    LosesTheNext(usize),
}

/// A next hop that serves its connections one after the other, each in its way, and tells what it hears: `(connection, line)`.
async fn next_hop(ways: Vec<After>) -> (NextHop, mpsc::Receiver<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (tell, told) = mpsc::channel(1000);
    tokio::spawn(async move {
        for (number, way) in ways.into_iter().enumerate() {
            let (stream, _) = listener.accept().await.expect("a connection");
            let tell = tell.clone();
            tokio::spawn(async move { serve(stream, number, way, &tell).await.unwrap_or_default() });
        }
    });
    (NextHop { host: "127.0.0.1".to_owned(), port, tls: TlsRule::None }, told)
}

async fn serve(
    stream: TcpStream,
    number: usize,
    way: After,
    tell: &mpsc::Sender<(usize, String)>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 sink.test\r\n").await?;
    let (mut taken, mut in_message) = (0, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        if in_message {
            if line != "." {
                continue;
            }
            (in_message, taken) = (false, taken + 1);
            tell.send((number, "taken".into())).await.expect("somebody listens");
            if matches!(way, After::LosesTheNext(after) if taken > after) {
                return Ok(());
            }
            let too_much = matches!(way, After::SaysTooMuch(after) if taken == after);
            let said: &[u8] = if too_much { b"250 taken\r\n250 ok\r\n" } else { b"250 taken\r\n" };
            stream.write_all(said).await?;
            if matches!(way, After::Closes(after) if taken == after) {
                return Ok(());
            }
            continue;
        }
        tell.send((number, line.to_owned())).await.expect("somebody listens");
        match (line.split(' ').next().unwrap_or_default(), way) {
            (verb, After::Says421(on, after)) if taken >= after && verb == on => {
                return stream.write_all(b"421 4.3.2 bye\r\n").await;
            }
            ("EHLO", _) => stream.write_all(b"250-sink.test\r\n250 PIPELINING\r\n").await?,
            ("DATA", _) => {
                in_message = true;
                stream.write_all(b"354 go on\r\n").await?;
            }
            ("QUIT", _) => return stream.write_all(b"221 bye\r\n").await,
            _ => stream.write_all(b"250 ok\r\n").await?,
        }
    }
}

fn relay(limits: &Limits) -> Relay {
    Relay::new("node.test", limits, no_dns(), None)
}

async fn deliver(relay: &Relay, hop: &NextHop) -> String {
    let route = department(vec![hop.clone()]);
    fates(&relay.deliver(&route, plain(&ReversePath::Null, &addresses(&["bob"])), b"x\r\n").await).remove(0)
}

/// What was heard so far of a kind of line: the number of the connection, for each.
fn heard(told: &mut mpsc::Receiver<(usize, String)>, start: &str) -> Vec<usize> {
    let all = std::iter::from_fn(|| told.try_recv().ok());
    all.filter(|(_, line)| line.starts_with(start)).map(|(number, _)| number).collect()
}

#[tokio::test]
async fn messages_go_one_after_the_other_over_one_connection() {
    let (hop, mut told) = next_hop(vec![After::Nothing]).await;
    let relay = relay(&Limits::default());
    for _ in 0..5 {
        assert_eq!(deliver(&relay, &hop).await, "accepted taken");
    }
    assert_eq!(heard(&mut told, "EHLO"), [0]);
}

#[tokio::test]
async fn a_kept_connection_that_is_gone_costs_no_message_its_delivery() {
    for way in [After::Closes(1), After::Says421("MAIL", 1), After::Says421("DATA", 1)] {
        let (hop, mut told) = next_hop(vec![way, After::Nothing]).await;
        let relay = relay(&Limits::default());
        assert_eq!(deliver(&relay, &hop).await, "accepted taken");
        assert_eq!(deliver(&relay, &hop).await, "accepted taken", "after {way:?}");
        assert_eq!(heard(&mut told, "taken"), [0, 1], "after {way:?}");
    }
}

/// Its answer would be taken for that to the next command.
#[tokio::test]
async fn a_connection_over_which_more_came_than_was_asked_is_not_used_again() {
    let (hop, mut told) = next_hop(vec![After::SaysTooMuch(1), After::Nothing]).await;
    let relay = relay(&Limits::default());
    for _ in 0..2 {
        assert_eq!(deliver(&relay, &hop).await, "accepted taken");
    }
    assert_eq!(heard(&mut told, "MAIL"), [0, 1]);
}

/// RFC 5321 section 4.2.5: it may have been delivered, and who sends it again must be its sender.
#[tokio::test]
async fn a_message_that_was_sent_over_a_kept_connection_is_not_sent_again() {
    let (hop, mut told) = next_hop(vec![After::LosesTheNext(1), After::Nothing]).await;
    let relay = relay(&Limits::default());
    assert_eq!(deliver(&relay, &hop).await, "accepted taken");
    let fate = deliver(&relay, &hop).await;
    assert!(fate.starts_with("unknown 451 4.4.2 "), "{fate}");
    assert_eq!(heard(&mut told, "taken"), [0, 0]);
}

#[tokio::test]
async fn a_new_connection_that_ends_is_no_reason_for_another_one() {
    let (hop, mut told) = next_hop(vec![After::Says421("MAIL", 0), After::Nothing]).await;
    let fate = deliver(&relay(&Limits::default()), &hop).await;
    assert!(fate.starts_with("deferred 451 4.3.2 "), "{fate}");
    assert_eq!(heard(&mut told, "EHLO"), [0]);
}

#[tokio::test]
async fn what_is_kept_too_long_is_told_good_bye_and_closed() {
    let (hop, mut told) = next_hop(vec![After::Nothing; 2]).await;
    let limits = Limits { relay_idle_time: Duration::from_millis(20), ..Limits::default() };
    let relay = relay(&limits);
    assert_eq!(deliver(&relay, &hop).await, "accepted taken");
    while told.recv().await.expect("the hop hears a good-bye") != (0, "QUIT".to_owned()) {}
    assert_eq!(deliver(&relay, &hop).await, "accepted taken");
    while told.recv().await.expect("the next one too") != (1, "QUIT".to_owned()) {}
}

#[tokio::test]
async fn without_places_none_is_kept() {
    let server = Scripted::plain(&[TAKES_ONE, TAKES_ONE]).await;
    let relay = relay(&Limits { relay_idle_max: 0, ..Limits::default() });
    for _ in 0..2 {
        assert_eq!(deliver(&relay, &server.hop).await, "accepted stored as 42");
    }
    server.heard().await;
}

#[tokio::test]
async fn another_rule_name_or_address_is_another_connection() {
    let (hop, mut told) = next_hop(vec![After::Nothing; 3]).await;
    let relay = relay(&Limits::default());
    assert_eq!(deliver(&relay, &hop).await, "accepted taken");
    let offered = NextHop { tls: TlsRule::Opportunistic, ..hop.clone() };
    assert_eq!(deliver(&relay, &offered).await, "accepted taken");
    assert_eq!(heard(&mut told, "EHLO"), [0, 1]);
    // It offers no TLS: what was kept in the clear must not be taken for it.
    let demanded = NextHop { tls: TlsRule::Required, ..hop.clone() };
    let fate = deliver(&relay, &demanded).await;
    assert!(fate.starts_with("deferred 451 4.7.5 "), "{fate}");
    assert_eq!(heard(&mut told, "EHLO"), [2]);
}

#[tokio::test]
async fn no_more_are_kept_than_allowed() {
    let (hop, mut told) = next_hop(vec![After::Nothing; 3]).await;
    let relay = Arc::new(relay(&Limits { relay_idle_max: 2, ..Limits::default() }));
    let three = (0..3).map(|_| {
        let (relay, hop) = (Arc::clone(&relay), hop.clone());
        async move { deliver(&relay, &hop).await }
    });
    assert_eq!(futures::future::join_all(three).await, ["accepted taken"; 3]);
    let mut left = std::collections::BTreeSet::from([0, 1, 2]);
    while left.len() > 2 {
        let (number, line) = told.recv().await.expect("one is told good-bye");
        if line == "QUIT" {
            left.remove(&number);
        }
    }
    let address: SocketAddr = format!("{}:{}", hop.host, hop.port).parse().expect("an address");
    let key = Key { address, host: hop.host.clone(), rule: TlsRule::None };
    let pool: &Arc<Pool> = &relay.pool;
    assert!(pool.take(&key).is_some() && pool.take(&key).is_some() && pool.take(&key).is_none());
}
