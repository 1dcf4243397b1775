//! A process that is shut off and then tries what it may not do: the kernel ends it each time.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsFd as _,
        unix::{net::UnixStream, process::ExitStatusExt as _},
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use node::checks::opener::confine;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Resource, Rlimit, Signal, getppid, kill_process, prlimit},
    thread::set_no_new_privs,
};

/// What is tried: each is a system call that a program would have to make who wants to do harm.
const DEEDS: [&str; 16] = [
    "read a file",
    "make a file",
    "list a folder",
    "remove a file",
    "change the folder",
    "connect",
    "connect to a local socket",
    "listen",
    "send a datagram",
    "resolve a name",
    "exec",
    "start a thread",
    "signal the parent",
    "raise a limit",
    "sleep",
    "ask the kernel about itself",
];

/// Shuts itself off, tries one thing, and says so if it is still there.
pub(crate) fn off(deed: &str, canary: &str) -> ExitCode {
    let parent = getppid().expect("a parent");
    confine().expect("it is shut off");
    let mut output = std::io::stdout().lock();
    output.write_all(b"shut off").and_then(|()| output.flush()).expect("said");
    match deed {
        "read a file" => drop(std::fs::read("/etc/passwd")),
        "make a file" => drop(std::fs::write(canary, "x")),
        "list a folder" => drop(std::fs::read_dir("/")),
        "remove a file" => drop(std::fs::remove_file(canary)),
        "change the folder" => drop(std::env::set_current_dir("/tmp")),
        "connect" => drop(TcpStream::connect("127.0.0.1:1")),
        "connect to a local socket" => drop(UnixStream::connect(canary)),
        "listen" => drop(TcpListener::bind("127.0.0.1:0")),
        "send a datagram" => drop(UdpSocket::bind("127.0.0.1:0")),
        "resolve a name" => drop(std::net::ToSocketAddrs::to_socket_addrs("localhost:1")),
        "exec" => drop(Command::new("/bin/sh").args(["-c", "echo x > \"$0\"", canary]).status()),
        "start a thread" => drop(std::thread::Builder::new().spawn(|| ())),
        "signal the parent" => drop(kill_process(parent, Signal::USR1)),
        "raise a limit" => {
            let all = Rlimit { current: None, maximum: None };
            let _ = prlimit(None, Resource::As, all);
        }
        "sleep" => std::thread::sleep(Duration::from_millis(1)),
        "ask the kernel about itself" => drop(set_no_new_privs(true)),
        _ => unreachable!("{deed} is no deed"),
    }
    drop(output.write_all(b", and still there"));
    ExitCode::SUCCESS
}

fn child(deed: &str, canary: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("shut").arg(deed).arg(canary).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

pub(crate) fn whatever_it_tries() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept");
    std::fs::write(&kept, "x").expect("written");
    for deed in DEEDS {
        let canary = if deed == "remove a file" { kept.clone() } else { folder.path().join("canary") };
        let output = child(deed, &canary).output().expect("it ran");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((said.as_str(), output.status.signal()), ("shut off", Some(libc::SIGSYS)), "{deed}");
    }
    assert!(kept.exists() && !folder.path().join("canary").exists());
}

pub(crate) fn what_it_was_given() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    // As one who has started the node and forgotten to close it.
    fcntl_setfd(writer.as_fd(), FdFlags::empty()).expect("inherited");
    let mut opener = Command::new("/proc/self/exe");
    opener.arg("opener").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut opener = opener.spawn().expect("it starts");
    let mut head = [0; 4];
    opener.stdout.as_mut().expect("a pipe").read_exact(&mut head).expect("it is ready");
    drop(writer);
    // Whoever still had the other end would keep this waiting.
    let (ended, end) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || ended.send(reader.read(&mut [0])));
    let read = end.recv_timeout(Duration::from_secs(20)).expect("nobody else has the other end");
    assert_eq!(read.expect("the end"), 0);
    assert!(opener.try_wait().expect("it is ours").is_none(), "it still runs");
    drop(opener.stdin.take());
    assert!(opener.wait().expect("it is ours").success(), "it ends with its input");
}
