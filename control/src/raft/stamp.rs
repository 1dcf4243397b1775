//! Who a data folder belongs to: written once into the identity file, the log and the state.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use proto::codec;
use serde::{Deserialize, Serialize};

/// Name of the identity file in the data folder.
pub(super) const FILE: &str = "identity.json";

/// The file that says of a data folder that no server has used it yet. Without it an empty folder is one whose disk is not
/// mounted, or whose contents are lost: a server that began anew there would vote where it has voted before. It lies beside
/// the folder and not in it, because a disk that is mounted there would only hide it.
#[must_use]
pub fn new_server(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".new-server");
    folder.with_file_name(name)
}

/// Says so of a folder.
///
/// # Errors
/// When it cannot be written.
pub fn mark_new(folder: &Path) -> io::Result<()> {
    if let Some(around) = folder.parent() {
        std::fs::create_dir_all(around)?;
    }
    let text = "No control server has used the data folder beside this file yet; the first start removes this file.\n";
    std::fs::write(new_server(folder), text)
}

/// Takes that back, durably.
pub(super) fn used(folder: &Path) -> io::Result<()> {
    let around = folder.parent().filter(|around| !around.as_os_str().is_empty());
    match std::fs::remove_file(new_server(folder)) {
        Ok(()) => sync_folder(around.unwrap_or(Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A cluster and a node id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Version of the encoding of everything in the folder.
    pub version: u32,
    /// The cluster's id, out of the certificate.
    pub cluster: String,
    /// Raft node id.
    pub node: u64,
}

impl Stamp {
    /// The stamp of this version of Postern.
    #[must_use]
    pub fn new(cluster: &str, node: u64) -> Self {
        Self { version: codec::VERSION, cluster: cluster.to_owned(), node }
    }

    /// Reads the identity file; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read or understood.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path(folder)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the identity file, durably and whole or not at all.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.as_file().sync_all()?;
        file.persist(path(folder))?;
        sync_folder(folder)
    }
}

/// `node 2 of cluster abc (format 1)`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {} (format {})", self.node, self.cluster, self.version)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Makes a folder and those around it that are missing, durably: a folder whose name is lost with the power takes all that
/// is in it along, and the server would begin anew without knowing what it has promised.
///
/// # Errors
/// When the disk fails, or something else has the name.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let around = folder.parent().filter(|around| !around.as_os_str().is_empty());
    if let Some(around) = around.filter(|around| !around.exists()) {
        make_folder(around)?;
    }
    std::fs::create_dir_all(folder)?;
    // Also when the folder was there: an earlier process may have ended between these two lines.
    sync_folder(around.unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
