//! A snapshot on its way from one server to another: one stream of chunks into a temporary file, which is handed to Raft
//! only when every byte of it is there and right. Whatever goes wrong, the file goes and the leader begins anew.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{Stream, StreamExt};
use openraft::{Snapshot, SnapshotMeta};
use proto::{
    codec,
    wire::raft::{Payload, SnapshotChunk, SnapshotEnd, raft_client::RaftClient},
};
use serde::{Deserialize, Serialize};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use super::{
    Server,
    snapshots::SnapshotFile,
    types::{Raft, Vote},
};

/// Bytes of a chunk; a transfer holds a few of them in memory at either end.
const CHUNK_BYTES: usize = 512 * 1024;
/// Largest chunk that is taken, in bytes.
const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Chunks that wait for the line.
const CHUNKS_WAITING: usize = 2;
/// A transfer in which nothing moves for longer is given up.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);
/// A transfer that is slower in all, in bytes a second, is given up too: only one is received at a time.
const SLOWEST: u64 = 64 * 1024;
/// How long the receiver may take to install what it has got.
const INSTALL_MAX: Duration = Duration::from_secs(600);
/// Largest snapshot that is taken, in bytes: ten times a million held records.
const SIZE_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// What is coming.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta<u64, Server>,
    pub(super) size_bytes: u64,
}

/// Sends a snapshot, and gives the receiver's vote once it is installed there.
///
/// # Errors
/// When the file cannot be read, the line is cut or silent, or the receiver refuses.
pub(super) async fn send(
    mut client: RaftClient<Channel>,
    ((cluster, to), knows): ((&str, u64), u32),
    (vote, snapshot): (Vote, &Snapshot<super::types::TypeConfig>),
) -> anyhow::Result<Vote> {
    let file = File::open(snapshot.snapshot.path()).await.context("open the snapshot")?;
    let size_bytes = file.metadata().await.context("measure the snapshot")?.len();
    let head = Head { vote, meta: snapshot.meta.clone(), size_bytes };
    let data = codec::encode(&(to, head));
    let head = Payload { cluster: cluster.to_owned(), version: codec::VERSION, data, knows };
    let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING);
    let answering = async {
        let mut answers = client.snapshot(ReceiverStream::new(waiting)).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::aborted("the receiver gave no answer"))
    };
    let mut answering = std::pin::pin!(answering);
    let answer = tokio::select! {
        // An answer before the end is a refusal.
        answer = &mut answering => answer?,
        fed = feed(file, head, chunks) => {
            fed?;
            timeout(INSTALL_MAX, answering).await.context("the receiver does not come to an end")??
        }
    };
    ensure!(answer.version == codec::VERSION, "the answer has encoding version {}", answer.version);
    Ok(codec::decode("the receiver's vote", &answer.data)?)
}

/// Reads the file into the line as fast as the line takes it.
async fn feed(mut file: File, head: Payload, chunks: mpsc::Sender<SnapshotChunk>) -> anyhow::Result<()> {
    let send = async |chunk| {
        let sent = timeout(SILENCE, chunks.send(chunk)).await;
        sent.context("the receiver takes nothing")?.context("the receiver has gone")
    };
    send(SnapshotChunk { head: Some(head), ..SnapshotChunk::default() }).await?;
    let (mut crc, mut size_bytes) = (crc32fast::Hasher::new(), 0);
    loop {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        let limit = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
        let read = (&mut file).take(limit).read_to_end(&mut data).await.context("read the snapshot")?;
        if read == 0 {
            break;
        }
        crc.update(&data);
        size_bytes += u64::try_from(read).unwrap_or(u64::MAX);
        send(SnapshotChunk { data, ..SnapshotChunk::default() }).await?;
    }
    let end = SnapshotEnd { size_bytes, crc32: crc.finalize() };
    send(SnapshotChunk { end: Some(end), ..SnapshotChunk::default() }).await
}

