//! Opening what may be damaged, under watch: redb and sled panic at some damage, and at some they run in circles. Both come
//! out as a refusal that says what the server was at.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{sync::oneshot, time::Instant};

use super::gate::Refusal;

/// How often a server that is still opening its files says what it is at.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What the operating system says when nothing is damaged but something around it is not as it should be: not permitted, input
/// and output failed, no permission, too many open files, no space, read-only, over quota.
const REFUSED_BY_SYSTEM: [u32; 8] = [1, 5, 13, 23, 24, 28, 30, 122];

/// What is being opened or read right now, for whoever waits. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Step(Arc<Mutex<&'static str>>);

impl Default for Step {
    fn default() -> Self {
        Self(Arc::new(Mutex::new("the data folder")))
    }
}

impl Step {
    fn set(&self, what: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn get(&self) -> &'static str {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or reads `what`. Damage, told or met in a panic, comes out as a refusal with the way out. That another process
    /// has it, or that the operating system refuses, is told as it is.
    pub(super) fn read<T, E: Into<anyhow::Error>>(
        &self,
        what: &'static str,
        read: impl FnOnce() -> Result<T, E>,
    ) -> anyhow::Result<T> {
        self.set(what);
        let problem = match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let error = error.into();
                let text = format!("{error:#}");
                if text.contains("acquire lock") {
                    let advice = "another process has it open: one server, or one --check, at a time";
                    return Err(error.context(format!("open {what}: {advice}")));
                }
                if REFUSED_BY_SYSTEM.iter().any(|errno| text.contains(&format!("(os error {errno})"))) {
                    return Err(error.context(format!("open {what}: the operating system refuses; correct that first")));
                }
                text
            }
            Err(panic) => told(&*panic),
        };
        Err(Refusal::Unreadable { what, problem }.into())
    }
}

/// The words of a panic.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it broke off without words").to_owned()
}

/// Does the work in a thread of its own, and gives it up after `limit`: the thread cannot be ended, so the process has to end
/// then. No task of the runtime, because a runtime waits for its tasks before it ends.
///
/// # Errors
/// What the work says, or that it did not come to an end.
pub(super) async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(&Step) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let step = Step::default();
    let (done, mut ended) = oneshot::channel();
    let watched = step.clone();
    let opening = move || {
        // Nobody listens any more when the limit is over.
        drop(done.send(work(&watched)));
    };
    std::thread::Builder::new().name("opening".into()).spawn(opening).context("start a thread")?;
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        match tokio::time::timeout(TELL_EVERY.min(left), &mut ended).await {
            Ok(Ok(result)) => return result,
            // The panic itself is on stderr.
            Ok(Err(_)) => {
                let problem = "the program broke off".to_owned();
                return Err(Refusal::Unreadable { what: step.get(), problem }.into());
            }
            Err(_) if begun.elapsed() >= limit => {
                return Err(Refusal::Endless { what: step.get(), seconds: limit.as_secs() }.into());
            }
            Err(_) => {
                let (seconds, limit) = (begun.elapsed().as_secs(), limit.as_secs());
                tracing::warn!(seconds, limit, "still reading {}; nobody is answered before that is done", step.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::{Refusal, within};

    #[tokio::test]
    async fn what_does_not_come_to_an_end_is_given_up_with_a_word() {
        let (stop, stopped) = mpsc::sync_channel::<()>(1);
        let endless = within(Duration::ZERO, move |step| {
            step.read("the data folder", || stopped.recv().map_err(anyhow::Error::from))
        });
        let error = endless.await.expect_err("it does not end");
        assert_eq!(error.downcast_ref(), Some(&Refusal::Endless { what: "the data folder", seconds: 0 }));
        let text = error.to_string();
        assert!(text.contains("--open-within") && text.contains("The way out"), "{text}");
        drop(stop);
    }

    #[tokio::test]
    async fn a_panic_is_a_refusal_that_says_what_was_read() {
        let refusal = |work: fn() -> anyhow::Result<()>| async move {
            let error = within(Duration::from_secs(60), move |step| step.read("the log", work)).await;
            error.expect_err("it breaks off").downcast::<Refusal>().expect("a refusal")
        };
        let problem = "a page is gone".to_owned();
        assert_eq!(refusal(|| panic!("a page is gone")).await, Refusal::Unreadable { what: "the log", problem });
        let unwatched = within::<()>(Duration::from_secs(60), |_| panic!("outside of any step")).await;
        assert!(unwatched.expect_err("it breaks off").downcast_ref::<Refusal>().is_some());
    }

    #[tokio::test]
    async fn what_the_operating_system_says_is_no_damage() {
        let denied = || Err::<(), _>(std::io::Error::from_raw_os_error(13));
        let error = within(Duration::from_secs(60), move |step| step.read("the log", denied)).await;
        let error = error.expect_err("no permission");
        assert!(error.downcast_ref::<Refusal>().is_none() && format!("{error:#}").contains("ermission"), "{error:#}");
    }
}
