//! The client's side of SMTP for a load: prepared bytes out, and of what comes back no more than the reply codes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longer than any answer that a server gives to what is sent here, in bytes.
const INPUT_BYTES: usize = 4096;

/// A connection and what was read of it but not yet used.
#[derive(Debug)]
pub struct Talk<S> {
    io: S,
    input: Box<[u8; INPUT_BYTES]>,
    filled: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    /// Begins with nothing read.
    pub fn new(io: S) -> Self {
        Self { io, input: Box::new([0; INPUT_BYTES]), filled: 0 }
    }

    /// The connection, for a TLS handshake.
    pub fn into_inner(self) -> S {
        self.io
    }

    /// The code of the next whole reply.
    ///
    /// # Errors
    /// When the connection ends before, or what comes is no reply.
    pub async fn code(&mut self) -> io::Result<u16> {
        loop {
            if let Some((used, code)) = reply(&self.input[..self.filled]) {
                self.input.copy_within(used..self.filled, 0);
                self.filled -= used;
                return code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no reply code"));
            }
            let read = self.io.read(&mut self.input[self.filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.filled += read;
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await
    }

    /// Sends a command and gives the code of the answer.
    ///
    /// # Errors
    /// When the connection breaks or what comes is no reply.
    pub async fn ask(&mut self, bytes: &[u8]) -> io::Result<u16> {
        self.send(bytes).await?;
        self.code().await
    }
}

/// Where a whole reply of one or more lines ends, and its code, if it has one; `None` while more must come.
fn reply(input: &[u8]) -> Option<(usize, Option<u16>)> {
    let mut from = 0;
    loop {
        let line = input.get(from..)?;
        let end = memchr::memchr(b'\n', line)?;
        let line = line.get(..end)?;
        from += end + 1;
        if line.get(3) != Some(&b'-') {
            let digits = line.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
            return Some((from, digits.and_then(|digits| digits.parse().ok())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Talk, reply};

    #[test]
    fn a_reply_ends_with_a_line_that_says_so() {
        assert_eq!(reply(b"250 ok\r\n250"), Some((8, Some(250))));
        assert_eq!(reply(b"250-a\r\n250-b\r\n250 c\r\n"), Some((21, Some(250))));
        assert_eq!(reply(b"250-a\r\n250 b"), None);
        assert_eq!(reply(b""), None);
        assert_eq!(reply(b"hello\r\n"), Some((7, None)));
    }

    #[tokio::test]
    async fn codes_are_told_one_by_one_and_an_end_is_an_error() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut talk = Talk::new(near);
        tokio::io::AsyncWriteExt::write_all(&mut far, b"250 a\r\n354-b\r\n354 c\r\n").await.expect("sent");
        drop(far);
        assert_eq!((talk.code().await.ok(), talk.code().await.ok()), (Some(250), Some(354)));
        assert!(talk.code().await.is_err());
    }
}
