//! postern-control as a process that cannot start: what it says, and its exit code.

use std::process::{Command, Output};

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

#[test]
fn help_shows_each_key_of_the_file() {
    let help = text(&start(&["--help"]).stdout);
    for key in ["id:", "name:", "site:", "data:", "listen:", "advertise:", "credentials:", "RUST_LOG"] {
        assert!(help.contains(key), "{key} is missing in {help}");
    }
}
