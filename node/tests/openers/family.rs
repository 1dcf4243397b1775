//! Who belongs to whom: the openers of a node, found by their parent, and what becomes of them without it.

use std::{
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
    process::{Command, ExitCode, Stdio},
};

use node::{
    checks::opener::{Openers, Program},
    limits::Limits,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

/// Longer than the end of a process takes on any machine.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// A process that is watched: its number may be given to another one, this not.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) pid: Pid,
    file: OwnedFd,
}

impl Watched {
    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("it is there");
    }

    /// Waits for its end.
    pub(crate) fn ended(&self) {
        let look = || poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&PATIENCE));
        // The end of a child is also a signal, which may come first.
        let ended = retry_on_intr(look).expect("watched");
        assert_eq!(ended, 1, "{:?} does not end", self.pid);
    }
}

/// The children of a process that run.
pub(crate) fn children(of: u32) -> Vec<Pid> {
    let listed = std::fs::read_dir("/proc").expect("Linux").flatten();
    let numbers = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |number: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let mut words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        words.next() != Some("Z") && words.next() == Some(&of.to_string())
    };
    numbers.filter(is_child).filter_map(Pid::from_raw).collect()
}

/// The children of a process, to be watched.
pub(crate) fn watched(of: u32) -> Vec<Watched> {
    let watch = |pid| Watched { pid, file: pidfd_open(pid, PidfdFlags::empty()).expect("it is there") };
    children(of).into_iter().map(watch).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// A node that has two openers, and waits.
pub(crate) fn node() -> ExitCode {
    runtime().block_on(async {
        let openers = Openers::new(Program::own(), &Limits::default());
        for _ in 0..2 {
            openers.prove().await.expect("it starts");
        }
        println!("ready");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

pub(crate) fn orphans() {
    runtime().block_on(async {
        for end in [Signal::KILL, Signal::TERM] {
            let mut node =
                Command::new("/proc/self/exe").arg("node").stdout(Stdio::piped()).spawn().expect("it starts");
            let mut said = String::new();
            BufReader::new(node.stdout.as_mut().expect("a pipe")).read_line(&mut said).expect("a line");
            assert_eq!(said, "ready\n");
            let openers = watched(node.id());
            assert_eq!(openers.len(), 2);
            // One that stands still reads no end of a pipe.
            openers[0].signal(Signal::STOP);
            let number = Pid::from_raw(node.id().cast_signed()).expect("a process");
            kill_process(number, end).expect("it is there");
            node.wait().expect("it is ours");
            for opener in &openers {
                opener.ended();
            }
        }
    });
}
