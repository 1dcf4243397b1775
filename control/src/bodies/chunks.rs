//! Bodies on the wire: a first chunk that names digest and length, then the bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use proto::{
    held::is_digest,
    wire::{edge, raft},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Bodies, Body, BodyError, Sender};

/// Bytes of a body in one message.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// How long a receiver may take for one chunk, before its body is dropped from memory.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// What both services call a body chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// SHA-256 in hex; in the first chunk.
    pub digest: String,
    /// Length of the whole body in bytes; in the first chunk.
    pub size_bytes: u64,
    /// The next bytes.
    pub data: Vec<u8>,
}

impl From<edge::BodyChunk> for Chunk {
    fn from(edge::BodyChunk { digest, size_bytes, data }: edge::BodyChunk) -> Self {
        Self { digest, size_bytes, data }
    }
}

impl From<raft::BodyChunk> for Chunk {
    fn from(raft::BodyChunk { digest, size_bytes, data }: raft::BodyChunk) -> Self {
        Self { digest, size_bytes, data }
    }
}

impl From<Chunk> for edge::BodyChunk {
    fn from(Chunk { digest, size_bytes, data }: Chunk) -> Self {
        Self { digest, size_bytes, data }
    }
}

impl From<Chunk> for raft::BodyChunk {
    fn from(Chunk { digest, size_bytes, data }: Chunk) -> Self {
        Self { digest, size_bytes, data }
    }
}

/// The chunks of a body, cut as they are asked for. The first one may be the only one, and empty.
pub fn cut(digest: String, bytes: Bytes) -> impl Iterator<Item = Chunk> {
    let size_bytes = bytes.len() as u64;
    let first = bytes.slice(..bytes.len().min(CHUNK_BYTES));
    let rest = bytes.slice(first.len()..);
    let head = Chunk { digest, size_bytes, data: first.to_vec() };
    let starts = (0..rest.len()).step_by(CHUNK_BYTES);
    std::iter::once(head).chain(starts.map(move |start| {
        let end = rest.len().min(start + CHUNK_BYTES);
        Chunk { data: rest.slice(start..end).to_vec(), ..Chunk::default() }
    }))
}

/// Sends a body chunk by chunk from a task of its own, which ends when the receiver goes away or is too slow: a receiver
/// cannot keep a body in memory by not reading it.
pub fn send<C: From<Chunk> + Send + 'static>(body: Body) -> ReceiverStream<Result<C, Status>> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        for chunk in cut(body.digest.clone(), body.bytes.clone()) {
            if sender.send_timeout(Ok(chunk.into()), CHUNK_TIMEOUT).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

impl Bodies {
    /// Receives a body and checks its length and digest.
    ///
    /// # Errors
    /// When it is not what its first chunk announces, or breaks off.
    pub async fn receive<C: Into<Chunk>>(
        &self,
        sender: Sender,
        chunks: impl Stream<Item = Result<C, Status>> + Unpin,
    ) -> Result<Body, BodyError> {
        self.receive_from(sender, None, chunks).await
    }

    /// The same from the node of this name, which has a share of its own.
    ///
    /// # Errors
    /// As `receive`.
    pub async fn receive_from<C: Into<Chunk>>(
        &self,
        sender: Sender,
        name: Option<&str>,
        mut chunks: impl Stream<Item = Result<C, Status>> + Unpin,
    ) -> Result<Body, BodyError> {
        let mut next = async || match chunks.next().await {
            Some(Ok(chunk)) => Ok(Some(chunk.into())),
            Some(Err(status)) => Err(BodyError::BrokenOff(status.message().to_owned())),
            None => Ok(None),
        };
        let Chunk { digest, size_bytes, mut data } =
            next().await?.ok_or_else(|| BodyError::BrokenOff("no chunk came".to_owned()))?;
        if !is_digest(&digest) {
            return Err(BodyError::Name);
        }
        let share = self.share(sender, name, size_bytes).await?;
        let mut bytes = BytesMut::new();
        let mut hash = Sha256::new();
        loop {
            let found = bytes.len() as u64 + data.len() as u64;
            if found > size_bytes {
                return Err(BodyError::Length { announced: size_bytes, found });
            }
            hash.update(&data);
            bytes.extend_from_slice(&data);
            match next().await? {
                Some(chunk) => data = chunk.data,
                None => break,
            }
        }
        if bytes.len() as u64 != size_bytes {
            return Err(BodyError::Length { announced: size_bytes, found: bytes.len() as u64 });
        }
        if hex::encode(hash.finalize()) != digest {
            return Err(BodyError::Digest);
        }
        Ok(Body { digest, bytes: bytes.freeze(), _share: share })
    }
}
