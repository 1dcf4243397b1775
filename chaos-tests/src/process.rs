//! A process of the cluster: started, ready when it says so, ended in order or by force, started again.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::janitor::Janitor;

/// A process that takes longer than this to be ready is broken.
const READY_MAX: Duration = Duration::from_secs(60);
/// A process that takes longer than this to stop in order is killed.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How to start a process, as often as is wanted.
#[derive(Clone, Debug)]
pub struct Program {
    /// For error messages and the log file.
    pub name: String,
    /// The file to run.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
    /// Standard error is appended here.
    pub log: PathBuf,
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    input: Option<ChildStdin>,
    janitor: Janitor,
    reader: JoinHandle<()>,
}

impl Program {
    fn spawn(&self) -> anyhow::Result<Child> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        // A group of its own: Ctrl-C in the terminal is for us, who then stop everything in order.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0).kill_on_drop(true);
        command.spawn().with_context(|| format!("start {} ({})", self.name, self.path.display()))
    }

    /// Starts it and waits for its ready line, whose contents are given back. Further lines go to `lines`.
    ///
    /// # Errors
    /// When it ends or says nothing in time, with the end of its log.
    pub async fn start(&self, janitor: &Janitor, lines: mpsc::Sender<Value>) -> anyhow::Result<(Process, Value)> {
        let (mut process, mut output) = self.begin(janitor)?;
        let first = match timeout(READY_MAX, output.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(_) => {
                let status = process.child.wait().await;
                process.over().await;
                bail!("{} ended before it was ready ({status:?}):\n{}", self.name, self.log_end())
            }
            Err(_) => bail!("{} was not ready within {READY_MAX:?}:\n{}", self.name, self.log_end()),
        };
        let said: Value = serde_json::from_str(&first).unwrap_or_default();
        let Some(ready) = said.get("ready") else { bail!("{} said {first:?} instead of being ready", self.name) };
        let ready = ready.clone();
        process.reader = tokio::spawn(forward(output, lines));
        Ok((process, ready))
    }

    /// Starts a foreign program that has no ready line; its output goes to the log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_foreign(&self, janitor: &Janitor) -> anyhow::Result<Process> {
        let (mut process, output) = self.begin(janitor)?;
        let (lines, _) = mpsc::channel(1);
        process.reader = tokio::spawn(forward(output, lines));
        Ok(process)
    }

    fn begin(&self, janitor: &Janitor) -> anyhow::Result<(Process, Lines<BufReader<ChildStdout>>)> {
        let mut child = self.spawn()?;
        let pid = child.id().with_context(|| format!("{} ended at once", self.name))?;
        janitor.started(pid);
        let output = child.stdout.take().context("its standard output is a pipe")?;
        let input = child.stdin.take();
        let reader = tokio::spawn(async {});
        let process = Process { name: self.name.clone(), child, pid, input, janitor: janitor.clone(), reader };
        Ok((process, BufReader::new(output).lines()))
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        log_end(&self.log)
    }
}

fn log_end(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(15);
    format!("{}\n(log: {})", lines.get(from..).unwrap_or_default().join("\n"), log.display())
}

async fn forward(mut output: Lines<BufReader<ChildStdout>>, lines: mpsc::Sender<Value>) {
    while let Ok(Some(line)) = output.next_line().await {
        if let Ok(value) = serde_json::from_str(&line) {
            // Nobody listens: the pipe is emptied all the same, or the process would block.
            let _ = lines.send(value).await;
        }
    }
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().with_context(|| format!("{} takes no input", self.name))?;
        let line = format!("{line}\n");
        input.write_all(line.as_bytes()).await.with_context(|| format!("write to {}", self.name))
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill9(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))?;
        self.over().await;
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it goes on for longer than a process may take to get ready; it is killed then.
    pub async fn ended(mut self) -> anyhow::Result<ExitStatus> {
        let Ok(status) = timeout(READY_MAX, self.child.wait()).await else {
            let name = self.name.clone();
            self.kill9().await?;
            bail!("{name} did not end within {READY_MAX:?} and was killed");
        };
        let status = status.with_context(|| format!("wait for {}", self.name))?;
        self.over().await;
        Ok(status)
    }

    /// Freezes it (SIGSTOP) or lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self, freeze: bool) -> anyhow::Result<()> {
        self.signal(if freeze { Signal::STOP } else { Signal::CONT })
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        // An error means that there is nothing to wait for any more.
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id is a positive number")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// SIGTERM, and waits until it is gone; SIGKILL when that takes too long.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        // An error means that it has ended already, which `wait` finds out.
        let _ = self.signal(Signal::TERM);
        let ended = timeout(STOP_MAX, self.child.wait()).await;
        let Ok(_) = ended else {
            let name = self.name.clone();
            self.kill9().await?;
            bail!("{name} did not stop within {STOP_MAX:?} of SIGTERM and was killed");
        };
        self.over().await;
        Ok(())
    }

    async fn over(&mut self) {
        self.janitor.ended(self.pid);
        // What it said at last is still in the pipe.
        let _ = timeout(STOP_MAX, &mut self.reader).await;
    }
}
