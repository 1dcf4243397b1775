//! Over a real socket: who is slow gives way when all places are taken.

use std::time::Duration;

use node::limits::Limits;

use crate::loopback::{Client, serve};

const TOO_SLOW: &str = "421 4.4.2 too slow; closing";

/// A node that takes one message at a time and has little patience.
fn one_message() -> Limits {
    Limits { messages_max: 1, stress_timeout: Duration::from_millis(50), ..Limits::default() }
}

#[tokio::test]
async fn who_is_idle_makes_room_when_all_places_are_taken() {
    let stress_timeout = Duration::from_millis(50);
    let world = serve(Limits { connections_max: 2, stress_timeout, ..Limits::default() }, None).await;
    let mut idle = Client::connect(&world).await;
    // While there is room it may be idle for minutes.
    assert_eq!(idle.ask("NOOP\r\n").await, "250 2.0.0 OK");
    let (mut second, mut third) = (Client::connect(&world).await, Client::silent(world.address).await);
    assert_eq!(idle.hear().await, TOO_SLOW);
    assert_eq!(second.hear().await, TOO_SLOW);
    assert_eq!(third.hear().await, "220 mx.gov.test ESMTP Postern");
}

/// The minute that a message has for its first bytes counts while there is room.
#[tokio::test]
async fn a_slow_message_makes_room_when_all_places_for_messages_are_taken() {
    let world = serve(one_message(), None).await;
    world.gate.add_permits(1);
    let mut slow = Client::connect(&world).await;
    slow.begin().await;
    slow.say("Subject: slow\r\n").await;
    let mut other = Client::connect(&world).await;
    other.begin().await;
    assert_eq!(slow.hear().await, TOO_SLOW);
    assert_eq!(other.ask("x\r\n.\r\n").await, "250 2.0.0 delivered");
}

/// The place is not kept by talk between two chunks either.
#[tokio::test]
async fn a_message_in_chunks_is_not_kept_by_small_talk() {
    let world = serve(Limits { idle_commands_max: 1_000_000, ..one_message() }, None).await;
    world.gate.add_permits(1);
    let mut slow = Client::connect(&world).await;
    slow.ask("EHLO c.example\r\n").await;
    slow.say("MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\nBDAT 1\r\nx").await;
    for code in ["250 2.1.0", "250 2.1.5", "250 2.0.0 1"] {
        assert!(slow.hear().await.starts_with(code));
    }
    let mut other = Client::connect(&world).await;
    other.ask("EHLO c.example\r\n").await;
    other.say("MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\nDATA\r\n").await;
    // As fast as it is answered, so that there is no silence.
    let told = loop {
        let told = slow.ask("NOOP\r\n").await;
        if told != "250 2.0.0 OK" {
            break told;
        }
    };
    assert_eq!(told, TOO_SLOW);
    for code in ["250", "250", "354"] {
        assert_eq!(other.hear().await.get(..3), Some(code));
    }
    assert_eq!(other.ask("x\r\n.\r\n").await, "250 2.0.0 delivered");
}

/// Room for bytes is as scarce as places, and a fast beginning does not pay for the silence after it.
#[tokio::test]
async fn who_has_taken_all_room_for_bytes_and_goes_silent_makes_room() {
    let limits = Limits { message_bytes_max: 200_000, messages_bytes_max: 1, ..Limits::default() };
    let world = serve(Limits { stress_timeout: Duration::from_millis(50), ..limits }, None).await;
    world.gate.add_permits(1);
    let mut greedy = Client::connect(&world).await;
    greedy.begin().await;
    greedy.say(&"0123456789abcd\r\n".repeat(12_000)).await;
    let mut other = Client::connect(&world).await;
    other.begin().await;
    other.say(&"0123456789abcd\r\n".repeat(10_000)).await;
    assert_eq!(greedy.hear().await, TOO_SLOW);
    assert_eq!(other.ask("x\r\n.\r\n").await, "250 2.0.0 delivered");
}

#[tokio::test]
async fn a_slow_message_in_chunks_makes_room_within_a_chunk_and_between_two() {
    for chunk in ["BDAT 10 LAST\r\nx", "BDAT 10\r\nx", "BDAT 1\r\nx"] {
        let world = serve(one_message(), None).await;
        world.gate.add_permits(1);
        let mut slow = Client::connect(&world).await;
        slow.ask("EHLO c.example\r\n").await;
        slow.say("MAIL FROM:<x@a.example>\r\nRCPT TO:<anna@interior.gov.test>\r\n").await;
        slow.hear().await;
        slow.hear().await;
        slow.say(chunk).await;
        if chunk.ends_with("1\r\nx") {
            assert_eq!(slow.hear().await, "250 2.0.0 1 bytes so far");
        }
        let mut other = Client::connect(&world).await;
        other.begin().await;
        assert_eq!(slow.hear().await, TOO_SLOW, "{chunk:?}");
        assert_eq!(other.ask("x\r\n.\r\n").await, "250 2.0.0 delivered");
    }
}
