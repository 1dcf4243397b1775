//! What tells whether clamd says so when it leaves something out: archives in archives, deeper than any clamd looks.
//!
//! clamd has no command that tells its settings. Its deepest `MaxRecursion` is 100; with `AlertExceedsMax yes` it reports
//! `Heuristics.Limits.Exceeded`, otherwise it calls this clean, and then its OK to anything means little.

use std::{
    io::{Cursor, Write as _},
    sync::OnceLock,
};

use bytes::Bytes;
use zip::{CompressionMethod, ZipWriter, result::ZipError, write::SimpleFileOptions};

/// One more than clamd can be told to go.
const DEPTH: usize = 101;

/// The nest, about 8 KB; made once. Empty when it could not be made, which no clamd reports as over its limits.
pub(super) fn nest() -> &'static Bytes {
    static NEST: OnceLock<Bytes> = OnceLock::new();
    NEST.get_or_init(|| {
        let egg = b"Postern asks whether archives in archives are looked into.\n".to_vec();
        let nest = (0..DEPTH).try_fold(egg, |inner, _| packed(&inner));
        nest.map(Bytes::from).unwrap_or_default()
    })
}

fn packed(inner: &[u8]) -> Result<Vec<u8>, ZipError> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // Not stored: clamd would find the innermost by its first bytes, without going down.
    archive.start_file("a", SimpleFileOptions::default().compression_method(CompressionMethod::Deflated))?;
    archive.write_all(inner)?;
    Ok(archive.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::nest;

    #[test]
    fn the_nest_is_small_and_an_archive() {
        assert!(nest().starts_with(b"PK\x03\x04"));
        assert!(nest().len() < 16 * 1024, "{}", nest().len());
    }
}
