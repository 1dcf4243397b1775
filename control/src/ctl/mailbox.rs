//! Reads messages out of files: one a file, or many out of an mbox (RFC 4155), each with CRLF line ends as in SMTP.

use std::{
    fs,
    io::{BufRead, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// Largest message that is sent to a node, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 50 * 1024 * 1024;

/// Folders below folders at most.
const DEPTH_MAX: usize = 64;

/// A longer line is read in pieces of this many bytes.
const PIECE_BYTES_MAX: u64 = 64 * 1024;

/// The line that begins each message of an mbox.
const SEPARATOR: &[u8] = b"From ";

/// A file and its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where.
    pub path: PathBuf,
    /// How large, for progress.
    pub size_bytes: u64,
}

/// All files of these paths: a file as it is, a folder with all below it in the order of the names. Symbolic links below a
/// folder are left out: they may lead in circles.
///
/// # Errors
/// When a path is not there, a folder cannot be read or goes too deep.
pub fn sources(paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut found = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
        if metadata.is_dir() {
            folder(path, DEPTH_MAX, &mut found)?;
        } else {
            found.push(Source { path: path.clone(), size_bytes: metadata.len() });
        }
    }
    Ok(found)
}

fn folder(path: &Path, depth: usize, found: &mut Vec<Source>) -> anyhow::Result<()> {
    if depth == 0 {
        bail!("{}: more than {DEPTH_MAX} folders deep", path.display());
    }
    let look = || format!("look into {}", path.display());
    let entries = fs::read_dir(path).with_context(look)?;
    let mut entries: Vec<fs::DirEntry> = entries.collect::<Result<_, _>>().with_context(look)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().with_context(look)?;
        if kind.is_dir() {
            folder(&entry.path(), depth - 1, found)?;
        } else if kind.is_file() {
            found.push(Source { path: entry.path(), size_bytes: entry.metadata().map_or(0, |it| it.len()) });
        }
    }
    Ok(())
}

/// A message out of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its bytes, with CRLF line ends.
    Message(Vec<u8>),
    /// More than `MESSAGE_BYTES_MAX`; it was skipped.
    TooLarge,
}

/// The messages of a file, one after the other. Only one is in memory at a time.
pub struct Messages<R> {
    reader: R,
    is_mbox: bool,
    ended: bool,
    max: usize,
}

impl<R: BufRead> Messages<R> {
    /// Begins to read; a leading `From ` makes it an mbox.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(mut reader: R) -> std::io::Result<Self> {
        let is_mbox = reader.fill_buf()?.starts_with(SEPARATOR);
        let mut messages = Self { reader, is_mbox, ended: false, max: MESSAGE_BYTES_MAX };
        if is_mbox {
            while !messages.piece()?.ends_with(b"\n") && !messages.reader.fill_buf()?.is_empty() {}
        }
        Ok(messages)
    }

    /// Whether the file is an mbox.
    #[must_use]
    pub fn is_mbox(&self) -> bool {
        self.is_mbox
    }

    /// A line with its end, or a piece of a long one; empty at the end of the file.
    fn piece(&mut self) -> std::io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        (&mut self.reader).take(PIECE_BYTES_MAX).read_until(b'\n', &mut piece)?;
        Ok(piece)
    }

    fn message(&mut self) -> std::io::Result<Found> {
        let mut message = Vec::new();
        let mut too_large = false;
        // The first line of a message is no separator: that one has been read already.
        let (mut at_line_start, mut after_blank) = (true, false);
        loop {
            let mut piece = self.piece()?;
            if piece.is_empty() {
                self.ended = true;
                break;
            }
            if self.is_mbox && at_line_start {
                if after_blank && piece.starts_with(SEPARATOR) {
                    self.rest_of_line(piece)?;
                    break;
                }
                unquote(&mut piece);
            }
            after_blank = at_line_start && matches!(piece.as_slice(), b"\n" | b"\r\n");
            at_line_start = piece.ends_with(b"\n");
            if !too_large {
                append_crlf(&mut message, &piece);
            }
            if message.len() > self.max {
                too_large = true;
                message = Vec::new();
            }
        }
        if too_large {
            return Ok(Found::TooLarge);
        }
        // The blank line before the next separator belongs to the mbox, not to the message.
        if self.is_mbox && message.ends_with(b"\r\n\r\n") {
            message.truncate(message.len() - 2);
        }
        Ok(Found::Message(message))
    }

    fn rest_of_line(&mut self, mut piece: Vec<u8>) -> std::io::Result<()> {
        while !piece.is_empty() && !piece.ends_with(b"\n") {
            piece = self.piece()?;
        }
        Ok(())
    }
}

