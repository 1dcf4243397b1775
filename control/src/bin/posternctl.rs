//! The operator's command line.

fn main() -> std::process::ExitCode {
    control::ctl::main()
}
