//! postern-control as a process that cannot start: what it says, and its exit code.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use control::{
    config::Config,
    ctl::{args::Init, init},
    server,
};

fn start(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern-control")).args(arguments).output().expect("started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let ended = start(&["--config", "/nowhere/control.yaml"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("/nowhere/control.yaml"), "{ended:?}");
    assert!(ended.stdout.is_empty());
}

#[test]
fn every_fault_of_the_file_is_on_stderr_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("control.yaml");
    std::fs::write(&file, "id: one\nname: control-1\nsite: north\ndata: data\nlisten: 127.0.0.1\n").expect("written");
    let ended = start(&["--config", &file.display().to_string()]);
    let told = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1));
    for part in [":1:5: id:", ":5:9: listen:", "credentials: is missing"] {
        assert!(told.contains(part), "{told}");
    }
}

/// Runs a server of its own process until it is ready, and ends it: within one process sled lets go of its lock only later.
fn start_and_end(file: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-control"));
    command.arg("--config").arg(file).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().expect("started");
    let mut ready = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
    assert!(ready.contains("ready"), "{ready}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), rustix::process::Signal::TERM)
        .expect("told to end");
    assert!(server.wait().expect("ended").success());
}

#[test]
fn a_check_says_what_is_there_or_why_the_server_would_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("cluster");
    // Free until the server takes it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let server = vec![format!("alpha=north@{free}")];
    let init = Init { dir: dir.clone(), server, node: vec!["mx1=north".into()], operator: vec!["anna".into()] };
    init::make(&init).expect("made");
    let file = dir.join("servers/alpha/control.yaml");
    let check = || start(&["--check", "--config", &file.display().to_string()]);
    let ended = check();
    assert!(ended.status.code() == Some(1) && text(&ended.stderr).contains("correct the key data"), "{ended:?}");

    let config = Config::load(&file).expect("settings");
    let data = config.data.clone();
    start_and_end(&file);
    let ended = check();
    assert!(ended.status.success(), "{ended:?}");
    let found: server::Look = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!(found.raft.owner.expect("its stamp").node, 1);

    std::fs::write(data.join("high-water"), "not what was written").expect("damaged");
    let ended = check();
    let told = text(&ended.stderr);
    assert!(ended.status.code() == Some(1) && told.contains("high-water") && told.contains("The way out"), "{told}");
    assert!(ended.stdout.is_empty());
}

#[test]
fn help_shows_each_key_of_the_file() {
    let help = text(&start(&["--help"]).stdout);
    for key in ["id:", "name:", "site:", "data:", "listen:", "advertise:", "credentials:", "RUST_LOG"] {
        assert!(help.contains(key), "{key} is missing in {help}");
    }
}
