//! The preload shim (`chaos-tests/shim`): a slow, full or broken disk, a wall clock that is wrong, a power cut; each switched while
//! the program runs, by a control file that the program maps.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Length of the control file, in bytes.
const CONTROL_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"POSTERN1";

// Offsets in the control file, as `struct control` in shim.h has them.
const SLOW_FSYNC_MS: u64 = 8;
const WRITE_ERRNO: u64 = 16;
const FSYNC_ERRNO: u64 = 24;
const CLOCK_OFFSET_MS: u64 = 32;
const LIE_FSYNC: u64 = 40;
const CUT_AT: u64 = 48;
const CUT_AFTER: u64 = 56;
const ERRORS_MAX: u64 = 64;
const OPERATIONS: u64 = 72;
const FSYNCS: u64 = 80;
const ERRORS: u64 = 88;
const RETRIES: u64 = 96;
const CUT_KIND: u64 = 104;

/// What an operation on the disk fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// EIO: the device says no.
    Broken,
    /// ENOSPC.
    Full,
}

impl DiskError {
    fn errno(self) -> u64 {
        let errno = match self {
            Self::Broken => rustix::io::Errno::IO,
            Self::Full => rustix::io::Errno::NOSPC,
        };
        u64::from(errno.raw_os_error().unsigned_abs())
    }
}

/// What is wrong with disk and clock from now on. The default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Each fsync takes this much longer, in milliseconds.
    pub slow_fsync_ms: u64,
    /// What writing, growing and creating files fail with.
    pub write: Option<DiskError>,
    /// What fsync fails with.
    pub fsync: Option<DiskError>,
    /// How many operations fail at most, from now on; `None`: all.
    pub errors_max: Option<u64>,
    /// How far the wall clock is ahead (behind: negative), in milliseconds. The monotonic clock is right.
    pub clock_offset_ms: i64,
    /// fsync says that it worked and does nothing.
    pub lie_fsync: bool,
}

/// When the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Number of the operation, counted as `Counters::operations` does.
    pub at: u64,
    /// Just after it is done instead of just before.
    pub after: bool,
}

/// What the shim has counted since the control file was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Operations that change the watched folder, and fsyncs.
    pub operations: u64,
    /// fsyncs that were asked for.
    pub fsyncs: u64,
    /// Errors made up.
    pub errors: u64,
    /// fsyncs of a file after an fsync of it had failed: none, or the program acknowledges what may be lost.
    pub retries: u64,
    /// Kind of the operation at which the power went (`enum kind` in shim.h); zero: it has not.
    pub cut_kind: u64,
}

/// The compiled library.
#[derive(Clone, Debug)]
pub struct Library {
    path: PathBuf,
}

impl Library {
    /// Compiles it with `cc` into a folder; takes less than a second.
    ///
    /// # Errors
    /// When there is no C compiler, or it fails, with what it said.
    pub fn compile(folder: &Path) -> anyhow::Result<Self> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim");
        let path = folder.join("postern-shim.so");
        let mut command = Command::new("cc");
        command
            .args(["-std=c11", "-O2", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&path);
        command.args(["shim.c", "descriptors.c", "names.c", "journal.c"].map(|name| sources.join(name)));
        let output = command.output().context("run cc, which compiles the preload shim: install a C compiler")?;
        if !output.status.success() {
            bail!("cc could not compile the preload shim:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { path })
    }
}

/// The shim of one program: its control file, the folder it watches, and the journal if the power is to go.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    control: File,
    control_path: PathBuf,
    watched: PathBuf,
    journal: Option<PathBuf>,
}

impl Shim {
    /// Makes the control file `NAME.shim` in `home`, which lies outside of `watched`. Faults of the disk hit only what is below
    /// `watched`, which must exist.
    ///
    /// # Errors
    /// When a file cannot be made or the folder is not there.
    pub fn new(library: &Library, home: &Path, name: &str, watched: &Path) -> anyhow::Result<Self> {
        let watched = watched.canonicalize().with_context(|| format!("find {}", watched.display()))?;
        let control_path = home.join(format!("{name}.shim"));
        let control = File::options().read(true).write(true).create(true).truncate(true).open(&control_path);
        let control = control.with_context(|| format!("make {}", control_path.display()))?;
        control.set_len(CONTROL_BYTES).context("size the control file")?;
        control.write_all_at(MAGIC, 0).context("write the control file")?;
        Ok(Self { library: library.path.clone(), control, control_path, watched, journal: None })
    }

    /// The same with an undo journal, so that `power_loss` can take back what was not durable. fsync only adds a record then.
    #[must_use]
    pub fn with_journal(self, journal: PathBuf) -> Self {
        Self { journal: Some(journal), ..self }
    }

    /// Added to the environment of the program (`Program::environment`).
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut environment = vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("POSTERN_SHIM_CONTROL".to_owned(), text(&self.control_path)),
            ("POSTERN_SHIM_FOLDER".to_owned(), text(&self.watched)),
        ];
        environment.extend(self.journal.iter().map(|path| ("POSTERN_SHIM_JOURNAL".to_owned(), text(path))));
        environment
    }

    /// The watched folder.
    #[must_use]
    pub fn watched(&self) -> &Path {
        &self.watched
    }

    /// The undo journal.
    #[must_use]
    pub fn journal(&self) -> Option<&Path> {
        self.journal.as_deref()
    }

    fn put(&self, offset: u64, value: u64) -> anyhow::Result<()> {
        self.control.write_all_at(&value.to_ne_bytes(), offset).context("write the control file")
    }

    fn number(&self, offset: u64) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, offset).context("read the control file")?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Says what is wrong from now on, in the place of what was said before; the program sees it with its next operation.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn set(&self, faults: &Faults) -> anyhow::Result<()> {
        let errors = self.number(ERRORS)?;
        let errno = |error: Option<DiskError>| error.map_or(0, DiskError::errno);
        // No error is allowed any more (rather than no limit) when the limit is zero and nothing has failed yet.
        let none = faults.errors_max == Some(0);
        self.put(ERRORS_MAX, faults.errors_max.map_or(0, |max| errors.saturating_add(max)))?;
        self.put(SLOW_FSYNC_MS, faults.slow_fsync_ms)?;
        self.put(CLOCK_OFFSET_MS, u64::from_ne_bytes(faults.clock_offset_ms.to_ne_bytes()))?;
        self.put(LIE_FSYNC, u64::from(faults.lie_fsync))?;
        self.put(WRITE_ERRNO, if none { 0 } else { errno(faults.write) })?;
        self.put(FSYNC_ERRNO, if none { 0 } else { errno(faults.fsync) })
    }

    /// Says when the power goes; `None`: never.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn cut(&self, cut: Option<Cut>) -> anyhow::Result<()> {
        self.put(CUT_KIND, 0)?;
        self.put(CUT_AFTER, cut.map_or(0, |cut| u64::from(cut.after)))?;
        self.put(CUT_AT, cut.map_or(0, |cut| cut.at.max(1)))
    }

    /// What was counted so far.
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub fn counters(&self) -> anyhow::Result<Counters> {
        Ok(Counters {
            operations: self.number(OPERATIONS)?,
            fsyncs: self.number(FSYNCS)?,
            errors: self.number(ERRORS)?,
            retries: self.number(RETRIES)?,
            cut_kind: self.number(CUT_KIND)?,
        })
    }
}
