//! What the disk can do: appends of 4 KiB, each with its fsync, one after the other.

use std::{fs::File, io::Write as _, path::Path, sync::Arc};

use anyhow::Context as _;

use super::{Store, work::Work};

const PAGE: [u8; 4096] = [0x5a; 4096];

/// A file that grows.
#[derive(Debug)]
pub struct Appends {
    file: Arc<File>,
}

impl Appends {
    /// A new file in a folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("appends");
        let file = File::create_new(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { file: Arc::new(file) })
    }
}

impl Store for Appends {
    async fn write(&self, _: usize, _: Work) -> anyhow::Result<()> {
        let file = Arc::clone(&self.file);
        let append = move || (&*file).write_all(&PAGE).and_then(|()| file.sync_data());
        tokio::task::spawn_blocking(append).await?.context("append a page")
    }
}
