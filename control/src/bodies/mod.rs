//! Message bodies on this server's disk, each under its SHA-256 digest. A file counts only with its length and checksum
//! right.

mod check;
pub mod chunks;
pub mod copies;
pub mod duty;
pub mod keep;
pub mod peers;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{
    ObjectStore as _, ObjectStoreExt as _, PutPayload, local::LocalFileSystem, path::Path as ObjectPath,
};
use proto::{held::is_digest, policy::MESSAGE_BYTES_MAX};
use sha2::{Digest as _, Sha256};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, RwLock, Semaphore};

pub use self::check::{Checked, check};

/// Largest body, in bytes: the largest message and room for the fields that a node adds.
pub const BODY_BYTES_MAX: u64 = MESSAGE_BYTES_MAX + 1024 * 1024;
/// How long a body that no record needs is left alone: its record may still be on its way.
pub const UNNEEDED_FOR: Duration = Duration::from_secs(3600);
/// Memory for bodies in flight, in KiB, for each of the two groups of callers.
const BUDGET_KIB: usize = 256 * 1024;

/// One node may take this part of it: a body is paid for when it is announced, whether it comes or not.
const SHARE_OF_ONE: usize = 4;
const _: () = assert!(BUDGET_KIB / SHARE_OF_ONE > BODY_BYTES_MAX as usize / 1024, "the largest body fits");

/// Why a body is not there or not taken.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Not 64 lower-case hex digits.
    #[error("a body's name is its SHA-256 in 64 lower-case hex digits")]
    Name,
    /// Over the cap.
    #[error("a body has at most {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// Fewer or more bytes than announced.
    #[error("the body is {announced} bytes long as announced, but {found} came")]
    Length {
        /// What the first chunk or the record says.
        announced: u64,
        /// What is there.
        found: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("the body's bytes do not have the digest that names them")]
    Digest,
    /// This server has no such file.
    #[error("no such body on this server")]
    Missing,
    /// The sender stopped in the middle.
    #[error("the body broke off: {0}")]
    BrokenOff(String),
    /// The disk.
    #[error("body store: {0}")]
    Store(String),
}

/// Who sends bodies. Each has its own share of memory, so that nodes that wait for a second copy cannot keep the copies
/// that other servers send here waiting, and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A node.
    Node,
    /// A control server.
    Peer,
}

/// A body whose length and digest have been checked, with its share of the memory for bodies in flight.
#[derive(Debug)]
pub struct Body {
    digest: String,
    bytes: Bytes,
    _share: Share,
}

