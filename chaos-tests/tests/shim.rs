//! The preload shim does what its control file says, to programs that know nothing of it.

use std::process::{Command, Output};

use chaos_tests::shim::{Cut, DiskError, Faults, Library, Shim};

struct Rig {
    home: tempfile::TempDir,
    shim: Shim,
}

impl Rig {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let library = Library::compile(home.path()).expect("a C compiler is there");
        let watched = home.path().join("watched");
        std::fs::create_dir(&watched).expect("a folder");
        let shim = Shim::new(&library, home.path(), "test", &watched).expect("a control file");
        Self { home, shim }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).envs(self.shim.environment()).env("LC_ALL", "C").current_dir(self.shim.watched());
        command.output().expect("coreutils are installed")
    }

    /// Writes 8 KiB to a file in the folder and syncs it.
    fn dd(&self, file: &str) -> Output {
        self.run("dd", &["if=/dev/zero", &format!("of={file}"), "bs=4096", "count=2", "conv=fsync"])
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_disk_is_broken_or_full_for_as_long_as_the_control_file_says() {
    let rig = Rig::new();
    assert!(rig.dd("well").status.success());
    let counted = rig.shim.counters().expect("readable");
    assert_eq!((counted.fsyncs, counted.errors), (1, 0), "{counted:?}");
    assert!(counted.operations >= 4, "create, two writes, fsync: {counted:?}");

    rig.shim.set(&Faults { fsync: Some(DiskError::Broken), ..Faults::default() }).expect("set");
    let broken = rig.dd("broken");
    assert!(!broken.status.success() && said(&broken).contains("Input/output error"), "{broken:?}");

    rig.shim.set(&Faults { write: Some(DiskError::Full), ..Faults::default() }).expect("set");
    let full = rig.dd("full");
    assert!(!full.status.success() && said(&full).contains("No space left"), "{full:?}");
    // What lies elsewhere is on another disk, so to say.
    let elsewhere = rig.home.path().join("elsewhere");
    assert!(rig.dd(&elsewhere.to_string_lossy()).status.success());

    rig.shim.set(&Faults { write: Some(DiskError::Full), errors_max: Some(1), ..Faults::default() }).expect("set");
    assert!(!rig.dd("once").status.success());
    assert!(rig.dd("once").status.success(), "one error was allowed");

    rig.shim.set(&Faults::default()).expect("set");
    assert!(rig.dd("again").status.success());
    assert_eq!(std::fs::read(rig.shim.watched().join("again")).expect("written"), vec![0; 8192]);
}

#[test]
fn the_wall_clock_is_as_far_off_as_the_control_file_says() {
    let rig = Rig::new();
    let seconds = || {
        let output = rig.run("date", &["+%s"]);
        String::from_utf8_lossy(&output.stdout).trim().parse::<i64>().expect("seconds")
    };
    let ten_years: i64 = 10 * 365 * 24 * 60 * 60;
    let right = seconds();
    rig.shim.set(&Faults { clock_offset_ms: -ten_years * 1000, ..Faults::default() }).expect("set");
    let behind = seconds() + ten_years;
    rig.shim.set(&Faults { clock_offset_ms: ten_years * 1000, ..Faults::default() }).expect("set");
    let ahead = seconds() - ten_years;
    rig.shim.set(&Faults::default()).expect("set");
    // The clock itself goes on.
    assert!(right <= behind && behind <= ahead && ahead <= seconds(), "{right} {behind} {ahead}");
}

#[test]
fn the_power_goes_at_the_operation_that_was_named_and_there_is_only_one_like_it() {
    use std::os::unix::process::ExitStatusExt as _;
    let rig = Rig::new();
    let file = rig.shim.watched().join("cut");
    for (at, after, length) in [(1, false, None), (1, true, Some(0)), (2, true, Some(4096)), (4, false, Some(8192))] {
        let _ = std::fs::remove_file(&file);
        let at = rig.shim.counters().expect("readable").operations + at;
        rig.shim.cut(Some(Cut { at, after })).expect("set");
        let output = rig.dd("cut");
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
        assert_eq!(std::fs::metadata(&file).ok().map(|found| found.len()), length, "{at} {after}");
        assert_ne!(rig.shim.counters().expect("readable").cut_kind, 0);
        rig.shim.cut(None).expect("set");
    }
}
