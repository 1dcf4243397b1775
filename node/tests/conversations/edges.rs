//! Over a real socket: messages in chunks, and clients behind a load balancer.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use node::{limits::Limits, smtp::transaction::Listener};
use tokio::time::timeout;

use crate::{
    fixture,
    loopback::{Client, PATIENCE, World, bound_behind, serve},
    machine::Machine,
};

/// Behind a load balancer on this host.
async fn serve_behind(limits: Limits) -> World {
    let here = vec!["127.0.0.0/8".parse().expect("a network")];
    let (server, mut world) = bound_behind(limits, None, here, Vec::new()).await;
    world.server = tokio::spawn(server.serve(world.stop.subscribe()));
    world
}

#[tokio::test]
async fn a_listed_balancer_says_whose_connection_it_passes_on() {
    let mut world = serve_behind(Limits { connections_per_client_max: 1, ..Limits::default() }).await;
    world.gate.add_permits(1);
    let mut client = Client::silent(world.address).await;
    assert_eq!(client.ask("PROXY TCP4 192.0.2.77 10.0.0.1 40000 25\r\n").await, "220 mx.gov.test ESMTP Postern");
    // Each client has its own share of the connections, also behind one balancer.
    let same = Client::silent(world.address).await.ask("PROXY TCP4 192.0.2.77 10.0.0.1 40001 25\r\n").await;
    assert!(same.starts_with("421 4.7.0"), "{same}");
    let other = Client::silent(world.address).await.ask("PROXY TCP4 192.0.2.78 10.0.0.1 40002 25\r\n").await;
    assert!(other.starts_with("220"), "{other}");
    // The balancer itself looks whether we are alive.
    let mut alive = Client::silent(world.address).await;
    assert!(alive.ask("PROXY UNKNOWN\r\n").await.starts_with("220"));
    assert!(alive.ask("QUIT\r\n").await.starts_with("221"));
    client.begin().await;
    assert_eq!(client.ask("x\r\n.\r\n").await, "250 2.0.0 delivered");
    let (transaction, _) = world.delivered.recv().await.expect("a message");
    assert_eq!(transaction.client.address, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)));
}

#[tokio::test]
async fn a_balancer_without_a_header_and_a_header_without_a_balancer_are_refused() {
    let world = serve_behind(Limits::default()).await;
    let told = Client::silent(world.address).await.ask("EHLO mail.a.example\r\n").await;
    assert!(told.starts_with("421 4.3.0"), "{told}");
    // The private side has the same balancers and the same rule.
    let told = Client::silent(world.departments).await.ask("EHLO mail.a.example\r\n").await;
    assert!(told.starts_with("421 4.3.0"), "{told}");

    let world = serve(Limits::default(), None).await;
    let mut client = Client::connect(&world).await;
    let told = client.ask("PROXY TCP4 10.1.0.5 10.0.0.1 40000 25\r\n").await;
    assert!(told.starts_with("500 5.5.2"), "{told}");
}

#[test]
fn what_is_asked_for_all_recipients_together_is_bounded() {
    let settings = fixture::settings(Limits::default());
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let mut machine = Machine::new(settings, client, Listener::Internet, fixture::view());
    machine.greeting();
    machine.send(b"EHLO c.example\r\n");
    machine.send(b"MAIL FROM:<x@a.example>\r\n");
    let original = "x".repeat(493);
    let answers: Vec<String> = (0..300)
        .map(|n| machine.send(format!("RCPT TO:<a{n}@interior.gov.test> ORCPT=rfc822;{original}\r\n").as_bytes()))
        .collect();
    let taken = answers.iter().take_while(|answer| answer.starts_with("250")).count();
    assert_eq!(taken, 128 * 1024 / 500);
    assert!(answers[taken..].iter().all(|answer| answer.starts_with("452 4.5.3")), "{:?}", answers.last());
    assert!(machine.send(b"RCPT TO:<anna@interior.gov.test>\r\n").starts_with("250"), "without it there is room");
}

