//! A look at all bodies of a stopped server.

use std::{fs::File, io, path::Path};

use proto::held::is_digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Names that are listed at most.
const LISTED_MAX: usize = 100;

/// What a look at the bodies has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Bodies that are as they were written.
    pub whole: u64,
    /// Bodies that are not.
    pub damaged: u64,
    /// The first hundred of those.
    pub named: Vec<String>,
}

/// Reads each body in the data folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn check(data: &Path) -> io::Result<Checked> {
    let mut checked = Checked::default();
    let entries = match std::fs::read_dir(data.join("bodies")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(checked),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().filter(|name| is_digest(name)).map(str::to_owned) else { continue };
        // What the disk cannot give is as good as damaged.
        if digest(&entry.path()).is_ok_and(|digest| digest == name) {
            checked.whole += 1;
        } else {
            checked.damaged += 1;
            if checked.named.len() < LISTED_MAX {
                checked.named.push(name);
            }
        }
    }
    checked.named.sort();
    Ok(checked)
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::{Checked, check};

    #[test]
    fn a_body_whose_bytes_are_not_those_of_its_name_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(check(folder.path()).expect("nothing is there"), Checked::default());
        let bodies = folder.path().join("bodies");
        std::fs::create_dir(&bodies).expect("a folder");
        let name = |text: &str| hex::encode(Sha256::digest(text));
        std::fs::write(bodies.join(name("one")), "one").expect("written");
        std::fs::write(bodies.join(name("two")), "tw0").expect("written");
        std::fs::write(bodies.join("something else"), "").expect("written");
        let expected = Checked { whole: 1, damaged: 1, named: vec![name("two")] };
        assert_eq!(check(folder.path()).expect("readable"), expected);
    }
}