/// Receives a snapshot, checks it, and has Raft install it. Gives this server's vote: a later one than the sender's means
/// that the sender leads no more, and then nothing has been installed.
///
/// # Errors
/// When the stream is cut or silent, or the bytes are not those that were announced: nothing has changed then. Or when
/// Raft has stopped.
pub(super) async fn receive(
    raft: &Raft,
    head: Head,
    chunks: impl Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
) -> anyhow::Result<Vote> {
    let mine = raft.metrics().borrow().vote;
    if mine > head.vote {
        return Ok(mine);
    }
    ensure!(head.size_bytes <= SIZE_BYTES_MAX, "a snapshot of {} bytes is too large", head.size_bytes);
    let file: SnapshotFile = *raft.begin_receiving_snapshot().await.context("make a file for a snapshot")?;
    let out = File::options().write(true).open(file.path()).await.context("open the file for a snapshot")?;
    let all_within = SILENCE + Duration::from_secs(head.size_bytes / SLOWEST);
    let filled = timeout(all_within, fill(out, head.size_bytes, chunks)).await;
    filled.context("a snapshot comes too slowly")??;
    tracing::info!(id = head.meta.snapshot_id, bytes = head.size_bytes, "a snapshot has come and is being checked");
    let last = head.meta.last_log_id;
    let file = tokio::task::spawn_blocking(move || file.verified(last)).await??;
    let snapshot = Snapshot { meta: head.meta, snapshot: Box::new(file) };
    Ok(raft.install_full_snapshot(head.vote, snapshot).await.context("install a snapshot")?.vote)
}

/// Writes what comes until all is there, and is on the disk.
async fn fill(
    mut out: File,
    expected: u64,
    mut chunks: impl Stream<Item = Result<SnapshotChunk, Status>> + Unpin,
) -> anyhow::Result<()> {
    let (mut crc, mut size_bytes) = (crc32fast::Hasher::new(), 0);
    let end = loop {
        let chunk = timeout(SILENCE, chunks.next()).await.context("the sender of a snapshot is silent")?;
        let SnapshotChunk { head, data, end } = chunk.context("a snapshot ends too early")??;
        ensure!(head.is_none() && data.len() <= CHUNK_BYTES_MAX, "a chunk of a snapshot is not what it should be");
        if let Some(end) = end {
            break end;
        }
        // Empty chunks would hold the receiver for ever.
        ensure!(!data.is_empty(), "a chunk of a snapshot is empty");
        size_bytes += u64::try_from(data.len()).unwrap_or(u64::MAX);
        ensure!(size_bytes <= expected, "a snapshot is longer than announced");
        crc.update(&data);
        out.write_all(&data).await.context("write a snapshot")?;
    };
    if (size_bytes, size_bytes, crc.finalize()) != (expected, end.size_bytes, end.crc32) {
        bail!("a snapshot was damaged on its way: {size_bytes} bytes of {expected} came");
    }
    out.flush().await.context("write a snapshot")?;
    out.sync_all().await.context("fsync a snapshot")
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use proto::wire::raft::{SnapshotChunk, SnapshotEnd};
    use tokio::fs::File;
    use tonic::Status;

    use super::fill;

    fn data(bytes: &[u8]) -> SnapshotChunk {
        SnapshotChunk { data: bytes.to_vec(), ..SnapshotChunk::default() }
    }

    fn end(bytes: &[u8]) -> SnapshotChunk {
        let end = SnapshotEnd { size_bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) };
        SnapshotChunk { end: Some(end), ..SnapshotChunk::default() }
    }

    async fn filled(chunks: Vec<SnapshotChunk>) -> Result<Vec<u8>, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let out = File::options().write(true).open(file.path()).await.expect("the file");
        let chunks = stream::iter(chunks.into_iter().map(Ok::<_, Status>));
        fill(out, 8, chunks).await.map_err(|error| error.to_string())?;
        Ok(std::fs::read(file.path()).expect("the file"))
    }

    #[tokio::test]
    async fn only_what_was_announced_is_taken() {
        let whole = vec![data(b"snap"), data(b"shot"), end(b"snapshot")];
        assert_eq!(filled(whole).await.expect("whole"), b"snapshot");
        let table = [
            (vec![data(b"snap"), data(b""), data(b"shot"), end(b"snapshot")], "is empty"),
            (vec![data(b"snap"), data(b"shots"), end(b"snapshots")], "longer than announced"),
            (vec![data(b"snap"), end(b"snap")], "was damaged on its way"),
            (vec![data(b"snap"), data(b"shop"), end(b"snapshot")], "was damaged on its way"),
            (vec![data(b"snap"), data(b"shot")], "ends too early"),
        ];
        for (chunks, why) in table {
            let told = filled(chunks).await.expect_err(why);
            assert!(told.contains(why), "{told}");
        }
    }
}
