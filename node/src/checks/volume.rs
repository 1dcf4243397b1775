//! How much comes from one sender at this node: somebody of whom nothing good is known and who sends much at once is looked at more
//! closely.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use proto::{
    reputation::{Repute, Stance, Subject},
    score::Score,
    verdict::Reason,
};

use crate::policy::score::reason;

/// Senders that are counted.
const SENDERS_MAX: u64 = 100_000;
/// How long a count lasts, from the first message on.
const COUNTED_FOR: Duration = Duration::from_secs(60 * 60);
/// More messages than this within that time are much.
const MUCH: u32 = 30;
/// The rule and what it is worth.
pub const RULE: (&str, Score, &str) =
    ("SUDDEN_VOLUME", Score(100), "its sender, of whom nothing good is known, has sent much within an hour");

/// Counts of the last hour. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Volume(Cache<Subject, Arc<AtomicU32>>);

impl Default for Volume {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(SENDERS_MAX).time_to_live(COUNTED_FOR).build())
    }
}

impl Volume {
    /// Counts a message for who answers for it most of all: the last of its senders is a domain that vouches for it, else the net.
    pub fn saw(&self, senders: &[Subject]) {
        if let Some(sender) = senders.last() {
            self.0.get_with(sender.clone(), Arc::default).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What speaks against one more of these senders, of whom so much is `known`.
    #[must_use]
    pub fn reason(&self, senders: &[Subject], known: Repute) -> Option<Reason> {
        let count = self.0.get(senders.last()?)?.load(Ordering::Relaxed);
        let (rule, score, text) = RULE;
        let is_new = known.score >= 0 && known.stance != Some(Stance::Allow);
        (is_new && count > MUCH).then(|| reason(rule, score, text))
    }
}

#[cfg(test)]
mod tests {
    use proto::reputation::{Repute, Stance, Subject};

    use super::{MUCH, Volume};

    #[test]
    fn much_of_somebody_unknown_counts_and_much_of_a_good_sender_does_not() {
        let volume = Volume::default();
        let senders = ["net:192.0.2.0/24", "spf:new.example"].map(|text| text.parse::<Subject>().expect("a subject"));
        let unknown = Repute::default();
        for _ in 0..MUCH {
            volume.saw(&senders);
        }
        assert_eq!(volume.reason(&senders, unknown), None);
        volume.saw(&senders);
        assert!(volume.reason(&senders, unknown).is_some());
        assert_eq!(volume.reason(&senders[..1], unknown), None, "the net is counted where nobody vouches");
        assert_eq!(volume.reason(&senders, Repute { stance: None, score: -50 }), None);
        assert_eq!(volume.reason(&senders, Repute { stance: Some(Stance::Allow), score: 0 }), None);
        assert_eq!(volume.reason(&[], unknown), None);
    }
}
