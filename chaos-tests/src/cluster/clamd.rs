//! clamd with settings and signatures of its own: it knows the EICAR test file and nothing else, so that it is ready at
//! once and needs no download.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, interval},
};

use crate::{
    janitor::Janitor,
    letters,
    ports::{self, Reserved},
    process::{Process, Program},
};

const READY_MAX: Duration = Duration::from_secs(60);

/// clamd as a process of the box.
#[derive(Debug)]
pub struct Clamd {
    /// Where it listens.
    pub address: SocketAddr,
    program: Program,
    janitor: Janitor,
    process: Mutex<Option<Process>>,
    /// For what it takes out of a message: in memory, where there is a file system in it.
    _temporary: TempDir,
}

/// Where Debian and others install it.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    ["/usr/sbin/clamd", "/usr/local/sbin/clamd", "/opt/homebrew/sbin/clamd"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

impl Clamd {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(path: &Path, folder: &Path, log: PathBuf, janitor: &Janitor) -> anyhow::Result<Self> {
        Self::start_with("AlertExceedsMax yes\n", path, folder, log, janitor).await
    }

    /// Starts it with these lines in its `clamd.conf`, on what it leaves out among them, and waits until it answers.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start_with(
        lines: &str,
        path: &Path,
        folder: &Path,
        log: PathBuf,
        janitor: &Janitor,
    ) -> anyhow::Result<Self> {
        Self::start_as(lines, path, folder, log, janitor, |program| program).await
    }

    /// The same, of a program that `member` has made one that is accounted for.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start_as(
        lines: &str,
        path: &Path,
        folder: &Path,
        log: PathBuf,
        janitor: &Janitor,
        member: impl FnOnce(Program) -> Program,
    ) -> anyhow::Result<Self> {
        let port = ports::reserve(None)?;
        let address = port.address();
        let memory = Path::new("/dev/shm");
        let temporary = tempfile::Builder::new()
            .prefix("postern-clamd-")
            .tempdir_in(if memory.is_dir() { memory } else { folder })
            .context("make a folder for clamd")?;
        let settings = write_files(lines, folder, temporary.path(), address, &log)?;
        let program = member(Program {
            name: "clamd".into(),
            path: path.to_owned(),
            arguments: vec!["--config-file".into(), settings.into()],
            environment: Vec::new(),
            log,
        });
        let process = Mutex::new(None);
        let clamd = Self { address, program, janitor: janitor.clone(), process, _temporary: temporary };
        clamd.run(Some(port)).await?;
        Ok(clamd)
    }

    async fn run(&self, port: Option<Reserved>) -> anyhow::Result<()> {
        drop(port);
        let process = self.program.start_foreign(&self.janitor)?;
        *self.process.lock().await = Some(process);
        // It has no way to say that it is ready but to answer.
        let mut again = interval(Duration::from_millis(50));
        let start = Instant::now();
        while !self.answers().await {
            if start.elapsed() > READY_MAX {
                bail!("clamd was not ready within {READY_MAX:?}:\n{}", self.program.log_end());
            }
            again.tick().await;
        }
        Ok(())
    }

    async fn answers(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(b"zPING\0").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(&answer == b"PONG\0")
        };
        ask.await.unwrap_or(false)
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.process.lock().await.as_ref().context("clamd is not running")?.pid())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill9(&self) -> anyhow::Result<()> {
        let process = self.process.lock().await.take();
        process.context("clamd is not running")?.kill9().await
    }

    /// Freezes it or lets it go on.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn freeze(&self, freeze: bool) -> anyhow::Result<()> {
        self.process.lock().await.as_ref().context("clamd is not running")?.freeze(freeze)
    }

    /// Starts it again after `kill9`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.run(None).await
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it has to be killed.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let process = self.process.lock().await.take();
        if let Some(process) = process { process.stop().await } else { Ok(()) }
    }
}

fn write_files(
    lines: &str,
    folder: &Path,
    temporary: &Path,
    address: SocketAddr,
    log: &Path,
) -> anyhow::Result<PathBuf> {
    let signatures = folder.join("signatures");
    std::fs::create_dir_all(&signatures).with_context(|| format!("make {}", signatures.display()))?;
    let head = letters::eicar().get(..60).map(hex::encode).context("EICAR has 68 bytes")?;
    std::fs::write(signatures.join("local.ndb"), format!("Local.EICAR:0:*:{head}\n")).context("write the signature")?;
    let settings = folder.join("clamd.conf");
    let text = format!(
        "DatabaseDirectory {}\nTCPSocket {}\nTCPAddr {}\nForeground yes\nLogFile {}\nTemporaryDirectory {}\n\
         DisableCache yes\nOfficialDatabaseOnly no\nSelfCheck 3600\nMaxThreads 10\n{lines}",
        signatures.display(),
        address.port(),
        address.ip(),
        log.display(),
        temporary.display(),
    );
    std::fs::write(&settings, text).with_context(|| format!("write {}", settings.display()))?;
    Ok(settings)
}
