//! What the load sends, made ready for the wire once: commands and messages as bytes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::{letters, letters::Letter, smtp_client::stuffed};

/// Messages that are read from a folder at most.
const FILES_MAX: usize = 10_000;

/// The envelope of a message.
#[derive(Clone, Debug)]
pub struct Route {
    /// Reverse-path.
    pub from: String,
    /// Forward-path.
    pub to: String,
}

/// A message as it is sent.
#[derive(Clone, Debug)]
pub struct Mail {
    /// MAIL, RCPT and DATA, each with its line end.
    pub envelope: [Vec<u8>; 3],
    /// The same in one piece.
    pub group: Vec<u8>,
    /// With doubled dots and the final one.
    pub body: Vec<u8>,
}

impl Mail {
    fn new(Route { from, to }: &Route, message: &[u8]) -> Self {
        let envelope =
            [format!("MAIL FROM:<{from}>\r\n"), format!("RCPT TO:<{to}>\r\n"), "DATA\r\n".into()].map(Vec::from);
        Self { group: envelope.concat(), envelope, body: stuffed(message) }
    }
}

/// Messages that are sent in turn.
#[derive(Clone, Debug)]
pub struct Mails {
    /// Name in the table: `2 KB`, or the folder's.
    pub name: String,
    all: Vec<Mail>,
    /// Of all messages, as they are before their dots are doubled.
    bytes: usize,
}

impl Mails {
    /// These messages, which must not be none, all with one envelope.
    ///
    /// # Errors
    /// When they are none.
    pub fn new(name: &str, route: &Route, messages: &[Vec<u8>]) -> anyhow::Result<Self> {
        Self::each(name, messages.iter().map(|message| (route, message.as_slice())))
    }

    /// These messages, which must not be none, each with its own envelope.
    ///
    /// # Errors
    /// When they are none.
    pub fn each<'m>(name: &str, messages: impl Iterator<Item = (&'m Route, &'m [u8])>) -> anyhow::Result<Self> {
        let mut mails = Self { name: name.to_owned(), all: Vec::new(), bytes: 0 };
        for (route, message) in messages {
            mails.all.push(Mail::new(route, message));
            mails.bytes += message.len();
        }
        ensure!(!mails.all.is_empty(), "there is no message in {name}");
        Ok(mails)
    }

    /// The message number n, counted from 0, in turn.
    #[must_use]
    pub fn nth(&self, n: u64) -> &Mail {
        let at = usize::try_from(n).unwrap_or_default() % self.all.len();
        &self.all[at]
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Mean size.
    #[must_use]
    pub fn bytes_mean(&self) -> usize {
        self.bytes / self.all.len()
    }
}

/// A message of about this many bytes, made up.
#[must_use]
pub fn built(route: &Route, bytes: usize) -> Vec<u8> {
    let head = Letter::new(&route.from, &route.to, "Minutes").text("").bytes().len();
    Letter::new(&route.from, &route.to, "Minutes").text(&letters::text_of(bytes.saturating_sub(head))).bytes()
}

/// All files of a folder, and of those in it, as messages; in the order of their paths.
///
/// # Errors
/// When one cannot be read.
pub fn of_folder(folder: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    list(folder, &mut paths)?;
    paths.sort();
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    paths.iter().take(FILES_MAX).map(read).collect()
}

fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path.is_dir() { list(&path, paths)? } else { paths.push(path) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Mails, Route, built, of_folder};

    #[test]
    fn messages_are_sent_in_turn_and_as_large_as_they_are_called() {
        let route = Route { from: "a@good.example".into(), to: "b@dest.test".into() };
        let mails = Mails::new("two", &route, &[b"a\n".to_vec(), b".b\n".to_vec()]).expect("mails");
        assert_eq!(
            [0, 1, 2].map(|n| mails.nth(n).body.as_slice()),
            [b"a\r\n.\r\n" as &[u8], b"..b\r\n.\r\n", b"a\r\n.\r\n"]
        );
        assert_eq!(mails.nth(0).group, b"MAIL FROM:<a@good.example>\r\nRCPT TO:<b@dest.test>\r\nDATA\r\n");
        for bytes in [2_000, 75_000] {
            assert!((bytes..bytes + 100).contains(&built(&route, bytes).len()), "{bytes}");
        }
        assert!(Mails::new("none", &route, &[]).is_err());
    }

    #[test]
    fn a_folder_is_read_with_those_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("b")).expect("a folder in it");
        std::fs::write(folder.path().join("b/1.eml"), "second").expect("a file");
        std::fs::write(folder.path().join("a.eml"), "first").expect("a file");
        assert_eq!(of_folder(folder.path()).expect("read"), [b"first".to_vec(), b"second".to_vec()]);
    }
}
