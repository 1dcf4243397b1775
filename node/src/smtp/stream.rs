//! Bytes to lines and messages, replies to bytes, each with its deadline and a bounded buffer.

use std::{
    fmt::Write as _,
    future::poll_fn,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout_at},
};

use super::{
    data::{DataDecoder, DataFault},
    line::{Line, LineDecoder},
    reply::Reply,
};
use crate::limits::Limits;

/// Read from the socket at once, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// The same of a message that comes after DATA.
const MESSAGE_READ_BYTES: usize = 64 * 1024;
/// Replies that wait for the end of the input are sent when they are as long as this, in bytes.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// For so long a message may come more slowly than the smallest rate.
const RATE_GRACE: Duration = Duration::from_secs(60);

/// Slower messages end while all places for messages are taken.
const STRESS_BYTES_PER_SECOND_MIN: u64 = 16 * 1024;

/// For so long the end of the client's input is waited for when we close.
const LINGER: Duration = Duration::from_secs(2);
/// What is read and thrown away then, in bytes.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Why a conversation ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The client has closed, or the network has.
    #[error("the client is gone")]
    Gone,
    /// It was too slow.
    #[error("the client is too slow")]
    TooSlow,
}

impl From<std::io::Error> for StreamError {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// A message that is being read.
#[derive(Debug)]
pub struct Incoming {
    decoder: DataDecoder,
    began: Instant,
    received: u64,
    /// When its pace was last looked at, and what had come by then.
    looked_at: (Instant, u64),
}

/// What became of bytes that were to be a message's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fed {
    /// Of so many.
    used: usize,
    then: Then,
}

/// What is needed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// More of the message.
    More,
    /// Room for so many bytes in all.
    Room(usize),
    /// Nothing: it has ended.
    End,
}

impl Incoming {
    /// Reads on, unless that needs more room than there is.
    fn feed(&mut self, bytes: &[u8], room_bytes: usize) -> Fed {
        let wanted = self.decoder.wanted_bytes(bytes.len());
        if wanted > room_bytes {
            return Fed { used: 0, then: Then::Room(wanted) };
        }
        let ended = self.decoder.feed(bytes);
        let used = ended.unwrap_or(bytes.len());
        self.received += used as u64;
        Fed { used, then: if ended.is_some() { Then::End } else { Then::More } }
    }

    /// One of at most so many bytes, whose time begins now.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let now = Instant::now();
        Self { decoder: DataDecoder::new(bytes_max), began: now, received: 0, looked_at: (now, 0) }
    }

    /// The same for one that comes in chunks.
    #[must_use]
    pub fn chunked(bytes_max: usize) -> Self {
        Self { decoder: DataDecoder::chunked(bytes_max), ..Self::new(0) }
    }

    /// One of which nothing is kept.
    #[must_use]
    pub fn refused() -> Self {
        let mut incoming = Self::chunked(0);
        incoming.give_up();
        incoming
    }

    /// How many bytes of it have come.
    ///
    /// # Errors
    /// Why it is refused, as far as it has come.
    pub fn so_far(&self) -> Result<u64, DataFault> {
        self.decoder.fault().map_or(Ok(self.received), Err)
    }

    /// Whether it has come so slowly since the last look that it may not keep a place that others want. From one look to the next at
    /// least `patience` goes by: what came fast long ago does not pay for silence now.
    pub fn is_slow(&mut self, now: Instant, patience: Duration) -> bool {
        let (since, had) = self.looked_at;
        let passed = now.saturating_duration_since(since);
        if passed <= patience {
            return false;
        }
        let wanted = passed.as_millis().saturating_mul(u128::from(STRESS_BYTES_PER_SECOND_MIN)) / 1000;
        if u128::from(self.received - had) < wanted {
            return true;
        }
        self.looked_at = (now, self.received);
        false
    }

    /// Time in which we did not read, which is not the sender's.
    pub fn waited(&mut self, time: Duration) {
        self.began += time;
        self.looked_at.0 += time;
    }

    /// Keeps nothing of it: there is no room. It is still read to its end.
    pub fn give_up(&mut self) {
        self.decoder.give_up();
    }

    /// The message after its end.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn finish(self) -> Result<Bytes, DataFault> {
        self.decoder.finish()
    }
}