impl<R: BufRead> Iterator for Messages<R> {
    type Item = std::io::Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let message = self.message();
        if message.is_err() {
            self.ended = true;
        }
        Some(message)
    }
}

/// mboxrd: a line of the message that begins with `From `, or that with `>` before it, was given one `>` more.
fn unquote(line: &mut Vec<u8>) {
    let quotes = line.iter().take_while(|byte| **byte == b'>').count();
    if quotes > 0 && line[quotes..].starts_with(SEPARATOR) {
        line.remove(0);
    }
}

fn append_crlf(message: &mut Vec<u8>, piece: &[u8]) {
    match piece.strip_suffix(b"\n") {
        Some(line) => {
            message.extend_from_slice(line);
            let has_cr = message.last() == Some(&b'\r');
            message.extend_from_slice(if has_cr { b"\n" } else { b"\r\n" });
        }
        None => message.extend_from_slice(piece),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Found, Messages, sources};

    fn messages(text: &[u8]) -> Vec<String> {
        let read = Messages::new(text).expect("readable");
        read.map(|found| match found.expect("readable") {
            Found::Message(bytes) => String::from_utf8(bytes).expect("text"),
            Found::TooLarge => "too large".into(),
        })
        .collect()
    }

    #[test]
    fn a_file_is_one_message_with_crlf_line_ends() {
        assert_eq!(messages(b"A: b\n\nFrom here\r\n\nFrom there"), ["A: b\r\n\r\nFrom here\r\n\r\nFrom there"]);
        assert_eq!(messages(b""), [""]);
        assert_eq!(messages(b"bare\rcr\n"), ["bare\rcr\r\n"], "a bare CR is for the checks to see");
    }

    #[test]
    fn an_mbox_is_split_where_a_blank_line_and_from_meet() {
        let mbox = b"From a Mon\nSubject: 1\n\none\nFrom no separator\n\nFrom b Tue\r\nSubject: 2\r\n\r\n>From quoted\r\n>>From\
            \x20twice\r\n>x\r\n\r\n\r\nFrom c Wed\n\nFrom d Thu\nSubject: 4\n";
        assert_eq!(
            messages(mbox),
            [
                "Subject: 1\r\n\r\none\r\nFrom no separator\r\n",
                "Subject: 2\r\n\r\nFrom quoted\r\n>From twice\r\n>x\r\n\r\n",
                "\r\n",
                "Subject: 4\r\n",
            ]
        );
    }

    #[test]
    fn a_message_over_the_limit_is_skipped_and_the_next_one_read() {
        let mut text = b"From a\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 200_000));
        text.extend(b"\nmore\n\nFrom b\nsmall\n");
        let mut read = Messages::new(text.as_slice()).expect("readable");
        read.max = 150_000;
        let found: Vec<Found> = read.map(|found| found.expect("readable")).collect();
        assert_eq!(found, [Found::TooLarge, Found::Message(b"small\r\n".to_vec())]);
        assert_eq!(messages(&text)[0].len(), 200_000 + 2 + 6, "a line longer than a piece stays one line");
    }

    #[test]
    fn a_separator_longer_than_a_piece_is_not_part_of_a_message() {
        let mut text = b"From ".to_vec();
        text.extend(std::iter::repeat_n(b'x', 100_000));
        text.extend(b"\nSubject: 1\n");
        assert_eq!(messages(&text), ["Subject: 1\r\n"]);
    }

    #[test]
    fn folders_are_walked_in_the_order_of_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::create_dir_all(path.join("b/c")).expect("made");
        for name in ["z.eml", "a.eml", "b/2.eml", "b/c/1.eml"] {
            fs::write(path.join(name), name).expect("written");
        }
        std::os::unix::fs::symlink(path, path.join("b/loop")).expect("linked");
        let found = sources(&[path.join("z.eml"), path.to_owned()]).expect("files");
        let names: Vec<_> = found.iter().map(|it| it.path.strip_prefix(path).expect("below").to_owned()).collect();
        let expected = ["z.eml", "a.eml", "b/2.eml", "b/c/1.eml", "z.eml"].map(std::path::PathBuf::from);
        assert_eq!(names, expected);
        assert!(sources(&[path.join("none")]).is_err());
    }
}
