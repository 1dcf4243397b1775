//! When nothing is wrong any more there is a leader, everybody has caught up, and reads and writes are answered.

use super::Violation;

/// What a cluster that is well was asked to do: that it did not is a violation.
///
/// # Errors
/// The violation.
pub fn check<T>(done: anyhow::Result<T>) -> Result<T, Violation> {
    done.map_err(|error| Violation { invariant: "a healed cluster serves again", seen: format!("{error:#}") })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_cluster_that_does_not_serve_is_a_violation() {
        assert_eq!(check(Ok(7)), Ok(7));
        let violation = check::<u8>(Err(anyhow::anyhow!("no leader").context("after a cut"))).expect_err("a violation");
        assert_eq!(violation.seen, "after a cut: no leader");
    }
}
