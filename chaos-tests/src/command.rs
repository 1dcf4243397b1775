//! What the programs that are run by hand have in common: the form of their result, a bar for their progress, and their end.

use std::{process::ExitCode, time::Duration};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

/// Form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// A bar that moves until it is finished; its length is set by who knows it.
#[must_use]
pub fn bar() -> ProgressBar {
    let progress = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {bar:30} {pos}/{len} {msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}

/// Exit code of a program; what went wrong goes to standard error.
#[must_use]
pub fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
