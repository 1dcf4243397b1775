//! Counts what became of the mail of each sender, and tells the cluster once a second; its view tells every other node of every
//! site.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use proto::{
    mutation::Change,
    reputation::{Heard, REPORT_SUBJECTS_MAX, Subject, SubjectKey},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{cluster::Cluster, reception::Tries};

/// From one report to the next.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Campaigns that a node remembers by itself, and for how long after their last message: most are never seen again, and what the
/// cluster counts must not be full of them.
const COPIES_MAX: u64 = 100_000;
const COPIES_FOR: Duration = Duration::from_secs(6 * 60 * 60);

/// Good and bad outcomes since the last report, by subject. Cheap to clone.
#[derive(Clone)]
pub struct Outcomes {
    since: Arc<Mutex<HashMap<SubjectKey, (u32, u32)>>>,
    /// Campaigns that were seen.
    seen: Cache<SubjectKey, ()>,
    /// Which net has sent a bad one of which.
    told: Cache<(SubjectKey, SubjectKey), ()>,
}

impl Default for Outcomes {
    fn default() -> Self {
        let seen = Cache::builder().max_capacity(COPIES_MAX).time_to_idle(COPIES_FOR).build();
        let told = Cache::builder().max_capacity(COPIES_MAX).time_to_live(COPIES_FOR).build();
        Self { since: Arc::default(), seen, told }
    }
}

impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes").finish_non_exhaustive()
    }
}

impl Outcomes {
    /// Counts a message for all of its senders. What does not fit into the next report is not counted; domains, of which a
    /// client can have any number, fill half of it at most, and campaigns a quarter.
    pub fn saw(&self, senders: &[Subject], good: bool) {
        let mut all = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in senders {
            let key = sender.key();
            let room = match sender {
                Subject::Ip(_) | Subject::Net(_) => REPORT_SUBJECTS_MAX,
                Subject::Dkim(_) | Subject::Spf(_) => REPORT_SUBJECTS_MAX / 2,
                Subject::Campaign(_) => REPORT_SUBJECTS_MAX / 4,
            };
            if all.len() >= room && !all.contains_key(&key) {
                continue;
            }
            let (well, ill) = all.entry(key).or_default();
            let count = if good { well } else { ill };
            *count = count.saturating_add(1);
        }
    }

    /// Counts a message for what its near-copies have in common with it, from the second one on. Bad ones of one net count once within
    /// hours: nobody alone may speak ill of what others send.
    pub fn saw_copy(&self, copies: &[Subject], client: IpAddr, good: bool) {
        let [_, net] = Subject::of_client(client);
        for copy in copies {
            let told = (copy.key(), net.key());
            let is_first = self.seen.get(&copy.key()).is_none();
            let is_told = !good && self.told.get(&told).is_some();
            if !good {
                self.told.insert(told, ());
            }
            if is_first {
                self.seen.insert(copy.key(), ());
            } else if !is_told {
                self.saw(std::slice::from_ref(copy), good);
            }
        }
    }

    /// Counts a message that a department has written, for whom it went to outside.
    pub fn wrote(&self, pairs: impl Iterator<Item = SubjectKey>) {
        let mut all = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        for key in pairs {
            if all.len() < REPORT_SUBJECTS_MAX / 2 || all.contains_key(&key) {
                let (well, _) = all.entry(key).or_default();
                *well = well.saturating_add(1);
            }
        }
    }

    /// What is to be reported.
    pub(crate) fn take(&self) -> Vec<Heard> {
        let all = std::mem::take(&mut *self.since.lock().unwrap_or_else(PoisonError::into_inner));
        all.into_iter().map(|(subject, (good, bad))| Heard { subject, good, bad }).collect()
    }
}

/// Reports until it is told to stop, and what is left then. A report that fails is not made again: it may have been counted, and
/// it is statistics.
pub async fn report(outcomes: Outcomes, tries: Tries, cluster: Cluster, mut stop: watch::Receiver<bool>) {
    let mut turn = interval(REPORT_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = turn.tick() => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        let heard = outcomes.take();
        if !heard.is_empty() {
            let subjects = heard.len();
            if let Err(error) = cluster.propose(Change::Report { outcomes: heard }).await {
                tracing::warn!(%error, subjects, "what was learnt of senders in a second could not be reported");
            }
        }
        let tries = tries.take();
        if !tries.is_empty()
            && let Err(error) = cluster.propose(Change::PutOff { tries }).await
        {
            tracing::warn!(%error, "who was put off in a second could not be reported: they pass here only");
        }
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proto::reputation::{Heard, REPORT_SUBJECTS_MAX, Subject};

    use super::Outcomes;

    #[test]
    fn a_campaign_is_reported_from_its_second_message_on_once_for_a_net_and_fills_a_quarter() {
        let outcomes = Outcomes::default();
        let copy = |number: usize| Subject::Campaign(number.to_be_bytes());
        let net = |number: u8| IpAddr::from([192, 0, number, 7]);
        outcomes.saw_copy(&[copy(1), copy(2)], net(1), false);
        assert!(outcomes.take().is_empty(), "most are never seen again");
        for _ in 0..3 {
            outcomes.saw_copy(&[copy(1)], net(2), false);
            outcomes.saw_copy(&[copy(1)], net(1), false);
        }
        outcomes.saw_copy(&[copy(1)], net(2), true);
        assert_eq!(outcomes.take(), [Heard { subject: copy(1).key(), good: 1, bad: 1 }]);
        for number in 0..2 {
            let copies: Vec<_> = (10..REPORT_SUBJECTS_MAX).map(copy).collect();
            outcomes.saw_copy(&copies, net(number), false);
        }
        assert_eq!(outcomes.take().len(), REPORT_SUBJECTS_MAX / 4);
    }

    #[test]
    fn a_report_has_each_subject_once_and_no_more_than_fit() {
        let outcomes = Outcomes::default();
        let client = Subject::of_client("192.0.2.7".parse().expect("an address"));
        outcomes.saw(&client, true);
        outcomes.saw(&client, false);
        outcomes.saw(&client, false);
        for number in 0..REPORT_SUBJECTS_MAX {
            let domain = format!("dkim:d{number}.example").parse().expect("a subject");
            outcomes.saw(&[domain], false);
        }
        outcomes.saw(&client, true);
        for number in 0..REPORT_SUBJECTS_MAX {
            let [first, second] = [number / 250, number % 250];
            let other = Subject::of_client(format!("198.{first}.{second}.1").parse().expect("an address"));
            outcomes.saw(&other, false);
        }
        let heard = outcomes.take();
        assert_eq!(heard.len(), REPORT_SUBJECTS_MAX);
        for subject in client {
            let subject = subject.key();
            assert!(heard.contains(&Heard { subject, good: 2, bad: 2 }));
        }
        assert!(outcomes.take().is_empty());
    }
}
