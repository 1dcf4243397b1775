//! One opener, seen from the node: a child process that is started, asked, and ended when it does not do as it should.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use proto::codec;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout},
};

use super::frame::{Said, answer_bytes_max, is_sound, length_of};
use crate::checks::attachments::{Analysis, Unwanted};

/// The first argument of a program that is to be an opener.
pub const ARGUMENT: &str = "opener";
/// Waiting for a process that was ended: it takes no longer unless the machine is in trouble.
const END_TIME_MAX: Duration = Duration::from_secs(1);
/// The first word of an opener in bytes.
const READY_BYTES_MAX: usize = 4096;
/// Messages that one opener reads before another takes its place.
const QUESTIONS_MAX: u32 = 1000;
/// Time that it has worked before another takes its place. With one message more it stays below what the kernel lets it have.
const WORK_TIME_MAX: Duration = Duration::from_secs(90);
/// The longest time for one message, whatever the settings say.
pub(super) const MESSAGE_TIME_MAX: Duration = Duration::from_secs(60);
/// Memory that it may keep between two messages, in bytes.
const KEPT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is started as an opener.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This very program, also when its file has been replaced since.
    #[must_use]
    pub fn own() -> Self {
        Self { path: "/proc/self/exe".into(), arguments: vec![ARGUMENT.into()] }
    }
}

/// How the work on a message ended badly: few words, for the log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It took too long.
    Late,
    /// What it said was no answer.
    Nonsense,
    /// The parts were too long to be asked about.
    TooLong,
    /// A panic, which it has survived.
    Panic,
    /// It asked the kernel for what it may not have (SIGSYS).
    Forbidden,
    /// It ended itself, as a program does that gets no memory (SIGABRT).
    Aborted,
    /// It reached for memory that is not its own (SIGSEGV, SIGBUS), or ran what is no program (SIGILL).
    Fault,
    /// Somebody ended it, such as the kernel when memory is short (SIGKILL).
    Killed,
    /// Anything else.
    Ended,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Late,
        Self::Nonsense,
        Self::TooLong,
        Self::Panic,
        Self::Forbidden,
        Self::Aborted,
        Self::Fault,
        Self::Killed,
        Self::Ended,
    ];

    /// A word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Nonsense => "nonsense",
            Self::TooLong => "too_long",
            Self::Panic => "panic",
            Self::Forbidden => "forbidden",
            Self::Aborted => "aborted",
            Self::Fault => "fault",
            Self::Killed => "killed",
            Self::Ended => "ended",
        }
    }

    /// Whether it says little of the message when it happens once: a machine that is busy, or somebody who ends processes, may have
    /// done it too.
    pub(super) const fn may_be_chance(self) -> bool {
        matches!(self, Self::Late | Self::Killed | Self::Ended)
    }

    fn of(status: ExitStatus) -> Self {
        match status.signal() {
            Some(libc::SIGSYS) => Self::Forbidden,
            Some(libc::SIGABRT) => Self::Aborted,
            Some(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL) => Self::Fault,
            Some(libc::SIGKILL) => Self::Killed,
            Some(_) | None => Self::Ended,
        }
    }
}

/// A process that waits for a question. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Opener {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    questions: u32,
    worked: Duration,
    /// Whether Landlock holds it.
    pub(super) landlock: bool,
}

impl Opener {
    /// Starts one and waits until it says that it is shut off. It ends with the thread that has started it, so that must be one
    /// that lives as long as the runtime does.
    pub(super) async fn start(program: &Program) -> Result<Self, String> {
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).arg0("postern-opener").env_clear().current_dir("/");
        // A key at the terminal that stops the node is not for it.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("start {}: {error}", program.path.display()))?;
        let (Some(input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("it has no pipes".to_owned());
        };
        match read(&mut output, READY_BYTES_MAX).await {
            Ok(Said::Ready { landlock }) => {
                Ok(Self { child, input, output, questions: 0, worked: Duration::ZERO, landlock })
            }
            Ok(Said::Unfit(why)) => Err(format!("it cannot shut itself off: {why}")),
            Ok(Said::Found(_) | Said::BrokeOff) => Err("it did not say that it is ready".to_owned()),
            Err(error) => Err(format!("it did not say that it is ready: {error}")),
        }
    }

    /// Whether it still runs: a process may be ended by others while it waits.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks about so many parts. After an error it must not be asked again.
    pub(super) async fn ask(
        &mut self,
        question: &[u8],
        (parts, unwanted): (usize, &Unwanted),
        time_max: Duration,
    ) -> Result<Analysis, Cause> {
        let began = Instant::now();
        let asking = async {
            self.input.write_all(question).await?;
            read(&mut self.output, answer_bytes_max(unwanted)).await
        };
        let said = timeout(time_max, asking).await;
        self.questions += 1;
        self.worked += began.elapsed();
        match said {
            Ok(Ok(Said::Found(analysis))) if is_sound(&analysis, parts, unwanted) => Ok(analysis),
            Ok(Ok(Said::BrokeOff)) => Err(Cause::Panic),
            Ok(Ok(Said::Found(_) | Said::Ready { .. } | Said::Unfit(_))) => Err(Cause::Nonsense),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(Cause::Nonsense),
            Ok(Err(_)) => Err(self.ended().await),
            Err(_) => Err(Cause::Late),
        }
    }

    /// Its pipe is closed: why?
    async fn ended(&mut self) -> Cause {
        match timeout(END_TIME_MAX, self.child.wait()).await {
            Ok(Ok(status)) => Cause::of(status),
            Ok(Err(_)) | Err(_) => Cause::Ended,
        }
    }

    /// Kills it, and waits until it is gone.
    pub(super) async fn end(mut self) {
        // What cannot be waited for now is reaped by the runtime.
        drop(timeout(END_TIME_MAX, self.child.kill()).await);
    }

    /// Whether it has worked enough: memory that is torn, or a reader that was turned by a message, does not last for ever.
    pub(super) fn is_worn(&self) -> bool {
        self.questions >= QUESTIONS_MAX || self.worked >= WORK_TIME_MAX || self.kept_bytes() > KEPT_BYTES_MAX
    }

    /// Memory that it has now; nothing when the system does not tell.
    fn kept_bytes(&self) -> u64 {
        let told = self.child.id().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/statm")).ok());
        let pages = told.as_deref().and_then(|told| told.split(' ').nth(1)?.parse::<u64>().ok());
        let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX);
        pages.unwrap_or_default().saturating_mul(page_bytes)
    }
}

/// Reads one word of at most so many bytes.
async fn read<T: DeserializeOwned>(output: &mut ChildStdout, bytes_max: usize) -> io::Result<T> {
    let mut head = [0; 4];
    output.read_exact(&mut head).await?;
    let length = length_of(head, bytes_max).ok_or(io::ErrorKind::InvalidData)?;
    let mut said = vec![0; length];
    output.read_exact(&mut said).await?;
    codec::decode("answer of an opener", &said).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