#[tokio::test]
async fn with_xclient_the_connection_is_another_clients() {
    let limits = Limits { connections_per_client_max: 1, ..Limits::default() };
    let here = vec!["127.0.0.0/8".parse().expect("a network")];
    let (server, mut world) = bound_behind(limits, None, Vec::new(), here).await;
    world.server = tokio::spawn(server.serve(world.stop.subscribe()));
    world.gate.add_permits(1);
    let mut proxy = Client::connect(&world).await;
    assert!(proxy.ask("XCLIENT ADDR=192.0.2.77 HELO=mail.a.example PROTO=ESMTP\r\n").await.starts_with("220"));
    // The proxy's own place is free again, and the client's only one is taken.
    let mut second = Client::connect(&world).await;
    let told = second.ask("XCLIENT ADDR=192.0.2.77\r\n").await;
    assert_eq!(told, "421 4.7.0 too many connections of that client");
    assert_eq!(second.hear().await, "");
    proxy.say("MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\nDATA\r\n").await;
    for code in ["250", "250", "354"] {
        assert_eq!(proxy.hear().await.get(..3), Some(code));
    }
    assert_eq!(proxy.ask("x\r\n.\r\n").await, "250 2.0.0 delivered");
    let (transaction, _) = world.delivered.recv().await.expect("a message");
    assert_eq!(transaction.client.address, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)));
    assert_eq!(transaction.client.helo, "mail.a.example");

    // On the private side a proxy is greeted and is nobody until it has said for whom it speaks.
    let mut proxy = Client::silent(world.departments).await;
    assert!(proxy.hear().await.starts_with("220"));
    assert!(proxy.ask("XCLIENT ADDR=10.1.0.5\r\n").await.starts_with("220"));
    let mut proxy = Client::silent(world.departments).await;
    assert!(proxy.hear().await.starts_with("220"));
    assert!(proxy.ask("XCLIENT ADDR=192.0.2.77\r\n").await.starts_with("554 5.7.1"));
    assert_eq!(proxy.hear().await, "");
}

#[tokio::test]
async fn a_balancer_hears_of_a_drain_before_its_clients_are_turned_away() {
    let proxied = "PROXY TCP4 192.0.2.77 10.0.0.1 40000 25\r\n";
    let patient = serve_behind(Limits { drain_grace: Duration::from_secs(3600), ..Limits::default() }).await;
    // It has begun before it is drained.
    assert!(Client::silent(patient.address).await.ask(proxied).await.starts_with("220"));
    patient.view.send_replace(fixture::view_with_drain());
    let mut client = Client::silent(patient.address).await;
    assert!(client.ask(proxied).await.starts_with("220"));
    client.begin().await;
    // Without a balancer there is nobody to wait for.
    let direct = serve(Limits { drain_grace: Duration::from_secs(3600), ..Limits::default() }, None).await;
    direct.view.send_replace(fixture::view_with_drain());
    assert!(Client::silent(direct.address).await.hear().await.starts_with("421 4.3.2"));

    let world = serve_behind(Limits { drain_grace: Duration::ZERO, ..Limits::default() }).await;
    let mut early = Client::silent(world.address).await;
    assert!(early.ask(proxied).await.starts_with("220"));
    world.view.send_replace(fixture::view_with_drain());
    let told = async |start: &str| while !Client::silent(world.address).await.ask(proxied).await.starts_with(start) {};
    timeout(PATIENCE, told("421 4.3.2")).await.expect("the time of grace is over");
    early.ask("EHLO c.example\r\n").await;
    assert!(early.ask("MAIL FROM:<x@a.example>\r\n").await.starts_with("421 4.3.2"));
    world.view.send_replace(fixture::view());
    timeout(PATIENCE, told("220")).await.expect("the drain is over");
}

#[tokio::test]
async fn a_message_in_chunks_arrives_whole_and_one_that_breaks_off_does_not() {
    let mut world = serve(Limits::default(), None).await;
    world.gate.add_permits(2);
    let mut client = Client::connect(&world).await;
    client.ask("EHLO c.example\r\n").await;
    let begin = "MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\n";
    client.say(&format!("{begin}BDAT 14\r\nSubject: a\r\n\r\nBDAT 100000\r\n")).await;
    client.say(&"0123456789abcd\r\n".repeat(6250)).await;
    client.say("BDAT 3 LAST\r\n.\r\nNOOP\r\n").await;
    for code in ["250 2.1.0", "250 2.1.5", "250 2.0.0 14", "250 2.0.0 100014", "250 2.0.0 delivered", "250 2.0.0 OK"] {
        let told = client.hear().await;
        assert!(told.starts_with(code), "{told}");
    }
    let (_, bytes) = world.delivered.recv().await.expect("a message");
    assert_eq!(bytes.len(), 100_017);
    assert!(bytes.ends_with(b"d\r\n.\r\n"));

    client.say(&format!("{begin}BDAT 100\r\nhalf")).await;
    drop(client);
    let mut client = Client::connect(&world).await;
    client.ask("EHLO c.example\r\n").await;
    client.say(&format!("{begin}BDAT 3 LAST\r\nb\r\n")).await;
    for _ in 0..2 {
        client.hear().await;
    }
    assert_eq!(client.hear().await, "250 2.0.0 delivered");
    let (_, bytes) = world.delivered.recv().await.expect("a message");
    assert_eq!(bytes, "b\r\n", "nothing of the one that broke off");
}

