//! One direction between two sites: bytes arrive later, and not at all while it is cut. As on a real line nothing is closed by a
//! cut, and what was under way arrives when it heals.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Largest piece that is read at once, in bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces under way on one connection; beyond that the sender is held up, as by a full window.
const PIECES_MAX: usize = 256;

/// One direction between two sites.
#[derive(Debug)]
pub struct Link {
    delay: Duration,
    open: watch::Sender<bool>,
}

impl Link {
    /// An open one.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        Self { delay, open: watch::Sender::new(true) }
    }

    /// Opens or cuts it, for all connections over it.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// How long bytes take.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        // The sender is `self`: it cannot be gone.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// Passes bytes on until `from` ends or `to` takes no more; then `to` is told that this was all.
    pub async fn pass(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let (queue, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
        let reading = async move {
            let mut piece = vec![0; PIECE_BYTES];
            while let Ok(length @ 1..) = from.read(&mut piece).await {
                let due = Instant::now() + self.delay;
                if queue.send((due, piece[..length].to_vec())).await.is_err() {
                    break;
                }
            }
        };
        let writing = async move {
            while let Some((due, piece)) = under_way.recv().await {
                sleep_until(due).await;
                self.opened().await;
                if to.write_all(&piece).await.is_err() {
                    return;
                }
            }
            self.opened().await;
            // An error means that it has closed by itself.
            let _ = to.shutdown().await;
        };
        tokio::join!(reading, writing);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::timeout,
    };

    use super::Link;

    #[tokio::test]
    async fn bytes_wait_out_a_cut_and_keep_their_order() {
        let link = Link::new(Duration::from_millis(30));
        let ((mut sender, from), (to, mut receiver)) = (duplex(64), duplex(64));
        let talk = async {
            let mut got = [0; 3];
            sender.write_all(b"one").await.expect("sent");
            receiver.read_exact(&mut got).await.expect("passed on");
            assert_eq!(&got, b"one");
            link.set_open(false);
            sender.write_all(b"two").await.expect("sent");
            let early = timeout(Duration::from_millis(100), receiver.read_exact(&mut got)).await;
            assert!(early.is_err(), "it came through a cut");
            sender.write_all(b"six").await.expect("sent");
            link.set_open(true);
            let mut all = [0; 6];
            receiver.read_exact(&mut all).await.expect("passed on");
            assert_eq!(&all, b"twosix");
            drop(sender);
            assert_eq!(receiver.read(&mut got).await.expect("an end"), 0);
        };
        tokio::join!(link.pass(from, to), talk);
    }
}
