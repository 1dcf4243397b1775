//! What processes use: CPU time and memory of all that belong to one server, also of those that have ended since. A control
//! group of the kernel knows it exactly; without one it is summed over the process tree, to a hundredth of a second.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::process::Program;

/// Clock ticks of a second in `/proc/PID/stat`: the same on all machines that Linux is built for by Debian.
const TICKS_PER_S: u64 = 100;

/// CPU time of the calling thread.
///
/// # Errors
/// When the system does not tell.
pub fn thread_cpu() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("read a thread's CPU time")?;
    let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
    Ok(Duration::from_nanos(ns.context("a thread's CPU time is a number")?))
}

/// CPU time of this program's process.
///
/// # Errors
/// When the system does not tell.
pub fn own_cpu() -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for entry in fs::read_dir("/proc/self/task").context("list the threads")? {
        // A thread that has just ended.
        let Ok(text) = fs::read_to_string(entry?.path().join("schedstat")) else { continue };
        let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
        sum += Duration::from_nanos(ns.unwrap_or_default());
    }
    Ok(sum)
}

/// All processes of one server.
#[derive(Debug)]
pub struct Account {
    group: Option<Group>,
    /// Without a group: where the process trees begin.
    roots: Mutex<Vec<u32>>,
}

#[derive(Debug)]
struct Group {
    folder: PathBuf,
    /// Version 1 counts nanoseconds in a file of its own.
    first_version: bool,
}

/// Memory of all its processes together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident, pages that are shared counted in each process, in bytes.
    pub rss: u64,
    /// Resident, pages that are shared counted once, in bytes.
    pub pss: u64,
    /// How many processes.
    pub processes: usize,
}

impl Account {
    /// A new one. `name` must be one that no other has at the same time.
    #[must_use]
    pub fn open(name: &str) -> Self {
        let name = format!("postern-bench-{}-{name}", std::process::id());
        let places = [
            ("/sys/fs/cgroup/cpuacct", "cpuacct.usage", true),
            ("/sys/fs/cgroup", "cgroup.controllers", false),
            ("/sys/fs/cgroup/unified", "cgroup.controllers", false),
        ];
        let group = places.into_iter().find_map(|(root, sign, first_version)| {
            let folder = Path::new(root).join(&name);
            let there = Path::new(root).join(sign).is_file() && fs::create_dir(&folder).is_ok();
            there.then_some(Group { folder, first_version })
        });
        Self { group, roots: Mutex::default() }
    }

    /// The same program, as a member from its first instruction on.
    #[must_use]
    pub fn member(&self, program: Program) -> Program {
        let Some(group) = &self.group else { return program };
        let enter = format!("echo $$ > '{}' && exec \"$0\" \"$@\"", group.folder.join("cgroup.procs").display());
        let mut arguments = vec!["-c".into(), enter.into(), program.path.into_os_string()];
        arguments.extend(program.arguments);
        Program { path: "/bin/sh".into(), arguments, ..program }
    }

    /// A member was started.
    pub fn started(&self, pid: u32) {
        self.roots.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(pid);
    }

    /// CPU time of all that are or were members.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let Some(group) = &self.group else { return self.tree_cpu() };
        let file = group.folder.join(if group.first_version { "cpuacct.usage" } else { "cpu.stat" });
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        if group.first_version {
            return Ok(Duration::from_nanos(text.trim().parse().context("CPU time is a number")?));
        }
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(Duration::from_micros(usage.context("cpu.stat has usage_usec")?.parse().context("CPU time is a number")?))
    }

    fn tree_cpu(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0;
        for pid in self.pids() {
            // Own time, and that of children that were waited for; those that run are in the tree.
            ticks += stat(pid).map_or(0, |fields| fields.iter().skip(11).take(4).sum());
        }
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_S))
    }

    /// Its processes now.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        if let Some(group) = &self.group {
            let text = fs::read_to_string(group.folder.join("cgroup.procs")).unwrap_or_default();
            return text.lines().filter_map(|line| line.parse().ok()).collect();
        }
        let mut pids = self.roots.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all: Vec<u32> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let parent = |pid: &u32| stat(*pid).and_then(|fields| u32::try_from(*fields.get(1)?).ok());
        let parents: Vec<(u32, u32)> = all.iter().filter_map(|pid| Some((*pid, parent(pid)?))).collect();
        let mut at = 0;
        while let Some(&pid) = pids.get(at) {
            pids.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
            at += 1;
        }
        pids
    }

    /// Memory of its processes now.
    ///
    /// # Errors
    /// When none of them can be looked at.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mut sum = Memory::default();
        for pid in self.pids() {
            // One that has just ended.
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
            let bytes = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
                line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
            };
            sum = Memory { rss: sum.rss + bytes("Rss:"), pss: sum.pss + bytes("Pss:"), processes: sum.processes + 1 };
        }
        if sum.processes == 0 {
            bail!("there is no process whose memory could be looked at");
        }
        Ok(sum)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            // Only an empty one can be removed; the kernel keeps one with members.
            fs::remove_dir(&group.folder).unwrap_or_default();
        }
    }
}

/// The numbers of `/proc/PID/stat` after the name: state (as 0), parent, …
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use std::{process::Command, sync::Mutex, time::Duration};

    use super::{Account, own_cpu, thread_cpu};

    #[test]
    fn a_tree_counts_children_that_have_ended_and_those_that_run() {
        // Spends time in a child that ends, and goes on with one that runs.
        let script = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done); sleep 600 & echo done; wait";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell is there");
        let mut line = [0; 4];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut line).expect("it says when it is done");
        let account = Account { group: None, roots: Mutex::new(vec![child.id()]) };
        let pids = account.pids();
        assert_eq!(pids.len(), 2, "the shell and its child");
        assert!(account.cpu().expect("told") > Duration::ZERO);
        assert!(account.memory().expect("told").pss > 0);
        Command::new("kill").args(pids.iter().map(ToString::to_string)).status().expect("kill is there");
        child.wait().expect("ended");
    }

    #[test]
    fn time_of_a_thread_is_part_of_that_of_its_process() {
        // Until the first tick of the system's accounting.
        while thread_cpu().expect("told") == Duration::ZERO {}
        let thread = thread_cpu().expect("told");
        assert!(own_cpu().expect("told") >= thread);
    }
}
