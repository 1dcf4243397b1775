//! Snapshot files: the current one, the one being received, and the one being installed, which a restart finishes.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::{NamedTempFile, TempPath};

use super::{stamp::sync_folder, state_machine::Standing, types::LogId};
use crate::state::store::{Position, StateStore, StoreError, disk};

/// Name of the folder in the data folder.
const FOLDER: &str = "snapshots";
/// The snapshot that is replacing the state right now. It is durable before the first key changes and goes after the
/// last, so that a process that ended in between starts over with it.
const INSTALLING: &str = "installing";

/// A whole snapshot on disk; the file goes with the last clone.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    path: Arc<TempPath>,
    /// Whether its bytes have been checked since they came.
    verified: bool,
}

impl SnapshotFile {
    /// A file that is complete.
    #[must_use]
    pub fn new(path: TempPath) -> Self {
        Self { path: Arc::new(path), verified: false }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks the bytes, and that they stand for the log up to this entry.
    ///
    /// # Errors
    /// `StoreError::Snapshot` when they are not a snapshot of that moment; otherwise the disk has failed.
    pub(super) fn verified(self, last: Option<LogId>) -> Result<Self, StoreError> {
        let position = StateStore::verify(self.path())?;
        if Standing::within(Some(&position))?.applied != last {
            return Err(StoreError::Snapshot("it is of another moment than was announced"));
        }
        Ok(Self { verified: true, ..self })
    }
}

/// Bytes of a snapshot that may wait to be written to the disk.
const UNSYNCED_MAX: usize = 1024 * 1024;

/// Writes a file and waits for the disk now and then. A file system that is asked for the fsync of a log entry may write all
/// that waits of other files first, and a snapshot is hundreds of MiB.
struct Paced<'f> {
    file: &'f File,
    unsynced: usize,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= UNSYNCED_MAX {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The folder of snapshot files.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
}

impl Snapshots {
    /// Opens the folder, and throws away what an earlier process left: a current snapshot is made anew when needed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(data: &Path) -> io::Result<Self> {
        let folder = data.join(FOLDER);
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name() != INSTALLING {
                std::fs::remove_file(entry.path())?;
            }
        }
        sync_folder(data)?;
        Ok(Self { folder })
    }

    /// A file for a snapshot that is being received; it goes with the path unless it is installed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn receiving(&self) -> io::Result<(File, TempPath)> {
        Ok(NamedTempFile::new_in(&self.folder)?.into_parts())
    }

    /// Writes a snapshot of the state.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn export(&self, state: &StateStore) -> Result<(Position, SnapshotFile), StoreError> {
        let file = NamedTempFile::new_in(&self.folder).map_err(disk("create a snapshot"))?;
        let position = state.export(Paced { file: file.as_file(), unsynced: 0 })?;
        fail::fail_point!("snapshot.exported");
        Ok((position, SnapshotFile::new(file.into_temp_path())))
    }

    /// Replaces the state by a received snapshot.
    ///
    /// # Errors
    /// `StoreError::Snapshot` when the bytes are no snapshot: nothing has changed then. Otherwise the disk has failed.
    pub fn install(&self, state: &StateStore, received: &SnapshotFile) -> Result<Position, StoreError> {
        if !received.verified {
            StateStore::verify(received.path())?;
        }
        let opened = File::open(received.path()).and_then(|file| file.sync_all());
        opened.map_err(disk("fsync a received snapshot"))?;
        fail::fail_point!("install.synced");
        // A second name, because the first goes with the last handle.
        std::fs::hard_link(received.path(), self.installing()).map_err(disk("name a received snapshot"))?;
        sync_folder(&self.folder).map_err(disk("fsync the snapshots' folder"))?;
        fail::fail_point!("install.named");
        let file = File::open(self.installing()).map_err(disk("open a received snapshot"))?;
        let position = state.import_verified(file)?;
        fail::fail_point!("install.finished");
        self.installed()?;
        Ok(position)
    }

    /// Finishes an installation that the end of an earlier process interrupted; nothing to do without one.
    ///
    /// # Errors
    /// When the file is damaged or the disk fails.
    pub fn recover(&self, state: &StateStore) -> Result<(), StoreError> {
        if !self.installing().exists() {
            return Ok(());
        }
        let file = File::open(self.installing()).map_err(disk("open a received snapshot"))?;
        let position = state.import(file)?;
        tracing::warn!(index = position.index, "finished the installation of a snapshot that was interrupted");
        self.installed()
    }

    /// A name that came back after a loss of power would put the state back to this snapshot.
    fn installed(&self) -> Result<(), StoreError> {
        std::fs::remove_file(self.installing()).map_err(disk("remove an installed snapshot"))?;
        sync_folder(&self.folder).map_err(disk("fsync the snapshots' folder"))
    }

    fn installing(&self) -> PathBuf {
        self.folder.join(INSTALLING)
    }
}
