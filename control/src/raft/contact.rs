//! Whether this server is in touch with the group, and since when it is not: who asks a server that has been alone for longer
//! than an election takes is told so at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use openraft::RaftMetrics;
use tokio::time::Instant;

use super::{ELECTION_MS_MAX, Server};

/// A leader whose last majority is this long ago refuses: it can do nothing but wait until it reaches the others again.
const LEADER_ALONE_MAX: Duration = Duration::from_millis(ELECTION_MS_MAX + 1_000);
/// A server without a leader refuses after this long: so far it may be an election, also one that had to be repeated.
const LEADERLESS_MAX: Duration = Duration::from_millis(3 * ELECTION_MS_MAX);

type Metrics = RaftMetrics<u64, Server>;

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// When a leader's entries or heartbeat were last accepted here.
    heard: Option<Instant>,
    /// When this server, leading, last gave its vote to another one.
    yielded: Option<Instant>,
    /// Calls of a leader that are being worked on: an fsync may take long, and the leader is not silent meanwhile.
    appending: u32,
}

/// When others were last heard of.
#[derive(Debug, Default)]
pub(super) struct Contact(Mutex<Times>);

/// A leader's call is being worked on as long as this lives.
pub(super) struct Appending<'c>(&'c Contact);

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.0.change(|times| times.appending -= 1);
    }
}

impl Contact {
    fn times(&self) -> Times {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Times)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A leader's entries or heartbeat have come; whether they are accepted will be seen.
    pub(super) fn appending(&self) -> Appending<'_> {
        self.change(|times| times.appending += 1);
        Appending(self)
    }

    /// When the leader was last heard, unless it was never heard since the start, or a call of it is being worked on.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        let Times { heard, yielded, appending } = self.times();
        heard.max(yielded).filter(|_| appending == 0)
    }

    /// A leader's entries or heartbeat are accepted, or a piece of its snapshot has come.
    pub(super) fn heard(&self) {
        self.change(|times| times.heard = Some(Instant::now()));
    }

    /// This server led, and has given its vote to another one.
    pub(super) fn yielded(&self) {
        self.change(|times| times.yielded = Some(Instant::now()));
    }

    /// Whether this server is the leader with a quorum, or follows one that it has heard from within an election time-out.
    pub(super) fn in_touch(&self, metrics: &Metrics) -> bool {
        if leads(metrics) {
            return has_quorum(metrics);
        }
        self.times().heard.is_some_and(|heard| heard.elapsed() <= Duration::from_millis(ELECTION_MS_MAX))
    }

    /// Whether it has been without a quorum or a leader for too long. Never said of a server that was not in touch since its
    /// start: it may have to be found first.
    pub(super) fn is_lost(&self, metrics: &Metrics) -> bool {
        self.is_lost_at(Instant::now(), metrics)
    }

    fn is_lost_at(&self, now: Instant, metrics: &Metrics) -> bool {
        if leads(metrics) {
            let alone = metrics.millis_since_quorum_ack.map(Duration::from_millis);
            return alone.is_some_and(|alone| alone > LEADER_ALONE_MAX);
        }
        // Who openraft takes for the leader does not count: a server that has lost an election to a longer log waits up to
        // four seconds until it stands again, and goes on to name the leader that it does not hear.
        let Times { heard, yielded, .. } = self.times();
        heard.max(yielded).is_some_and(|last| now > last + LEADERLESS_MAX)
    }
}

fn leads(metrics: &Metrics) -> bool {
    metrics.current_leader == Some(metrics.id)
}

/// Whether this server leads and a majority has answered within an election time-out.
pub(super) fn has_quorum(metrics: &Metrics) -> bool {
    leads(metrics) && metrics.millis_since_quorum_ack.is_some_and(|age_ms| age_ms <= ELECTION_MS_MAX)
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use openraft::RaftMetrics;
    use tokio::time::Instant;

    use super::{Contact, LEADER_ALONE_MAX, LEADERLESS_MAX, Metrics, Times};

    fn metrics(leader: Option<u64>, quorum_age: Option<Duration>) -> Metrics {
        let quorum_age = quorum_age.map(|age| u64::try_from(age.as_millis()).expect("small"));
        Metrics { current_leader: leader, millis_since_quorum_ack: quorum_age, ..RaftMetrics::new_initial(1) }
    }

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_leader_is_lost_when_its_last_majority_is_too_long_ago() {
        let contact = Contact::default();
        assert!(!contact.is_lost(&metrics(Some(1), None)), "it has just been elected");
        assert!(!contact.is_lost(&metrics(Some(1), Some(LEADER_ALONE_MAX))));
        assert!(contact.is_lost(&metrics(Some(1), Some(LEADER_ALONE_MAX + MOMENT))));
    }

    #[test]
    fn a_server_without_a_leader_is_lost_when_no_election_takes_so_long() {
        let began = Instant::now();
        let (early, late) = (began + LEADERLESS_MAX, began + LEADERLESS_MAX + MOMENT);
        let contact = |heard, yielded| Contact(Mutex::new(Times { heard, yielded, appending: 0 }));
        assert!(!Contact::default().is_lost_at(late, &metrics(None, None)), "it was never in touch");
        assert!(!contact(Some(began), None).is_lost_at(early, &metrics(None, None)), "it may be an election");
        assert!(contact(Some(began), None).is_lost_at(late, &metrics(None, None)));
        let knows = metrics(Some(2), None);
        assert!(contact(Some(began), None).is_lost_at(late, &knows), "it does not hear the leader that it knows");
        assert!(!contact(Some(began), Some(early)).is_lost_at(late, &metrics(None, None)), "it led until now");
    }

    #[test]
    fn a_leader_whose_call_is_being_worked_on_is_not_silent() {
        let contact = Contact::default();
        assert_eq!(contact.silent_since(), None, "never heard");
        contact.heard();
        let heard = contact.silent_since();
        assert!(heard.is_some());
        let (one, other) = (contact.appending(), contact.appending());
        drop(one);
        assert_eq!(contact.silent_since(), None);
        drop(other);
        assert_eq!(contact.silent_since(), heard);
    }
}
