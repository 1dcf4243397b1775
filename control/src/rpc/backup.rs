//! A backup on its way to an operator: the state as of one log index, then each body that it needs, from this disk or another
//! server's.

use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _},
    time::Duration,
};

use bytes::Bytes;
use proto::wire::operator::{BackupBegin, BackupEnd, BackupPart, BodyBegin, backup_part::Part};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Shared;
use crate::{
    bodies::{BodyError, chunks::CHUNK_BYTES, copies::LoadError},
    state::{archive::Contents, snapshot, store::StoreError},
};

/// How long the operator may take for one part before the backup is given up.
const PART_TIMEOUT: Duration = Duration::from_secs(60);
/// Parts that wait for the operator.
const PARTS_WAITING: usize = 4;

/// What a backup is sent as.
pub type Parts = ReceiverStream<Result<BackupPart, Status>>;

/// Begins to send everything. `turn` is held until the end.
#[must_use]
pub fn send(shared: Shared, turn: OwnedSemaphorePermit) -> Parts {
    let (sender, receiver) = mpsc::channel(PARTS_WAITING);
    tokio::spawn(async move {
        let _turn = turn;
        let line = Line(sender);
        match line.everything(&shared).await {
            Ok(()) => tracing::info!("a backup has been sent"),
            Err(Stop::Left) => tracing::warn!("a backup was not taken to its end"),
            Err(Stop::Failed(status)) => {
                tracing::error!(problem = status.message(), "a backup failed");
                // When the operator is gone there is nobody to tell.
                let _ = line.0.send_timeout(Err(status), PART_TIMEOUT).await;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// Why a backup ends early.
enum Stop {
    /// The operator is gone or too slow.
    Left,
    Failed(Status),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(Status::unavailable(format!("{error}: look at this server's disk, or ask another one")))
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

struct Line(mpsc::Sender<Result<BackupPart, Status>>);

impl Line {
    async fn part(&self, part: Part) -> Result<(), Stop> {
        self.0.send_timeout(Ok(BackupPart { part: Some(part) }), PART_TIMEOUT).await.map_err(|_| Stop::Left)
    }

    async fn everything(&self, shared: &Shared) -> Result<(), Stop> {
        let (index, file) = shared.group.export().await?;
        let (mut file, contents) = contents(file).await?;
        let meta = file.metadata().map_err(|error| Status::unavailable(format!("read the state's file: {error}")))?;
        let begin = BackupBegin {
            cluster: shared.cluster.to_string(),
            index,
            at_ms: contents.at.0,
            policy_version: contents.policy_version,
            held: contents.held,
            audit_records: contents.audit_records,
            state_bytes: meta.len(),
            bodies: contents.bodies.len() as u64,
            body_bytes: contents.bodies.values().sum(),
        };
        self.part(Part::Begin(begin)).await?;
        loop {
            let (rest, piece) = next_piece(file).await?;
            file = rest;
            if piece.is_empty() {
                break;
            }
            self.part(Part::State(piece)).await?;
        }
        for (digest, size_bytes) in contents.bodies {
            self.body(shared, digest, size_bytes).await?;
        }
        self.part(Part::End(BackupEnd {})).await
    }

    async fn body(&self, shared: &Shared, digest: String, size_bytes: u64) -> Result<(), Stop> {
        let begin = BodyBegin { digest: digest.clone(), size_bytes };
        let body = match shared.copies.load(&digest, size_bytes, &shared.keepers()).await {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(digest, %error, "a backup is without a body");
                return match error {
                    LoadError::Asked(BodyError::TooLarge | BodyError::Name)
                    | LoadError::Nowhere
                    | LoadError::NotNow(_) => self.part(Part::Missing(begin)).await,
                    LoadError::Asked(error) => Err(Status::from(error).into()),
                };
            }
        };
        self.part(Part::Body(begin)).await?;
        let bytes: &Bytes = body.bytes();
        for start in (0..bytes.len()).step_by(CHUNK_BYTES) {
            let end = bytes.len().min(start + CHUNK_BYTES);
            self.part(Part::BodyBytes(bytes.slice(start..end).to_vec())).await?;
        }
        Ok(())
    }
}

/// What the state in a file holds; the file is at its beginning again.
async fn contents(mut file: File) -> Result<(File, Contents), Stop> {
    let read = tokio::task::spawn_blocking(move || -> Result<_, Stop> {
        let mut contents = Contents::default();
        let unreadable = |error| Stop::Failed(Status::internal(format!("read the state: {error}")));
        snapshot::each_pair(BufReader::new(&file), |key, value| contents.add(&key, &value).map_err(unreadable))?;
        contents.end_of_record().map_err(unreadable)?;
        file.rewind().map_err(|error| Status::unavailable(format!("read the state's file: {error}")))?;
        Ok((file, contents))
    });
    read.await.map_err(|error| Status::internal(format!("read the state: {error}")))?
}

/// The next bytes of a file; none at its end.
async fn next_piece(file: File) -> Result<(File, Vec<u8>), Stop> {
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(CHUNK_BYTES);
        (&file).take(CHUNK_BYTES as u64).read_to_end(&mut piece).map(|_| (file, piece))
    });
    let read = read.await.map_err(|error| Status::internal(format!("read the state's file: {error}")))?;
    read.map_err(|error| Status::unavailable(format!("read the state's file: {error}")).into())
}
