//! Whether this server knows all that its quorum has committed: what a node may call a fresh view.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// How long one answer of the quorum holds for all who ask: about an election time-out, so that hundreds of watches cost
/// one question a second.
const HOLDS: Duration = Duration::from_secs(1);
/// How long one asks for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the quorum was last asked and answered. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Touch(Arc<Mutex<Option<Instant>>>);

impl Touch {
    /// Whether the quorum has answered within the last second, or answers `ask` within one.
    pub async fn is_fresh(&self, ask: impl Future<Output = bool>) -> bool {
        let fresh = async {
            let mut last = self.0.lock().await;
            if last.is_some_and(|at| at.elapsed() < HOLDS) {
                return true;
            }
            // What is committed after the question need not be in the answer.
            let asked = Instant::now();
            let answered = ask.await;
            if answered {
                *last = Some(asked);
            }
            answered
        };
        timeout(PATIENCE, fresh).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::{HOLDS, Touch};

    #[tokio::test]
    async fn an_answer_of_the_quorum_holds_for_a_second_and_no_longer() {
        let touch = Touch::default();
        assert!(!touch.is_fresh(ready(false)).await);
        assert!(touch.is_fresh(ready(true)).await);
        assert!(touch.is_fresh(pending()).await, "asked nobody");
        let long_ago = Instant::now().checked_sub(HOLDS).expect("a time");
        *touch.0.lock().await = Some(long_ago);
        assert!(!touch.is_fresh(ready(false)).await);
    }

    #[tokio::test]
    async fn a_quorum_that_does_not_answer_is_out_of_touch_for_all_who_wait() {
        let touch = Touch::default();
        let (first, second) = tokio::join!(touch.is_fresh(pending()), touch.is_fresh(pending()));
        assert!(!first && !second);
    }
}