/// Memory for a body: of all callers' and, where one of many sends it, of that one's.
#[derive(Debug)]
struct Share {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl Body {
    /// SHA-256 in lower-case hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// The body store of this server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bodies {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: LocalFileSystem,
    nodes: Arc<Semaphore>,
    peers: Arc<Semaphore>,
    /// What one node may take of the nodes' memory, for those that send now.
    of_one: Mutex<HashMap<String, Weak<Semaphore>>>,
    /// Since when a sweep has found each body unneeded.
    unneeded: Mutex<HashMap<String, Instant>>,
    /// Writers share it; a sweep takes it alone for each deletion, so that it cannot delete what is being written again.
    deleting: RwLock<()>,
}

impl Bodies {
    /// Opens `FOLDER/bodies`, made when missing, and removes what an interrupted write left there.
    ///
    /// # Errors
    /// When the folder cannot be made, read or synced.
    pub fn open(data: &Path) -> anyhow::Result<Self> {
        let folder = data.join("bodies");
        std::fs::create_dir_all(&folder).with_context(|| format!("make folder {}", folder.display()))?;
        std::fs::File::open(data)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("sync {}", data.display()))?;
        for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            // object_store stages a write as DIGEST#NUMBER and renames it when it is durable.
            if name.split_once('#').is_some_and(|(digest, _)| is_digest(digest)) {
                std::fs::remove_file(entry.path())
                    .with_context(|| format!("remove unfinished {}", entry.path().display()))?;
            }
        }
        let files = LocalFileSystem::new_with_prefix(&folder)
            .with_context(|| format!("open {}", folder.display()))?
            .with_fsync(true);
        let inner = Inner {
            files,
            nodes: Arc::new(Semaphore::new(BUDGET_KIB)),
            peers: Arc::new(Semaphore::new(BUDGET_KIB)),
            of_one: Mutex::default(),
            unneeded: Mutex::default(),
            deleting: RwLock::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The memory that one node may take; it lasts as long as somebody uses it.
    fn of_one(&self, name: &str) -> Arc<Semaphore> {
        let mut all = self.inner.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, share| share.strong_count() > 0);
        if let Some(share) = all.get(name).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(BUDGET_KIB / SHARE_OF_ONE));
        all.insert(name.to_owned(), Arc::downgrade(&share));
        share
    }

    /// Waits for room in memory for a body of this length: first in the share of the one that sends it, so that who waits for
    /// that keeps nothing from the others.
    async fn share(&self, sender: Sender, name: Option<&str>, size_bytes: u64) -> Result<Share, BodyError> {
        if size_bytes > BODY_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        let budget = match sender {
            Sender::Node => &self.inner.nodes,
            Sender::Peer => &self.inner.peers,
        };
        let kib = u32::try_from(size_bytes / 1024 + 1).map_err(|_| BodyError::TooLarge)?;
        let closed = |closed: AcquireError| BodyError::Store(closed.to_string());
        let own = match name {
            Some(name) => Some(self.of_one(name).acquire_many_owned(kib).await.map_err(closed)?),
            None => None,
        };
        let all = Arc::clone(budget).acquire_many_owned(kib).await.map_err(closed)?;
        Ok(Share { _all: all, _own: own })
    }

    /// Writes a body; it is durable when this returns. Also writes over one that is there already: that one may be
    /// damaged.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn put(&self, body: &Body) -> Result<(), BodyError> {
        let _writing = self.inner.deleting.read().await;
        self.unneeded(|unneeded| unneeded.remove(&body.digest));
        let payload = PutPayload::from_bytes(body.bytes.clone());
        let path = ObjectPath::from(body.digest.as_str());
        self.inner.files.put(&path, payload).await.map(drop).map_err(|error| BodyError::Store(error.to_string()))
    }

    /// Reads a body and checks it.
    ///
    /// # Errors
    /// `Missing`, or `Length` or `Digest` when the file is damaged: then another server has it right.
    pub async fn read(&self, sender: Sender, digest: &str, size_bytes: u64) -> Result<Body, BodyError> {
        if !is_digest(digest) {
            return Err(BodyError::Name);
        }
        let share = self.share(sender, None, size_bytes).await?;
        let file = self.inner.files.get(&ObjectPath::from(digest)).await.map_err(read_error)?;
        if file.meta.size != size_bytes {
            return Err(BodyError::Length { announced: size_bytes, found: file.meta.size });
        }
        let bytes = file.bytes().await.map_err(read_error)?;
        if bytes.len() as u64 != size_bytes {
            return Err(BodyError::Length { announced: size_bytes, found: bytes.len() as u64 });
        }
        let checking = bytes.clone();
        let found = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(checking)))
            .await
            .map_err(|error| BodyError::Store(error.to_string()))?;
        if found != digest {
            return Err(BodyError::Digest);
        }
        Ok(Body { digest: found, bytes, _share: share })
    }

    /// Deletes the bodies that this and each sweep since `UNNEEDED_FOR` found unneeded; returns how many. It goes by
    /// the monotonic clock, so that a wall clock that jumps deletes nothing. The state that `needed` asks must be up to
    /// date.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn sweep(&self, now: Instant, needed: impl Fn(&str) -> bool) -> Result<usize, BodyError> {
        let files: Vec<_> = self.inner.files.list(None).try_collect().await.map_err(read_error)?;
        let digests: Vec<&str> =
            files.iter().map(|file| file.location.as_ref()).filter(|name| is_digest(name)).collect();
        self.unneeded(|unneeded| unneeded.retain(|digest, _| digests.contains(&digest.as_str())));
        let mut deleted = 0;
        for digest in digests {
            if needed(digest) {
                self.unneeded(|unneeded| unneeded.remove(digest));
                continue;
            }
            let _alone = self.inner.deleting.write().await;
            let since = self.unneeded(|unneeded| *unneeded.entry(digest.to_owned()).or_insert(now));
            if now.saturating_duration_since(since) >= UNNEEDED_FOR {
                self.inner.files.delete(&ObjectPath::from(digest)).await.map_err(read_error)?;
                self.unneeded(|unneeded| unneeded.remove(digest));
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    fn unneeded<T>(&self, with: impl FnOnce(&mut HashMap<String, Instant>) -> T) -> T {
        with(&mut self.inner.unneeded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_error(error: object_store::Error) -> BodyError {
    if matches!(error, object_store::Error::NotFound { .. }) {
        BodyError::Missing
    } else {
        BodyError::Store(error.to_string())
    }
}

#[cfg(test)]
mod tests;
