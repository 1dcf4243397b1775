//! What can go wrong with the log, and where.

use std::io;

use proto::codec;

use crate::state::store::StoreError;

/// What went wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// redb.
    #[error(transparent)]
    Redb(Box<redb::Error>),
    /// The high-water file.
    #[error("write the high-water mark: {0}")]
    Mark(#[from] io::Error),
    /// What is stored is not what was written.
    #[error("{0} is not as it was written: the disk has changed it")]
    Damaged(Damage),
    /// What was written is not what is read by this version.
    #[error(transparent)]
    Decode(#[from] codec::DecodeError),
    /// The state could not be made durable before the log was purged.
    #[error(transparent)]
    State(#[from] StoreError),
}

macro_rules! from_redb {
    ($($error:ident)*) => {
        $(impl From<redb::$error> for LogError {
            fn from(error: redb::$error) -> Self {
                Self::Redb(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(DatabaseError TransactionError TableError StorageError CommitError SetDurabilityError);

/// A place in the file whose checksum is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The entry at this index.
    #[error("the log's entry at index {0}")]
    Entry(u64),
    /// What stands beside the entries under this name.
    #[error("the log's record \"{0}\"")]
    Fact(&'static str),
}