#[tokio::test]
async fn a_chunk_over_the_room_of_one_client_is_refused_and_read_to_its_end() {
    let limits = Limits { message_bytes_max: 200_000, messages_bytes_max: 1, ..Limits::default() };
    let mut world = serve(Limits { messages_wait_max: Duration::from_millis(1), ..limits }, None).await;
    world.gate.add_permits(1);
    let (mut greedy, mut other) = (Client::connect(&world).await, Client::connect(&world).await);
    let begin = "MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\n";
    for client in [&mut greedy, &mut other] {
        client.ask("EHLO c.example\r\n").await;
        client.say(begin).await;
        client.hear().await;
        client.hear().await;
    }
    let chunk = format!("BDAT 150000\r\n{}", "x".repeat(150_000));
    assert!(greedy.ask(&chunk).await.starts_with("250 2.0.0 150000"));
    assert!(other.ask(&chunk).await.starts_with("451 4.3.2"), "the memory is taken");
    assert!(other.ask("BDAT 1 LAST\r\nx").await.starts_with("503"), "and the transaction is over");
    assert!(greedy.ask("RSET\r\n").await.starts_with("250"));
    other.say(&format!("{begin}BDAT 150000 LAST\r\n{}", "y".repeat(150_000))).await;
    other.hear().await;
    other.hear().await;
    assert_eq!(other.hear().await, "250 2.0.0 delivered", "RSET gave the memory back");
    drop(world.delivered.recv().await.expect("a message"));
}

/// There is room for one message at a time, so each one shows that the one before has given its place and its memory back.
#[tokio::test]
async fn whatever_ends_a_message_in_chunks_gives_its_place_and_memory_back() {
    let limits = Limits { message_bytes_max: 200_000, messages_bytes_max: 1, messages_max: 1, ..Limits::default() };
    let world = serve(Limits { errors_max: 3, idle_commands_max: 10, ..limits }, None).await;
    let begin = "MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\n";
    let too_many_errors = "XYZZY\r\n".repeat(4);
    let too_many_commands = "NOOP\r\n".repeat(12);
    let beyond_the_bound = format!("BDAT 60000\r\n{}", "x".repeat(60_000));
    let enders = [
        ("RSET\r\n", "250"),
        ("EHLO c.example\r\n", "250"),
        ("HELO c.example\r\n", "250"),
        ("BDAT 2\r\nx\n", "550"),
        ("BDAT 2 LAST\r\nx\n", "550"),
        (&beyond_the_bound, "552"),
        ("BDAT 200001\r\n", "552"),
        ("BDAT x\r\n", "501"),
        ("QUIT\r\n", "221"),
        (&too_many_errors, "421"),
        (&too_many_commands, "421"),
        ("DATA\r\nNOOP\r\n", "554"),
    ];
    // The last one only goes away.
    for (ender, code) in enders.into_iter().chain([("", "")]) {
        let mut client = Client::connect(&world).await;
        client.ask("EHLO c.example\r\n").await;
        client.say(&format!("{begin}BDAT 150000\r\n{}", "x".repeat(150_000))).await;
        for _ in 0..2 {
            client.hear().await;
        }
        assert_eq!(client.hear().await, "250 2.0.0 150000 bytes so far", "after what came before {ender:?}");
        client.say(ender).await;
        while !ender.is_empty() {
            let said = client.hear().await;
            if said.starts_with(code) {
                break;
            }
            // Before the one that was too many, each was answered.
            assert!(code == "421" && !said.is_empty(), "{said} to {:?}", ender.get(..20));
        }
    }
}