/// A connection's bytes, in the clear or under TLS.
#[derive(Debug)]
pub struct Stream<S> {
    io: S,
    input: BytesMut,
    output: BytesMut,
    lines: LineDecoder,
    read_timeout: Duration,
    data_time_max: Duration,
    data_rate_min: u64,
    /// The end of the whole connection.
    deadline: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Wraps a connection that must end at `deadline`.
    pub fn new(io: S, limits: &Limits, deadline: Instant) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            output: BytesMut::new(),
            lines: LineDecoder::new(limits.line_bytes_max),
            read_timeout: limits.read_timeout,
            data_time_max: limits.data_time_max,
            data_rate_min: limits.data_bytes_per_second_min,
            deadline,
        }
    }

    /// Gives the connection back for a TLS handshake. Input that was not looked at is lost, so there must be none.
    pub fn into_inner(self) -> S {
        self.io
    }

    /// Whether the client has sent more than was looked at.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// A line that has already come.
    pub fn buffered_line(&mut self) -> Option<Line> {
        self.lines.cut(&mut self.input)
    }

    /// The next line. Replies are sent before waiting, so a pipelined group is answered in one piece (RFC 2920 section
    /// 3.2). It must be whole within the time for reading, however its bytes drip in; between two chunks of a message as soon
    /// as more of the message would have to come.
    ///
    /// # Errors
    /// When the client is gone or too slow. Safe to cancel: no input is lost.
    pub async fn line(&mut self, begun: Option<&Incoming>) -> Result<Line, StreamError> {
        let due = begun.map_or(self.deadline, |incoming| self.due(incoming)).min(Instant::now() + self.read_timeout);
        // Lines that have already come have no more time than others.
        if Instant::now() >= self.deadline {
            return Err(StreamError::TooSlow);
        }
        loop {
            if let Some(line) = self.buffered_line() {
                return Ok(line);
            }
            self.flush().await?;
            self.fill(due).await?;
        }
    }

    /// Reads the message after 354 up to its end. Before more than `room_bytes` of it are kept it stops and gives the bytes
    /// that room is needed for; then it is called again.
    ///
    /// # Errors
    /// When the client is gone or too slow.
    pub async fn message(&mut self, incoming: &mut Incoming, room_bytes: usize) -> Result<Option<usize>, StreamError> {
        self.flush().await?;
        let mut had = std::mem::take(&mut self.input);
        let mut fed = incoming.feed(&had, room_bytes);
        had.advance(fed.used);
        self.input = had;
        while fed.then == Then::More {
            let until = self.until(self.due(incoming));
            let reading = poll_fn(|context| self.poll_message(context, incoming, room_bytes));
            fed = timeout_at(until, reading).await.map_err(|_| StreamError::TooSlow)??;
        }
        match fed.then {
            Then::Room(wanted) => Ok(Some(wanted)),
            Then::More | Then::End => Ok(None),
        }
    }

    /// Feeds the message with what is there, by way of the stack; what is not of the message, or has no room yet, is input. There is
    /// none before.
    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
        incoming: &mut Incoming,
        room_bytes: usize,
    ) -> Poll<Result<Fed, StreamError>> {
        let mut bytes = [const { MaybeUninit::uninit() }; MESSAGE_READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(StreamError::Gone));
        }
        let fed = incoming.feed(read.filled(), room_bytes);
        self.input.extend_from_slice(read.filled().get(fed.used..).unwrap_or_default());
        Poll::Ready(Ok(fed))
    }

    /// Reads the next `left` bytes of a message that comes in chunks, as [`Self::message`] does, and counts them down.
    ///
    /// # Errors
    /// When the client is gone or too slow.
    pub async fn chunk(
        &mut self,
        incoming: &mut Incoming,
        left: &mut u64,
        room_bytes: usize,
    ) -> Result<Option<usize>, StreamError> {
        self.flush().await?;
        while *left > 0 {
            let here = self.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            let wanted = incoming.decoder.wanted_bytes(here);
            if wanted > room_bytes {
                return Ok(Some(wanted));
            }
            let chunk = self.input.split_to(here);
            // Only its count ends a chunk.
            incoming.decoder.feed(&chunk);
            incoming.received += here as u64;
            *left -= here as u64;
            if *left > 0 {
                self.fill(self.due(incoming)).await?;
            }
        }
        Ok(None)
    }

    /// By when more of the message must come.
    fn due(&self, incoming: &Incoming) -> Instant {
        let paid_for = Duration::from_secs(incoming.received / self.data_rate_min.max(1));
        let deadline = incoming.began + self.data_time_max.min(RATE_GRACE + paid_for);
        deadline.min(self.deadline)
    }

    /// Puts a reply where `flush` or the next wait for input sends it from.
    ///
    /// # Errors
    /// When there was too much to wait, and the client is gone or too slow.
    pub async fn queue(&mut self, reply: &Reply) -> Result<(), StreamError> {
        self.append(reply);
        if self.output.len() > OUTPUT_BYTES_MAX { self.flush().await } else { Ok(()) }
    }

    /// The same, however much waits: for the last reply of all.
    pub fn append(&mut self, reply: &Reply) {
        // Writing to memory does not fail.
        let _ = write!(self.output, "{reply}");
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// When the client is gone or does not read.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        if self.output.is_empty() {
            return Ok(());
        }
        let until = self.until(self.deadline);
        let write = async {
            while !self.output.is_empty() {
                let written = self.io.write(&self.output).await?;
                if written == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                self.output.advance(written);
            }
            self.io.flush().await
        };
        Ok(timeout_at(until, write).await.map_err(|_| StreamError::TooSlow)??)
    }

    /// Sends what is queued to a client that has said good-bye: it sends no more, so that nothing is lost when the socket is closed
    /// next. Nobody is left to hear of an error.
    pub async fn part(&mut self) {
        let until = Instant::now() + LINGER.min(self.read_timeout);
        drop(timeout_at(until, self.flush()).await);
    }

    /// Sends what is queued, says that no more comes, and reads for a moment what the client has still sent: closing on
    /// unread input would reset the connection and take the last reply with it. Nobody is left to hear of an error.
    pub async fn close(&mut self) {
        let until = Instant::now() + LINGER.min(self.read_timeout);
        let farewell = async {
            self.flush().await?;
            self.io.shutdown().await?;
            let mut rest = 0;
            while rest < LINGER_BYTES_MAX {
                match poll_fn(|context| self.poll_fill(context)).await? {
                    0 => break,
                    read => rest += read,
                }
                self.input = BytesMut::new();
            }
            Ok::<(), StreamError>(())
        };
        drop(timeout_at(until, farewell).await);
    }

    /// The end of a wait for the client that may not last beyond the deadline.
    fn until(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.read_timeout)
    }

    async fn fill(&mut self, deadline: Instant) -> Result<(), StreamError> {
        let until = self.until(deadline);
        // Who is waited for holds no buffers.
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
        let reading = poll_fn(|context| self.poll_fill(context));
        let read = timeout_at(until, reading).await.map_err(|_| StreamError::TooSlow)??;
        if read == 0 { Err(StreamError::Gone) } else { Ok(()) }
    }

    /// Reads what is there by way of the stack, so that there is a buffer only when there is something to put into it.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut read))?;
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }
}
