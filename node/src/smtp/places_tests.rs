//! Shares of one client and of all.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{BLOCK_BYTES, Places};
use crate::limits::Limits;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Four messages, two of them for one client; eight blocks, two of them for one client.
fn places() -> Arc<Places> {
    Places::new(&Limits {
        connections_max: 9,
        connections_per_client_max: 2,
        messages_max: 4,
        messages_per_client_max: 2,
        messages_bytes_max: 8 * BLOCK_BYTES,
        message_bytes_max: 2 * BLOCK_BYTES,
        messages_wait_max: Duration::from_millis(1),
        ..Limits::default()
    })
}

#[test]
fn a_client_is_an_address_or_half_of_one() {
    let places = places();
    let seats: Vec<_> = ["2001:db8::1", "2001:db8::ffff:0:0:1"].map(|text| Places::seat(&places, address(text))).into();
    assert!(seats.iter().all(Option::is_some));
    assert!(Places::seat(&places, address("2001:db8:0:0:7::")).is_none());
    assert!(Places::seat(&places, address("2001:db8:0:1::1")).is_some());
    assert!(Places::seat(&places, address("192.0.2.1")).is_some());
    assert!(Places::seat(&places, address("192.0.2.2")).is_some());
    drop(seats);
    assert!(Places::seat(&places, address("2001:db8::1")).is_some());
    assert_eq!(places.clients.lock().expect("a lock").len(), 0);
}

#[tokio::test]
async fn one_client_takes_its_share_of_the_messages_and_no_more() {
    let places = places();
    let greedy = Places::seat(&places, address("192.0.2.1")).expect("a seat");
    let first = greedy.message().await.expect("a place");
    let _second = greedy.message().await.expect("a place");
    assert!(greedy.message().await.is_none());
    let other = Places::seat(&places, address("192.0.2.2")).expect("a seat");
    let _others = (other.message().await.expect("a place"), other.message().await.expect("a place"));
    let third = Places::seat(&places, address("192.0.2.3")).expect("a seat");
    assert!(third.message().await.is_none(), "the listener has four");
    drop(first);
    assert!(third.message().await.is_some());
}

#[tokio::test]
async fn a_message_counts_for_its_client_when_the_connection_is_gone() {
    let places = places();
    let seat = Places::seat(&places, address("192.0.2.1")).expect("a seat");
    let messages = (seat.message().await.expect("a place"), seat.message().await.expect("a place"));
    drop(seat);
    let again = Places::seat(&places, address("192.0.2.1")).expect("a seat");
    assert!(again.message().await.is_none());
    drop(messages);
    assert!(again.message().await.is_some());
}

#[tokio::test]
async fn room_is_taken_by_the_byte_and_given_back() {
    let places = places();
    let seat = Places::seat(&places, address("192.0.2.1")).expect("a seat");
    let (mut first, mut second) = (seat.message().await.expect("a place"), seat.message().await.expect("a place"));
    assert_eq!(first.room_bytes(), 0);
    assert!(first.make_room(1).await && first.make_room(2).await);
    assert_eq!(first.room_bytes(), BLOCK_BYTES);
    assert!(second.make_room(BLOCK_BYTES).await);
    assert!(!first.make_room(BLOCK_BYTES + 1).await, "the client has its share");
    second.clear();
    assert!(first.make_room(2 * BLOCK_BYTES).await, "the largest message fits");
    assert_eq!((first.room_bytes(), second.room_bytes()), (2 * BLOCK_BYTES, 0));
    drop(first);
    assert_eq!(places.blocks.available_permits(), 8);
}
