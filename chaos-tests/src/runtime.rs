//! The one tokio runtime of a test program, so that a cluster can outlive the test that started it.

use std::{future::Future, sync::LazyLock};

use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("a process that may start threads can have a runtime"));

/// Runs a scenario to its end on the shared runtime and gives back what it gives.
///
/// # Panics
/// When the scenario does.
pub fn run<T: Send + 'static>(scenario: impl Future<Output = T> + Send + 'static) -> T {
    match RUNTIME.block_on(RUNTIME.spawn(scenario)) {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
