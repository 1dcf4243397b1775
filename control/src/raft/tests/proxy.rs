//! A line between servers that can be slow, and can break.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc},
    time::Instant,
};

/// What happens to the bytes that go to the server behind it; those that come back only take their time.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// A connection that has carried more than this breaks.
    pub(super) cut_after: Option<usize>,
    /// As long as this is not zero.
    pub(super) cuts: AtomicU32,
    /// Of all connections together.
    pub(super) bytes_per_s: Option<u32>,
    /// One way.
    pub(super) delay: Duration,
    /// When the line is free again.
    pub(super) free: Mutex<Option<Instant>>,
}

/// Opens the line to a server; gives the address where it begins. Ends with the test's runtime.
pub(super) async fn open(to: String, line: Arc<Line>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            let (line, to) = (Arc::clone(&line), to.clone());
            tokio::spawn(async move {
                let Ok(there) = TcpStream::connect(to).await else { return };
                let ((here_in, here_out), (there_in, there_out)) = (from.into_split(), there.into_split());
                tokio::select! {
                    () = carry(here_in, there_out, Arc::clone(&line), true) => {}
                    () = carry(there_in, here_out, line, false) => {}
                }
            });
        }
    });
    address
}

/// Carries bytes until either side has had enough or the line breaks.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, line: Arc<Line>, forth: bool) {
    let (sender, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let reading = async {
        let mut carried = 0;
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            carried += length;
            let broken = forth && line.cut_after.is_some_and(|after| carried > after);
            if broken && line.cuts.try_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok() {
                return;
            }
            if sender.send((Instant::now() + line.delay, bytes[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, bytes)) = waiting.recv().await {
            if let Some(rate) = line.bytes_per_s.filter(|_| forth) {
                let mut free = line.free.lock().await;
                let start = free.map_or(due, |free| free.max(due));
                let end = start + Duration::from_secs(1) * u32::try_from(bytes.len()).expect("small") / rate;
                *free = Some(end);
                drop(free);
                tokio::time::sleep_until(end).await;
            } else {
                tokio::time::sleep_until(due).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
