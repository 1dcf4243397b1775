//! Trying again what a server could not propose.

use std::time::Duration;

use proto::mutation::Outcome;
use tokio::time::Instant;

use crate::raft::ProposeError;

/// Pause before the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Tries until there is an outcome, no hope (this server is `lost`) or no time. One try that may have been written makes all that follow unknown.
pub(super) async fn again<F>(
    end: Instant,
    lost: impl Fn() -> bool,
    propose: impl Fn() -> F,
) -> Result<Outcome, ProposeError>
where
    F: Future<Output = Result<Outcome, ProposeError>>,
{
    let mut maybe_written = false;
    loop {
        let error = match propose().await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        maybe_written |= error == ProposeError::Unknown;
        let last = lost() || matches!(error, ProposeError::Stopped(_)) || Instant::now() + AGAIN_AFTER >= end;
        if last {
            return Err(error.after(maybe_written));
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use proto::mutation::Outcome;
    use tokio::time::Instant;

    use super::{AGAIN_AFTER, again};
    use crate::raft::ProposeError;

    #[tokio::test]
    async fn a_change_that_may_have_been_written_is_never_reported_as_not_written() {
        let stopped = || ProposeError::Stopped("it is ending".into());
        for (answers, expected) in [
            (vec![Err(ProposeError::Unknown), Err(ProposeError::NoLeader)], Err(ProposeError::Unknown)),
            (vec![Err(ProposeError::Unknown), Err(stopped())], Err(ProposeError::Unknown)),
            (vec![Err(ProposeError::Unknown), Ok(Outcome::Done)], Ok(Outcome::Done)),
            (vec![Err(ProposeError::NoLeader), Err(ProposeError::NoLeader)], Err(ProposeError::NoLeader)),
            (vec![Err(stopped())], Err(stopped())),
        ] {
            let answers = RefCell::new(answers.into_iter());
            // Time for two tries.
            let end = Instant::now() + AGAIN_AFTER + Duration::from_millis(100);
            let outcome =
                again(end, || false, || std::future::ready(answers.borrow_mut().next().expect("no third try"))).await;
            assert_eq!(outcome, expected);
        }
        let alone = again(
            Instant::now() + Duration::from_secs(3600),
            || true,
            || std::future::ready(Err(ProposeError::NoLeader)),
        );
        assert_eq!(alone.await, Err(ProposeError::NoLeader), "at once");
    }
}
