//! The whole state as of one moment, in a file: for a backup.

use std::{
    fs::File,
    io::{self, Seek},
};

use super::Group;
use crate::state::store::{StoreError, disk};

impl Group {
    /// Writes the state as of the last applied entry into a file without a name, which goes with its handle, and gives the
    /// log index. Neither applies nor readers wait for it; it takes seconds for a million records.
    ///
    /// # Errors
    /// When the disk fails: not this server's log and state, but the room for the file.
    pub async fn export(&self) -> Result<(u64, File), StoreError> {
        let group = self.clone();
        let exported = tokio::task::spawn_blocking(move || {
            let mut file = tempfile::tempfile_in(&group.inner.data_dir).map_err(disk("make a file for the state"))?;
            let position = group.state().export(&file)?;
            file.rewind().map_err(disk("read the state's file"))?;
            Ok((position.index, file))
        });
        exported.await.map_err(|error| disk("write the state into a file")(io::Error::other(error)))?
    }
}
