//! What the disk can do: writes of 4 KiB, each with its fsync, one after the other.

use std::{fs::File, io::Write as _, os::unix::fs::FileExt as _, path::Path, sync::Arc};

use anyhow::Context as _;

use super::{Store, work::Work};

const PAGE: [u8; 4096] = [0x5a; 4096];

/// A file of pages.
#[derive(Debug)]
pub struct Pages {
    file: Arc<File>,
    grows: bool,
}

impl Pages {
    /// A new file in a folder: each write makes it longer, with what the file system has to note for that, or lands on its
    /// first page.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn in_folder(folder: &Path, grows: bool) -> anyhow::Result<Self> {
        let path = folder.join("pages");
        let file = File::create_new(&path).with_context(|| format!("make {}", path.display()))?;
        (&file).write_all(&PAGE).and_then(|()| file.sync_all()).context("write a first page")?;
        Ok(Self { file: Arc::new(file), grows })
    }
}

impl Store for Pages {
    async fn write(&self, _: usize, _: Work) -> anyhow::Result<()> {
        let (file, grows) = (Arc::clone(&self.file), self.grows);
        let write = move || {
            let written = if grows { (&*file).write_all(&PAGE) } else { file.write_all_at(&PAGE, 0) };
            written.and_then(|()| file.sync_data())
        };
        tokio::task::spawn_blocking(write).await?.context("write a page")
    }
}
