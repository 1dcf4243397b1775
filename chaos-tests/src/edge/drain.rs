//! The next hop of every server that is measured: says yes to all, looks for the end of each message and counts. As cheap as
//! can be, on one thread that knows its own CPU time.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::interval,
};

use super::usage;

/// Read at once, in bytes.
const INPUT_BYTES: usize = 64 * 1024;
const EHLO: &[u8] =
    b"250-drain.test\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n";
const END: &[u8] = b"\r\n.\r\n";
/// A look at the count while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What it has taken.
#[derive(Debug, Default)]
struct Count {
    messages: AtomicU64,
    connections: AtomicU64,
    last: Mutex<Option<Instant>>,
    cpu_ns: AtomicU64,
}

/// The next hop, which serves as long as the program runs.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Where it listens.
    pub address: SocketAddr,
    count: Arc<Count>,
}

impl Drain {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no port or thread for it.
    pub fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("listen for messages")?;
        listener.set_nonblocking(true).context("listen for messages")?;
        let address = listener.local_addr().context("a listener has an address")?;
        let count = Arc::new(Count::default());
        let drain = Self { address, count: Arc::clone(&count) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let serving = move || runtime.block_on(serve(listener, &count));
        std::thread::Builder::new().name("drain".to_owned()).spawn(serving).context("start a thread")?;
        Ok(drain)
    }

    /// Messages so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.count.messages.load(Ordering::SeqCst)
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.count.connections.load(Ordering::SeqCst)
    }

    /// CPU time of its thread, not older than a few milliseconds of work.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.count.cpu_ns.load(Ordering::SeqCst))
    }

    /// Waits until so many messages are there, or none has come for `patience`; when the last one came.
    pub async fn until(&self, messages: u64, patience: Duration) -> Instant {
        let mut look = interval(LOOK_EVERY);
        let began = Instant::now();
        loop {
            let last = self.count.last.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(began);
            if self.messages() >= messages || last.max(began).elapsed() > patience {
                return last;
            }
            look.tick().await;
        }
    }
}

async fn serve(listener: std::net::TcpListener, count: &Arc<Count>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        count.connections.fetch_add(1, Ordering::SeqCst);
        let count = Arc::clone(count);
        // A connection that breaks is the other side's affair.
        tokio::spawn(async move { connection(stream, &count).await.unwrap_or_default() });
    }
}

async fn connection(mut stream: TcpStream, count: &Count) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 drain.test ESMTP\r\n").await?;
    let mut input = vec![0; INPUT_BYTES];
    let (mut filled, mut in_message) = (0, false);
    let mut replies = Vec::new();
    loop {
        let read = stream.read(input.get_mut(filled..).unwrap_or_default()).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut rest = input.get(..filled).unwrap_or_default();
        let mut quit = false;
        while let Some((used, said)) = if in_message { message(rest) } else { command(rest) } {
            rest = rest.get(used..).unwrap_or_default();
            in_message = said == Said::Data;
            quit |= said == Said::Quit;
            replies.extend_from_slice(said.reply());
            if said == Said::End {
                count.messages.fetch_add(1, Ordering::SeqCst);
                *count.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                let cpu = usage::thread_cpu().unwrap_or_default();
                count.cpu_ns.store(u64::try_from(cpu.as_nanos()).unwrap_or_default(), Ordering::SeqCst);
            }
        }
        // Of a message only what may be the beginning of its end is kept.
        let kept = if in_message { rest.len().min(END.len() - 1) } else { rest.len() };
        let from = filled - kept;
        input.copy_within(from..filled, 0);
        filled = kept;
        if !replies.is_empty() {
            stream.write_all(&replies).await?;
            replies.clear();
        }
        if quit || filled == input.len() {
            return Ok(());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Ehlo,
    Data,
    End,
    Quit,
    Other,
}

impl Said {
    fn reply(self) -> &'static [u8] {
        match self {
            Self::Ehlo => EHLO,
            Self::Data => b"354 go on\r\n",
            Self::End => b"250 2.0.0 taken\r\n",
            Self::Quit => b"221 2.0.0 bye\r\n",
            Self::Other => b"250 2.0.0 ok\r\n",
        }
    }
}

fn command(input: &[u8]) -> Option<(usize, Said)> {
    let end = memchr::memchr(b'\n', input)?;
    let said = match input.get(..4).unwrap_or_default().to_ascii_uppercase().as_slice() {
        b"EHLO" => Said::Ehlo,
        b"DATA" => Said::Data,
        b"QUIT" => Said::Quit,
        _ => Said::Other,
    };
    Some((end + 1, said))
}

fn message(input: &[u8]) -> Option<(usize, Said)> {
    memmem::find(input, END).map(|at| (at + END.len(), Said::End))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncWriteExt as _, net::TcpStream};

    use super::Drain;
    use crate::edge::talk::Talk;

    #[tokio::test]
    async fn messages_are_counted_however_they_are_cut() {
        let drain = Drain::start().expect("started");
        let mut talk = Talk::new(TcpStream::connect(drain.address).await.expect("connected"));
        assert_eq!(talk.code().await.ok(), Some(220));
        assert_eq!(talk.ask(b"EHLO a\r\n").await.ok(), Some(250));
        for _ in 0..2 {
            talk.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n").await.expect("sent");
            assert_eq!(
                [talk.code().await.ok(), talk.code().await.ok(), talk.code().await.ok()],
                [250, 250, 354].map(Some)
            );
            talk.send(&b"x".repeat(100_000)).await.expect("sent");
            talk.send(b"\r\n").await.expect("sent");
            assert_eq!(talk.ask(b".\r\n").await.ok(), Some(250));
        }
        assert_eq!((drain.messages(), drain.connections()), (2, 1));
        assert_eq!(talk.ask(b"QUIT\r\n").await.ok(), Some(221));
        drain.until(3, Duration::from_millis(20)).await;
        let mut other = TcpStream::connect(drain.address).await.expect("connected");
        other.write_all(b"EHLO a\r\nMAIL FROM:<>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n").await.expect("sent");
        drain.until(3, Duration::from_secs(30)).await;
        assert_eq!((drain.messages(), drain.connections()), (3, 2));
    }
}
