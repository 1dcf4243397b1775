//! The body store against damage, liars and its own sweep.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tonic::Status;

use super::{BODY_BYTES_MAX, Bodies, Body, BodyError, Sender, UNNEEDED_FOR, chunks, chunks::Chunk};

fn store() -> (TempDir, Bodies) {
    let folder = tempfile::tempdir().expect("a folder");
    let bodies = Bodies::open(folder.path()).expect("a body store");
    (folder, bodies)
}

fn digest_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn chunks_of(bytes: &[u8]) -> Vec<Chunk> {
    chunks::cut(digest_of(bytes), bytes.to_vec().into()).collect()
}

async fn receive(bodies: &Bodies, chunks: Vec<Chunk>) -> Result<Body, BodyError> {
    bodies.receive(Sender::Node, tokio_stream::iter(chunks.into_iter().map(Ok::<_, Status>))).await
}

async fn put(bodies: &Bodies, bytes: &[u8]) -> String {
    let body = receive(bodies, chunks_of(bytes)).await.expect("a right body");
    bodies.put(&body).await.expect("stored");
    body.digest().to_owned()
}

#[tokio::test]
async fn a_body_of_any_length_comes_back_as_it_went() {
    let (_folder, bodies) = store();
    for size in [0, 1, chunks::CHUNK_BYTES, chunks::CHUNK_BYTES + 1, 3 * chunks::CHUNK_BYTES + 17] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let digest = put(&bodies, &bytes).await;
        let back = bodies.read(Sender::Node, &digest, size as u64).await.expect("a right body");
        assert_eq!(back.bytes().as_ref(), bytes);
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_its_first_chunk_says_is_refused() {
    let (_folder, bodies) = store();
    let right = || chunks_of(b"Subject: x\r\n\r\nhello");
    let with = |change: fn(&mut Chunk)| {
        let mut chunks = right();
        change(&mut chunks[0]);
        chunks
    };
    let refused = async |chunks| receive(&bodies, chunks).await.expect_err("refused");
    assert!(matches!(refused(with(|chunk| chunk.data[0] ^= 1)).await, BodyError::Digest));
    assert!(matches!(refused(with(|chunk| chunk.data.truncate(3))).await, BodyError::Length { .. }));
    assert!(matches!(refused(with(|chunk| chunk.data.push(b'x'))).await, BodyError::Length { .. }));
    assert!(matches!(refused(with(|chunk| chunk.size_bytes = u64::MAX)).await, BodyError::TooLarge));
    assert!(matches!(refused(with(|chunk| chunk.digest = "../../etc/passwd".into())).await, BodyError::Name));
    assert!(matches!(refused(with(|chunk| chunk.digest.make_ascii_uppercase())).await, BodyError::Name));
    assert!(matches!(refused(Vec::new()).await, BodyError::BrokenOff(_)));
    let broken = right().into_iter().map(Ok).chain([Err(Status::cancelled("gone"))]);
    let broken = bodies.receive(Sender::Node, tokio_stream::iter(broken)).await.expect_err("broken off");
    assert!(matches!(broken, BodyError::BrokenOff(_)));
}

#[tokio::test]
async fn a_node_that_announces_much_and_sends_nothing_keeps_only_itself_waiting() {
    let (_folder, bodies) = store();
    for _ in 0..20 {
        let announced = Chunk { digest: digest_of(b""), size_bytes: BODY_BYTES_MAX, data: Vec::new() };
        let chunks = tokio_stream::iter([Ok::<_, Status>(announced)]).chain(futures::stream::pending());
        let bodies = bodies.clone();
        tokio::spawn(async move { bodies.receive_from(Sender::Node, Some("mx1"), Box::pin(chunks)).await.map(drop) });
    }
    // Each has asked for its memory then.
    tokio::task::yield_now().await;
    let chunks = tokio_stream::iter(chunks_of(b"small").into_iter().map(Ok::<_, Status>));
    let sent = bodies.receive_from(Sender::Node, Some("mx2"), chunks);
    tokio::time::timeout(Duration::from_secs(20), sent).await.expect("there is room for others").expect("a right body");
}

#[tokio::test]
async fn a_damaged_file_does_not_count_until_it_is_written_again() {
    let (folder, bodies) = store();
    let digest = put(&bodies, b"hello world").await;
    let file = folder.path().join("bodies").join(&digest);
    let read = async || bodies.read(Sender::Node, &digest, 11).await;

    std::fs::write(&file, b"hellO world").expect("written");
    assert!(matches!(read().await.expect_err("damaged"), BodyError::Digest));
    std::fs::write(&file, b"hello wor").expect("written");
    assert!(matches!(read().await.expect_err("truncated"), BodyError::Length { announced: 11, found: 9 }));
    std::fs::remove_file(&file).expect("removed");
    assert!(matches!(read().await.expect_err("gone"), BodyError::Missing));

    put(&bodies, b"hello world").await;
    assert_eq!(read().await.expect("right again").bytes().as_ref(), b"hello world");
}

#[tokio::test]
async fn what_an_interrupted_write_left_is_removed_at_the_next_start() {
    let (folder, bodies) = store();
    let digest = put(&bodies, b"whole").await;
    let left = folder.path().join("bodies").join(format!("{}#1", digest_of(b"half")));
    std::fs::write(&left, b"ha").expect("written");
    drop(bodies);
    let bodies = Bodies::open(folder.path()).expect("a body store");
    assert!(!left.exists());
    assert!(bodies.read(Sender::Node, &digest, 5).await.is_ok());
}

#[tokio::test]
async fn a_sweep_deletes_only_what_nothing_has_needed_for_an_hour() {
    let (_folder, bodies) = store();
    let (needed, orphan) = (put(&bodies, b"needed").await, put(&bodies, b"orphan").await);
    let sweep = async |at| bodies.sweep(at, |digest| digest == needed).await.expect("swept");
    let begin = Instant::now();
    assert_eq!(sweep(begin).await, 0);
    assert_eq!(sweep(begin + UNNEEDED_FOR - Duration::from_secs(1)).await, 0);
    assert_eq!(sweep(begin + UNNEEDED_FOR).await, 1);
    assert!(bodies.read(Sender::Node, &needed, 6).await.is_ok());
    assert!(matches!(bodies.read(Sender::Node, &orphan, 6).await.expect_err("deleted"), BodyError::Missing));
}

#[tokio::test]
async fn putting_a_body_again_gives_it_another_hour() {
    let (_folder, bodies) = store();
    let digest = put(&bodies, b"twice").await;
    let sweep = async |at| bodies.sweep(at, |_| false).await.expect("swept");
    let begin = Instant::now();
    assert_eq!(sweep(begin).await, 0);
    put(&bodies, b"twice").await;
    assert_eq!(sweep(begin + UNNEEDED_FOR).await, 0);
    assert!(bodies.read(Sender::Node, &digest, 5).await.is_ok());
    assert_eq!(sweep(begin + UNNEEDED_FOR * 2).await, 1);
}
