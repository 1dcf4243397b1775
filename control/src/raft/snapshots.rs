//! Snapshot files: the current one, the one being received, and the one being installed, which a restart finishes.

use std::{
    fs::File,
    io::{self, Seek},
    path::{Path, PathBuf},
};

use tempfile::{NamedTempFile, TempPath};

use super::stamp::sync_folder;
use crate::state::store::{Position, StateStore, StoreError, disk};

/// Name of the folder in the data folder.
const FOLDER: &str = "snapshots";
/// The snapshot that is replacing the state right now. It is durable before the first key changes and goes after the
/// last, so that a process that ended in between starts over with it.
const INSTALLING: &str = "installing";

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

    /// A file for a snapshot that is being received; it has no name and goes with its last handle.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn receiving(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.folder)
    }

    /// Writes a snapshot of the state; it goes with the path.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn export(&self, state: &StateStore) -> Result<(Position, TempPath), StoreError> {
        let file = NamedTempFile::new_in(&self.folder).map_err(disk("create a snapshot"))?;
        let position = state.export(file.as_file())?;
        fail::fail_point!("snapshot.exported");
        Ok((position, file.into_temp_path()))
    }

    /// Replaces the state by a received snapshot, which becomes a file of its own.
    ///
    /// # Errors
    /// `StoreError::Snapshot` when the bytes are no snapshot: nothing has changed then. Otherwise the disk has failed.
    pub fn install(&self, state: &StateStore, mut received: File) -> Result<(Position, TempPath), StoreError> {
        let mut copy = NamedTempFile::new_in(&self.folder).map_err(disk("create a snapshot"))?;
        received.rewind().map_err(disk("read a received snapshot"))?;
        io::copy(&mut received, copy.as_file_mut()).map_err(disk("copy a received snapshot"))?;
        fail::fail_point!("install.copied");
        copy.as_file().sync_all().map_err(disk("fsync a received snapshot"))?;
        fail::fail_point!("install.synced");
        StateStore::verify(copy.path())?;
        copy.persist(self.installing()).map_err(disk("name a received snapshot"))?;
        sync_folder(&self.folder).map_err(disk("fsync the snapshots' folder"))?;
        fail::fail_point!("install.named");
        let position = self.finish(state)?;
        fail::fail_point!("install.finished");
        let kept = NamedTempFile::new_in(&self.folder).map_err(disk("name a snapshot"))?.into_temp_path();
        std::fs::rename(self.installing(), &kept).map_err(disk("name a snapshot"))?;
        fail::fail_point!("install.renamed");
        sync_folder(&self.folder).map_err(disk("fsync the snapshots' folder"))?;
        Ok((position, kept))
    }

    /// Finishes an installation that the end of an earlier process interrupted; nothing to do without one.
    ///
    /// # Errors
    /// When the file is damaged or the disk fails.
    pub fn recover(&self, state: &StateStore) -> Result<(), StoreError> {
        if !self.installing().exists() {
            return Ok(());
        }
        let position = self.finish(state)?;
        tracing::warn!(index = position.index, "finished the installation of a snapshot that was interrupted");
        std::fs::remove_file(self.installing()).map_err(disk("remove an installed snapshot"))?;
        // A name that came back after a loss of power would put the state back to this snapshot.
        sync_folder(&self.folder).map_err(disk("fsync the snapshots' folder"))
    }

    fn finish(&self, state: &StateStore) -> Result<Position, StoreError> {
        state.import(File::open(self.installing()).map_err(disk("open a received snapshot"))?)
    }

    fn installing(&self) -> PathBuf {
        self.folder.join(INSTALLING)
    }
}
