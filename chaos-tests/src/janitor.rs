//! Leaves nothing behind, however the program that started a cluster ends: a small process that reads on its standard
//! input which process groups, mounts and network namespaces there are, and when the input ends takes away those that are
//! left and removes the folder.

use std::{
    collections::BTreeSet,
    io::{BufRead, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};

/// What the `peer janitor` process does until its input ends.
///
/// # Errors
/// When the folder cannot be removed.
pub fn serve(input: impl BufRead, folder: Option<&Path>) -> anyhow::Result<()> {
    let mut groups = BTreeSet::new();
    let (mut mounts, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
    for line in input.lines() {
        let Ok(line) = line else { break };
        if let Some(folder) = line.strip_prefix("mount ") {
            mounts.insert(folder.to_owned());
        } else if let Some(name) = line.strip_prefix("netns ") {
            namespaces.insert(name.to_owned());
        } else if let Some(pid) = line.strip_prefix('+').and_then(|pid| pid.parse::<i32>().ok()) {
            groups.insert(pid);
        } else if let Some(pid) = line.strip_prefix('-').and_then(|pid| pid.parse::<i32>().ok()) {
            groups.remove(&pid);
        }
    }
    for pid in groups.into_iter().filter_map(Pid::from_raw) {
        // An error means that it has ended by itself.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    // What is gone already makes these fail, and nobody is left to be told.
    for folder in mounts {
        let _ = Command::new("umount").args(["--lazy", &folder]).stderr(Stdio::null()).status();
    }
    for name in namespaces {
        let _ = Command::new("ip").args(["netns", "delete", &name]).stderr(Stdio::null()).status();
    }
    let Some(folder) = folder else { return Ok(()) };
    // A process that was just killed may still finish a write.
    let mut removed = std::fs::remove_dir_all(folder);
    for _ in 0..100 {
        if removed.is_ok() || !folder.exists() {
            return Ok(());
        }
        std::thread::yield_now();
        removed = std::fs::remove_dir_all(folder);
    }
    removed.with_context(|| format!("remove {}", folder.display()))
}

/// The starting program's end of it. Cheap to clone; with the last clone it does its work.
#[derive(Clone, Debug)]
pub struct Janitor {
    child: Arc<Inner>,
}

#[derive(Debug)]
struct Inner(Mutex<Child>);

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self) {
        let mut child = self.lock();
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Janitor {
    /// Starts the process. `folder` is removed at the end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(peer: &Path, folder: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut command = Command::new(peer);
        command.arg("janitor").args(folder);
        // Its own group: Ctrl-C in the terminal must not reach it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let child = command.spawn().with_context(|| format!("start {} janitor", peer.display()))?;
        Ok(Self { child: Arc::new(Inner(Mutex::new(child))) })
    }

    fn tell(&self, line: &str) {
        let mut child = self.child.lock();
        if let Some(input) = &mut child.stdin {
            // Should the janitor be gone, kill-on-drop still ends the processes.
            let _ = writeln!(input, "{line}");
        }
    }

    /// A file system is about to be mounted on this folder.
    pub fn mounts(&self, folder: &Path) {
        self.tell(&format!("mount {}", folder.display()));
    }

    /// A network namespace is about to be made.
    pub fn makes_namespace(&self, name: &str) {
        self.tell(&format!("netns {name}"));
    }

    /// A process that leads its own group was started.
    pub fn started(&self, pid: u32) {
        self.tell(&format!("+{pid}"));
    }

    /// It has ended and was waited for.
    pub fn ended(&self, pid: u32) {
        self.tell(&format!("-{pid}"));
    }

    /// Lets it do its work, and waits for it.
    pub fn finish(&self) {
        self.child.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Cursor,
        os::unix::process::{CommandExt as _, ExitStatusExt as _},
        process::{Command, Stdio},
    };

    use super::serve;

    #[test]
    fn what_is_still_running_is_killed_and_the_folder_is_gone() {
        let folder = tempfile::tempdir().expect("a folder").keep();
        std::fs::write(folder.join("mail"), "x").expect("a file");
        let start = || {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).spawn().expect("cat is there")
        };
        let (mut registered, mut struck_off) = (start(), start());
        let input = format!("+{}\n+{}\n-{}\n", registered.id(), struck_off.id(), struck_off.id());
        serve(Cursor::new(input), Some(&folder)).expect("removed");
        assert_eq!(registered.wait().expect("its end").signal(), Some(9));
        assert!(!folder.exists());
        drop(struck_off.stdin.take());
        assert!(struck_off.wait().expect("its end").success());
    }
}
